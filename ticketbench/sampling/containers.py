"""CPU, throttling and memory of components that run as containers, as the Docker engine tells them once a second.

The engine measures by a clock of its own, so a figure is up to a second old when it is asked for by the full second; it
carries the time of its arrival. It holds all that the container's control group holds, `docker exec` too.
"""

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from ticketbench.docker_socket import SocketConnection
from ticketbench.sampling.counters import Counters
from ticketbench.stack.replicas import component_of

_PATIENCE_S: Final = 4.0
# A container that is not there (k6's between two trials, the target's while it is made anew) is looked for this often.
_LOOK_S: Final = 0.25
_NS: Final = 1e-9

Sample = tuple[str, tuple[tuple[str, str], ...], float]  # metric, labels, value


class EngineError(Exception):
    """The engine gave an answer that makes no sense."""


@dataclass(frozen=True)
class Figures:
    """What an answer says of one container, since its start; ``memory_bytes`` is resident memory of this moment.

    ``throttled_s`` is None of one whose CPU was never limited.
    """

    container: str
    cpu_s: float
    throttled_s: float | None
    memory_bytes: float


@dataclass(frozen=True)
class Told:
    """Whom a stream tells: of figures (component, samples), of a new first process, of trouble. From its own thread.

    ``process`` gets None where the container's processes cannot be seen from here, or it is gone.
    """

    figures: Callable[[str, list[Sample]], None]
    process: Callable[[str, int | None], None]
    trouble: Callable[[str, Exception], None]


class Containers:
    """A stream of figures for each component; ``names`` gives its container, which may come and go under its name."""

    def __init__(self, path: str, api: str, names: Mapping[str, str], proc: Path = Path("/proc")) -> None:
        self.names = dict(names)
        shared: dict[str, _Shared] = {}
        self._streams = {
            part: _Stream(path, api, part, name, proc, shared.setdefault(component_of(part), _Shared()))
            for part, name in names.items()
        }

    def start(self, told: Told) -> None:
        """Begin to listen, each stream in a thread of its own."""
        for stream in self._streams.values():
            stream.start(told)

    def expect(self, parts: Iterable[str]) -> None:
        """Look for these only, from now on: the others are not there, and to look for them costs the engine."""
        wanted = set(parts)
        for part, stream in self._streams.items():
            stream.expected = part in wanted

    @property
    def unseen_s(self) -> float:
        """The CPU seconds of components whose processes cannot be seen from here."""
        return sum(stream.unseen_s for stream in self._streams.values())

    def stop(self) -> None:
        """Listen no more."""
        for stream in self._streams.values():
            stream.stop()


class _Shared:
    """What the containers of one component come to: it has several where the sale has replicas."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.cpu_s: Counters[str] = Counters()  # by container: each that bore one of the names
        self.throttled_s: Counters[str] = Counters()
        self.memory_bytes: dict[str, float] = {}  # by part, of those that are there
        self.limited = False


class _Stream:
    """The figures of one part. Those of its component are told by the part that bears the component's name."""

    def __init__(self, path: str, api: str, component: str, name: str, proc: Path, shared: _Shared) -> None:
        self.unseen_s = 0.0
        self.expected = True
        self._shared = shared
        self._path = path
        self._api = api
        self._component = component
        self._name = name
        self._proc = proc
        self._container = ""
        self._seen = False
        self._stop = threading.Event()
        self._connection: SocketConnection | None = None

    def start(self, told: Told) -> None:
        threading.Thread(target=self._listen, args=(told,), name=f"container {self._component}", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()
        sock = self._connection.sock if self._connection is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _listen(self, told: Told) -> None:
        # one that was there before us has burnt what is none of ours; one that comes later is counted from its start
        baseline = True
        while not self._stop.is_set():
            if not self.expected:
                self._stop.wait(_LOOK_S)
                continue
            try:
                for figures in self._figures():
                    self._take(figures, told, baseline=baseline)
            except (OSError, http.client.HTTPException, EngineError) as error:
                if not self._stop.is_set():
                    told.trouble(self._component, error)
            baseline = False
            if self._container:
                self._container, self._seen = "", False
                with self._shared.lock:
                    self._shared.memory_bytes.pop(self._component, None)
                told.process(self._component, None)
            self._stop.wait(_LOOK_S)

    def _figures(self) -> Iterator[Figures]:
        """Yield what the engine tells until the container is gone; nothing where it is not there."""
        self._connection = SocketConnection(self._path, _PATIENCE_S)
        try:
            answer = self._ask(self._connection, f"/containers/{quote(self._name)}/stats?stream=true")
            while answer is not None and (line := answer.readline()):
                figures = read_stats(_parsed(line))
                if figures is not None:
                    yield figures
        finally:
            self._connection.close()

    def _take(self, figures: Figures, told: Told, *, baseline: bool) -> None:
        if figures.container != self._container:
            self._container = figures.container
            pid = self._pid()
            self._seen = pid is not None
            told.process(self._component, pid)
        shared, labels = self._shared, (("component", self._component),)
        with shared.lock:
            before_s = shared.cpu_s.sum()
            shared.cpu_s.read(figures.container, figures.cpu_s, baseline=baseline)
            if figures.throttled_s is not None:
                shared.throttled_s.read(figures.container, figures.throttled_s, baseline=baseline)
                shared.limited = True
            shared.memory_bytes[self._component] = figures.memory_bytes
            if not self._seen:
                self.unseen_s += shared.cpu_s.sum() - before_s
            samples: list[Sample] = [
                ("tb_cpu_seconds_total", labels, shared.cpu_s.sum()),
                ("tb_memory_bytes", labels, sum(shared.memory_bytes.values())),
            ]
            if shared.limited:
                samples.append(("tb_cpu_throttled_seconds_total", labels, shared.throttled_s.sum()))
        # one voice for each series: two samples of one millisecond would be refused
        told.figures(self._component, samples if component_of(self._component) == self._component else [])

    def _pid(self) -> int | None:
        """Return the first process of the container, None where it cannot be seen from here."""
        connection = SocketConnection(self._path, _PATIENCE_S)
        try:
            answer = self._ask(connection, f"/containers/{self._container}/json")
            pid = int(_parsed(answer.read())["State"]["Pid"]) if answer is not None else 0
            # an engine in a machine of its own counts processes of its own
            seen = pid > 0 and self._container in (self._proc / str(pid) / "cgroup").read_text()
        except (KeyError, TypeError, ValueError) as error:
            raise EngineError("the Docker engine does not tell a container's process") from error
        except FileNotFoundError:
            return None
        finally:
            connection.close()
        return pid if seen else None

    def _ask(self, connection: SocketConnection, path: str) -> http.client.HTTPResponse | None:
        """Return the engine's answer, None for a container that is not there."""
        connection.request("GET", f"/v{self._api}{path}")
        answer = connection.getresponse()
        if answer.status in (http.client.NOT_FOUND, http.client.CONFLICT):
            return None
        if answer.status != http.client.OK:
            raise EngineError(
                f"the Docker engine answered {answer.status}: {_parsed(answer.read()).get('message', '')}"
            )
        return answer


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        told = json.loads(text)
    except ValueError as error:
        raise EngineError("the Docker engine answered without JSON") from error
    if not isinstance(told, dict):
        raise EngineError("the Docker engine answered with something else than was asked for")
    return told


def read_stats(stats: Mapping[str, Any]) -> Figures | None:
    """Return the figures of an answer; None where the container does not run: its figures are gone then.

    Raises EngineError where they are not what they should be.
    """
    try:
        used_ns = int(stats["cpu_stats"]["cpu_usage"]["total_usage"])
        if used_ns == 0:
            return None
        throttling = stats["cpu_stats"].get("throttling_data", {})
        limited = int(throttling.get("periods", 0)) > 0
        return Figures(
            container=str(stats["id"]),
            cpu_s=used_ns * _NS,
            throttled_s=int(throttling.get("throttled_time", 0)) * _NS if limited else None,
            memory_bytes=_resident(stats.get("memory_stats", {})),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EngineError(f"the Docker engine's figures are not what they should be: {error!r}") from error


def _resident(memory: Mapping[str, Any]) -> float:
    """Return the memory that is somebody's, as of processes: anonymous pages and what is mapped, shared memory once.

    What the kernel keeps of files that were read is left out: it goes when it is needed.
    """
    detail = memory.get("stats", {})
    if "anon" in detail:  # control groups of version 2
        return float(detail["anon"]) + float(detail.get("file_mapped", 0))
    if "total_rss" in detail:  # version 1
        return float(detail["total_rss"]) + float(detail.get("total_mapped_file", 0))
    return float(memory.get("usage", 0))
