"""Watches the clocks while a trial runs: a wall clock that jumps, and a ticketbench that did not run."""

import time
from collections.abc import Callable
from typing import Final

from ticketbench.model import Disturbance

# Series of four sources are joined by the wall clock with a jitter of 0.1 s; a jump beyond it tears them apart. What
# NTP does in small steps moves both clocks alike and is not seen here.
CLOCK_STEP_S: Final = 0.1
# Looks come every fifth of a second. Even on a busy machine a process that only looks runs several times a second.
STANDSTILL_S: Final = 1.0
# Two readings that lie further apart were interrupted in between: they say nothing of each other.
_TOGETHER_S: Final = 0.01
_ATTEMPTS: Final = 100


def _steady() -> float:
    """Return seconds of a clock that nobody sets and that goes on while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class ClockWatch:
    """Compares the wall clock with a steady one at each :meth:`look`, which is to come every 0.2 s."""

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = _steady) -> None:
        self._wall = wall
        self._steady = steady
        self._found: list[Disturbance] = []
        self.begin()

    def begin(self) -> None:
        """Compare from now on: time that passed before, when nobody looked, is no standstill."""
        self._looked_s, self._ahead_s = self._read()

    def look(self) -> None:
        """Note what happened since the last look."""
        now_s, ahead_s = self._read()
        step_s = ahead_s - self._ahead_s
        if abs(step_s) > CLOCK_STEP_S:
            self._ahead_s = ahead_s
            self._note(
                "clock_step",
                now_s + ahead_s,
                step_s,
                f"the machine's clock was set {'forward' if step_s > 0 else 'back'} by {abs(step_s):.1f} s in"
                " mid-trial: series are joined by that clock, so they do not belong together",
            )
        gap_s = now_s - self._looked_s
        if gap_s > STANDSTILL_S:
            self._note(
                "standstill",
                self._looked_s + self._ahead_s,
                gap_s,
                f"ticketbench itself stood still for {gap_s:.1f} s in mid-trial (stopped, or the machine slept)",
            )
        self._looked_s = now_s

    def between(self, start_s: float, end_s: float) -> tuple[Disturbance, ...]:
        """Return what fell into the time from ``start_s`` to ``end_s`` (Unix seconds), in order.

        A clock that was set is always among it: times before and after it cannot be compared.
        """
        return tuple(
            found
            for found in self._found
            if found.kind == "clock_step" or (found.at_s < end_s and found.at_s + found.seconds > start_s)
        )

    def _note(self, kind: str, at_s: float, seconds: float, text: str) -> None:
        self._found.append(Disturbance.model_validate({"kind": kind, "at_s": at_s, "seconds": seconds, "text": text}))

    def _read(self) -> tuple[float, float]:
        """Return the steady clock, and how far the wall clock is ahead of it."""
        for _ in range(_ATTEMPTS):
            before = self._steady()
            wall = self._wall()
            after = self._steady()
            if after - before <= _TOGETHER_S:
                break
        return before, wall - (before + after) / 2
