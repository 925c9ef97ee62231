"""The sale on a real PostgreSQL and Redis, in this process: what is sold, what is refused, and who waits for whom."""

import asyncio
import hashlib
import os
import signal
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
import redis as redis_client
from psycopg.rows import tuple_row
from sqlalchemy import text

from target_app.app import Sale, create_app
from target_app.errors import StartupError
from target_app.figures import MATCH, PURCHASE, VALIDATION
from target_app.seed import init_db
from target_app.settings import Settings

GUARDED = ("pessimistic", "optimistic", "atomic", "redis")
SQL_GUARDED = ("pessimistic", "optimistic", "atomic")
# Whichever way it reaches PostgreSQL, the sale behaves alike: every test that opens one runs for each.
WAYS = {
    "plain": {"data_layer": "sqlalchemy", "round_trips": "plain", "purchase_route": "fastapi"},
    "fastest": {"data_layer": "asyncpg", "round_trips": "fewest", "purchase_route": "lean"},
}
HOT, COLD, PAST = 1, 2, 21
REDIS_NUMBER = 7  # a database of Redis for these tests alone


@dataclass(frozen=True)
class Stores:
    """The two stores of a test: addresses for the sale, connections for the test."""

    database_url: str
    redis_url: str
    sql: psycopg.Connection[Any]
    redis: "redis_client.Redis"

    def one(self, query: str, *values: object) -> Any:
        """Return the only value of a query."""
        row = self.sql.execute(query, values).fetchone()
        assert row is not None
        return row[0]

    def settings(self, **levels: Any) -> Settings:
        return Settings(database_url=self.database_url, redis_url=self.redis_url, **levels)

    def sold(self, match_id: int) -> int:
        return int(self.one("SELECT count(*) FROM tickets WHERE match_id = %s", match_id))


@pytest.fixture(scope="module")
def places(postgres_dsn: str, redis_url: str) -> Iterator[Stores]:
    """A database, and a number of Redis, for the tests of this file."""
    name = f"sale_{uuid.uuid4().hex[:12]}"
    url = urlsplit(postgres_dsn)._replace(path=f"/{name}").geturl()
    cache_url = urlsplit(redis_url)._replace(path=f"/{REDIS_NUMBER}").geturl()
    with psycopg.connect(postgres_dsn, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        try:
            with (
                psycopg.connect(url, autocommit=True, row_factory=tuple_row) as sql,
                redis_client.Redis.from_url(cache_url, decode_responses=True) as cache,
            ):
                yield Stores(url, cache_url, sql, cache)
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def stores(places: Stores) -> Stores:
    """Both stores without anything in them."""
    places.sql.execute("DROP TABLE IF EXISTS matches, tickets")
    places.sql.execute("DROP FUNCTION IF EXISTS vanish")
    places.redis.flushdb()
    return places


@dataclass
class Shop:
    """A sale that is open, and a client of it."""

    sale: Sale
    http: httpx.AsyncClient

    async def buy(self, match_id: int = HOT, *, key: str | None = None, buyer: str | None = None) -> httpx.Response:
        key = key or uuid.uuid4().hex
        return await self.http.post(
            f"/matches/{match_id}/purchases", headers={"Idempotency-Key": key}, json={"buyer": buyer or key}
        )

    async def buy_until_decided(self, match_id: int = HOT) -> httpx.Response:
        """Try again with the same key after a 503, as a client should."""
        key = uuid.uuid4().hex
        while (answer := await self.buy(match_id, key=key)).status_code == 503:
            assert answer.headers["Retry-After"] == "1"
        return answer

    def outcome(self, name: str) -> int:
        return self.sale.figures.purchases[name]


Open = Callable[..., AbstractAsyncContextManager[Shop]]


@pytest.fixture(params=WAYS)
def opened(stores: Stores, request: pytest.FixtureRequest) -> Open:
    """Open a sale with the given levels, on a freshly seeded database."""
    way = WAYS[request.param]

    @asynccontextmanager
    async def opener(*, seed: bool = True, **levels: Any) -> AsyncIterator[Shop]:
        # Redis may take its time where a test is one of many things that the machine does.
        settings = stores.settings(**{**way, "redis_timeout_s": 10, **levels})
        if seed:
            await asyncio.to_thread(init_db, settings)
        app = create_app(settings)
        transport = httpx.ASGITransport(app.asgi)
        async with app.sale.opened(), httpx.AsyncClient(transport=transport, base_url="http://sale") as http:
            yield Shop(app.sale, http)

    return opener


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until the condition holds; the test's own time limit is the deadline."""
    while not condition():  # noqa: ASYNC110  (what is waited for happens in a server or a library)
        await asyncio.sleep(0.002)


def kinds(answers: list[httpx.Response]) -> Counter[tuple[int, str]]:
    return Counter((answer.status_code, answer.json().get("error", "")) for answer in answers)


# --- the stock --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payment", ["outside", "in_transaction"])
@pytest.mark.parametrize("locking", GUARDED)
async def test_a_guarded_stock_is_sold_to_the_last_ticket_and_no_further(
    opened: Open, stores: Stores, locking: str, payment: str
) -> None:
    async with opened(locking=locking, payment=payment, payment_ms=1, stock=60, pool_timeout_s=30) as shop:
        answers = await asyncio.gather(*(shop.buy_until_decided() for _ in range(300)))
    assert kinds(answers) == {(201, ""): 60, (409, "sold_out"): 240}
    acknowledged = {answer.json()["ticket_id"] for answer in answers if answer.status_code == 201}
    assert {row[0] for row in stores.sql.execute("SELECT id FROM tickets WHERE match_id = 1")} == acknowledged
    assert len(acknowledged) == 60
    if locking == "redis":
        assert stores.redis.get("stock:1") == "0"
        assert stores.redis.hlen("taken:1") == 60
    else:
        assert stores.one("SELECT stock FROM matches WHERE id = 1") == 0


async def test_without_a_guard_updates_are_lost_and_the_match_is_oversold(opened: Open, stores: Stores) -> None:
    async with opened(locking="none", payment_ms=2, stock=30, pool_timeout_s=30) as shop:
        answers = await asyncio.gather(*(shop.buy_until_decided() for _ in range(200)))
    sold = kinds(answers)[201, ""]
    assert sold == stores.sold(HOT) > 30
    assert sold + stores.one("SELECT stock FROM matches WHERE id = 1") > 30


async def test_one_buyer_after_another_needs_no_guard(opened: Open, stores: Stores) -> None:
    async with opened(locking="none", stock=3) as shop:
        answers = [await shop.buy() for _ in range(5)]
    assert [answer.status_code for answer in answers] == [201, 201, 201, 409, 409]
    assert stores.one("SELECT stock FROM matches WHERE id = 1") == 0


async def test_an_optimistic_attempt_without_repeats_ends_in_a_conflict(opened: Open, stores: Stores) -> None:
    async with opened(locking="optimistic", optimistic_retries=0, payment_ms=20, stock=100) as shop:
        answers = await asyncio.gather(*(shop.buy() for _ in range(10)))
        found = kinds(answers)
        assert found[503, "conflict"] == shop.outcome("conflict") > 0
        assert found[201, ""] == stores.sold(HOT) > 0
        assert found.total() == 10
        assert shop.sale.figures.conflicts == 0
    assert stores.one("SELECT stock FROM matches WHERE id = 1") == 100 - found[201, ""]


# --- idempotency ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payment", ["outside", "in_transaction"])
@pytest.mark.parametrize("locking", [*GUARDED, "none"])
async def test_one_key_gets_one_ticket_however_many_ask_at_once(
    opened: Open, stores: Stores, locking: str, payment: str
) -> None:
    async with opened(locking=locking, payment=payment, payment_ms=2, stock=100, pool_timeout_s=30) as shop:
        answers = await asyncio.gather(*(shop.buy(key="the-key") for _ in range(20)))
        assert kinds(answers) == {(201, ""): 20}
        assert len({answer.text for answer in answers}) == 1
        assert (shop.outcome("sold"), shop.outcome("replayed")) == (1, 19)
    assert stores.sold(HOT) == 1
    left = stores.redis.get("stock:1") if locking == "redis" else stores.one("SELECT stock FROM matches WHERE id = 1")
    assert int(left) == 99


@pytest.mark.parametrize("locking", GUARDED)
async def test_the_key_that_took_the_last_ticket_is_never_told_that_it_is_sold_out(
    opened: Open, stores: Stores, locking: str
) -> None:
    async with opened(locking=locking, payment_ms=2, stock=1) as shop:
        answers = await asyncio.gather(*(shop.buy(key="the-key") for _ in range(10)))
        late = await shop.buy(key="the-key")
    assert {answer.status_code for answer in [*answers, late]} == {201}
    assert stores.sold(HOT) == 1


@pytest.mark.parametrize("locking", [*GUARDED, "none"])
async def test_a_key_belongs_to_its_buyer_and_match(opened: Open, stores: Stores, locking: str) -> None:
    async with opened(locking=locking) as shop:
        first = await shop.buy(COLD, key="k", buyer="ann")
        assert first.status_code == 201
        assert kinds([await shop.buy(COLD, key="k", buyer="bob")]) == {(422, "key_reused"): 1}
        assert kinds([await shop.buy(COLD + 1, key="k", buyer="ann")]) == {(422, "key_reused"): 1}
        both = await asyncio.gather(shop.buy(4, key="two", buyer="ann"), shop.buy(5, key="two", buyer="ann"))
        assert sorted(kinds(list(both))) == [(201, ""), (422, "key_reused")]
    assert stores.sold(COLD) == 1
    assert stores.sold(4) + stores.sold(5) == 1
    if locking == "redis":  # the loser's ticket went back
        assert sorted(stores.redis.mget("stock:4", "stock:5")) == ["1000000", "999999"]


# --- what is refused --------------------------------------------------------------------------------------------------


async def test_what_cannot_be_bought(opened: Open, stores: Stores) -> None:
    async with opened(stock=0) as shop:
        answers = [await shop.buy(PAST), await shop.buy(999), await shop.buy(HOT)]
        assert list(kinds(answers)) == [(409, "not_on_sale"), (404, "unknown_match"), (409, "sold_out")]
        for _ in range(4):
            assert (await shop.buy(COLD, buyer="ann")).status_code == 201
        assert kinds([await shop.buy(COLD, buyer="ann")]) == {(409, "buyer_limit"): 1}
        assert (await shop.buy(COLD + 1, buyer="ann")).status_code == 201
        assert (shop.outcome("sold"), shop.outcome("sold_out")) == (5, 1)


@pytest.mark.parametrize(
    ("path", "key", "body"),
    [
        ("/matches/2/purchases", None, b'{"buyer": "ann"}'),
        ("/matches/2/purchases", "", b'{"buyer": "ann"}'),
        ("/matches/2/purchases", "k" * 201, b'{"buyer": "ann"}'),
        ("/matches/2/purchases", "two words", b'{"buyer": "ann"}'),
        ("/matches/2/purchases", "k", b'{"buyer": ""}'),
        ("/matches/2/purchases", "k", b'{"buyer": "a\\u0000b"}'),
        ("/matches/2/purchases", "k", b'{"buyer": "\\ud800"}'),
        ("/matches/2/purchases", "k", b'{"buyer": "%s"}' % (b"a" * 201)),
        ("/matches/2/purchases", "k", b'{"buyer": "ann", "price": 0}'),
        ("/matches/2/purchases", "k", b'{"buyer": 5}'),
        ("/matches/2/purchases", "k", b"{"),
        ("/matches/2/purchases", "k", b""),
        ("/matches/0/purchases", "k", b'{"buyer": "ann"}'),
        ("/matches/99999999999/purchases", "k", b'{"buyer": "ann"}'),
        ("/tickets/a%00b/validation", "k", b""),
    ],
)
async def test_bad_input_is_a_422_that_says_where(opened: Open, path: str, key: str | None, body: bytes) -> None:
    headers = {"Content-Type": "application/json"} | ({} if key is None else {"Idempotency-Key": key})
    async with opened() as shop:
        answer = await shop.http.post(path, headers=headers, content=body)
    assert answer.status_code == 422
    assert answer.json()["error"] == "bad_input"
    assert all(fault["where"] and fault["what"] for fault in answer.json()["detail"])


# --- waiting has limits -----------------------------------------------------------------------------------------------


async def test_an_exhausted_pool_is_a_503_that_says_when_to_come_back(opened: Open) -> None:
    async with opened(pool_size=1, pool_timeout_s=0.1) as shop:
        pool = shop.sale.database.pool
        async with shop.sale.database.autocommit(shop.sale.figures.routes[MATCH].stages):
            assert pool.checkedout() == 1
            asked = asyncio.create_task(shop.buy(COLD))
            await until(lambda: pool.figures.waiters > 0)
            answer = await asked
        assert kinds([answer]) == {(503, "pool_timeout"): 1}
        assert answer.headers["Retry-After"] == "1"
        assert (pool.figures.timeouts, pool.figures.waiters, shop.outcome("pool_timeout")) == (1, 0, 1)
        assert pool.figures.wait_s >= 0.1
        assert shop.sale.figures.routes[PURCHASE].stages.pool_wait >= 0.1
        assert (await shop.buy(COLD)).status_code == 201


@pytest.mark.parametrize("locking", [*SQL_GUARDED, "none"])
async def test_a_row_that_stays_locked_is_a_503(opened: Open, stores: Stores, locking: str) -> None:
    async with opened(locking=locking, lock_timeout_s=0.1) as shop:
        with stores.sql.transaction():
            stores.sql.execute("SELECT 1 FROM matches WHERE id = 2 FOR UPDATE")
            answer = await shop.buy(COLD)
        assert kinds([answer]) == {(503, "lock_timeout"): 1}
        assert answer.headers["Retry-After"] == "1"
        assert shop.outcome("lock_timeout") == 1
        assert (await shop.buy(COLD)).status_code == 201
        assert shop.sale.database.pool.checkedout() == 0
    assert stores.sold(COLD) == 1


async def test_what_redis_took_goes_back_when_the_ticket_cannot_be_written(opened: Open, stores: Stores) -> None:
    async with opened(locking="redis", lock_timeout_s=0.1, stock=5) as shop:
        with stores.sql.transaction():
            stores.sql.execute("LOCK TABLE tickets IN SHARE MODE")  # reads pass, inserts wait
            answers = await asyncio.gather(*(shop.buy() for _ in range(3)))
        assert kinds(answers) == {(503, "lock_timeout"): 3}
        assert stores.redis.get("stock:1") == "5"
        assert stores.redis.hlen("taken:1") == 0


_LOSE_THE_COMMIT = """
CREATE FUNCTION vanish() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(1); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER vanish AFTER INSERT ON tickets DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION vanish();
"""


@pytest.mark.parametrize("locking", ["atomic", "redis"])
async def test_a_commit_without_an_answer_is_not_acknowledged_and_not_sold_again(
    opened: Open, stores: Stores, locking: str
) -> None:
    async with opened(locking=locking, stock=5) as shop:
        stores.sql.execute(_LOSE_THE_COMMIT)
        answer = await shop.buy(key="k")
        assert kinds([answer]) == {(503, "database_error"): 1}
        assert stores.sold(HOT) == 0
        stores.sql.execute("DROP TRIGGER vanish ON tickets")
        if locking == "redis":
            # Nobody can tell whether it was written, so it stays taken: stranded, never oversold.
            assert (stores.redis.get("stock:1"), stores.redis.hkeys("taken:1")) == ("4", ["k"])
            assert kinds([await shop.buy(key="k")]) == {(503, "conflict"): 1}
        else:
            assert (await shop.buy(key="k")).status_code == 201
            assert stores.one("SELECT stock FROM matches WHERE id = 1") == 4


async def test_lost_connections_are_answered_and_replaced(opened: Open, stores: Stores) -> None:
    async with opened(pool_size=3) as shop:
        stores.sql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        answers = [await shop.buy(COLD) for _ in range(8)]
        assert set(kinds(answers)) <= {(503, "database_error"), (201, "")}  # a pool may notice before anybody asks
        assert [answer.status_code for answer in answers[-4:]] == [201] * 4
        assert (await shop.http.get("/ready")).status_code == 200
        assert shop.sale.database.pool.checkedout() == 0


async def test_a_database_that_is_gone_is_a_503_and_the_process_lives(
    opened: Open, stores: Stores, postgres_dsn: str
) -> None:
    async with opened(cache="off") as shop:
        name = stores.one("SELECT current_database()")
        with psycopg.connect(postgres_dsn, autocommit=True) as admin:
            admin.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = %s AND application_name = 'target_app'",
                (name,),
            )
            for path in ("/matches", "/matches/2", "/ready"):
                answer = await shop.http.get(path)
                assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
            assert kinds([await shop.buy(COLD)]) == {(503, "database_error"): 1}
            assert (await shop.http.get("/health")).status_code == 200
            admin.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")
        assert (await shop.http.get("/ready")).status_code == 200


async def test_a_server_that_does_not_answer_at_all_is_a_503(opened: Open, stores: Stores) -> None:
    async with opened(pool_size=1, statement_timeout_s=0.2, connect_timeout_s=1) as shop:
        backend = stores.one("SELECT pid FROM pg_stat_activity WHERE application_name = 'target_app'")
        os.kill(backend, signal.SIGSTOP)  # its own time-outs stop with it
        try:
            answer = await shop.buy(COLD)
        finally:
            os.kill(backend, signal.SIGCONT)
        assert kinds([answer]) == {(503, "database_error"): 1}
        assert (await shop.buy(COLD)).status_code == 201
        assert shop.sale.database.pool.checkedout() == 0


# --- who holds a connection, and when ---------------------------------------------------------------------------------


async def test_a_payment_inside_holds_the_connection_and_locks_nothing(opened: Open, stores: Stores) -> None:
    async with opened(payment="in_transaction", payment_ms=500, pool_size=1) as shop:
        asked = asyncio.create_task(shop.buy(COLD))
        idle = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND application_name = %s"
        await until(lambda: stores.one(idle, "target_app") == 1)
        stores.sql.execute("SELECT 1 FROM matches WHERE id = 2 FOR UPDATE NOWAIT")
        assert shop.sale.database.pool.checkedout() == 1
        assert not asked.done()
        assert (await asked).status_code == 201
        figures, stages = shop.sale.database.pool.figures, shop.sale.figures.routes[PURCHASE].stages
        assert figures.hold_s >= 0.5
        assert stages.payment >= 0.5


async def test_a_payment_outside_holds_no_connection(opened: Open) -> None:
    async with opened(payment="outside", payment_ms=1000, pool_size=1) as shop:
        pool = shop.sale.database.pool
        before = pool.figures.checkouts
        asked = [asyncio.create_task(shop.buy(COLD)) for _ in range(5)]
        # All five had the only connection, and none has it any more: they pay at the same time.
        await until(lambda: pool.figures.checkouts == before + 5 and pool.checkedout() == 0)
        assert not any(purchase.done() for purchase in asked)
        assert kinds(await asyncio.gather(*asked)) == {(201, ""): 5}
        assert pool.figures.checkouts == before + 10
        stages = shop.sale.figures.routes[PURCHASE].stages
        assert stages.payment >= 5 * 1.0
        assert stages.sql > 0


@pytest.mark.parametrize(("locking", "commits"), [("pessimistic", True), ("redis", True), ("atomic", False)])
async def test_with_the_fewest_round_trips_a_lone_statement_commits_itself(
    opened: Open, stores: Stores, locking: str, commits: bool
) -> None:
    async with opened(round_trips="fewest", locking=locking, payment_ms=1, pool_size=1) as shop:
        assert (await shop.buy(COLD)).status_code == 201
        last = stores.one("SELECT query FROM pg_stat_activity WHERE application_name = 'target_app'")
    assert last.startswith("COMMIT" if commits else "WITH taken")
    assert stores.sold(COLD) == 1


async def test_the_plain_way_commits_in_a_step_of_its_own(opened: Open) -> None:
    async with opened(round_trips="plain") as shop:
        assert (await shop.buy(COLD)).status_code == 201
        assert shop.sale.figures.routes[PURCHASE].stages.commit > 0


@pytest.mark.parametrize(
    ("levels", "method", "path", "checkouts"),
    [
        ({"cache": "off"}, "GET", "/matches", 1),
        ({"cache": "off"}, "GET", "/matches/2", 1),
        ({"cache": "on"}, "GET", "/matches/2", 0),  # once it is cached
        ({"round_trips": "plain"}, "POST", "/matches/2/purchases", 2),
        ({"round_trips": "fewest"}, "POST", "/matches/2/purchases", 1),
        ({"round_trips": "fewest", "payment_ms": 1}, "POST", "/matches/2/purchases", 2),
        ({"payment": "in_transaction"}, "POST", "/matches/2/purchases", 1),
        ({"payment": "outside", "locking": "redis"}, "POST", "/matches/2/purchases", 2),
        ({}, "POST", "/tickets/SEED-000001/validation", 1),
        ({}, "GET", "/health", 0),
        ({}, "GET", "/ready", 1),
    ],
)
async def test_each_route_takes_as_many_connections_as_it_should(
    opened: Open, levels: dict[str, Any], method: str, path: str, checkouts: int
) -> None:
    async with opened(**levels, validate_cost=1, cache_ttl_s=60) as shop:
        figures = shop.sale.database.pool.figures
        for turn in range(2):
            before = figures.checkouts
            headers = {"Idempotency-Key": f"k{turn}"}
            answer = await shop.http.request(method, path, headers=headers, json={"buyer": "ann"})
            assert answer.status_code in (200, 201)
        assert figures.checkouts - before == checkouts
        assert shop.sale.database.pool.checkedout() == 0


async def test_reads_open_no_transaction(opened: Open, stores: Stores) -> None:
    async with opened(cache="off", pool_size=1) as shop:
        answer = await shop.http.get("/matches/2")
        assert answer.status_code == 200
        last = stores.one("SELECT query FROM pg_stat_activity WHERE application_name = 'target_app'")
    assert last.startswith("SELECT matches.id")  # neither COMMIT nor ROLLBACK came after it


@pytest.mark.parametrize("synchronous_commit", ["on", "off"])
async def test_the_pool_is_open_before_the_first_request_with_its_limits_set(
    opened: Open, stores: Stores, synchronous_commit: str
) -> None:
    async with opened(pool_size=7, max_overflow=2, synchronous_commit=synchronous_commit) as shop:
        connected = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'target_app'"
        assert stores.one(connected) == 7
        assert shop.sale.database.pool.limit == 9
        async with shop.sale.database.autocommit(shop.sale.figures.routes[MATCH].stages) as session:
            names = ("synchronous_commit", "lock_timeout", "statement_timeout")
            shown = [await session.one(text(f"SELECT current_setting('{name}') AS level")) for name in names]
        assert [row.level for row in shown if row] == [synchronous_commit, "2s", "5s"]
    assert stores.one("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'target_app'") == 0


@pytest.mark.parametrize(("index", "plan"), [("on", "tickets_buyer_match"), ("off", "Seq Scan on tickets")])
def test_the_index_decides_how_a_buyers_tickets_are_counted(stores: Stores, index: str, plan: str) -> None:
    init_db(stores.settings(index=index))
    rows = stores.sql.execute("EXPLAIN SELECT count(*) FROM tickets WHERE buyer = 'ann' AND match_id = 2").fetchall()
    assert plan in "\n".join(row[0] for row in rows)


# --- reading ----------------------------------------------------------------------------------------------------------


async def test_a_cached_match_is_as_old_as_its_time_to_live_allows(opened: Open, stores: Stores) -> None:
    async with opened(cache="on", cache_ttl_s=30) as shop:
        first = await shop.http.get("/matches/2")
        stores.sql.execute("UPDATE matches SET stock = 5 WHERE id = 2")
        second = await shop.http.get("/matches/2")
        assert second.content == first.content == stores.redis.get("cache:match:2").encode()
        assert 29_000 < stores.redis.pttl("cache:match:2") <= 30_000
        assert (shop.sale.figures.cache_hits, shop.sale.figures.cache_misses) == (1, 1)
        stores.redis.delete("cache:match:2")
        assert (await shop.http.get("/matches/2")).json()["stock"] == 5
        assert (await shop.http.get("/matches/99")).json() == {"error": "unknown_match"}


async def test_without_the_cache_a_match_is_always_fresh(opened: Open, stores: Stores) -> None:
    async with opened(cache="off") as shop:
        await shop.http.get("/matches/2")
        stores.sql.execute("UPDATE matches SET stock = 5 WHERE id = 2")
        assert (await shop.http.get("/matches/2")).json()["stock"] == 5
        matches = (await shop.http.get("/matches")).json()
        assert [match["id"] for match in matches] == list(range(1, 22))
        assert {match["on_sale"] for match in matches[:20]} == {True}
        assert not stores.redis.keys("*")


async def test_a_cache_that_fails_makes_the_sale_slower_and_not_closed(opened: Open, stores: Stores) -> None:
    async with opened(cache="on", cache_ttl_s=60, redis_timeout_s=0.1) as shop:
        await shop.http.get("/matches/2")
        server = int(stores.redis.info("server")["process_id"])
        os.kill(server, signal.SIGSTOP)
        try:
            assert (await shop.http.get("/matches/2")).status_code == 200
            assert (await shop.http.get("/ready")).json() == {"error": "redis_error"}
        finally:
            os.kill(server, signal.SIGCONT)
        assert (await shop.http.get("/ready")).status_code == 200
        assert shop.sale.figures.cache_misses == 2


async def test_redis_shows_the_stock_that_it_keeps(opened: Open, stores: Stores) -> None:
    async with opened(locking="redis", cache="off", stock=9) as shop:
        await shop.buy(HOT)
        assert (await shop.http.get("/matches/1")).json()["stock"] == 8
    async with opened(locking="redis", cache="off", seed=False) as shop:  # another worker does not start over
        assert (await shop.http.get("/matches/1")).json()["stock"] == 8
    stores.redis.flushdb()
    async with opened(locking="redis", cache="off", seed=False) as shop:  # what was sold stays sold
        assert (await shop.http.get("/matches/1")).json()["stock"] == 8


async def test_a_redis_that_was_emptied_sells_nothing(opened: Open, stores: Stores) -> None:
    async with opened(locking="redis", stock=9) as shop:
        stores.redis.flushdb()
        assert kinds([await shop.buy(HOT)]) == {(503, "redis_error"): 1}
        assert shop.outcome("database_error") == 1
    assert stores.sold(HOT) == 0


# --- the gate ---------------------------------------------------------------------------------------------------------


async def test_a_validation_derives_the_same_token_each_time(opened: Open, stores: Stores) -> None:
    async with opened(validate_cost=1000, gate_secret="a secret") as shop:
        first = await shop.http.post("/tickets/SEED-020000/validation")
        second = await shop.http.post("/tickets/SEED-020000/validation")
        token = hashlib.pbkdf2_hmac("sha256", b"SEED-020000", b"a secret", 1000).hex()
        assert first.json() == {"ticket_id": 20_000, "match_id": PAST, "first": True, "gate_token": token}
        assert second.json() == {**first.json(), "first": False}
        assert shop.sale.figures.routes[VALIDATION].stages.cpu > 0
        unknown = await shop.http.post("/tickets/SEED-020001/validation")
        assert (unknown.status_code, unknown.json()) == (404, {"error": "unknown_ticket"})
    assert stores.one("SELECT count(*) FROM tickets WHERE validated_at IS NOT NULL") == 1


async def test_at_the_gate_one_of_many_is_the_first(opened: Open) -> None:
    async with opened(validate_cost=1) as shop:
        answers = await asyncio.gather(*(shop.http.post("/tickets/SEED-000001/validation") for _ in range(10)))
    assert sorted(answer.json()["first"] for answer in answers) == [False] * 9 + [True]


# --- starting ---------------------------------------------------------------------------------------------------------


def test_a_database_that_holds_a_sale_is_not_overwritten_by_accident(stores: Stores) -> None:
    init_db(stores.settings(stock=5))
    with pytest.raises(StartupError, match="holds a sale already"):
        init_db(stores.settings(stock=6))
    assert stores.one("SELECT capacity FROM matches WHERE id = 1") == 5
    init_db(stores.settings(stock=6), reset=True)
    assert stores.one("SELECT capacity FROM matches WHERE id = 1") == 6
    assert stores.sold(PAST) == 20_000


async def test_a_sale_without_tables_does_not_open(opened: Open) -> None:
    with pytest.raises(StartupError, match=r'PostgreSQL cannot be used: .*"matches" does not exist'):
        async with opened(seed=False):
            pytest.fail("it opened")
