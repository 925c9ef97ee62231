"""Watches a trial while it runs: who died, who was stopped, what the clocks did, and who else used the machine."""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Final, Self

from ticketbench import interrupts
from ticketbench.clocks import ClockWatch
from ticketbench.model import Disturbance
from ticketbench.sampler_process import SamplerProcess
from ticketbench.stack import Endpoints
from ticketbench.stack.neighbours import Neighbours
from ticketbench.stack.stopped import StoppedWatch, failure

CLOCK_PERIOD_S: Final = 0.2
NEIGHBOURS_PERIOD_S: Final = 2.0


class TrialWatch:
    """What surrounds one trial, from the target's readiness on. As a context manager it watches clocks and neighbours.

    Components are looked at when asked: :meth:`fault` in the load's own loop, :meth:`guarding` around whatever waits
    for an answer. A component that was stopped is told once and let go on, so that what is left can be salvaged.
    """

    def __init__(self, endpoints: Endpoints, sampler: SamplerProcess) -> None:
        self._endpoints = endpoints
        self._sampler = sampler
        self._k6: dict[str, int] = {}
        self._stopped = StoppedWatch(self._roots)
        self._clocks = ClockWatch()
        self._neighbours = Neighbours()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._clocks.begin()
        with interrupts.deferred():  # whole, so that __exit__ finds a thread that has begun
            self._neighbours.look(time.time())
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        self._clocks.look()
        self._neighbours.look(time.time())

    def k6_started(self, pid: int) -> None:
        """Watch this process as k6 from now on."""
        self._k6 = {"k6": pid}

    def fault(self) -> str | None:
        """Return why the load cannot go on: a component died or was stopped. None where all is well."""
        dead = self._endpoints.dead()
        if not self._sampler.alive():
            dead = {**dead, "the sampler": "see sampler.log"}
        said = [f"{name} died in mid-trial: {why}" for name, why in dead.items()]
        said += [text for name, text in self._stopped.look().items() if name not in dead]
        return "; ".join(said) or None

    def guarding(self) -> AbstractContextManager[None]:
        """Raise EnvironmentFailure within the block where a component is stopped, whatever the block waits for."""
        return interrupts.watching(failure(self._stopped))

    def disturbances(self, start_s: float, end_s: float) -> tuple[Disturbance, ...]:
        """Return what came over the trial whose load ran from ``start_s`` to ``end_s`` (Unix seconds)."""
        return (*self._clocks.between(start_s, end_s), *self._neighbours.between(start_s, end_s))

    def _roots(self) -> dict[str, int]:
        components = {component.name: component.pid for component in self._endpoints.components if component.ours}
        return {**components, "sampler": self._sampler.pid, **self._k6}

    def _watch(self) -> None:
        neighbours = _Every(NEIGHBOURS_PERIOD_S)
        while not self._done.wait(CLOCK_PERIOD_S):
            self._clocks.look()
            if neighbours.due():
                self._neighbours.look(time.time())


class _Every:
    """Tells when a period has passed since it last did."""

    def __init__(self, period_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._period_s = period_s
        self._clock = clock
        self._last_s = clock()

    def due(self) -> bool:
        if (now_s := self._clock()) - self._last_s < self._period_s:
            return False
        self._last_s = now_s
        return True
