"""Paying for a cart: money and tickets agree, whatever happens between the two."""

import asyncio

import pytest

from tests.integration.opened_sale import (
    BY_PLACE,
    Member,
    Open,
    Shop,
    Stores,
    balance,
    kinds,
    let_time_pass,
    member,
    pay_with,
    until,
)

FEW_SEEDED = True
FAST = {"pool_size": 4, "password_cost": 1, "pool_timeout_s": 30, "cache": "off"}


def states(stores: Stores) -> list[str]:
    return [row[0] for row in stores.sql.execute("SELECT state FROM checkouts ORDER BY id")]


async def killed_while_paying(shop: Shop, buyer: Member, key: str) -> None:
    """Begin to pay, and have the worker die while the provider is at it."""
    till = shop.sale.checkouts._payments
    till.gate.clear()  # type: ignore[attr-defined]
    task = asyncio.create_task(buyer.pay(key))
    await until(lambda: till.waiting == 1)  # type: ignore[attr-defined]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    till.gate.set()  # type: ignore[attr-defined]


@pytest.mark.parametrize("locking", BY_PLACE)
async def test_a_cart_becomes_tickets_once_however_often_it_is_paid(opened: Open, stores: Stores, locking: str) -> None:
    async with opened(locking=locking, stock=10, payment_ms=2, **FAST) as shop:
        till = pay_with(shop)
        ann, bob = member(stores, shop), member(stores, shop)
        await ann.hold(3)
        answers = await asyncio.gather(*(ann.pay("the-key") for _ in range(8)))
        answers.append(await ann.pay("the-key"))
        assert kinds(answers) == {(201, ""): 9}
        assert len({answer.text for answer in answers}) == 1
        mine = await ann.tickets()
        assert [each["ticket_id"] for each in mine] == [each["ticket_id"] for each in answers[0].json()["tickets"]]
        assert (len(mine), balance(stores), states(stores)) == (3, (7, 0, 3, 10), ["paid"])
        assert list(till.kept().values()) == [3 * 2750]
        assert kinds([await ann.pay("another")]) == {(409, "empty_cart"): 1}
        # another buyer's key of the same name is another key, and their tickets are not there for this one
        assert kinds([await bob.pay("the-key")]) == {(409, "empty_cart"): 1}
        assert (await bob.ask("GET", f"/api/tickets/{mine[0]['ticket_id']}")).status_code == 404
        assert (await ann.ask("GET", f"/api/tickets/{mine[0]['ticket_id']}")).json() == mine[0]
        assert (await shop.http.post(f"/tickets/{mine[0]['code']}/validation")).json()["first"] is True
        assert (await ann.ask("GET", f"/api/tickets/{mine[0]['ticket_id']}")).json()["validated_at"]


@pytest.mark.parametrize("locking", BY_PLACE)
async def test_a_hold_that_expires_during_the_payment_is_sold_to_one_and_refunded_to_the_other(
    opened: Open, stores: Stores, locking: str
) -> None:
    async with opened(locking=locking, stock=2, **FAST) as shop:
        till = pay_with(shop)
        ann, bob = member(stores, shop), member(stores, shop)
        await ann.hold(2)
        till.gate.clear()
        paying = asyncio.create_task(ann.pay("ann"))
        await until(lambda: till.waiting == 1)
        assert kinds([await ann.ask("DELETE", "/api/cart/holds/1")]) == {(409, "being_paid"): 1}
        stores.sql.execute("UPDATE holds SET expires_at = now() - interval '1 second'")
        assert (await bob.hold(2)).status_code == 201  # what was given back is held by another now
        till.gate.set()
        assert kinds([await paying]) == {(409, "hold_expired"): 1}
        assert (till.kept(), states(stores)) == ({}, ["refunded"])
        assert kinds([await ann.pay("ann")]) == {(409, "hold_expired"): 1}  # the same key, the same answer
        assert (await bob.pay()).status_code == 201
        assert (balance(stores), await ann.tickets()) == ((0, 0, 2, 2), [])
        assert list(till.kept().values()) == [5500]


async def test_a_payment_lets_its_tickets_live_as_long_as_it_may_take(opened: Open, stores: Stores) -> None:
    async with opened(hold_ttl_s=1, **FAST) as shop:
        till = pay_with(shop)
        ann = member(stores, shop)
        await ann.hold()
        till.gate.clear()
        paying = asyncio.create_task(ann.pay())
        await until(lambda: till.waiting == 1)
        assert stores.one("SELECT expires_at > now() + interval '50 seconds' FROM holds")
        await ann.hold()  # what comes later is not part of it, and has its own time
        assert stores.one("SELECT min(expires_at) < now() + interval '2 seconds' FROM holds")
        till.gate.set()
        assert len((await paying).json()["tickets"]) == 1
        assert len((await ann.cart())["holds"]) == 1


async def test_a_declined_payment_leaves_the_cart_as_it_was(opened: Open, stores: Stores) -> None:
    async with opened(stock=10, **FAST) as shop:
        till = pay_with(shop)
        till.declining = True
        ann = member(stores, shop)
        await ann.hold(2)
        assert kinds([await ann.pay("k"), await ann.pay("k")]) == {(402, "payment_declined"): 2}
        assert (balance(stores), till.kept()) == ((8, 2, 0, 10), {})
        till.declining = False
        assert len((await ann.pay("again")).json()["tickets"]) == 2
        assert states(stores) == ["declined", "paid"]


@pytest.mark.parametrize("locking", BY_PLACE)
async def test_a_worker_that_dies_while_paying_loses_neither_money_nor_tickets(
    opened: Open, stores: Stores, locking: str
) -> None:
    async with opened(locking=locking, stock=10, **FAST) as shop:
        till = pay_with(shop)
        ann, bob = member(stores, shop), member(stores, shop)
        await ann.hold(2)
        await killed_while_paying(shop, ann, "ann")
        assert kinds([await ann.pay("other")]) == {(409, "being_paid"): 1}
        assert len((await ann.pay("ann")).json()["tickets"]) == 2  # asked again, it goes on where it was
        await bob.hold(1)
        till.silent = True  # this one is charged, and nobody hears of it
        assert (await bob.pay("bob")).status_code == 503
        till.silent = False
        assert sorted(till.kept().values()) == [2750, 5500]
        let_time_pass(stores)
        await asyncio.gather(shop.sale.sweeper.sweep(), shop.sale.sweeper.sweep())
        await shop.sale.sweeper.sweep()
        assert (list(till.kept().values()), states(stores)) == ([5500], ["paid", "refunded"])
        assert balance(stores) == (8, 0, 2, 10)
        assert kinds([await bob.pay("bob")]) == {(409, "hold_expired"): 1}
        assert list(till.kept().values()) == [5500]


@pytest.mark.parametrize("voiding", [True, False])
async def test_a_charge_that_arrives_after_its_refund_is_not_kept(opened: Open, stores: Stores, voiding: bool) -> None:
    async with opened(stock=10, **FAST) as shop:
        till = pay_with(shop)
        till.voiding = voiding
        ann = member(stores, shop)
        await ann.hold(1)
        till.gate.clear()
        paying = asyncio.create_task(ann.pay())
        await until(lambda: till.waiting == 1)
        let_time_pass(stores)
        await shop.sale.sweeper.sweep()
        assert states(stores) == ["refunded"]
        till.gate.set()
        assert kinds([await paying]) == {(409, "hold_expired"): 1}
        assert (till.kept(), balance(stores)) == ({}, (10, 0, 0, 10))


async def test_the_limit_counts_tickets_and_holds_together(opened: Open, stores: Stores) -> None:
    async with opened(stock=10, buyer_limit=3, **FAST) as shop:
        ann = member(stores, shop)
        await ann.hold(2)
        await ann.pay()
        assert kinds([await ann.hold(2)]) == {(409, "buyer_limit"): 1}
        assert (await ann.hold(1)).status_code == 201


async def test_the_stages_of_what_buyers_do_are_counted_under_their_routes(opened: Open, stores: Stores) -> None:
    async with opened(stock=10, payment_ms=5, **FAST) as shop:
        ann = member(stores, shop)
        assert "/api/checkouts" not in shop.sale.figures.routes  # a sale that is only bought from exports none of it
        await ann.hold(1)
        await ann.pay()
        routes = shop.sale.figures.routes
        assert routes["/api/cart/holds"].answers["POST", 201] == 1
        assert routes["/api/checkouts"].answers["POST", 201] == 1
        assert routes["/api/checkouts"].stages.payment >= 0.005
        assert routes["/api/checkouts"].stages.sql > 0
        assert routes["/matches/{match_id}/purchases"].stages.payment == 0
