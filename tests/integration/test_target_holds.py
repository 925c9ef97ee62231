"""Carts on a real PostgreSQL and Redis: what is held is out of the stock, and comes back whoever dies."""

import asyncio
from collections import Counter

import httpx
import pytest

from tests.integration.opened_sale import (
    BY_PLACE,
    GUARDED,
    HOT,
    PAST,
    Member,
    Open,
    Stores,
    balance,
    kinds,
    let_time_pass,
    member,
)

FEW_SEEDED = True
FAST = {"pool_size": 4, "password_cost": 1, "pool_timeout_s": 30, "cache": "off"}


async def until_decided(buyer: Member, quantity: int = 1) -> httpx.Response:
    """Hold, and try again after a 503, as a client should."""
    while (answer := await buyer.hold(quantity)).status_code == 503:
        pass
    return answer


@pytest.mark.parametrize("locking", GUARDED)
async def test_holds_and_purchases_at_once_never_take_more_than_there_is(
    opened: Open, stores: Stores, locking: str
) -> None:
    async with opened(locking=locking, stock=40, **FAST) as shop:
        buyers = [member(stores, shop) for _ in range(40)]
        held, bought = await asyncio.gather(
            asyncio.gather(*(until_decided(buyer, 2) for buyer in buyers)),
            asyncio.gather(*(shop.buy_until_decided() for _ in range(40))),
        )
        assert balance(stores)[0] == 0
        taken = 2 * sum(answer.status_code == 201 for answer in held)
        sold = sum(answer.status_code == 201 for answer in bought)
        assert (taken + sold, balance(stores)) == (40, (0, taken, sold, 40))
        assert {answer.json()["error"] for answer in held if answer.status_code == 409} <= {"sold_out", "too_few_left"}


async def test_without_a_guard_holds_lose_updates_too(opened: Open, stores: Stores) -> None:
    async with opened(locking="none", stock=500, **FAST) as shop:
        buyers = [member(stores, shop) for _ in range(60)]
        await asyncio.gather(*(buyer.hold() for buyer in buyers))
        stock, held, _, capacity = balance(stores)
    assert stock + held > capacity  # the race is kept on purpose


@pytest.mark.parametrize("locking", [*GUARDED, "none"])
async def test_what_is_refused_takes_nothing(opened: Open, stores: Stores, locking: str) -> None:
    async with opened(locking=locking, stock=3, buyer_limit=3, **FAST) as shop:
        ann, bob = member(stores, shop), member(stores, shop)
        assert kinds([await ann.hold(4)]) == {(409, "buyer_limit"): 1}
        assert kinds([await ann.hold(match_id=PAST)]) == {(409, "not_on_sale"): 1}
        assert kinds([await ann.hold(match_id=999)]) == {(404, "unknown_match"): 1}
        assert (await ann.hold(2)).status_code == 201
        assert kinds([await bob.hold(2)]) == {(409, "too_few_left"): 1}
        assert (await bob.hold(1)).status_code == 201
        assert kinds([await bob.hold(1)]) == {(409, "sold_out"): 1}
        assert balance(stores) == (0, 3, 0, 3)


async def test_one_buyer_who_asks_many_times_at_once_is_held_to_the_limit(opened: Open, stores: Stores) -> None:
    async with opened(stock=100, buyer_limit=4, **FAST) as shop:
        ann = member(stores, shop)
        answers = await asyncio.gather(*(ann.hold() for _ in range(12)))
        assert kinds(answers) == {(201, ""): 4, (409, "buyer_limit"): 8}


@pytest.mark.parametrize("locking", BY_PLACE)
async def test_what_leaves_a_cart_is_for_sale_again(opened: Open, stores: Stores, locking: str) -> None:
    async with opened(locking=locking, stock=10, **FAST) as shop:
        ann, bob = member(stores, shop), member(stores, shop)
        first, second, _ = (await ann.hold(3)).json()["hold_ids"]
        assert (await bob.ask("DELETE", f"/api/cart/holds/{first}")).status_code == 404  # not told that it exists
        assert (await ann.ask("DELETE", f"/api/cart/holds/{first}")).status_code == 204
        assert kinds([await ann.ask("DELETE", f"/api/cart/holds/{first}")]) == {(404, "unknown_hold"): 1}
        assert balance(stores) == (8, 2, 0, 10)
        assert (await ann.cart())["holds"][0]["hold_id"] == second
        assert (await bob.ask("DELETE", "/api/cart")).status_code == 204
        assert balance(stores) == (8, 2, 0, 10)
        assert (await ann.ask("DELETE", "/api/cart")).status_code == 204
        assert balance(stores) == (10, 0, 0, 10)
        assert stores.one("SELECT count(*) FROM holds") == 0


@pytest.mark.parametrize("locking", BY_PLACE)
async def test_what_is_past_its_time_goes_back_once_however_many_see_it(
    opened: Open, stores: Stores, locking: str
) -> None:
    async with opened(locking=locking, stock=8, **FAST) as shop:
        ann, bob = member(stores, shop), member(stores, shop)
        await ann.hold(4)
        await bob.hold(4)
        let_time_pass(stores)
        carts = await asyncio.gather(ann.cart(), *(shop.sale.sweeper.sweep() for _ in range(4)), bob.cart())
        assert carts[0]["holds"] == carts[-1]["holds"] == []
        assert balance(stores) == (8, 0, 0, 8)
        assert stores.redis.hlen("taken:1") == 0


@pytest.mark.parametrize("locking", BY_PLACE)
async def test_who_wants_the_last_ticket_gets_the_one_that_nobody_came_for(
    opened: Open, stores: Stores, locking: str
) -> None:
    async with opened(locking=locking, stock=1, **FAST) as shop:
        ann, bob = member(stores, shop), member(stores, shop)
        assert (await ann.hold()).status_code == 201
        assert kinds([await bob.hold()]) == {(409, "sold_out"): 1}
        await shop.sale.sweeper.stop()
        let_time_pass(stores)
        assert (await bob.hold()).status_code == 201
        assert (await ann.cart())["holds"] == []
        assert balance(stores) == (0, 1, 0, 1)


@pytest.mark.parametrize("locking", BY_PLACE)
async def test_carts_come_back_after_every_process_has_died(opened: Open, stores: Stores, locking: str) -> None:
    async with opened(locking=locking, stock=10, **FAST) as shop:
        ann = member(stores, shop)
        await ann.hold(4)
    let_time_pass(stores)
    async with opened(seed=False, locking=locking, stock=10, **FAST) as shop:
        for _ in range(500):  # its sweeper begins with the worker
            if balance(stores) == (10, 0, 0, 10):
                break
            await asyncio.sleep(0.01)
        assert balance(stores) == (10, 0, 0, 10)


async def test_a_redis_that_was_emptied_gets_the_stock_without_what_is_held(opened: Open, stores: Stores) -> None:
    async with opened(locking="redis", stock=10, **FAST) as shop:
        ann = member(stores, shop)
        await ann.hold(4)
        assert (await shop.buy()).status_code == 201
    stores.redis.flushdb()
    async with opened(seed=False, locking="redis", stock=10, **FAST) as shop:
        assert balance(stores) == (5, 4, 1, 10)
        let_time_pass(stores)
        await shop.sale.sweeper.sweep()
        assert balance(stores) == (9, 0, 1, 10)


async def test_a_worker_that_died_while_giving_back_to_redis_gives_back_once(opened: Open, stores: Stores) -> None:
    async with opened(locking="redis", stock=10, **FAST) as shop:
        ann = member(stores, shop)
        await ann.hold(4)
        let_time_pass(stores)
        stores.sql.execute("UPDATE holds SET going_back = true")  # it had marked them all,
        keys = [row[0] for row in stores.sql.execute("SELECT idempotency_key FROM holds ORDER BY id LIMIT 2")]
        await shop.sale.store.give_back_all(HOT, keys, shop.sale.figures.routes["/ready"].stages)  # and returned two
        await asyncio.gather(*(shop.sale.sweeper.sweep() for _ in range(3)))
        assert balance(stores) == (10, 0, 0, 10)
        assert stores.redis.hlen("taken:1") == 0


async def test_what_redis_took_and_postgresql_did_not_get_is_given_back(opened: Open, stores: Stores) -> None:
    async with opened(locking="redis", stock=10, **FAST) as shop:
        ann = member(stores, shop)
        stores.sql.execute("ALTER TABLE holds ADD CONSTRAINT nothing CHECK (match_id <> 1)")
        with pytest.raises(Exception, match="nothing"):
            await ann.hold(3)
        assert balance(stores) == (10, 0, 0, 10)
        assert stores.redis.hlen("taken:1") == 0


async def test_the_stock_that_is_shown_is_without_what_is_held(opened: Open, stores: Stores) -> None:
    for locking in ("atomic", "redis"):
        async with opened(locking=locking, stock=10, seed=locking == "atomic", **FAST) as shop:
            await member(stores, shop).hold(2)
            shown = (await shop.http.get("/matches/1")).json()["stock"]
            assert shown == balance(stores)[0]


async def test_a_cart_is_seen_by_its_buyer_alone(opened: Open, stores: Stores) -> None:
    async with opened(**FAST) as shop:
        ann, bob = member(stores, shop), member(stores, shop)
        await ann.hold(2)
        assert (await bob.cart())["holds"] == []
        assert Counter(each["match_id"] for each in (await ann.cart())["holds"]) == {HOT: 2}
        assert (await ann.cart())["total_pence"] == 2 * 2750
        for method, path in (("GET", "/api/cart"), ("DELETE", "/api/cart"), ("GET", "/api/tickets")):
            for headers in ({}, {"Authorization": "Bearer nothing"}, {"Authorization": f"Bearer {ann.token}x"}):
                answer = await shop.http.request(method, path, headers=headers)
                assert (answer.status_code, answer.json()) == (401, {"error": "not_logged_in"})
                assert answer.headers["WWW-Authenticate"] == "Bearer"
