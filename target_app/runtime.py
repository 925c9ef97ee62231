"""How the event loop itself fares: its thread's CPU, its waits for a core, how late its timers fire, and GC."""

import asyncio
import gc
import threading
import time
from pathlib import Path
from time import perf_counter
from typing import Any, Final

TICK_S: Final = 0.02
_TICKS_A_SECOND: Final = round(1 / TICK_S)


class LoopWatch:
    """Follows the running loop from :meth:`start` to :meth:`stop`. Its figures may be read from any thread."""

    def __init__(self) -> None:
        self.lag_s = 0.0
        self.samples = 0
        self._recent = [0.0] * _TICKS_A_SECOND
        self._expected = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._clock: int | None = None
        self._schedstat: Path | None = None

    def start(self) -> None:
        """Begin, on the loop's own thread."""
        self._clock = time.pthread_getcpuclockid(threading.get_ident())
        self._schedstat = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
        self._arm(asyncio.get_running_loop())

    def stop(self) -> None:
        """End; the figures stay."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._clock = None  # the thread's clock is gone with the thread
        self._schedstat = None

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self._expected = perf_counter() + TICK_S
        self._timer = loop.call_later(TICK_S, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        lag = max(0.0, perf_counter() - self._expected)
        self.lag_s += lag
        self._recent[self.samples % _TICKS_A_SECOND] = lag
        self.samples += 1
        self._arm(loop)

    def max_lag_s(self) -> float:
        """Return the largest lag of about the last second, the one that is still growing included."""
        pending = perf_counter() - self._expected if self._timer is not None else 0.0
        return max(0.0, pending, *self._recent)

    def cpu_s(self) -> float:
        """Return the CPU seconds of the loop's thread; 0 before the start."""
        return 0.0 if self._clock is None else time.clock_gettime(self._clock)

    def run_delay_s(self) -> float | None:
        """Return the seconds that the loop's thread was runnable without a core; None where the kernel hides it."""
        if self._schedstat is None:
            return 0.0
        try:
            return int(self._schedstat.read_text().split()[1]) / 1e9
        except OSError:
            return None


class GcWatch:
    """Times the garbage collections of the process, all threads."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.collections = 0
        self._began: float | None = None

    def start(self) -> None:
        """Begin."""
        gc.callbacks.append(self._observe)

    def stop(self) -> None:
        """End; the figures stay."""
        if self._observe in gc.callbacks:
            gc.callbacks.remove(self._observe)

    def _observe(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self._began = perf_counter()
        elif self._began is not None:
            self.seconds += perf_counter() - self._began
            self.collections += 1
            self._began = None
