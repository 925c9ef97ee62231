"""The phases of a trial's load as series, so that whoever looks at the run's Prometheus sees where its window lay."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from ticketbench.sampling.push import Sample

Slope = tuple[float, float, float, float]  # its start and end in seconds, and the rates there, per second
_Series = tuple[str, tuple[tuple[str, str], ...]]

ANY_REQUEST: Final = ".+"
_KEY: Final = "phase"


@dataclass(frozen=True)
class LoadPhase:
    """What the load is at. ``trial`` is the label of its series; ``goal`` None: every request's success is goodput.

    ``offered`` is what it offers, in seconds since the phase's begin; empty where that is not known.
    """

    trial: str
    variant: str
    phase: str
    goal: str | None
    offered: tuple[Slope, ...] = ()

    @classmethod
    def parse(cls, raw: dict[str, Any]) -> Self:
        """Read what :func:`command` wrote. Raises KeyError, TypeError or ValueError."""
        return cls(
            trial=str(raw["trial"]),
            variant=str(raw["variant"]),
            phase=str(raw["phase"]),
            goal=None if raw["goal"] is None else str(raw["goal"]),
            offered=tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in raw["offered"]),
        )


def command(phase: LoadPhase | None) -> dict[str, Any]:
    """Return the sampler's command that a phase has begun; None: the load is over."""
    return {_KEY: None if phase is None else asdict(phase)}


def offered_at(slopes: Iterable[Slope], at_s: float) -> float:
    """Return the iterations offered per second at a time, which counts from where the slopes' do."""
    return sum(
        from_per_s + (to_per_s - from_per_s) * (at_s - start_s) / (end_s - start_s)
        for start_s, end_s, from_per_s, to_per_s in slopes
        if start_s <= at_s < end_s
    )


class Phases:
    """The phase that holds: 1 while it does, and a last 0 when it is over. Use from any thread.

    Without that 0 Prometheus would repeat the 1 for five minutes, long after the window.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._now: LoadPhase | None = None
        self._began_s = 0.0
        self._shown: set[_Series] = set()

    def take(self, line: str) -> bool:
        """Take in a line of stdin if it is a phase, and say whether it was. Raises ValueError for a garbled one."""
        try:
            raw = json.loads(line)
            if not isinstance(raw, dict) or _KEY not in raw:
                return False
            phase = None if raw[_KEY] is None else LoadPhase.parse(raw[_KEY])
        except json.JSONDecodeError:
            return False
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a phase: {line.strip()[:200]}") from error
        with self._lock:
            self._now, self._began_s = phase, self._clock()
        return True

    def samples(self) -> list["Sample"]:
        """Return what holds now, and a 0 for what did at the last call and does no longer."""
        with self._lock:
            now = self._figures(self._now)
            over = self._shown - now.keys()
            self._shown = set(now)
        return [*((name, labels, 0.0) for name, labels in sorted(over)), *((*key, now[key]) for key in now)]

    def end(self) -> list["Sample"]:
        """Return the last samples: nothing holds any longer."""
        with self._lock:
            self._now = None
        return self.samples()

    def _figures(self, phase: LoadPhase | None) -> dict[_Series, float]:
        if phase is None:
            return {}
        goal = ANY_REQUEST if phase.goal is None else re.escape(phase.goal)
        labels = (("goal", goal), ("phase", phase.phase), ("trial", phase.trial), ("variant", phase.variant))
        found: dict[_Series, float] = {("tb_trial_phase", labels): 1.0}
        if phase.offered:
            offered_per_s = offered_at(phase.offered, self._clock() - self._began_s)
            found["tb_trial_offered_per_s", (("trial", phase.trial),)] = offered_per_s
        return found
