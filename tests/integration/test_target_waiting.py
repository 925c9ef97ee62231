"""The sale on a real PostgreSQL and Redis: what is refused, how long anything waits, and who holds a connection."""

import asyncio
import os
import signal
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from target_app.figures import MATCH, PURCHASE
from target_app.seed import init_db
from tests.integration.opened_sale import COLD, HOT, PAST, SQL_GUARDED, Open, Stores, kinds, until

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


@pytest.mark.parametrize(("locking", "commits"), [("pessimistic", True), ("redis", True), ("optimistic", False)])
async def test_with_the_fewest_round_trips_a_lone_statement_commits_itself(
    opened: Open, stores: Stores, locking: str, commits: bool
) -> None:
    async with opened(round_trips="fewest", locking=locking, pool_size=1) as shop:
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
