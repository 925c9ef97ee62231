"""The sale on a real PostgreSQL and Redis: reading through the cache, the gate, and how a sale starts."""

import asyncio
import hashlib
import os
import signal

import pytest

from target_app.errors import StartupError
from target_app.figures import VALIDATION
from target_app.seed import init_db
from tests.integration.opened_sale import HOT, PAST, Open, Stores, kinds

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
