"""Watches a trial: who died, who was stopped, what the clocks did, who else used the machine, and what is scraped."""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Final, Self

from ticketbench import interrupts
from ticketbench.clocks import ClockWatch
from ticketbench.errors import EnvironmentFailure
from ticketbench.model import Disturbance
from ticketbench.sampler_process import SamplerProcess
from ticketbench.stack import Endpoints
from ticketbench.stack.neighbours import Neighbours
from ticketbench.stack.protocol import Component
from ticketbench.stack.stopped import StoppedWatch, failure

CLOCK_PERIOD_S: Final = 0.2
NEIGHBOURS_PERIOD_S: Final = 2.0
# Prometheus tells its scraper of targets 5 to 6 s after its own start (measured, 2.42). A warm-up of this length may
# begin before that: the sale has by then been starting for some seconds.
SCRAPED_WITHIN_S: Final = 5.0
# Two rounds of these 5 s, and some for a slow machine.
SCRAPE_LIMIT_S: Final = 30.0
SCRAPE_POLL_S: Final = 0.1


class TrialWatch:
    """What surrounds one trial, from the target's readiness on. As a context manager it watches clocks and neighbours.

    Components are looked at when asked: :meth:`accident` in the load's own loop, :meth:`guarding` around whatever waits
    for an answer. A component that was stopped is told once and let go on, so that what is left can be salvaged.
    A sale that Prometheus does not scrape by the window's begin is an accident too, for its figures would be missing.
    """

    def __init__(self, endpoints: Endpoints, sampler: SamplerProcess) -> None:
        self._endpoints = endpoints
        self._sampler = sampler
        self._k6: dict[str, int] = {}
        self._pids = {component.name: component.pid for component in endpoints.components if component.ours}
        self._expected: set[str] = set()
        self._stopped = StoppedWatch(self._roots)
        self._clocks = ClockWatch()
        self._neighbours = Neighbours()
        self._done = threading.Event()
        self._scrapes = _Scrapes(endpoints)
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._clocks.begin()
        with interrupts.deferred():  # whole, so that __exit__ finds a thread that has begun
            self._neighbours.look(time.time())
            self._thread.start()
            self._scrapes.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        self._scrapes.stop()
        self._clocks.look()
        self._neighbours.look(time.time())

    def k6_started(self, pid: int) -> None:
        """Watch this process as k6 from now on."""
        self._k6 = {"k6": pid}

    def await_scraped(self) -> None:
        """Wait until Prometheus scrapes the sale. Raises EnvironmentFailure: it does not, or a component failed."""
        give_up_s = time.monotonic() + SCRAPE_LIMIT_S
        with self.guarding():
            while missing := self._scrapes.ask():
                if dead := self._dead():
                    raise EnvironmentFailure("; ".join(dead.values()))
                if time.monotonic() > give_up_s:
                    raise EnvironmentFailure(
                        f"Prometheus does not scrape the sale's workers within {SCRAPE_LIMIT_S:g} s ({missing})",
                        "is the machine overloaded? look at it and try again",
                    )
                time.sleep(SCRAPE_POLL_S)

    def window_begins(self) -> None:
        """From now on it is an accident where the sale is not scraped."""
        self._scrapes.due = True

    def expect(self, name: str) -> None:
        """Do not look after this component: what happens to it is planned."""
        self._expected.add(name)

    def back(self, component: Component) -> None:
        """Look after it again, and have the sampler count its new processes. Raises EnvironmentFailure."""
        self._expected.discard(component.name)
        if self._pids.get(component.name, component.pid) != component.pid:
            self._pids[component.name] = component.pid
            self._sampler.watch(component.name, component.pid)

    def accident(self) -> str | None:
        """Return why the load cannot go on: a component died, was stopped or is not scraped. None where all is well.

        What is planned (:meth:`expect`) is no accident.
        """
        dead = self._dead()
        said = [*dead.values(), *(text for name, text in self._stopped.look().items() if name not in dead)]
        if not said and (missing := self._scrapes.missing()):
            said.append(f"Prometheus had not scraped the sale's workers when the window began ({missing})")
        return "; ".join(said) or None

    def _dead(self) -> dict[str, str]:
        dead = {name: why for name, why in self._endpoints.dead().items() if name not in self._expected}
        if not self._sampler.alive():
            dead = {**dead, "the sampler": "see sampler.log"}
        return {name: f"{name} died in mid-trial: {why}" for name, why in dead.items()}

    def guarding(self) -> AbstractContextManager[None]:
        """Raise EnvironmentFailure within the block where a component is stopped, whatever the block waits for."""
        return interrupts.watching(failure(self._stopped))

    def disturbances(self, start_s: float, end_s: float) -> tuple[Disturbance, ...]:
        """Return what came over the trial whose load ran from ``start_s`` to ``end_s`` (Unix seconds)."""
        return (*self._clocks.between(start_s, end_s), *self._neighbours.between(start_s, end_s))

    def _roots(self) -> dict[str, int]:
        components = {name: pid for name, pid in self._pids.items() if name not in self._expected}
        return {**components, "sampler": self._sampler.pid, **self._k6}

    def _watch(self) -> None:
        neighbours = _Every(NEIGHBOURS_PERIOD_S)
        while not self._done.wait(CLOCK_PERIOD_S):
            self._clocks.look()
            if neighbours.due():
                self._neighbours.look(time.time())


class _Scrapes:
    """Asks until the sale is scraped. In a thread of its own: a Prometheus that hangs must not hold up the watching."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.due = False
        self._unscraped = endpoints.unscraped
        self._missing = "it was not asked"
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._work, name="scrapes", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()

    def ask(self) -> str:
        """Return what is not scraped yet, empty when all is. Raises EnvironmentFailure."""
        self._missing = self._unscraped()
        return self._missing

    def missing(self) -> str:
        """Return what is not scraped though it is due; empty where all is well."""
        return self._missing if self.due else ""

    def _work(self) -> None:
        while self._missing and not self._done.wait(SCRAPE_POLL_S):
            try:
                self.ask()
            except EnvironmentFailure as error:  # if it is dead, that is told by whoever looks for the dead
                self._missing = error.message


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
