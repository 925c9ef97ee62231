"""The sale behind a real PgBouncer in transaction mode: what that forbids is not done, and nothing is sold twice."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import redis
from psycopg.rows import tuple_row

from target_app.app import create_app
from target_app.seed import init_db
from target_app.settings import Settings
from tests.integration.opened_sale import GUARDED, Open, Shop, kinds
from ticketbench.binaries import Binaries
from ticketbench.stack.clients import RedisAt
from ticketbench.stack.launch import Launcher
from ticketbench.stack.pgbouncer import PgBouncerServer, Pooling
from ticketbench.stack.postgres import PostgresServer
from ticketbench.stack.reset import DATABASE, ROLE, Data

FEW = 4  # sessions of PostgreSQL for ten connections of the sale
WAYS = {
    "sqlalchemy": {"data_layer": "sqlalchemy", "round_trips": "plain"},
    "asyncpg": {"data_layer": "asyncpg", "round_trips": "fewest"},
}


@pytest.fixture(scope="module")
def data(postgres_server: PostgresServer) -> Iterator[Data]:
    """The sale's role and its database, empty."""
    found = Data(postgres_server.at, RedisAt("", 0, ""))
    found.prepare()
    with psycopg.connect(postgres_server.dsn(), autocommit=True) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        admin.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE}")
        yield found
        admin.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")


@pytest.fixture(scope="module")
def pooler(
    all_binaries: Binaries, launcher: Launcher, server_folder: Path, postgres_server: PostgresServer, data: Data
) -> Iterator[PgBouncerServer]:
    folder = server_folder / "pgbouncer"
    folder.mkdir()
    server = PgBouncerServer(
        all_binaries.program("pgbouncer"),
        folder,
        launcher,
        log=server_folder / "pgbouncer.log",
        postgres=postgres_server.at,
        sale=data.password,
        pooling=Pooling(size=FEW, wait_s=30),
    )
    try:
        server.launch()
        server.await_ready()
        yield server
    finally:
        server.stop()


@pytest.fixture(params=WAYS)
def opened(request: pytest.FixtureRequest, pooler: PgBouncerServer, data: Data, redis_url: str) -> Open:
    """Open a sale behind PgBouncer with the given levels, on a freshly seeded database."""

    @asynccontextmanager
    async def opener(**levels: Any) -> AsyncIterator[Shop]:
        settings = Settings(
            database_url=data.target_dsn(through=pooler.here.at),
            redis_url=redis_url,
            pooler="pgbouncer",
            prepared_statements="on" if pooler.prepares else "off",
            redis_timeout_s=10,
            **WAYS[request.param],
            **levels,
        )
        # through PgBouncer as well: what init-db does is allowed there too
        await asyncio.to_thread(init_db, settings, reset=True)
        with redis.Redis.from_url(redis_url) as store:
            store.flushall()
        app = create_app(settings)
        transport = httpx.ASGITransport(app.asgi)
        async with app.sale.opened(), httpx.AsyncClient(transport=transport, base_url="http://sale") as client:
            yield Shop(app.sale, client)

    return opener


@pytest.mark.parametrize("locking", [*GUARDED, "none"])
async def test_a_stock_is_sold_through_few_sessions(
    opened: Open, postgres_server: PostgresServer, locking: str
) -> None:
    async with opened(locking=locking, stock=40, pool_timeout_s=30) as shop:
        answers = await asyncio.gather(*(shop.buy_until_decided() for _ in range(100)))
        assert kinds([await shop.buy(key="again"), await shop.buy(key="again")]).total() == 2
    with psycopg.connect(postgres_server.dsn(DATABASE), row_factory=tuple_row) as connection:
        tickets = connection.execute("SELECT id FROM tickets WHERE match_id = 1").fetchall()
        (backends,) = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = %s", (ROLE,)
        ).fetchone() or (0,)
    acknowledged = {answer.json()["ticket_id"] for answer in answers if answer.status_code == 201}
    assert acknowledged <= {row[0] for row in tickets}
    assert backends <= FEW
    if locking != "none":
        assert kinds(answers) == {(201, ""): 40, (409, "sold_out"): 60}
        assert len(tickets) == 40


def test_what_holds_in_a_session_is_set_by_the_pooler(pooler: PgBouncerServer, data: Data) -> None:
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "jit", "synchronous_commit")
    with psycopg.connect(data.target_dsn(through=pooler.here.at), autocommit=True) as connection:
        shown = {name: (connection.execute(f"SHOW {name}").fetchone() or ("",))[0] for name in names}  # type: ignore[call-overload]
    assert shown == {
        "statement_timeout": "5s",
        "lock_timeout": "2s",
        "idle_in_transaction_session_timeout": "30s",
        "jit": "off",
        "synchronous_commit": "on",
    }


def test_it_says_what_it_is(pooler: PgBouncerServer) -> None:
    told = pooler.here.settings()
    assert told["pgbouncer.pool_mode"] == "transaction"
    assert told["pgbouncer.default_pool_size"] == str(FEW)
    assert pooler.prepares is ("pgbouncer.max_prepared_statements" in told)


async def test_connections_that_the_pooler_cuts_are_trouble_of_the_database(
    pooler: PgBouncerServer, opened: Open
) -> None:
    async with opened(pool_size=2) as shop:
        assert (await shop.buy()).status_code == 201
        with psycopg.connect(pooler.here.console, autocommit=True) as console:
            console.execute("KILL tickets")
            try:
                answer = await shop.buy()
                assert kinds([answer]) == {(503, "database_error"): 1}
                assert answer.headers["Retry-After"] == "1"
            finally:
                console.execute("RESUME tickets")
        assert (await shop.buy_until_decided()).status_code == 201
