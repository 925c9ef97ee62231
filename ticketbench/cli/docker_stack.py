"""Whether a run can be on the Docker stack, and what it needs for that. The SDK is loaded only where it is wanted."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ticketbench.errors import EnvironmentFailure
from ticketbench.events import Emit, Notice
from ticketbench.model import BinaryVersion, Level
from ticketbench.stack import Stack

if TYPE_CHECKING:
    from ticketbench.stack.containers.engine import Engine
    from ticketbench.stack.containers.images import Image


@dataclass(frozen=True)
class Ready:
    """An engine that answers and has all images."""

    engine: "Engine"
    images: "Mapping[str, Image]"

    @property
    def versions(self) -> tuple[BinaryVersion, ...]:
        """What the run's record says of the images."""
        from ticketbench.stack.containers.stack import versions

        return versions(self.images)

    def require(self, variants: Iterable[Mapping[str, Level]]) -> None:
        """Raise EnvironmentFailure where the engine cannot do what one of these levels asks for."""
        from ticketbench.stack.containers import limits

        limits.require(self.engine, variants)

    def stack(self, run_id: str, k6: Path, emit: Emit, *, keep: bool, most_workers: int) -> Stack:
        """Return the stack, not yet started."""
        from ticketbench.stack.compose_file import read_compose
        from ticketbench.stack.containers.stack import DockerStack

        return DockerStack(
            run_id, self.engine, self.images, k6, read_compose, emit, keep=keep, most_workers=most_workers
        )


def ready(emit: Emit, *, fall_back: bool) -> Ready | None:
    """Connect to the engine and provide the images. Raises UsageError for a variable of compose.yaml that is wrong.

    Where it cannot be had: None with a notice why, if the run is to ``fall_back`` on the local stack, else raises
    EnvironmentFailure.
    """
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
    from ticketbench.stack.containers.stack import SERVICES

    compose = read_compose(os.environ)
    engine = connect()
    return Ready(engine, Images(engine, emit).provide(compose, SERVICES))
