"""Random interleavings of everything that moves a ticket: the books balance after every step, whatever it was.

A step does one thing, or several at once on the same event loop against real servers. In between time passes, payments
are declined, and requests end in the middle of a payment as those of a worker that dies do.
"""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from target_app.app import create_app
from target_app.seed import init_db
from tests.integration.opened_sale import (
    HOT,
    WAYS,
    Member,
    Shop,
    Stores,
    Till,
    balance,
    let_time_pass,
    member,
    pay_with,
)

CAPACITY = 6
LIMIT = 3
WORLDS = (
    ("atomic", "plain"),
    ("atomic", "fastest"),
    ("pessimistic", "plain"),
    ("optimistic", "fastest"),
    ("redis", "plain"),
    ("redis", "fastest"),
)


@dataclass
class World:
    """A sale that stays open, and its loop; each example begins with a full stock and empty books."""

    stores: Stores
    shop: Shop
    runner: "asyncio.Runner"
    till: Till = field(default_factory=Till)
    buyers: list[Member] = field(default_factory=list)

    def run(self, what: Any) -> Any:
        return self.runner.run(what)

    def begin(self) -> None:
        sql = self.stores.sql
        sql.execute("TRUNCATE buyers, sessions, holds, checkouts")
        sql.execute("DELETE FROM tickets WHERE match_id = %s", (HOT,))
        sql.execute("UPDATE matches SET stock = %s, version = 0 WHERE id = %s", (CAPACITY, HOT))
        self.stores.redis.flushdb()
        self.run(self.shop.sale._put_stock())
        self.till = pay_with(self.shop)
        self.buyers = [member(self.stores, self.shop) for _ in range(3)]


@pytest.fixture(params=WORLDS, ids="-".join)
def world(places: Stores, request: pytest.FixtureRequest) -> Iterator[World]:
    locking, way = request.param
    places.empty()
    chosen = places.settings(
        **WAYS[way], locking=locking, stock=CAPACITY, buyer_limit=LIMIT, cache="off", pool_timeout_s=30,
        redis_timeout_s=10, pool_size=4, optimistic_retries=100,
    )  # fmt: skip
    init_db(chosen)
    app = create_app(chosen)
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def enter() -> Shop:
            await stack.enter_async_context(app.sale.opened())
            transport = httpx.ASGITransport(app.asgi)
            http = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://sale"))
            await app.sale.sweeper.stop()  # it sweeps when a step says so
            return Shop(app.sale, http)

        async def leave() -> None:
            await stack.aclose()

        shop = runner.run(enter())
        try:
            yield World(places, shop, runner)
        finally:
            runner.run(leave())


WHO = st.integers(0, 2)
KEYS = st.sampled_from(["k1", "k2", "k3"])
DOING = st.one_of(
    st.tuples(st.just("hold"), WHO, st.integers(1, LIMIT)),
    st.tuples(st.just("buy"), WHO, KEYS),
    st.tuples(st.just("give back"), WHO, st.integers(0, 2)),
    st.tuples(st.just("abandon"), WHO, st.none()),
    st.tuples(st.just("pay"), WHO, KEYS),
    st.tuples(st.just("die while paying"), WHO, KEYS),
    st.tuples(st.just("sweep"), WHO, st.none()),
    st.tuples(st.just("look"), WHO, st.none()),
)
# What each may be answered with. A 503 is an answer too; anything else, a 500 above all, is none.
ANSWERS = {201, 204, 200, 402, 404, 409, 503}


class Sale(RuleBasedStateMachine):
    """The steps, and what holds after each of them."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.acknowledged: dict[int, tuple[str, str]] = {}  # ticket: whose it is, and its code
        self.bought: dict[str, int] = {}  # the key of a plain purchase: its ticket

    @initialize()
    def begin(self) -> None:
        self.world.begin()

    @rule(doing=st.lists(DOING, min_size=1, max_size=5), declining=st.booleans())
    def at_once(self, doing: list[tuple[str, int, Any]], declining: bool) -> None:
        self.world.till.declining = declining
        self.world.run(self._together(doing))

    @rule(doing=st.lists(DOING, min_size=1, max_size=4))
    def while_time_passes(self, doing: list[tuple[str, int, Any]]) -> None:
        """Have what is in carts run out while things are done."""

        async def passing() -> None:
            await asyncio.sleep(0)
            await asyncio.to_thread(let_time_pass, self.world.stores)

        async def all_of_it() -> None:
            await asyncio.gather(passing(), self._together([*doing, ("sweep", 0, None)]))

        self.world.run(all_of_it())

    @rule()
    def everything_settles(self) -> None:
        """Let all carts and payments run out, and sweep: nothing is left in between."""
        let_time_pass(self.world.stores)
        self.world.run(self.world.shop.sale.sweeper.sweep())
        self.world.run(self.world.shop.sale.sweeper.sweep())
        stock, held, sold, capacity = balance(self.world.stores)
        assert (held, stock + sold) == (0, capacity)
        paying = self.world.stores.one("SELECT count(*) FROM checkouts WHERE state IN ('paying', 'refunding')")
        assert paying == 0

    async def _together(self, doing: list[tuple[str, int, Any]]) -> None:
        await asyncio.gather(*(self._do(*each) for each in doing))

    async def _do(self, what: str, who: int, more: Any) -> None:
        world, buyer = self.world, self.world.buyers[who]
        match what:
            case "hold":
                answer = await buyer.hold(more)
            case "buy":
                key = f"{buyer.handle}-{more}"
                answer = await world.shop.buy(key=key, buyer=buyer.handle)
                if answer.status_code == 201:
                    said = answer.json()
                    assert self.bought.setdefault(key, said["ticket_id"]) == said["ticket_id"]
                    self._noted(buyer, said)
            case "give back":
                ids = [each["hold_id"] for each in (await buyer.cart())["holds"]]
                answer = await buyer.ask("DELETE", f"/api/cart/holds/{ids[more] if more < len(ids) else 1}")
            case "pay":
                answer = await buyer.pay(more)
                if answer.status_code == 201:
                    for ticket in answer.json()["tickets"]:
                        self._noted(buyer, ticket)
            case "die while paying":
                await self._dying(buyer, more)
                return
            case "sweep":
                await world.shop.sale.sweeper.sweep()
                return
            case _:
                answer = await buyer.ask("DELETE" if what == "abandon" else "GET", "/api/cart")
        assert answer.status_code in ANSWERS, answer.text

    async def _dying(self, buyer: Member, key: str) -> None:
        task = asyncio.create_task(buyer.pay(key))
        for _ in range(len(key) * 20):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    def _noted(self, buyer: Member, ticket: dict[str, Any]) -> None:
        theirs = (buyer.handle, ticket["code"])
        assert self.acknowledged.setdefault(ticket["ticket_id"], theirs) == theirs

    @invariant()
    def the_books_balance(self) -> None:
        if not self.world.buyers:
            return
        stores = self.world.stores
        stock, held, sold, capacity = balance(stores)
        assert stock >= 0
        assert stock + held + sold == capacity
        twice = stores.one("SELECT count(*) FROM holds h JOIN tickets t USING (idempotency_key)")
        assert twice == 0
        if stores.redis.exists("taken:1"):
            there = stores.sql.execute(
                "SELECT idempotency_key FROM holds UNION SELECT idempotency_key FROM tickets WHERE match_id = 1"
            )
            assert set(stores.redis.hkeys("taken:1")) == {row[0] for row in there}  # type: ignore[arg-type]

    @invariant()
    def what_was_acknowledged_is_there_and_its_buyers_alone(self) -> None:
        rows = self.world.stores.sql.execute("SELECT id, buyer, code FROM tickets WHERE match_id = 1").fetchall()
        there = {row[0]: (row[1], row[2]) for row in rows}
        assert self.acknowledged.items() <= there.items()
        for buyer in self.world.buyers:
            mine = {each["ticket_id"] for each in self.world.run(buyer.tickets())}
            assert mine == {ticket for ticket, (whose, _) in there.items() if whose == buyer.handle}

    @invariant()
    def money_and_tickets_agree(self) -> None:
        if not self.world.buyers:
            return
        kept = self.world.till.kept()
        rows = self.world.stores.sql.execute("SELECT payment_key, amount_pence, state, hold_keys FROM checkouts")
        for key, amount, state, keys in rows:
            sold = self.world.stores.one("SELECT count(*) FROM tickets WHERE idempotency_key = ANY(%s)", keys)
            assert sold == (len(keys) if state == "paid" else 0)
            if state == "paid":
                assert kept[key] == amount
            elif state in ("declined", "refunded"):
                assert key not in kept


def test_the_books_balance_whatever_is_done_at_once(world: World) -> None:
    machine = type("SaleInThisWorld", (Sale,), {"world": world})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=6, stateful_step_count=10, deadline=None, suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
