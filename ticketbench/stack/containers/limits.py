"""Carries out the factors of scope ``stack`` on containers: CPU and memory limits, and who runs on which cores."""

import os
from collections.abc import Iterable, Mapping
from typing import Final

from ticketbench import isolation
from ticketbench.errors import EnvironmentFailure
from ticketbench.fault_plan import PlannedFault
from ticketbench.isolation import CORES
from ticketbench.model import Level
from ticketbench.stack.confinement import SYSTEM, WHOLE_SYSTEM
from ticketbench.stack.containers import bodies
from ticketbench.stack.containers.engine import Engine
from ticketbench.stack.containers.project import Container, Project
from ticketbench.stack.replicas import component_of

BYTES_PER_MB: Final = 1024**2


def memory_bytes(levels: Mapping[str, Level], component: str) -> int | None:
    """Return the memory that a variant gives a component; None where it says nothing of a limit."""
    return round(float(levels.get(f"{component}_memory_mb", 0)) * BYTES_PER_MB) or None


def require(engine: Engine, variants: Iterable[Mapping[str, Level]], faults: Iterable[PlannedFault] = ()) -> None:
    """Raise EnvironmentFailure where this machine or its engine cannot do what a level or a fault asks for."""
    if any(fault.action == "cpu" for fault in faults) and not engine.limits_cpu:
        raise _cannot("limit a container's CPU", "no fault that does it")
    for levels in variants:
        if levels.get("pinning") == "split":
            isolation.split()
            if not engine.pins:
                raise _cannot("hold a container to cores", "pinning=none")
        if any(float(levels.get(f"{name}_cpus", 0)) for name in SYSTEM) and not engine.limits_cpu:
            raise _cannot("limit a container's CPU", "0 for app_cpus, postgres_cpus and redis_cpus")
        if any(memory_bytes(levels, name) for name in SYSTEM) and not engine.limits_memory:
            raise _cannot("limit a container's memory", "0 for app_memory_mb, postgres_memory_mb and redis_memory_mb")


def _cannot(what: str, instead: str) -> EnvironmentFailure:
    return EnvironmentFailure(
        f"the Docker engine's kernel cannot {what} (`docker info` warns of it)", f"use {instead}, or another machine"
    )


class Limits:
    """What the containers of one stack are held to. Nothing is touched until a level asks for it."""

    def __init__(self, engine: Engine, project: Project) -> None:
        self._engine = engine
        self._project = project
        self._cpus: dict[str, float] = {}
        self._memory: dict[str, int] = {}
        self._pinned = False

    def apply(self, levels: Mapping[str, Level], containers: Mapping[str, Container]) -> None:
        """Hold the containers to what ``levels`` say, ticketbench itself included. Raises EnvironmentFailure."""
        for container in _limitable(containers):
            of = component_of(container.service)
            self._limit(container, float(levels.get(f"{of}_cpus", 0)), memory_bytes(levels, of) or 0)
        if wanted := levels.get("pinning") == "split":
            split = isolation.split()
            for name, container in containers.items():
                ours = component_of(name) in WHOLE_SYSTEM
                self._project.update(container, bodies.pinned(split.system if ours else split.generator))
            isolation.pin(_ourselves(), split.generator)
        self._pinned = self._pinned or wanted

    def _limit(self, container: Container, cpus: float, size_bytes: int) -> None:
        name = container.service
        if cpus != self._cpus.get(name, 0):
            self._project.update(container, bodies.cpu_limit(cpus))
            self._cpus[name] = cpus
        if component_of(name) != "app" and size_bytes != self._memory.get(name, 0):
            self._project.update(container, bodies.memory_limit(size_bytes))
            self._memory[name] = size_bytes

    def made_with(self, name: str, size_bytes: int) -> None:
        """Note the memory that a component is held to from its making on, while it starts too; 0 for none."""
        self._memory[name] = size_bytes

    def lift(self, containers: Mapping[str, Container]) -> None:
        """Take all limits away from the containers that stay; the target is made anew without. Raises as above."""
        for name in [name for name in self._cpus if component_of(name) == "app"]:
            del self._cpus[name]
        for container in _limitable(containers):
            self._limit(container, 0, 0)
        if self._pinned:
            for container in containers.values():
                self._project.update(container, bodies.pinned(CORES))
            self.release()

    def release(self) -> None:
        """Let ticketbench itself use all cores again."""
        if self._pinned:
            self._pinned = False
            isolation.pin(_ourselves(), CORES)

    def memory_bytes(self, name: str) -> int:
        """Return the memory that a component is held to, 0 where it is not."""
        return self._memory.get(name, 0)

    @staticmethod
    def generator_cpuset(levels: Mapping[str, Level]) -> str:
        """Return the cores that k6's container is held to; empty for all."""
        return ",".join(map(str, isolation.split().generator)) if levels.get("pinning") == "split" else ""


def _limitable(containers: Mapping[str, Container]) -> list[Container]:
    return [container for name, container in containers.items() if component_of(name) in SYSTEM]


def _ourselves() -> tuple[int, ...]:
    from ticketbench.stack.process import descendants, identify

    root = identify(os.getpid())
    return () if root is None else (root.pid, *(process.pid for process in descendants((root,))))
