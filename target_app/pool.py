"""What a pool of connections counts, and a pool that serves those who wait in the order in which they came."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Generic, Protocol, Self, TypeVar

from target_app.errors import PoolTimeout


class PoolFigures:
    """Counters since the start, written by the event loop's thread only, so that any thread may read them."""

    __slots__ = ("checkouts", "hold_s", "timeouts", "wait_s", "waiters")

    def __init__(self) -> None:
        self.checkouts = 0
        self.hold_s = 0.0
        self.timeouts = 0
        self.wait_s = 0.0
        self.waiters = 0


class Waiting:
    """Counts the wait for a connection: within the block somebody waits, and a ``timeout`` out of it is counted."""

    __slots__ = ("_began_s", "_figures", "_timeout", "ended_s")

    def __init__(self, figures: PoolFigures, timeout: type[Exception]) -> None:
        self._figures = figures
        self._timeout = timeout
        self._began_s = self.ended_s = 0.0

    def __enter__(self) -> Self:
        self._figures.waiters += 1
        self._began_s = perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.ended_s = perf_counter()
        self._figures.waiters -= 1
        self._figures.wait_s += self.ended_s - self._began_s
        if kind is not None and issubclass(kind, self._timeout):
            self._figures.timeouts += 1


class Pool(Protocol):
    """What the metrics read of a pool, from any thread."""

    figures: PoolFigures

    @property
    def limit(self) -> int:
        """Most connections at a time, overflow included."""

    def size(self) -> int:
        """Return the number of connections that are kept."""

    def checkedout(self) -> int:
        """Return the number of connections in use."""


class Pooled(Protocol):
    """A connection, as far as a pool is concerned."""

    def is_closed(self) -> bool:
        """Whether it is of no use any more."""

    def terminate(self) -> None:
        """End it at once, whatever is under way."""

    async def close(self, *, timeout: float) -> None:  # noqa: ASYNC109  (asyncpg's signature)
        """End it as the protocol asks for. Raises TimeoutError, OSError."""


C = TypeVar("C", bound=Pooled)

_CLOSE_S = 2.0


class FairPool(Generic[C]):
    """At most ``size + overflow`` connections, given out first come, first served. For one event loop.

    A connection that is given back goes straight to whoever has waited longest, so nobody who comes later can take it
    from them: under load the waits are alike, where an unfair pool makes most of them short and a few endless.
    What ``opener`` raises comes out of :meth:`get`.
    """

    def __init__(self, opener: Callable[[], Awaitable[C]], *, size: int, overflow: int, timeout_s: float) -> None:
        self.figures = PoolFigures()
        self.limit = size + overflow
        self._opener = opener
        self._size = size
        self._timeout_s = timeout_s
        self._slots = 0  # connections that are open or being opened
        self._idle: list[C] = []  # empty while anybody waits
        self._since: dict[C, float] = {}  # in use, and from when on
        # A waiter is given a connection, or None: a slot in which to open one.
        self._waiters: deque[asyncio.Future[C | None]] = deque()
        self._closing: set[asyncio.Task[None]] = set()

    def size(self) -> int:
        """Return the number of connections that are kept."""
        return self._size

    def checkedout(self) -> int:
        """Return the number of connections in use."""
        return len(self._since)

    async def open(self, prepare: Callable[[C], Awaitable[None]], *, spared: type[Exception] | None = None) -> None:
        """Open all connections that are kept and prepare each. Raises what the two raise, in a group.

        One that cannot be opened for the reason ``spared`` is left for when it is wanted.
        """
        async with asyncio.TaskGroup() as group:
            for _ in range(self._size):
                group.create_task(self._open_idle(prepare, spared))

    async def _open_idle(self, prepare: Callable[[C], Awaitable[None]], spared: type[Exception] | None) -> None:
        self._slots += 1
        try:
            connection = await self._open()
        except Exception as error:
            if spared is not None and isinstance(error, spared):
                return
            raise
        self._idle.append(connection)  # so that it is closed, should the next step fail
        await prepare(connection)

    async def get(self) -> C:
        """Return a connection, to be given to :meth:`put` or :meth:`drop` later. Raises PoolTimeout."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                self.figures.checkouts += 1
                self._since[connection] = perf_counter()
                return connection
            self._slots -= 1
        return await self._get_later()

    async def _get_later(self) -> C:
        with Waiting(self.figures, PoolTimeout) as waiting:
            connection: C | None = None
            if self._slots < self.limit:
                self._slots += 1
            else:
                connection = await self._wait()
            if connection is None:
                connection = await self._open()
        self.figures.checkouts += 1
        self._since[connection] = waiting.ended_s
        return connection

    async def _wait(self) -> C | None:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[C | None] = loop.create_future()
        timer = loop.call_later(self._timeout_s, _give_up, waiter)
        self._waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._pass_on(waiter.result())  # it came just too late for this request
            raise
        finally:
            timer.cancel()

    async def _open(self) -> C:
        """Return a new connection for a slot that is taken already; on failure the slot goes to whoever waits."""
        try:
            return await self._opener()
        except BaseException:
            self._pass_on(None)
            raise

    def put(self, connection: C) -> None:
        """Take back a connection that is fit for the next request."""
        self.figures.hold_s += perf_counter() - self._since.pop(connection)
        self._pass_on(None if connection.is_closed() else connection)

    def drop(self, connection: C) -> None:
        """Take back a connection that nobody must use again."""
        self.figures.hold_s += perf_counter() - self._since.pop(connection)
        connection.terminate()
        self._pass_on(None)

    def _pass_on(self, connection: C | None) -> None:
        """Give a connection, or the slot of one that is gone, to whoever has waited longest."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():  # it was cancelled, or has given up
                waiter.set_result(connection)
                return
        if connection is None:
            self._slots -= 1
        elif self._slots > self._size:
            self._slots -= 1
            self._close_later(connection)
        else:
            self._idle.append(connection)

    def _close_later(self, connection: C) -> None:
        task = asyncio.get_running_loop().create_task(_close(connection))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close all connections: what is in use is cut off."""
        idle, self._idle = self._idle, []
        for connection in self._since:
            connection.terminate()
        await asyncio.gather(*self._closing, *(_close(connection) for connection in idle))


def _give_up(waiter: "asyncio.Future[C | None]") -> None:
    if not waiter.done():
        waiter.set_exception(PoolTimeout())


async def _close(connection: Pooled) -> None:
    try:
        await connection.close(timeout=_CLOSE_S)
    except (TimeoutError, OSError):  # the server is gone or hangs
        connection.terminate()
