"""Takes the ledger out of PostgreSQL and Redis after a trial: what the audit judges, as it stands, unjudged."""

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any, Final, LiteralString, cast

import psycopg
import redis
from psycopg.conninfo import make_conninfo
from redis.backoff import NoBackoff
from redis.retry import Retry

from ticketbench.errors import EnvironmentFailure
from ticketbench.ledger_rows import LedgerRow
from ticketbench.money import UNSETTLED, read_provider
from ticketbench.stack.idle import STREAM
from ticketbench.stack.patience import patience
from ticketbench.stack.process import is_disk_full
from ticketbench.stack.protocol import DatabaseAccess
from ticketbench.stack.reset import DATABASE

_CONNECT_S: Final = 5
_STATEMENT_MS: Final = 60_000
_PATIENCE_S: Final = 300.0  # for the whole of it: a million tickets took some seconds
_STATE: Final = "purchase:"  # of a queued purchase, by its key
_REDIS_S: Final = 10.0
_ROWS_AT_A_TIME: Final = 5000
_RECOVERY_S: Final = 15.0  # it replays the WAL of one trial: seconds, also on a busy machine
_RECOVERY_POLL_S: Final = 0.2
_COMING_BACK: Final = ("is in recovery mode", "is starting up", "is not yet accepting connections")
_HINT: Final = "without the ledger nothing can be said about integrity; the component's log says why it ended"
_DISK_HINT: Final = "the disk that PostgreSQL writes to is full: free some space there"

_MATCHES: Final = "SELECT id, capacity, stock FROM matches WHERE on_sale ORDER BY id"
_TICKETS: Final = (
    "SELECT t.id, t.match_id, t.idempotency_key FROM tickets t JOIN matches m ON m.id = t.match_id"
    " WHERE m.on_sale ORDER BY t.id"
)
# A system without carts has no such table. What is marked as going back is in Redis's stock, or on its way there.
_CARTS: Final = "SELECT to_regclass('holds') IS NOT NULL"
_HELD: Final = (
    "SELECT h.match_id, h.idempotency_key FROM holds h JOIN matches m ON m.id = h.match_id"
    " WHERE m.on_sale AND NOT h.going_back ORDER BY h.id"
)
# Of a sale with a payment provider.
_PRICE: Final = (
    "SELECT coalesce(sum(t.price_pence), 0) FROM tickets t JOIN matches m ON m.id = t.match_id WHERE m.on_sale"
)
_PAID_WITH: Final = (
    "SELECT t.id, c.payment_key FROM checkouts c CROSS JOIN LATERAL unnest(c.hold_keys) AS hold(key)"
    " JOIN tickets t ON t.idempotency_key = hold.key WHERE c.state = 'paid' ORDER BY t.id"
)


def read_ledger(access: DatabaseAccess, provider_url: str = "", *, settled: bool = True) -> Iterator[LedgerRow]:
    """Yield capacity, counters, tickets and what is in carts of all matches on sale, and what Redis holds of them.

    Rows come as they are read: memory does not grow with the sale. Call it when no request is under way. PostgreSQL is
    read in one snapshot, as a superuser, so that a target that holds every ordinary connection does not shut the audit
    out. A match without keys in Redis has no rows of Redis; a key taken there may come twice. The books of a payment
    provider, where there is one, come last; ``settled`` False: the sale was not let end all payments. Raises
    EnvironmentFailure naming what could not be read, and then what came before is only half of a ledger.
    """
    matches = []
    yield from _queue(access)  # first: what is done meanwhile is found as a ticket then
    for row in _from_postgres(access, money=bool(provider_url), settled=settled):
        if row.kind == "capacity":
            matches.append(row.match_id)
        yield row
    yield from _from_redis(access, matches)
    if provider_url:
        yield from read_provider(provider_url)


def _from_postgres(access: DatabaseAccess, *, money: bool, settled: bool) -> Iterator[LedgerRow]:
    try:
        dsn = make_conninfo(
            access.postgres_dsn,
            dbname=DATABASE,
            application_name="ticketbench-ledger",
            connect_timeout=_CONNECT_S,
            options=f"-c statement_timeout={_STATEMENT_MS}",
        )
        with _connect(dsn) as connection, patience(connection, _PATIENCE_S):
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            for match_id, capacity, stock in connection.execute(_MATCHES).fetchall():
                yield LedgerRow(kind="capacity", match_id=match_id, quantity=capacity)
                yield LedgerRow(kind="stock", match_id=match_id, quantity=stock)
            for ticket_id, match_id, key in _rows(connection, _TICKETS):
                yield LedgerRow(kind="ticket", match_id=match_id, ticket_id=ticket_id, key=key)
            if connection.execute(_CARTS).fetchone() == (True,):
                for match_id, key in _rows(connection, _HELD):
                    yield LedgerRow(kind="held", match_id=match_id, key=key)
            if money:
                yield from _money(connection, settled=settled)
    except psycopg.Error as error:
        text = " ".join(str(error).split())
        raise EnvironmentFailure(
            f"cannot read the ledger from PostgreSQL: {text}", _DISK_HINT if is_disk_full(text) else _HINT
        ) from error


def _money(connection: "psycopg.Connection[tuple[Any, ...]]", *, settled: bool) -> Iterator[LedgerRow]:
    for (pence,) in connection.execute(_PRICE).fetchall():
        yield LedgerRow(kind="provider", match_id=0, quantity=int(pence))
    for ticket_id, key in _rows(connection, _PAID_WITH):
        yield LedgerRow(kind="paid_with", match_id=0, ticket_id=ticket_id, key=key)
    if not settled:
        for (key,) in _rows(connection, UNSETTLED):
            yield LedgerRow(kind="unsettled", match_id=0, key=key)


def _rows(connection: "psycopg.Connection[tuple[Any, ...]]", query: LiteralString) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a query that the server keeps meanwhile: memory does not grow with the sale."""
    with connection.cursor(name="ledger") as cursor:
        cursor.itersize = _ROWS_AT_A_TIME
        cursor.execute(query)
        yield from cursor


def _connect(dsn: str) -> "psycopg.Connection[tuple[Any, ...]]":
    """Connect; wait up to :data:`_RECOVERY_S` for a server that crashed and is on its way back: it lost nothing."""
    deadline = time.monotonic() + _RECOVERY_S
    while True:
        try:
            return psycopg.connect(dsn)
        except psycopg.OperationalError as error:
            # refused before there is a session, so psycopg has no code of it, only the words (English by --locale=C)
            coming = any(words in str(error) for words in _COMING_BACK)
            if not coming or time.monotonic() > deadline:
                raise
        time.sleep(_RECOVERY_POLL_S)


@contextlib.contextmanager
def _redis(access: DatabaseAccess) -> Iterator["redis.Redis"]:
    client = redis.Redis.from_url(
        access.redis_url,
        decode_responses=True,
        socket_timeout=_REDIS_S,
        socket_connect_timeout=_CONNECT_S,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        yield client
    except (redis.RedisError, ValueError, KeyError, TypeError) as error:
        text = " ".join(str(error).split())
        raise EnvironmentFailure(f"cannot read the ledger from Redis: {text}", _HINT) from error
    finally:
        client.close()


def _queue(access: DatabaseAccess) -> Iterator[LedgerRow]:
    """Yield the purchases that wait, and those that waited and got no ticket; nothing of a sale without a queue.

    What waits is what the stream holds: a state that says so, without an entry, is a purchase that nobody will do.
    """
    with _redis(access) as client:
        after = "-"
        while entries := cast(
            "list[tuple[str, dict[str, str]]]", client.xrange(STREAM, min=after, count=_ROWS_AT_A_TIME)
        ):
            for _, fields in entries:
                told = json.loads(fields["__data__"])
                yield LedgerRow(kind="queued", match_id=int(told["match"]), key=str(told["key"]))
            after = f"({entries[-1][0]}"
        for name in client.scan_iter(f"{_STATE}*", count=_ROWS_AT_A_TIME, _type="HASH"):
            state, match = cast("list[str | None]", client.hmget(name, ["state", "match"]))
            if state not in (None, "queued", "sold"):
                yield LedgerRow(kind="refused", match_id=int(match or 0), key=name.removeprefix(_STATE))


def _from_redis(access: DatabaseAccess, matches: list[int]) -> Iterator[LedgerRow]:
    with _redis(access) as client:
        stocks: list[Any] = [client.get(f"stock:{match_id}") for match_id in matches]
        for match_id, stock in zip(matches, stocks, strict=True):
            if stock is not None:
                yield LedgerRow(kind="redis_stock", match_id=match_id, quantity=int(stock))
            for key, _ in client.hscan_iter(f"taken:{match_id}", count=_ROWS_AT_A_TIME):
                yield LedgerRow(kind="redis_taken", match_id=match_id, key=key)
