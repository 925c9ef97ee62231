"""Hears from the engine how a stack's containers fare: who ended, and why. Nothing is asked while all is well."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any, Final

import requests

from ticketbench.stack.containers import bodies
from ticketbench.stack.containers.engine import DockerException, Engine, spoken

_EVENTS: Final = ("die", "oom", "pause")
_MEGABYTE: Final = 1024**2


class ContainerWatch:
    """The fates of the containers of one stack, from its making on. ``fate`` may be called from any thread.

    An event takes some milliseconds from the engine to here. Raises EnvironmentFailure where the engine does not tell.
    """

    def __init__(self, engine: Engine, stack_id: str) -> None:
        self._client = engine.another_client()
        self._lock = threading.Lock()
        self._fates: dict[str, str] = {}
        self._short_of_memory: set[str] = set()
        self._paused: set[str] = set()
        self._expected: set[str] = set()
        self._silent = False
        self._closed = False
        with spoken("tell what happens to containers"):
            self._events = self._client.events(
                decode=True,
                filters={"type": "container", "event": list(_EVENTS), "label": f"{bodies.STACK}={stack_id}"},
            )
        self._thread = threading.Thread(target=self._hear, name="containers", daemon=True)
        self._thread.start()

    def fate(self, container_id: str) -> str | None:
        """Return what became of a container that should run; None while it runs, as far as is known.

        One that was paused is let go on, so that what is left can be salvaged, and so this is told once.
        """
        with self._lock:
            if container_id in self._paused:
                self._paused.discard(container_id)
                with contextlib.suppress(DockerException, requests.RequestException):  # somebody else was quicker
                    self._client.api.unpause(container_id)
                return "it was paused (docker pause)"
            if container_id in self._fates:
                return self._fates[container_id]
            return "the Docker engine has gone away" if self._silent else None

    def expect(self, container_id: str) -> None:
        """Do not look after this container: what happens to it is planned."""
        with self._lock:
            self._expected.add(container_id)

    def look_after(self, container_id: str) -> None:
        """Look after it again."""
        with self._lock:
            self._expected.discard(container_id)

    def close(self) -> None:
        """Hear no more. Idempotent."""
        self._closed = True
        with contextlib.suppress(OSError, DockerException, requests.RequestException):
            self._events.close()
        self._client.close()

    def _hear(self) -> None:
        for event in self._heard():
            action, container_id = str(event.get("Action", "")), str(event.get("Actor", {}).get("ID", ""))
            attributes: dict[str, str] = event.get("Actor", {}).get("Attributes", {})
            with self._lock:
                self._take(action, container_id, attributes)
        with self._lock:
            self._silent = not self._closed

    def _heard(self) -> Iterator[dict[str, Any]]:
        with contextlib.suppress(OSError, DockerException, requests.RequestException, ValueError, AttributeError):
            yield from self._events

    def _take(self, action: str, container_id: str, attributes: dict[str, str]) -> None:
        if container_id in self._expected:
            return
        if action == "oom":
            # one of its processes may have been killed and the container live on: of a database that is its death too
            self._short_of_memory.add(container_id)
            self._fates.setdefault(container_id, "a process of it was killed for want of memory")
        elif action == "die":
            self._fates[container_id] = ended_text(
                attributes.get("exitCode", "?"), short_of_memory=container_id in self._short_of_memory
            )
        elif action == "pause":
            self._paused.add(container_id)


def ended_text(exit_code: str, *, short_of_memory: bool) -> str:
    """Return how a container ended, in words."""
    if short_of_memory:
        return "killed for want of memory"
    code = int(exit_code) if exit_code.isdecimal() else -1
    if 128 < code <= 128 + signal.SIGRTMAX:  # 255 is no signal, but what -1 comes to
        return f"killed by signal {code - 128}"
    return f"exit status {exit_code}"


def limit_text(limit_bytes: int) -> str:
    """Return a container's memory limit in words."""
    return f"its limit is {limit_bytes / _MEGABYTE:g} MiB" if limit_bytes else "it has no limit of its own"
