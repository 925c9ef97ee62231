"""What a stack of our own needs of this machine: programs, and Docker's engine with its images where it is that one.

The Docker SDK is loaded only where it is wanted.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ticketbench import binaries as binaries_module
from ticketbench import factors
from ticketbench import plan as planning
from ticketbench.errors import EnvironmentFailure, UsageError
from ticketbench.events import Emit, Notice
from ticketbench.fault_plan import PlannedFault
from ticketbench.model import BinaryVersion, Level
from ticketbench.stack import companions, confinement
from ticketbench.stack.external import PARTS as EXTERNAL_PARTS
from ticketbench.stack.local import LocalStack

if TYPE_CHECKING:
    from ticketbench.stack.containers.engine import Engine
    from ticketbench.stack.containers.images import Image
    from ticketbench.stack.containers.stack import DockerStack


@dataclass(frozen=True)
class Ready:
    """An engine that answers and has all images."""

    engine: "Engine"
    images: "Mapping[str, Image]"

    @property
    def versions(self) -> tuple[BinaryVersion, ...]:
        """What the run's record says of the images."""
        from ticketbench.stack.containers.services import versions

        return versions(self.images)

    def require(self, variants: Iterable[Mapping[str, Level]], faults: Sequence[PlannedFault]) -> None:
        """Raise EnvironmentFailure where the engine cannot do what one of these levels or faults asks for."""
        from ticketbench.stack.containers import limits

        limits.require(self.engine, variants, faults)

    def with_services(self, services: Sequence[str], emit: Emit) -> "Ready":
        """Return the same with the images of further services. Raises EnvironmentFailure, naming what cannot be had."""
        from ticketbench.stack.compose_file import read_compose
        from ticketbench.stack.containers.images import Images

        more = Images(self.engine, emit).provide(read_compose(os.environ), services, self.images)
        return replace(self, images={**self.images, **more})

    def stack(
        self,
        run_id: str,
        k6: Path,
        variants: Sequence[Mapping[str, Level]],
        emit: Emit,
        *,
        keep: bool,
        faults: bool,
    ) -> "DockerStack":
        """Return the stack for these variants, not yet started."""
        from ticketbench.stack.compose_file import read_compose
        from ticketbench.stack.containers.stack import DockerStack

        return DockerStack(
            run_id,
            self.engine,
            self.images,
            k6,
            read_compose,
            emit,
            keep=keep,
            most_workers=max(int(levels.get("workers", 1)) for levels in variants),
            most_replicas=max(int(levels.get("replicas", 1)) for levels in variants),
            most_queue_workers=max(factors.queue_workers(levels) for levels in variants),
            faults=faults,
        )


def _ready_or_not(emit: Emit, *, fall_back: bool) -> Ready | None:
    """Return an engine with the images; None with a notice why not, if the local stack is to be fallen back on."""
    try:
        return _ready(emit)
    except EnvironmentFailure as error:
        if not fall_back:
            raise
        emit(Notice(f"measuring on the local stack, because not on Docker: {error.message}"))
        return None


def _ready(emit: Emit) -> Ready:
    from ticketbench import docker_socket

    docker_socket.reach(docker_socket.find())  # before anything heavy is loaded
    from ticketbench.stack.compose_file import read_compose
    from ticketbench.stack.containers.engine import connect
    from ticketbench.stack.containers.images import Images
    from ticketbench.stack.containers.services import SERVICES

    problems = _limits_behind_factors(os.environ)
    try:
        compose = read_compose(os.environ)
    except UsageError as error:
        raise UsageError(*error.problems, *problems, hint=error.hint) from error
    if problems:
        raise UsageError(*problems, hint="unset it, or use docker compose itself")
    engine = connect()
    return Ready(engine, Images(engine, emit).provide(compose, SERVICES))


def _limits_behind_factors(environ: Mapping[str, str]) -> list[str]:
    """Return what is wrong with variables that would limit a component while its factor says that it has no limit."""
    return [
        f"{name}={environ[name]} is for docker compose alone: a run is told by --set {component}_{factor}=..."
        for component in confinement.SYSTEM
        for family, factor in (("CPUS", "cpus"), ("MEMORY", "memory_mb"))
        if environ.get(name := f"TICKETBENCH_{family}_{component.upper()}", "") not in ("", "0")
    ]


@dataclass(frozen=True)
class Provided:
    """What is there for the stack called ``name``: programs, and the engine with its images where it is Docker's."""

    name: str
    binaries: binaries_module.Binaries
    docker: Ready | None = None

    @property
    def k6(self) -> Path:
        """A k6 of this machine: it reads scripts, and on a stack of processes it is the one that offers the load."""
        return self.binaries.k6

    @property
    def versions(self) -> tuple[BinaryVersion, ...]:
        """What the run's record says of the programs that take part."""
        return self.binaries.versions if self.docker is None else self.docker.versions

    def for_variants(
        self, variants: Sequence[Mapping[str, Level]], emit: Emit, faults: Sequence[PlannedFault] = ()
    ) -> "Provided":
        """Return the same with what only some variants need: PgBouncer, HAProxy, the provider's image.

        Raises EnvironmentFailure where this machine cannot do, or cannot get, what a level or a planned fault asks for.
        """
        if self.name == "external":
            return self
        optional = companions.all_wanted(variants)
        if self.docker is not None:
            self.docker.require(variants, faults)
            return replace(self, docker=self.docker.with_services(optional, emit))
        confinement.require(variants, faults)
        programs = [name for name in optional if name in binaries_module.OPTIONAL]  # the rest is our own
        return replace(self, binaries=self.binaries.and_more(binaries_module.provide(emit, programs)))

    def stack(
        self, run_id: str, variants: Sequence[Mapping[str, Level]], emit: Emit, *, keep: bool, faults: bool = False
    ) -> "LocalStack | DockerStack":
        """Return a stack of our own for these variants, not yet started; ``faults``: they will be done to it."""
        if self.docker is not None:
            return self.docker.stack(run_id, self.k6, variants, emit, keep=keep, faults=faults)
        most_workers = max(factors.processes(levels) for levels in variants)
        most_queued = max(factors.queue_workers(levels) for levels in variants)
        return LocalStack(
            run_id, self.binaries, emit, keep=keep, most_workers=most_workers, most_queue_workers=most_queued
        )


def provide(stack: str, emit: Emit) -> Provided:
    """Provide what ``stack`` needs; for ``auto`` what Docker needs, or else the local stack, saying why.

    Raises UsageError for a variable of compose.yaml that is wrong, EnvironmentFailure for what cannot be had.
    """
    if stack == "external":
        return Provided(stack, binaries_module.provide(emit, EXTERNAL_PARTS))
    ready = None if stack == "local" else _ready_or_not(emit, fall_back=stack == planning.AUTO)
    if ready is None:
        return Provided("local", binaries_module.provide(emit))
    return Provided("docker", binaries_module.provide(emit, ("k6",)), ready)
