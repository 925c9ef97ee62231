"""``checkout=queue``: purchases that are accepted, done by workers that are processes of their own, and told of."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from target_app.locking import Order
from target_app.purchase_queue import STREAM, packed
from tests.integration.opened_sale import HOT, Open, Shop, Stores, kinds
from tests.integration.target_processes import free_ports

pytestmark = pytest.mark.integration

FEW_SEEDED = True
DEADLINE_S = 60.0
# What a worker does is the same code whichever way the order came to it.
one_way = pytest.mark.parametrize("opened", ["plain"], indirect=True)


@dataclass
class Working:
    """A supervisor of queue workers."""

    process: "subprocess.Popen[str]"
    metrics_ports: list[int]

    def workers(self) -> list[int]:
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def total(self, name: str) -> float:
        """Return a metric summed over the workers; 0 for one that does not answer."""
        found = 0.0
        for port in self.metrics_ports:
            try:
                text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
            except httpx.TransportError:
                continue
            found += sum(map(float, re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)))
        return found

    def ended(self) -> tuple[int, str]:
        _, said = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, said


Work = Callable[..., Working]


@pytest.fixture
def work(stores: Stores) -> Iterator[Work]:
    """Start workers of the queue; whatever still runs at the end is killed."""
    started: list[Working] = []

    def start(processes: int = 1, **levels: Any) -> Working:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TARGET_")}
        told = {"checkout": "queue", "database_url": stores.database_url, "redis_url": stores.redis_url, **levels}
        ports = free_ports(processes)
        command = [sys.executable, "-P", "-m", "target_app", "work", "--workers", str(processes)]
        working = Working(
            subprocess.Popen(
                [*command, "--metrics-ports", ",".join(map(str, ports))],
                env={**kept, **{f"TARGET_{name.upper()}": str(level) for name, level in told.items()}},
                stderr=subprocess.PIPE,
                text=True,
            ),
            ports,
        )
        started.append(working)
        return working

    yield start
    for working in started:
        if working.process.poll() is None:
            working.process.kill()  # the workers die with it
        _, said = working.process.communicate(timeout=DEADLINE_S)
        sys.stderr.write(said)  # pytest shows it where the test failed


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S:g} s: {what}"
        await asyncio.sleep(0.02)


async def outcome(shop: Shop, accepted: httpx.Response) -> httpx.Response:
    """Ask where the 202 says until it is decided."""
    assert accepted.status_code == 202, accepted.text
    place = accepted.headers["Location"]
    assert accepted.json()["outcome"] == place
    deadline = time.monotonic() + DEADLINE_S
    while (answer := await shop.http.get(place)).status_code == 202:
        assert answer.headers["Retry-After"] == "1"
        assert time.monotonic() < deadline, "not decided in time"
        await asyncio.sleep(0.02)
    return answer


def pending(stores: Stores) -> int:
    groups: Any = stores.redis.xinfo_groups(STREAM)
    return sum(int(group["pending"]) for group in groups)


@contextmanager
def locked(stores: Stores, match_id: int = HOT) -> Iterator[None]:
    """Hold the row that every purchase of the match has to write."""
    with stores.sql.transaction():
        stores.sql.execute("SELECT 1 FROM matches WHERE id = %s FOR UPDATE", (match_id,))
        yield


async def test_a_purchase_is_accepted_done_by_a_worker_and_told(opened: Open, work: Work, stores: Stores) -> None:
    async with opened(checkout="queue", stock=10) as shop:
        key = "a key/with?every&thing=in%it#1"
        assert (await shop.http.get("/purchases", params={"key": "nobody's"})).status_code == 404
        accepted = await shop.buy(key=(key := key.replace(" ", "+")), buyer="ann")
        assert stores.sold(HOT) == 0
        assert stores.redis.xlen(STREAM) == 1
        working = work()
        told = await outcome(shop, accepted)
        assert (told.status_code, told.json()["idempotency_key"]) == (200, key)
        # the key goes on to mean this purchase: another one of it is answered at once, another buyer's is refused
        again = await shop.buy(key=key, buyer="ann")
        assert (again.status_code, again.json()) == (201, told.json())
        assert kinds([await shop.buy(key=key, buyer="bob")]) == {(422, "key_reused"): 1}
        assert stores.sold(HOT) == 1
        assert stores.redis.xlen(STREAM) == 0
        # a ticket is in PostgreSQL, and known when Redis has forgotten
        stores.redis.delete(f"purchase:{key}")
        assert (await shop.http.get(accepted.headers["Location"])).json() == told.json()
        assert working.total("target_queue_tasks_total") == 1
        assert working.total("target_queue_wait_seconds_total") > 0


@one_way
@pytest.mark.parametrize("locking", ["atomic", "redis"])
async def test_who_comes_too_late_is_told_so(opened: Open, work: Work, stores: Stores, locking: str) -> None:
    async with opened(checkout="queue", stock=5, locking=locking, payment_ms=5) as shop:
        work(2, locking=locking, payment_url=shop.sale.settings.payment_url)
        accepted = [await shop.buy() for _ in range(12)]
        told = await asyncio.gather(*(outcome(shop, each) for each in accepted))
        assert kinds(list(told)) == {(200, ""): 5, (409, "sold_out"): 7}
        assert stores.sold(HOT) == 5
        unknown = await shop.buy(match_id=4000)
        assert kinds([await outcome(shop, unknown)]) == {(404, "unknown_match"): 1}


async def test_a_full_queue_refuses_and_takes_a_key_once(opened: Open, stores: Stores) -> None:
    async with opened(checkout="queue", queue_limit=3) as shop:
        answers = await asyncio.gather(*(shop.buy(key=f"k{number}") for number in range(20)))
        assert kinds(list(answers)) == {(202, ""): 3, (503, "queue_full"): 17}
        assert {each.headers["Retry-After"] for each in answers} == {"1"}
        first = next(number for number, each in enumerate(answers) if each.status_code == 202)
        assert (await shop.buy(key=f"k{first}")).status_code == 202
        assert stores.redis.xlen(STREAM) == 3
        assert (shop.outcome("queued"), shop.outcome("queue_full")) == (4, 17)


@one_way
async def test_nothing_is_lost_and_nothing_sold_twice_when_workers_are_killed(
    opened: Open, work: Work, stores: Stores
) -> None:
    async with opened(checkout="queue", stock=1000, payment_ms=150) as shop:
        levels = {
            "payment": "in_transaction",
            "payment_url": shop.sale.settings.payment_url,
            "queue_claim_s": 1,
            "queue_concurrency": 4,
        }
        accepted = [await shop.buy() for _ in range(40)]
        for _ in range(3):
            working = work(2, **levels)
            before = stores.sold(HOT)
            await until(lambda: stores.sold(HOT) >= before + 4 and pending(stores) > 0, "workers in mid-task")  # noqa: B023
            working.process.kill()  # with it, at once and by the kernel, its workers
            working.ended()
        assert 12 <= stores.sold(HOT) < 40
        working = work(2, **levels)
        told = await asyncio.gather(*(outcome(shop, each) for each in accepted))
        assert kinds(list(told)) == {(200, ""): 40}
        assert stores.sold(HOT) == 40
        assert stores.redis.xlen(STREAM) == pending(stores) == 0
        assert working.total("target_queue_claimed_total") > 0
        assert shop.charges is not None
        assert (shop.charges.counts["charged"], shop.charges.counts["refunded"]) == (40, 0)  # each key once


@one_way
async def test_an_entry_that_is_delivered_twice_sells_once(opened: Open, work: Work, stores: Stores) -> None:
    async with opened(checkout="queue") as shop:
        for _ in range(4):
            stores.redis.xadd(STREAM, {"__data__": packed(Order(HOT, "ann", "one key"))})
        working = work(2)
        await until(lambda: working.total("target_queue_tasks_total") == 4, "all entries done")
        assert stores.sold(HOT) == 1
        assert (await shop.http.get("/purchases", params={"key": "one key"})).status_code == 422  # a key has no spaces


@one_way
async def test_what_cannot_be_decided_is_tried_again_and_given_up_in_the_end(
    opened: Open, work: Work, stores: Stores
) -> None:
    limits = {"lock_timeout_s": 0.1, "queue_claim_s": 0.3, "queue_patience_s": 1.5}
    async with opened(checkout="queue") as shop:
        working = work(**limits)
        with locked(stores):
            accepted = await shop.buy()
            assert kinds([await outcome(shop, accepted)]) == {(503, "given_up"): 1}
        assert working.total("target_queue_claimed_total") > 0
        # the same key may be sent anew
        key = accepted.json()["idempotency_key"]
        assert (await outcome(shop, await shop.buy(key=key))).status_code == 200
        assert stores.sold(HOT) == 1


@one_way
async def test_one_worker_that_dies_ends_the_others(opened: Open, work: Work) -> None:
    async with opened(checkout="queue"):
        working = work(2)
        await until(lambda: working.total("target_loop_lag_samples_total") > 0, "at work")
        os.kill(working.workers()[1], signal.SIGKILL)
        status, said = working.ended()
        assert status == 1
        assert said.endswith("target_app: worker 2 was killed by SIGKILL: stopped all\n")


@one_way
async def test_workers_stop_when_they_are_told_to(opened: Open, work: Work, stores: Stores) -> None:
    async with opened(checkout="queue", payment_ms=300) as shop:
        working = work(payment_url=shop.sale.settings.payment_url)
        accepted = [await shop.buy() for _ in range(3)]
        await until(lambda: stores.redis.exists(STREAM) == 1 and pending(stores) == 3, "in mid-task")
        working.process.terminate()
        status, _ = await asyncio.to_thread(working.ended)  # the provider that it waits for is served here
        assert status == 0
        assert stores.sold(HOT) == 3  # what it had begun it has finished
        assert {(await outcome(shop, each)).status_code for each in accepted} == {200}


@one_way
async def test_a_redis_that_was_emptied_ends_the_workers_with_a_word(opened: Open, work: Work, stores: Stores) -> None:
    async with opened(checkout="queue"):
        working = work()
        await until(lambda: working.total("target_loop_lag_samples_total") > 0, "at work")
        stores.redis.flushdb()
        status, said = working.ended()
        assert status == 1
        assert "the stream of queued purchases is gone" in said


@one_way
async def test_without_a_queue_there_is_nothing_to_work_on(opened: Open, work: Work) -> None:
    async with opened() as shop:
        assert (await shop.http.get("/purchases", params={"key": uuid.uuid4().hex})).status_code == 404
        status, said = work(checkout="sync").ended()
        assert status == 1
        assert "TARGET_CHECKOUT is not queue" in said


@one_way
async def test_the_document_tells_of_the_queue_where_there_is_one(opened: Open) -> None:
    async with opened() as shop:
        paths = (await shop.http.get("/openapi.json")).json()["paths"]
        assert "/purchases" not in paths
        assert "202" not in paths["/matches/{match_id}/purchases"]["post"]["responses"]
    async with opened(checkout="queue", seed=False) as shop:
        paths = (await shop.http.get("/openapi.json")).json()["paths"]
        selling, telling = paths["/matches/{match_id}/purchases"]["post"], paths["/purchases"]["get"]
        for operation in (selling, telling):
            assert {"Location", "Retry-After"} == set(operation["responses"]["202"]["headers"])
        assert set(telling["responses"]) == {"200", "202", "402", "404", "409", "410", "422", "503"}
