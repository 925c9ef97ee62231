"""When each source is read: a fixed monotonic schedule that skips what it missed and says how late it was.

Also what happened to time itself meanwhile: the sampler did not run, or somebody set the machine's clock.
"""

import time
from collections.abc import Callable
from threading import Event
from typing import Final

# A thread wakes some milliseconds late on any busy machine; only what is beyond this is worth telling.
TOLERANCE_S: Final = 0.02
# A thread that only has to wake was never this late on a machine with two busy cores: the process was stopped, the
# machine slept, or there was no core for it at all.
GAP_S: Final = 0.5
# A clock that is slewed moves by half a millisecond a second at most; this was set.
STEP_S: Final = 0.05
# Two readings further apart than this were interrupted in between: they say nothing of each other.
_TOGETHER_S: Final = 0.005
_ATTEMPTS: Final = 20


def every(
    period_s: float, phase_s: float, tick: Callable[[], None], stop: Event, late: Callable[[float], None]
) -> None:
    """Call ``tick`` once each period until ``stop`` is set; the first call is where the wall clock has ``phase_s``.

    Deadlines are multiples of the period on the monotonic clock, so they never drift. A tick that overruns makes the
    next one late (``late`` gets the seconds); whole periods that were missed are skipped, never caught up in a burst.
    """
    due = time.monotonic() + (phase_s - time.time()) % period_s
    while not stop.wait(max(0.0, due - time.monotonic())):
        behind = time.monotonic() - due
        if behind > TOLERANCE_S:
            late(behind)
        tick()
        due += period_s
        missed = (time.monotonic() - due) // period_s
        if missed > 0:
            late(missed * period_s)
            due += missed * period_s


class Time:
    """What happened to time since it was made, seen by a :meth:`look` once each period. Use from one thread.

    ``gap_s`` are the seconds in which this process did not run beyond a period, ``stepped_s`` those by which the wall
    clock was set, forward or back. Both only grow.
    """

    def __init__(
        self, period_s: float, wall: Callable[[], float] = time.time, steady: Callable[[], float] | None = None
    ) -> None:
        self.gap_s = 0.0
        self.stepped_s = 0.0
        self._period_s = period_s
        self._wall = wall
        self._steady = steady or _steady
        self._looked_s, self._ahead_s = self._read()

    def look(self) -> None:
        """Add what happened since the last look."""
        now_s, ahead_s = self._read()
        behind_s = now_s - self._looked_s - self._period_s
        self._looked_s = now_s
        if behind_s > GAP_S:
            self.gap_s += behind_s
        step_s = abs(ahead_s - self._ahead_s)
        self._ahead_s = ahead_s
        if step_s > STEP_S:
            self.stepped_s += step_s

    def _read(self) -> tuple[float, float]:
        """Return the steady clock, and how far the wall clock is ahead of it."""
        for _ in range(_ATTEMPTS):
            before_s = self._steady()
            wall_s = self._wall()
            after_s = self._steady()
            if after_s - before_s <= _TOGETHER_S:
                break
        return before_s, wall_s - before_s


def _steady() -> float:
    """Return a clock that nobody sets and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
