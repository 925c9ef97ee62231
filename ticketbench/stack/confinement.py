"""Carries out the factors of scope ``stack``: pins a stack's components to cores, and limits their CPU."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from ticketbench import isolation
from ticketbench.errors import EnvironmentFailure
from ticketbench.fault_plan import PlannedFault
from ticketbench.isolation import CORES, CpuGroup
from ticketbench.model import Level
from ticketbench.stack.companions import OF_THE_SYSTEM as COMPANIONS
from ticketbench.stack.process import descendants, identify
from ticketbench.stack.replicas import component_of
from ticketbench.stack.state import StateFile

# The parts of the system under test that can be limited, each replica of the sale by itself.
SYSTEM: Final = ("app", "postgres", "redis")
# All of it. Whatever else is ours, k6, the sampler and the payment provider too, belongs to the load generator's side.
WHOLE_SYSTEM: Final = (*SYSTEM, *COMPANIONS)


def require(variants: Iterable[Mapping[str, Level]], faults: Iterable[PlannedFault] = ()) -> None:
    """Raise EnvironmentFailure, with what to do, where this machine cannot do what a level or a fault asks for."""
    if any(fault.action == "cpu" for fault in faults):
        isolation.parent()
    for levels in variants:
        if levels.get("pinning") == "split":
            isolation.split()
        if any(_limits(levels).values()):
            isolation.parent()


def _limits(levels: Mapping[str, Level]) -> dict[str, float]:
    return {name: float(levels.get(f"{name}_cpus", 0)) for name in SYSTEM}


class Confinement:
    """What the components of one stack are held to. Nothing is touched until a level asks for it."""

    def __init__(self, file: StateFile) -> None:
        self._file = file
        self._groups: dict[str, CpuGroup] = {}
        self._pinned = False

    def apply(self, levels: Mapping[str, Level], pids: Mapping[str, int]) -> None:
        """Hold the components with these root processes, and all below them, to what ``levels`` say.

        What they start later inherits it. Call it when they have started what they start, and no load is on: what is
        started meanwhile may escape. A level that is not there is lifted. Raises EnvironmentFailure.
        """
        with _spoken():
            limits = _limits(levels)
            for name in dict.fromkeys((*limits, *pids, *self._groups)):
                if component_of(name) in SYSTEM or name in self._groups:
                    self._limit(name, limits.get(component_of(name), 0.0), pids.get(name))
        self._pin(levels.get("pinning") == "split", pids)

    def limit(self, name: str, cpus: float, pid: int) -> None:
        """Hold one component to ``cpus`` from now on; 0 takes its limit away. Raises EnvironmentFailure."""
        with _spoken():
            self._limit(name, cpus, pid)

    def _limit(self, name: str, cpus: float, pid: int | None) -> None:
        group = self._groups.get(name)
        if group is None:
            if not cpus:
                return
            group = CpuGroup(isolation.parent() / f"{isolation.PREFIX}{self._file.state.stack_id}-{name}")
            # written down first: a group that nobody knows of would stay until the machine is started anew
            self._file.add_group(group.folder)
            group.make()
            self._groups[name] = group
        group.limit(cpus)
        if pid is not None:
            group.add(set(_tree(pid)) - set(group.pids()))

    def _pin(self, wanted: bool, pids: Mapping[str, int]) -> None:  # noqa: FBT001 - a state, not a switch
        if not wanted and not self._pinned:
            return
        self._pinned = wanted
        split = isolation.split() if wanted else None
        system = {pid for name, root in pids.items() if component_of(name) in WHOLE_SYSTEM for pid in _tree(root)}
        isolation.pin(system, CORES if split is None else split.system)
        isolation.pin(set(_tree(os.getpid())) - system, CORES if split is None else split.generator)

    def release(self) -> None:
        """Let ticketbench itself use all cores again; the components are being ended."""
        if self._pinned:
            self._pinned = False
            isolation.pin([os.getpid()], CORES)


@contextlib.contextmanager
def _spoken() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentFailure(
            f"the CPU of a component cannot be limited: {error.filename}: {error.strerror}",
            "`ticketbench doctor` tells what this machine can do",
        ) from error


def _tree(pid: int) -> tuple[int, ...]:
    root = identify(pid)
    return () if root is None else (pid, *(process.pid for process in descendants((root,))))
