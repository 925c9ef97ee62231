"""Replicas of the sale: what they are called, and on the local stack their processes, started and ended together."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from ticketbench import factors
from ticketbench.model import Level
from ticketbench.stack.launch import Launcher
from ticketbench.stack.target import Target

SALE: Final = "app"
MOST: Final = int(factors.CATALOGUE["replicas"].high)


def replica(number: int) -> str:
    """Return the name of a replica of the sale, counted from 1; the only one is ``app``."""
    return SALE if number == 1 else f"{SALE}-{number}"


def replicas(levels: Mapping[str, Level]) -> tuple[str, ...]:
    """Return the names of a variant's replicas."""
    return tuple(replica(number) for number in range(1, int(levels.get("replicas", 1)) + 1))


def component_of(name: str) -> str:
    """Return what a part of the stack counts as: all replicas of the sale are one component, others are themselves."""
    return SALE if name in _OTHERS else name


_OTHERS: Final = frozenset(replica(number) for number in range(2, MOST + 1))


class Replicas:
    """The sale's processes on the local stack: a :class:`Target` for each replica, all started with the same levels."""

    def __init__(self, folder: Path, launcher: Launcher, logs: Path) -> None:
        self._folder = folder
        self._launcher = launcher
        self._logs = logs
        self._made: dict[str, Target] = {}
        self._names: tuple[str, ...] = ()

    def launch(self, names: Sequence[str], env: Mapping[str, str], metrics_ports: Sequence[int]) -> None:
        """Start a replica of each name, without waiting; each has its even share of ``metrics_ports``, one a worker.

        Raises EnvironmentFailure.
        """
        self._names = tuple(names)
        workers = len(metrics_ports) // len(names)
        for number, name in enumerate(names):
            if name not in self._made:
                log = self._logs / f"{name}.log"
                self._made[name] = Target(self._folder, self._launcher, log=log, component=name)
            self._made[name].launch(env, metrics_ports[number * workers : (number + 1) * workers])

    def await_ready(self) -> None:
        """Return when all of them can sell. Raises EnvironmentFailure, MetricsPortBusyError."""
        for target in self.each():
            target.await_ready()

    def each(self) -> Iterator[Target]:
        """Yield those that this variant has."""
        return (self._made[name] for name in self._names)

    def stop(self) -> None:
        """End all of them, whatever becomes of one. Idempotent."""
        with contextlib.ExitStack() as ending:
            for target in self._made.values():
                ending.callback(target.stop)

    def forget(self) -> None:
        """Take none of them for dead: they were ended by somebody else, on purpose."""
        for target in self._made.values():
            target.launched = None
