"""Money and tickets agree: each ticket is charged for once, and what bought no ticket is given back.

Against real PostgreSQL, Redis and a real provider, whoever is slow, declines, or is killed in between.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from target_app.seed import init_db
from tests.integration.opened_sale import BY_PLACE, COLD, HOT, Open, Shop, Stores, balance, kinds, member, until
from tests.integration.paying import ProviderProcess

FEW_SEEDED = True
PLACES = ("outside", "in_transaction", "holding_lock")
UNSETTLED = "SELECT count(*) FROM payments WHERE state IN ('paying', 'refunding')"


async def settled(shop: Shop, stores: Stores) -> None:
    """Settle at once what purchases have let go of, without the time that their clients have to come back."""
    assert shop.sale.settler is not None
    while stores.one(UNSETTLED):
        stores.sql.execute("UPDATE payments SET ends_at = now() WHERE state IN ('paying', 'refunding')")
        await shop.sale.settler.settle()


def kept(shop: Shop) -> dict[str, int]:
    """Return what the provider has charged and not given back: key to amount."""
    assert shop.charges is not None
    return {key: one.amount_pence for key, one in shop.charges._known.items() if one.state == "charged"}


def paid_for(stores: Stores) -> dict[str, int]:
    rows = stores.sql.execute("SELECT idempotency_key, price_pence FROM tickets WHERE match_id <> 21").fetchall()
    return dict(rows)


def charged_lines(shop: Shop) -> Counter[str]:
    """Return how often each key was charged, from the journal."""
    assert shop.charges is not None
    return Counter(line.key for line in shop.charges._journal.lines() if line.kind == "charge")


# --- many at once -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("locking", BY_PLACE)
@pytest.mark.parametrize("payment", PLACES)
async def test_many_buyers_a_slow_provider_and_declined_payments_leave_the_books_right(
    opened: Open, stores: Stores, payment: str, locking: str
) -> None:
    provider = {"payment_ms": 40, "payment_spread": 1.5, "payment_failure_ratio": 0.3, "payment_limit": 8}
    async with opened(
        payment=payment, locking=locking, stock=15, pool_size=5, pool_timeout_s=1, payment_timeout_s=0.05, **provider
    ) as shop:
        answers = await asyncio.gather(*(shop.buy(key=f"buyer-{number}") for number in range(60)))
        counted = Counter(answer.status_code for answer in answers)
        assert set(counted) <= {201, 402, 409, 503}
        assert counted[402] > 0 or payment == "holding_lock"  # where one pays at a time, and few come to it
        await settled(shop, stores)
        assert kept(shop) == paid_for(stores)
        assert set(charged_lines(shop).values()) <= {1}
        acknowledged = {answer.json()["idempotency_key"] for answer in answers if answer.status_code == 201}
        assert acknowledged <= set(kept(shop))
        assert shop.outcome("declined") == counted[402]
        stock, held, sold, capacity = balance(stores)
        assert (stock + sold, held, capacity) == (15, 0, 15)


async def test_one_key_many_times_at_once_is_charged_once_for_one_ticket(opened: Open, stores: Stores) -> None:
    async with opened(stock=10, payment_ms=30, pool_timeout_s=20, payment_limit=1) as shop:
        answers = await asyncio.gather(*(shop.buy(key="k", buyer="ann") for _ in range(8)))
        assert kinds(answers) == {(201, ""): 8}
        assert len({answer.json()["ticket_id"] for answer in answers}) == 1
        assert charged_lines(shop) == {"k": 1}
        assert kept(shop) == paid_for(stores)
        assert stores.one(UNSETTLED) == 0


# --- one purchase -----------------------------------------------------------------------------------------------------


async def test_a_declined_payment_is_an_answer_and_stays_one(opened: Open, stores: Stores) -> None:
    async with opened(stock=10, payment_failure_ratio=1) as shop:
        first = await shop.buy(key="k")
        assert shop.sale.settler is not None
        await shop.sale.settler.settle()
        assert stores.one("SELECT state FROM payments") == "declined"
        assert kinds([first, await shop.buy(key="k")]) == {(402, "payment_declined"): 2}
        assert "Retry-After" not in first.headers
        assert (shop.outcome("declined"), stores.sold(HOT), balance(stores)[0]) == (2, 0, 10)


async def test_a_payment_whose_answer_is_too_late_is_taken_up_by_the_next_try(opened: Open, stores: Stores) -> None:
    async with opened(stock=10, payment_ms=700, payment_timeout_s=0.05) as shop:
        answers = [await shop.buy(key="k", buyer="ann")]
        assert kinds(answers) == {(503, "payment_unclear"): 1}
        assert shop.outcome("payment_unclear") == 1
        assert kinds([await shop.buy(key="k", buyer="bob")]) == {(422, "key_reused"): 1}
        while answers[-1].status_code == 503:
            answers.append(await shop.buy(key="k", buyer="ann"))
        assert answers[-1].status_code == 201
        assert charged_lines(shop) == {"k": 1}


async def test_who_gave_up_is_refunded_and_the_key_is_used_up(opened: Open, stores: Stores) -> None:
    async with opened(stock=10, payment_ms=700, payment_timeout_s=0.05) as shop:
        assert (await shop.buy(key="k")).status_code == 503
        await settled(shop, stores)  # while the provider is still at it: the charge is refused when it is through
        assert stores.one("SELECT state FROM payments") == "refunded"
        assert shop.charges is not None
        charges = shop.charges
        await until(lambda: not charges._pending)
        assert kinds([await shop.buy(key="k")]) == {(410, "payment_refunded"): 1}
        assert (kept(shop), paid_for(stores)) == ({}, {})


async def test_who_is_too_late_for_the_last_ticket_gets_the_money_back(opened: Open, stores: Stores) -> None:
    async with opened(stock=1, payment_ms=50, pool_timeout_s=20) as shop:
        answers = await asyncio.gather(*(shop.buy() for _ in range(5)))
        assert kinds(answers) == {(201, ""): 1, (409, "sold_out"): 4}
        await until(lambda: stores.one(UNSETTLED) == 0)  # by the settler itself, at once
        assert len(charged_lines(shop)) == 5
        assert kept(shop) == paid_for(stores)


@pytest.mark.parametrize("locking", ["atomic", "pessimistic", "optimistic"])
async def test_a_payment_that_holds_the_lock_keeps_the_row_and_a_decline_gives_it_back(
    opened: Open, stores: Stores, locking: str
) -> None:
    async with opened(payment="holding_lock", locking=locking, payment_ms=300, payment_failure_ratio=1) as shop:
        asked = asyncio.create_task(shop.buy(COLD))
        charges = shop.charges
        assert charges is not None
        await until(lambda: charges.busy == 1)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            stores.sql.execute("SELECT 1 FROM matches WHERE id = 2 FOR UPDATE NOWAIT")
        assert kinds([await asked]) == {(402, "payment_declined"): 1}
        assert stores.one("SELECT stock FROM matches WHERE id = 2") == 1_000_000


async def test_a_cart_is_charged_once_and_a_cart_that_is_declined_stays(opened: Open, stores: Stores) -> None:
    async with opened(stock=10, payment_ms=1) as shop:
        ann = member(stores, shop)
        await ann.hold(2)
        assert [(await ann.pay("k")).status_code for _ in range(2)] == [201, 201]
        amounts = list(kept(shop).values())
        assert (len(amounts), amounts) == (1, [sum(paid_for(stores).values())])
    async with opened(seed=False, payment_failure_ratio=1) as shop:
        bob = member(stores, shop, "bob")
        await bob.hold(1, COLD)
        assert kinds([await bob.pay()]) == {(402, "payment_declined"): 1}
        assert len((await bob.cart())["holds"]) == 1


# --- the provider is killed -------------------------------------------------------------------------------------------


@pytest.fixture
def killable(tmp_path: Path) -> Iterator[ProviderProcess]:
    process = ProviderProcess(tmp_path, payment_ms=200, payment_spread=0.5)
    process.start()
    yield process
    process.end()


async def test_a_provider_that_is_killed_forgets_nothing_and_what_it_missed_is_settled(
    opened: Open, stores: Stores, killable: ProviderProcess
) -> None:
    async with opened(stock=100, payment_url=killable.url, pool_timeout_s=20, payment_timeout_s=2) as shop:
        asked = [asyncio.create_task(shop.buy()) for _ in range(40)]
        await until(lambda: stores.sold(HOT) >= 5)
        await asyncio.to_thread(killable.end)
        counted = Counter(answer.status_code for answer in await asyncio.gather(*asked))
        assert set(counted) == {201, 503}
        assert shop.sale.settler is not None
        stores.sql.execute("UPDATE payments SET ends_at = now() WHERE state = 'paying'")
        await shop.sale.settler.settle()
        assert stores.one(UNSETTLED) == counted[503]  # nobody can tell now; it is asked again when somebody can
        await asyncio.to_thread(killable.start)
        await settled(shop, stores)
        charged, refunded = killable.keys("charge"), killable.keys("refund")
        assert len(charged) == len(set(charged))
        assert set(charged) - set(refunded) == set(paid_for(stores))


# --- the sale is killed -----------------------------------------------------------------------------------------------


class SaleProcess:
    """A sale in a process of its own, that can be killed and started again."""

    def __init__(self, stores: Stores, **levels: Any) -> None:
        told = {"database_url": stores.database_url, "redis_url": stores.redis_url, **levels}
        self._environment = {**os.environ, **{f"TARGET_{name.upper()}": str(value) for name, value in told.items()}}
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as metrics:
            metrics.bind(("127.0.0.1", 0))
            metrics_port = metrics.getsockname()[1]
            metrics.close()
            fd = listening.fileno()
            self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            command = [sys.executable, "-m", "target_app", "serve", "--fd", str(fd), "--metrics-ports"]
            self._process = subprocess.Popen([*command, str(metrics_port)], env=self._environment, pass_fds=(fd,))
        assert httpx.get(f"{self.url}/ready", timeout=30).status_code == 200

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)  # its worker goes with it
        self._process.wait(30)

    async def buy(self, key: str) -> httpx.Response:
        async with httpx.AsyncClient(timeout=30) as client:
            return await client.post(
                f"{self.url}/matches/{HOT}/purchases", headers={"Idempotency-Key": key}, json={"buyer": key}
            )


@pytest.mark.parametrize("payment", PLACES)
async def test_a_sale_that_is_killed_between_charge_and_commit_owes_nobody_anything(
    stores: Stores, tmp_path: Path, payment: str
) -> None:
    provider = ProviderProcess(tmp_path, payment_ms=100)
    waits = {"payment_timeout_s": 0.3, "pool_timeout_s": 0.1, "lock_timeout_s": 2, "statement_timeout_s": 2.5}
    sale = SaleProcess(stores, payment=payment, payment_url=provider.url, pool_size=10, **waits)
    await asyncio.to_thread(init_db, stores.settings(stock=20))
    await asyncio.to_thread(provider.start)
    try:
        await asyncio.to_thread(sale.start)
        keys = [uuid.uuid4().hex for _ in range(6 if payment != "holding_lock" else 1)]
        with stores.sql.transaction() if payment != "holding_lock" else contextlib.nullcontext():
            if payment != "holding_lock":  # nobody can sell what is charged meanwhile
                stores.sql.execute("SELECT 1 FROM matches WHERE id = 1 FOR UPDATE")
            asked = [asyncio.create_task(sale.buy(key)) for key in keys]
            await until(lambda: len(provider.keys("charge")) == len(keys))
            await asyncio.to_thread(sale.kill)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        acknowledged = {a.json()["idempotency_key"] for a in answers if isinstance(a, httpx.Response) and a.is_success}
        await asyncio.to_thread(sale.start)
        # one comes back under its key, the others never do
        again = await sale.buy(keys[0])
        assert again.status_code == 201, again.text
        deadline = time.monotonic() + 30
        while stores.one(UNSETTLED):
            assert time.monotonic() < deadline, stores.sql.execute("SELECT * FROM payments").fetchall()
            await asyncio.sleep(0.1)
        charged, refunded = provider.keys("charge"), provider.keys("refund")
        assert len(charged) == len(set(charged))
        assert set(charged) - set(refunded) == set(paid_for(stores))
        assert acknowledged | {keys[0]} <= set(paid_for(stores))
    finally:
        sale.kill()
        provider.end()
