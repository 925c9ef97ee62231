"""The sale on a real PostgreSQL and Redis: what is sold, to whom, and never twice."""

import asyncio

import pytest

from tests.integration.opened_sale import COLD, GUARDED, HOT, Open, Stores, kinds

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
