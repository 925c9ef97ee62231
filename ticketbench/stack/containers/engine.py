"""The Docker engine, through its SDK: connected to, asked what it can do, and its refusals put into words.

The SDK is imported here and nowhere above, when a stack of containers is really wanted: it takes 0.14 s of CPU.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from ticketbench import docker_socket
from ticketbench.errors import EnvironmentFailure
from ticketbench.stack.process import is_disk_full

# Making and starting a container takes 0.5 s; on a machine whose disk is busy some seconds.
PATIENCE_S: Final = 60
DISK_HINT: Final = (
    "the disk of the Docker engine is full: `docker system df` tells what takes the room, prune some of it"
)
_TAKEN: Final = re.compile(r"port is already allocated|address already in use")
_IN_USE: Final = re.compile(r'name "/?([^"]+)" is already in use|network with name (\S+) already exists')


@dataclass(frozen=True)
class Engine:
    """An engine that answered. ``api`` is the version that it is spoken to in.

    ``limits_cpu``, ``limits_memory`` and ``pins`` tell what its kernel lets it hold a container to.
    """

    client: docker.DockerClient = field(repr=False)
    socket: str
    version: str
    api: str
    limits_cpu: bool
    limits_memory: bool
    pins: bool

    def another_client(self) -> docker.DockerClient:
        """Return a client of its own for a thread: one client's connections are not to be shared by several."""
        return client_at(self.socket, self.api)


def client_at(socket: str, api: str) -> docker.DockerClient:
    """Return a client for the engine at ``socket``; nothing is asked of it yet."""
    return docker.DockerClient(base_url=f"{docker_socket.UNIX}{socket}", version=api, timeout=PATIENCE_S)


def connect() -> Engine:
    """Return the engine of this machine.

    Raises EnvironmentFailure: there is none, it may not be used, it is a remote one or too old.
    """
    path = docker_socket.find()
    told = docker_socket.reach(path)
    client = client_at(path, told.api)
    with spoken("tell what it can do"):
        about: dict[str, Any] = client.info()
    return Engine(
        client=client,
        socket=path,
        version=told.engine,
        api=told.api,
        limits_cpu=bool(about.get("CpuCfsQuota", True)),
        limits_memory=bool(about.get("MemoryLimit", True)),
        pins=bool(about.get("CPUSet", True)),
    )


def here(container_id: str, pid: int) -> bool:
    """Tell whether a container's first process is the one that has this ``pid`` on this machine.

    It is not where the engine runs in a machine of its own (Docker Desktop), or ticketbench in a container.
    """
    try:
        return pid > 0 and container_id in Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return False


@contextlib.contextmanager
def spoken(doing: str, port_variable: str = "") -> Iterator[None]:
    """Turn the engine's refusal within the block, or its silence, into EnvironmentFailure.

    ``doing`` completes "the Docker engine cannot ...". ``port_variable`` is what names the port that is published.
    """
    try:
        yield
    except (DockerException, requests.RequestException) as error:
        raise failure(doing, error, port_variable) from error


def failure(doing: str, error: Exception, port_variable: str = "") -> EnvironmentFailure:
    """Return what to tell of an engine that refused what it was to be ``doing``."""
    if isinstance(error, requests.Timeout):
        return EnvironmentFailure(
            f"the Docker engine did not {doing} within {PATIENCE_S} s", "its log says why (journalctl -u docker)"
        )
    if isinstance(error, requests.ConnectionError):
        return EnvironmentFailure(
            f"the Docker engine went away when it was to {doing}", "its log says why (journalctl -u docker)"
        )
    said = " ".join(str(error.explanation if isinstance(error, APIError) and error.explanation else error).split())
    return EnvironmentFailure(f"the Docker engine cannot {doing}: {said[:600]}", advice(said, port_variable))


def advice(said: str, port_variable: str = "") -> str:
    """Return what to do about an engine that said this; empty where its own words are all there is."""
    words = said.lower()
    if is_disk_full(said):
        return DISK_HINT
    if _TAKEN.search(words):
        named = f", or set {port_variable} to another (0: a free one)" if port_variable else ""
        return f"another program listens at that port: end it{named}"
    if match := _IN_USE.search(said):
        return not_ours(match.group(1) or match.group(2))
    if "unable to set memory limit" in words:
        return "it uses more than that already: give it more"
    if "permission denied" in words:
        return "look at the engine's rights: group docker, AppArmor, SELinux"
    return ""


def not_ours(name: str) -> str:
    """Return what to do about a name that somebody else has taken."""
    return f"{name} is not ticketbench's and is left alone: rename or remove it"


def inside_advice(said: str) -> str:
    """Return what to do about a program in a container that ended with these words; empty where they say it all."""
    return DISK_HINT if is_disk_full(said) else ""


__all__ = [
    "APIError", "DockerException", "Engine", "ImageNotFound", "NotFound", "client_at", "connect", "here",
    "inside_advice", "not_ours", "spoken",
]  # fmt: skip
