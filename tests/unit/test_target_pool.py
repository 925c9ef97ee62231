"""The fair pool: in order, within its limits, and without losing a connection to whoever gave up waiting."""

import asyncio
from itertools import pairwise

import pytest

from target_app.errors import PoolTimeout
from target_app.pool import FairPool


class Line:
    """A connection to nowhere."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.closed = False
        self.closed_gently = False

    def is_closed(self) -> bool:
        return self.closed

    def terminate(self) -> None:
        self.closed = True

    async def close(self, *, timeout: float) -> None:  # noqa: ASYNC109
        self.closed = self.closed_gently = True


class Exchange:
    """Opens lines, unless it is down."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.down = False

    async def open(self) -> Line:
        await asyncio.sleep(0)
        if self.down:
            raise ConnectionRefusedError
        self.lines.append(Line(len(self.lines)))
        return self.lines[-1]

    def pool(self, size: int = 1, overflow: int = 0, timeout_s: float = 60) -> FairPool[Line]:
        return FairPool(self.open, size=size, overflow=overflow, timeout_s=timeout_s)


async def ready(_: Line) -> None:
    """Need no preparation."""


async def settled() -> None:
    """Let every task that can run do so."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


async def test_who_comes_first_is_served_first_and_nobody_overtakes(exchange: Exchange) -> None:
    pool = exchange.pool(size=2)
    await pool.open(ready)
    served: list[int] = []

    async def use(number: int) -> None:
        line = await pool.get()
        served.append(number)
        await asyncio.sleep(0)
        pool.put(line)
        again = await pool.get()  # whoever has just been served stands at the end again
        served.append(100 + number)
        pool.put(again)

    await asyncio.gather(*(use(number) for number in range(20)))
    assert served == [*range(20), *range(100, 120)]
    assert (pool.figures.checkouts, pool.figures.waiters, pool.checkedout(), len(exchange.lines)) == (40, 0, 0, 2)


async def test_nobody_waits_for_ever(exchange: Exchange) -> None:
    pool = exchange.pool(timeout_s=0.02)
    line = await pool.get()
    with pytest.raises(PoolTimeout):
        await pool.get()
    assert (pool.figures.timeouts, pool.figures.waiters) == (1, 0)
    assert pool.figures.wait_s >= 0.02
    pool.put(line)  # not to the one that has given up
    assert await pool.get() is line


async def test_overflow_is_opened_at_need_and_closed_after(exchange: Exchange) -> None:
    pool = exchange.pool(size=1, overflow=2)
    await pool.open(ready)
    assert (pool.size(), pool.limit, len(exchange.lines)) == (1, 3, 1)
    lines = [await pool.get() for _ in range(3)]
    assert pool.checkedout() == 3
    for line in lines:
        pool.put(line)
    await settled()
    assert [line.closed_gently for line in lines] == [True, True, False]
    assert await pool.get() is lines[2]


async def test_a_line_for_somebody_who_has_just_left_goes_to_the_next(exchange: Exchange) -> None:
    pool = exchange.pool()
    line = await pool.get()
    first, second = asyncio.create_task(pool.get()), asyncio.create_task(pool.get())
    await settled()
    pool.put(line)  # it is the first one's from now on, who does not know yet
    first.cancel()
    assert await second is line
    assert first.cancelled()
    pool.put(line)
    assert (pool.checkedout(), pool.figures.waiters) == (0, 0)


async def test_who_leaves_while_waiting_is_forgotten(exchange: Exchange) -> None:
    pool = exchange.pool()
    line = await pool.get()
    waiting = asyncio.create_task(pool.get())
    await settled()
    assert pool.figures.waiters == 1
    waiting.cancel()
    await settled()
    pool.put(line)
    assert (pool.figures.waiters, await pool.get()) == (0, line)


async def test_a_dropped_line_is_replaced_for_whoever_waits(exchange: Exchange) -> None:
    pool = exchange.pool()
    line = await pool.get()
    waiting = [asyncio.create_task(pool.get()) for _ in range(2)]
    await settled()
    pool.drop(line)
    assert line.closed
    other = await waiting[0]
    assert other is not line
    pool.put(other)
    assert await waiting[1] is other


async def test_a_line_that_went_dead_is_not_given_out(exchange: Exchange) -> None:
    pool = exchange.pool(size=2)
    await pool.open(ready)
    for line in exchange.lines:
        line.closed = True
    alive = [await pool.get(), await pool.get()]
    assert [line.number for line in alive] == [2, 3]
    alive[0].closed = True
    pool.put(alive[0])  # died in use
    assert (await pool.get()).number == 4


async def test_when_none_can_be_opened_each_is_told_and_none_hangs(exchange: Exchange) -> None:
    pool = exchange.pool(size=2)
    await pool.open(ready)
    lines = [await pool.get(), await pool.get()]
    waiting = [asyncio.create_task(pool.get()) for _ in range(6)]
    await settled()
    exchange.down = True
    for line in lines:
        pool.drop(line)
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(end) for end in ends} == {ConnectionRefusedError}
    exchange.down = False
    again = [await pool.get(), await pool.get()]  # and no place was lost
    assert pool.checkedout() == len(again) == 2


async def test_a_pool_that_cannot_be_opened_says_why(exchange: Exchange) -> None:
    exchange.down = True
    with pytest.raises(ExceptionGroup) as caught:
        await exchange.pool(size=3).open(ready)
    assert caught.group_contains(ConnectionRefusedError)


async def test_the_end_closes_what_is_idle_and_cuts_off_what_is_not(exchange: Exchange) -> None:
    pool = exchange.pool(size=3)
    await pool.open(ready)
    used = await pool.get()
    await pool.close()
    assert all(line.closed for line in exchange.lines)
    assert [line.closed_gently for line in exchange.lines] == [line is not used for line in exchange.lines]


async def test_seconds_add_up(exchange: Exchange) -> None:
    pool = exchange.pool()
    began = asyncio.get_running_loop().time()
    waits = [0.0]
    for _ in range(3):
        line = await pool.get()
        waiting = asyncio.create_task(pool.get())
        await asyncio.sleep(0.01)
        pool.put(line)
        pool.put(await waiting)
        waits.append(pool.figures.wait_s)
    passed = asyncio.get_running_loop().time() - began
    assert all(later - earlier >= 0.009 for earlier, later in pairwise(waits))
    assert 0.027 <= pool.figures.hold_s <= passed
