"""SQLAlchemy's queue pool, measured: who waits for a connection, for how long, and how long one is held."""

from time import perf_counter
from typing import Any

from sqlalchemy.exc import TimeoutError as PoolLimitReached
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry


class PoolFigures:
    """Counters since the start, written by the event loop's thread only, so that any thread may read them."""

    __slots__ = ("checkouts", "hold_s", "timeouts", "wait_s", "waiters")

    def __init__(self) -> None:
        self.checkouts = 0
        self.hold_s = 0.0
        self.timeouts = 0
        self.wait_s = 0.0
        self.waiters = 0


class MeasuredPool(AsyncAdaptedQueuePool):
    """The pool of a worker. Semantics are SQLAlchemy's; opening an overflow connection counts as waiting for it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.figures = PoolFigures()
        self._since: dict[ConnectionPoolEntry, float] = {}

    @property
    def limit(self) -> int:
        """Most connections at a time, overflow included."""
        return self.size() + self._max_overflow

    def _do_get(self) -> ConnectionPoolEntry:
        figures = self.figures
        began = perf_counter()
        figures.waiters += 1
        try:
            record = super()._do_get()
        except PoolLimitReached:
            figures.timeouts += 1
            raise
        finally:
            now = perf_counter()
            figures.waiters -= 1
            figures.wait_s += now - began
        figures.checkouts += 1
        self._since[record] = now
        return record

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        self.figures.hold_s += perf_counter() - self._since.pop(record)
        super()._do_return_conn(record)
