"""What all servers share, and Redis and Prometheus: child processes on free loopback ports, each usable on its own.

A server is launched, then awaited, so that several can start at a time. Ready means that it gave a real answer. A port
that was taken between choosing and binding it is noticed from the server's own log, and another is tried.
"""

import abc
import contextlib
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Final

import httpx
import redis

from ticketbench.errors import EnvironmentFailure
from ticketbench.stack.clients import ANSWER_TIMEOUT_S, PrometheusAt, RedisAt
from ticketbench.stack.launch import OURSELVES, Identity, Launched, Launcher, base_environment
from ticketbench.stack.process import ENDING, await_end, descendants, exit_text, go_on, last_lines, remedy

LOOPBACK: Final = "127.0.0.1"
PORT_ATTEMPTS: Final = 5
# Measured: 0.2 s. A machine that is a hundred times slower cannot be measured on.
READY_TIMEOUT_S: Final = 30.0
READY_POLL_S: Final = 0.02
BUSY: Final = "address already in use"

# Wherever it runs; what is not named here is the default.
PROMETHEUS_OPTIONS: Final = (
    "--storage.tsdb.retention.time=2d",
    "--web.enable-remote-write-receiver",
    "--web.enable-lifecycle",
    "--enable-feature=native-histograms",
    "--log.level=warn",
)

Ports = Callable[[], int]


def bound() -> socket.socket:
    """Return a socket bound to a free TCP port of the loopback; the caller closes it. Raises EnvironmentFailure."""
    probe = socket.socket()
    try:
        probe.bind((LOOPBACK, 0))
    except OSError as error:
        probe.close()
        raise EnvironmentFailure(
            f"no free port on {LOOPBACK}: {error.strerror}", "`ticketbench doctor` tells how many there are"
        ) from error
    return probe


def free_port() -> int:
    """Return a TCP port of the loopback that nobody listens on now; another may take it before it is bound.

    Raises EnvironmentFailure where there is none.
    """
    with bound() as probe:
        port: int = probe.getsockname()[1]
        return port


def distinct_ports(count: int) -> list[int]:
    """Return free ports of the loopback, all different. Raises EnvironmentFailure where there are not so many."""
    with contextlib.ExitStack() as held:
        return [held.enter_context(bound()).getsockname()[1] for _ in range(count)]


class Server(abc.ABC):
    """One server process in a folder of its own. ``port`` is 0 until it is launched."""

    name: ClassVar[str]
    title: ClassVar[str]

    def __init__(self, program: Path, folder: Path, launcher: Launcher, *, log: Path, ports: Ports = free_port) -> None:
        self.program = program
        self.folder = folder
        self.log = log
        self.port = 0
        self.launched: Launched | None = None
        self.again = False  # it was started again where it was
        self._launcher = launcher
        self._ports = ports
        self._attempts = 0

    @abc.abstractmethod
    def _command(self) -> list[str]:
        """Return the command line for ``port``, with any configuration it names written."""

    @abc.abstractmethod
    def _answers(self) -> bool:
        """Tell whether the server gives a real answer; False for the errors that mean not yet."""

    def _identity(self) -> Identity:
        return OURSELVES

    def launch(self) -> None:
        """Start the process without waiting for it. Raises EnvironmentFailure."""
        self._attempts += 1
        self.port = self._ports()
        self._start()

    def relaunch(self) -> None:
        """Start it again where it was, without waiting: same ports, same data, its log going on.

        Whoever uses it knows no other port, so none is tried. Raises EnvironmentFailure.
        """
        self._attempts = PORT_ATTEMPTS
        self._start(again=True)

    def _start(self, *, again: bool = False) -> None:
        self.again = again
        self.launched = self._launcher.launch(
            self.name,
            self._command(),
            log=self.log,
            folder=self.folder,
            ending=ENDING[self.name][0],
            identity=self._identity(),
            environment={**base_environment(), **self._runtime()},
            append=again,
        )

    def answers(self) -> bool:
        """Tell whether it gives a real answer now. From any thread."""
        return self._answers()

    def _runtime(self) -> Mapping[str, str]:
        """Return what tunes the program's own runtime, as environment variables."""
        return {}

    def await_ready(self) -> None:
        """Return when it answers. Raises EnvironmentFailure with the state and the last log lines."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            if self.launched is None:
                raise EnvironmentFailure(f"{self.title} was not started")
            if self.launched.popen.poll() is not None:
                self._again_or_fail(self.launched)
            elif self._answers():
                return
            if time.monotonic() > deadline:
                raise EnvironmentFailure(
                    f"{self.title} gave no answer within {READY_TIMEOUT_S:g} s; its log ends: {last_lines(self.log)}",
                    "is the machine overloaded? look at it and try again",
                )
            time.sleep(READY_POLL_S)

    def _again_or_fail(self, ended: Launched) -> None:
        said = last_lines(self.log, 12)
        if BUSY in said.lower() and self._attempts < PORT_ATTEMPTS:
            self.launch()
            return
        hint = remedy(said)
        if BUSY in said.lower():
            hint = f"{PORT_ATTEMPTS} free ports in a row were taken by others: look at what runs on this machine"
        raise EnvironmentFailure(
            f"{self.title} ended while starting ({exit_text(ended.popen)}); its log ends: {last_lines(self.log)}", hint
        )

    def dead(self) -> str | None:
        """Return how it ended and its last log lines, None while it runs (or was never started)."""
        return self.launched.epitaph() if self.launched is not None else None

    def stop(self) -> None:
        """End the process and whatever it started, and wait for it. Idempotent."""
        if self.launched is not None:
            end(self.launched)


def end(launched: Launched) -> None:
    """End a process of ours and wait for it: by the signal of its kind, then SIGKILL to it and to all below it."""
    family = descendants([launched.process])
    go_on((launched.process, *family))
    signum, patience_s = ENDING[launched.component]
    launched.process.signal(signum)
    with contextlib.suppress(subprocess.TimeoutExpired):
        launched.popen.wait(patience_s)
    family = (*family, *descendants([launched.process]))
    if launched.popen.poll() is None:
        launched.process.signal_group(signal.SIGKILL)
        launched.popen.kill()
        launched.popen.wait()
    for child in family:
        child.signal(signal.SIGKILL)
    await_end(family, patience_s)


class RedisServer(Server):
    """Redis or Valkey with a generated password; nothing is written to disk, but its log where it is ``logged``."""

    name = "redis"
    title = "Redis"

    def __init__(self, program: Path, folder: Path, launcher: Launcher, *, log: Path, ports: Ports = free_port) -> None:
        super().__init__(program, folder, launcher, log=log, ports=ports)
        self.password = secrets.token_urlsafe(24)
        # What it is started with: while it runs, Data.reset() switches it. Started again it must find what it had.
        self.logged = False

    def _command(self) -> list[str]:
        config = self.folder / "redis.conf"
        config.touch(mode=0o600)
        config.write_text(
            f"bind {LOOPBACK}\n"
            f"port {self.port}\n"
            f"requirepass {self.password}\n"
            f'dir "{self.folder}"\n'
            # a sale's counters are rebuilt from the database before each trial: no snapshot may fork in one
            'save ""\n'
            f"appendonly {'yes' if self.logged else 'no'}\n"
            "daemonize no\n"
            # a new title overwrites the process's environment, which holds our label
            "set-proc-title no\n"
        )
        return [str(self.program), str(config)]

    @property
    def at(self) -> RedisAt:
        """Where it is now."""
        return RedisAt(LOOPBACK, self.port, self.password)

    @property
    def url(self) -> str:
        """The URL of database 0. It holds the password."""
        return self.at.url

    def client(self) -> redis.Redis:
        """Return a client; the caller closes it."""
        return self.at.client()

    def _answers(self) -> bool:
        return self.at.answers()


class PrometheusServer(Server):
    """Prometheus with a remote-write receiver and native histograms; scrapes what :meth:`scrape` names, each second."""

    name = "prometheus"
    title = "Prometheus"

    def __init__(self, program: Path, folder: Path, launcher: Launcher, *, log: Path, ports: Ports = free_port) -> None:
        super().__init__(program, folder, launcher, log=log, ports=ports)
        self._targets: tuple[str, ...] = ()
        self._workers: tuple[str, ...] = ()

    @property
    def at(self) -> PrometheusAt:
        """Where it is now."""
        return PrometheusAt(LOOPBACK, self.port)

    @property
    def url(self) -> str:
        """The base URL."""
        return self.at.url

    def _write_config(self) -> Path:
        config = self.folder / "prometheus.yml"
        text = "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\nscrape_configs:\n"
        for job, targets in (("app", self._targets), ("worker", self._workers)):
            if targets:
                quoted = ", ".join(f'"{target}"' for target in targets)
                text += f"  - job_name: {job}\n    static_configs:\n      - targets: [{quoted}]\n"
        config.write_text(text)
        return config

    def _command(self) -> list[str]:
        return [
            str(self.program),
            f"--config.file={self._write_config()}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address={LOOPBACK}:{self.port}",
            *PROMETHEUS_OPTIONS,
        ]

    def _runtime(self) -> Mapping[str, str]:
        # Go wakes idle cores to look for work: held to one, the same scrapes and writes take a quarter less CPU
        # (measured), and Prometheus never takes a second core from what is measured.
        return {"GOMAXPROCS": "1"}

    def scrape(self, targets: tuple[str, ...], workers: tuple[str, ...] = ()) -> None:
        """Scrape these host:port addresses as the jobs ``app`` and ``worker`` (of the queue).

        Prometheus takes up to 10 s to act on a change. Before the launch it costs nothing. Raises EnvironmentFailure.
        """
        if (targets, workers) == (self._targets, self._workers):
            return
        self._targets, self._workers = targets, workers
        if self.launched is None:
            return
        self._write_config()
        try:
            httpx.post(f"{self.url}/-/reload", timeout=10).raise_for_status()
        except httpx.HTTPError as error:
            raise EnvironmentFailure(f"Prometheus does not reload its configuration: {error}") from error

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return labels and value of each series that ``expression`` yields now. Raises EnvironmentFailure."""
        return self.at.query(expression)

    def _answers(self) -> bool:
        if not self.at.answers():
            return False
        try:
            # another Prometheus may have taken the port: ours tells our folder
            info = httpx.get(f"{self.url}/api/v1/status/runtimeinfo", timeout=ANSWER_TIMEOUT_S)
            return bool(info.json()["data"]["CWD"] == str(self.folder.resolve()))
        except (httpx.TransportError, ValueError, KeyError):
            return False
