"""``checkout=queue`` on the local stack: a component that is scraped and missed, and what Redis keeps of the queue."""

import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from tests.integration.local_stacks import running_stack
from tests.integration.sampled import until
from ticketbench import factors
from ticketbench.binaries import Binaries
from ticketbench.ledger import read_ledger
from ticketbench.model import Level
from ticketbench.stack import Endpoints
from ticketbench.stack.idle import STREAM, drained
from ticketbench.stack.launch import Launcher, NoJournal
from ticketbench.stack.local import LocalStack
from ticketbench.stack.servers import RedisServer

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def stack(all_binaries: Binaries) -> Iterator[LocalStack]:
    """One stack for all tests; each applies its own variant."""
    with running_stack("queue", all_binaries, most_workers=1, most_queue_workers=2) as stack:
        yield stack


class Restarted(RedisServer):
    """Redis over the files of another, with its log, as whoever repairs the system would start it."""

    def _command(self) -> list[str]:
        return [*super()._command(), "--appendonly", "yes"]


def levels(**changed: Level) -> dict[str, Level]:
    return {**factors.defaults(), **changed}


def buy(endpoints: Endpoints, count: int) -> list[httpx.Response]:
    with httpx.Client(base_url=endpoints.base_url, timeout=30) as http:
        keys = [uuid.uuid4().hex for _ in range(count)]
        return [
            http.post("/matches/2/purchases", headers={"Idempotency-Key": key}, json={"buyer": key}) for key in keys
        ]


def pid_of(endpoints: Endpoints, name: str) -> int:
    return next(part.pid for part in endpoints.components if part.name == name)


def kinds(endpoints: Endpoints) -> Counter[str]:
    return Counter(row.kind for row in read_ledger(endpoints.own_access) if row.kind in ("ticket", "queued", "refused"))


def test_the_workers_are_a_component_and_do_what_was_queued(stack: LocalStack) -> None:
    endpoints = stack.apply(levels(checkout="queue", queue_workers=2))
    assert [part.name for part in endpoints.components] == ["postgres", "redis", "prometheus", "app", "worker"]
    assert set(endpoints.logs) == {"postgres", "redis", "prometheus", "app", "worker"}
    until(lambda: not endpoints.unscraped())
    assert {answer.status_code for answer in buy(endpoints, 20)} == {202}
    assert drained(endpoints.own_access.redis_url, deadline_s=30, working=lambda: not endpoints.dead()) == 0
    assert kinds(endpoints) == {"ticket": 20}
    assert endpoints.settings["redis.appendonly"] == "yes"
    assert endpoints.settings["redis.appendfsync"] == "everysec"

    plain = stack.apply(levels())
    assert [part.name for part in plain.components] == ["postgres", "redis", "prometheus", "app"]
    assert plain.settings["redis.appendonly"] == "no"
    assert {answer.status_code for answer in buy(plain, 3)} == {201}


def test_workers_that_die_are_named_and_what_they_left_is_told(stack: LocalStack) -> None:
    slow = levels(checkout="queue", payment_ms=10_000)
    endpoints = stack.apply(slow)
    assert {answer.status_code for answer in buy(endpoints, 15)} == {202}
    os.kill(pid_of(endpoints, "worker"), signal.SIGKILL)
    until(lambda: bool(stack.dead()))
    assert list(stack.dead()) == ["worker"]
    assert stack.dead()["worker"].startswith("killed by SIGKILL; ")
    began = time.monotonic()
    assert drained(endpoints.own_access.redis_url, deadline_s=30, working=lambda: not endpoints.dead()) == 15
    assert time.monotonic() - began < 5  # nobody will do it: that is not waited for
    assert kinds(endpoints) == {"queued": 15}
    assert stack.apply(slow).dead() == {}


def test_what_was_accepted_outlives_redis(stack: LocalStack, all_binaries: Binaries) -> None:
    """The last test of its stack, which has no Redis after it."""
    endpoints = stack.apply(levels(checkout="queue", payment_ms=10_000))
    assert {answer.status_code for answer in buy(endpoints, 25)} == {202}
    os.kill(pid_of(endpoints, "redis"), signal.SIGKILL)
    until(lambda: "redis" in stack.dead())
    left = stack._folder / "redis"
    again = Restarted(
        all_binaries.redis, left, Launcher("again", NoJournal(), ends_with_us=True), log=left / "again.log"
    )
    again.launch()
    try:
        again.await_ready()
        with again.client() as client:
            assert client.xlen(STREAM) == 25
    finally:
        again.stop()
