"""Creates the schema in an empty database and fills it: what every trial starts from."""

import asyncio
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, Final

from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from target_app.database import url_of
from target_app.errors import StartupError
from target_app.settings import Settings
from target_app.tables import HOT_MATCH, SEEDED_MATCH, SEEDED_TICKETS, matches, metadata

_POLL_S: Final = 0.1
_STILL_STARTING: Final = "57P03"  # PostgreSQL's own word for it: cannot_connect_now
_COLD_CAPACITY: Final = 1_000_000
_CLUBS: Final = (
    ("Ashford Athletic", "Millbrook Road"),
    ("Bramley Rovers", "The Orchard"),
    ("Carrow Town", "Quayside"),
    ("Denby United", "Pit Lane"),
    ("Eastmoor City", "Moor Park"),
    ("Fenwick Albion", "Fen End"),
    ("Garton Wanderers", "Garton Green"),
)
# A fixed day, so that two databases are alike to the byte. "Past" is said by on_sale, not by the clock.
_FIRST_KICKOFF: Final = datetime(2027, 8, 14, 15, 0, tzinfo=UTC)
_PAST_KICKOFF: Final = datetime(2024, 5, 4, 15, 0, tzinfo=UTC)

_BUYER_INDEX: Final = text("CREATE INDEX tickets_buyer_match ON tickets (buyer, match_id)")
_SEED_TICKETS: Final = text(
    "INSERT INTO tickets (match_id, buyer, idempotency_key, code, price_pence)"
    " SELECT :match_id, 'seed-buyer-' || n, 'seed-' || lpad(n::text, 6, '0'), 'SEED-' || lpad(n::text, 6, '0'), 2500"
    " FROM generate_series(1, :count) AS n"
)


def match_rows(stock: int) -> list[dict[str, Any]]:
    """Return the matches as they are seeded; ``stock`` is the capacity of the hot one."""
    rows: list[dict[str, Any]] = []
    for number in range(HOT_MATCH, SEEDED_MATCH + 1):
        home, venue = _CLUBS[number % len(_CLUBS)]
        # The step runs from 1 to 6, so that nobody meets themselves.
        away, _ = _CLUBS[(number + 1 + number // len(_CLUBS)) % len(_CLUBS)]
        past = number == SEEDED_MATCH
        capacity = stock if number == HOT_MATCH else SEEDED_TICKETS if past else _COLD_CAPACITY
        rows.append(
            {
                "id": number,
                "home": home,
                "away": away,
                "venue": venue,
                "kickoff": _PAST_KICKOFF if past else _FIRST_KICKOFF + timedelta(days=7 * (number - 1)),
                "price_pence": 2500 + 250 * (number % 5),
                "on_sale": not past,
                "capacity": capacity,
                "stock": 0 if past else capacity,
            }
        )
    return rows


def init_db(settings: Settings, *, reset: bool = False, keep: bool = False, wait_s: float = 0) -> None:
    """Create tables, index and rows at ``database_url``, which is given ``wait_s`` to answer.

    With ``reset`` existing tables of the sale are dropped first, with ``keep`` they are left as they are and those that
    are missing are added; with neither they are an error, since they may hold somebody's tickets. Raises StartupError.
    """
    asyncio.run(_init_db(settings, reset=reset, keep=keep, wait_s=wait_s))


async def _init_db(settings: Settings, *, reset: bool, keep: bool, wait_s: float) -> None:
    engine = create_async_engine(
        url_of(settings), poolclass=NullPool, connect_args={"timeout": settings.connect_timeout_s}
    )
    try:
        await _answering(engine, wait_s)
        await _create(engine, settings, reset=reset, keep=keep)
    except (DBAPIError, OSError) as error:
        raise StartupError(f"the database could not be seeded: {error.__class__.__name__}: {error}") from error
    finally:
        await engine.dispose()


async def _answering(engine: AsyncEngine, wait_s: float) -> None:
    """Return when the database accepts connections. Raises its last refusal, or at once what time cannot mend."""
    deadline = monotonic() + wait_s
    while True:
        try:
            async with engine.connect():
                return
        except (DBAPIError, OSError) as error:
            not_yet = isinstance(error, OSError) or getattr(error.orig, "sqlstate", None) == _STILL_STARTING
            if not not_yet or monotonic() >= deadline:
                raise
        await asyncio.sleep(_POLL_S)


async def _create(engine: AsyncEngine, settings: Settings, *, reset: bool, keep: bool) -> None:
    async with engine.begin() as connection:
        if reset:
            await connection.run_sync(metadata.drop_all)
        elif await connection.scalar(text("SELECT to_regclass('matches') IS NOT NULL")):
            if keep:
                await connection.run_sync(metadata.create_all)  # those that an earlier version did not have
                return
            raise StartupError("the database holds a sale already: use an empty one, or init-db --reset")
        await connection.run_sync(metadata.create_all)
        await connection.execute(insert(matches), match_rows(settings.stock))
        await connection.execute(_SEED_TICKETS, {"match_id": SEEDED_MATCH, "count": SEEDED_TICKETS})
        if settings.index == "on":
            await connection.execute(_BUYER_INDEX)
    # Outside of a transaction: without fresh statistics and visibility map the first plans of a trial differ.
    async with engine.connect() as plain:
        autocommit = await plain.execution_options(isolation_level="AUTOCOMMIT")
        await autocommit.execute(text("VACUUM (ANALYZE) matches, tickets"))
