"""What the sampler says about itself: to Prometheus as figures, and of each trouble one line on stderr."""

import contextlib
import json
import sys
import threading
import time
from typing import Final

from ticketbench.sampling.clock import Time
from ticketbench.sampling.counters import Counters
from ticketbench.sampling.push import Sample

# A server that gives no answer for so long is told of. It is not given up: a stopped one answers when it goes on, and a
# killed one breaks the connection.
_PATIENCE_S: Final = 2.5


def tell(**line: object) -> None:
    """Write one JSON line to stderr."""
    with contextlib.suppress(OSError, ValueError):  # nobody listens any more
        sys.stderr.write(json.dumps(line) + "\n")
        sys.stderr.flush()


class Health:
    """What the sampler says about itself. Each source tells its trouble once, and once that it is over."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ticks: Counters[str] = Counters()
        self._late_s = 0.0
        self._troubled: set[str] = set()
        self._asked_s: dict[str, float] = {}
        for what in ("proc", "waits", "postgres", "redis"):
            self._ticks.add(what, 0.0)

    def late(self, seconds: float) -> None:
        """Add to how late ticks began."""
        with self._lock:
            self._late_s += seconds

    def asked(self, what: str) -> None:
        """Note that a source was asked just now; :meth:`ticked` or :meth:`trouble` is its answer."""
        with self._lock:
            self._asked_s[what] = time.monotonic()

    def tell_silent(self) -> None:
        """Tell which sources were asked long ago and have not answered."""
        now_s = time.monotonic()
        with self._lock:
            silent = [what for what, since_s in self._asked_s.items() if now_s - since_s > _PATIENCE_S]
        for what in silent:
            self.trouble(what, TimeoutError(f"no answer for {_PATIENCE_S:g} s; still waiting"), answered=False)

    def ticked(self, what: str) -> None:
        """Note that a source has answered; that it does again is told."""
        with self._lock:
            self._asked_s.pop(what, None)
            self._ticks.add(what, 1.0)
            recovered = what in self._troubled
            self._troubled.discard(what)
        if recovered:
            tell(recovered=what, at=time.time())

    def trouble(self, what: str, error: Exception, *, answered: bool = True) -> None:
        """Tell that a source has failed, or with ``answered`` false not answered; once until it answers again."""
        with self._lock:
            if answered:
                self._asked_s.pop(what, None)
            new = what not in self._troubled
            self._troubled.add(what)
        if new:
            tell(error=" ".join(str(error).split()), source=what, at=time.time())

    def samples(self, push_failures: int, happened: Time) -> list[Sample]:
        """Return the figures of the sampler itself."""
        with self._lock:
            ticks: list[Sample] = [
                ("tb_sampler_ticks_total", (("what", what),), count) for what, count in self._ticks.items()
            ]
            return [
                *ticks,
                ("tb_sampler_late_seconds_total", (), self._late_s),
                ("tb_sampler_push_failures_total", (), push_failures),
                ("tb_sampler_gap_seconds_total", (), happened.gap_s),
                ("tb_sampler_clock_step_seconds_total", (), happened.stepped_s),
            ]
