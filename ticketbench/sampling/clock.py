"""When each source is read: a fixed monotonic schedule that skips what it missed and says how late it was."""

import time
from collections.abc import Callable
from threading import Event
from typing import Final

# A thread wakes some milliseconds late on any busy machine; only what is beyond this is worth telling.
TOLERANCE_S: Final = 0.02


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
