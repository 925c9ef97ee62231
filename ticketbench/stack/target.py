"""The target's processes: the sale that is measured, started fresh for each trial."""

import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import httpx

import ticketbench
from ticketbench.errors import EnvironmentFailure
from ticketbench.model import Level
from ticketbench.stack.clients import ANSWER_TIMEOUT_S
from ticketbench.stack.idle import at_work
from ticketbench.stack.launch import Launched, Launcher
from ticketbench.stack.process import exit_text, last_lines
from ticketbench.stack.servers import BUSY, LOOPBACK, READY_POLL_S, end

# Linux cuts it to net.core.somaxconn, 4096 unless changed: a spike should queue, not be refused.
BACKLOG: Final = 4096
# Measured: 1 s for one worker, and each of 16 workers adds a share of two cores.
READY_TIMEOUT_S: Final = 60.0
INIT_TIMEOUT_S: Final = 300.0
# Some milliseconds; the load's own loop waits for it.
CLOSING_S: Final = 2.0


# In the sale's answer where PostgreSQL has no connection left.
FULL: Final = b"max_connections"


class MetricsPortBusyError(Exception):
    """Another program took a port that was meant for a worker's metrics."""


def environment(levels: Mapping[str, Level], database_url: str, redis_url: str) -> dict[str, str]:
    """Return the environment of a target's process: ours, without any TARGET_ variable, and with these settings."""
    ours = {name: value for name, value in os.environ.items() if not name.upper().startswith("TARGET_")}
    return {
        **ours,
        **python_path(),
        "PYTHONUNBUFFERED": "1",
        "TARGET_DATABASE_URL": database_url,
        "TARGET_REDIS_URL": redis_url,
        **{f"TARGET_{name.upper()}": str(level) for name, level in levels.items()},
    }


def python_path() -> dict[str, str]:
    """Return what a Python must be told to find the target's code, as environment variables."""
    # in a checkout that was not installed the target lies beside the toolkit
    beside = Path(ticketbench.__file__).resolve().parent.parent
    told = os.environ.get("PYTHONPATH")
    if not (beside / "pyproject.toml").is_file():
        return {} if told is None else {"PYTHONPATH": told}
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(beside), told)))}


def init_database(launcher: Launcher, env: Mapping[str, str], folder: Path, *, log: Path) -> None:
    """Have the target put schema and seed into the empty database that ``env`` names. Raises EnvironmentFailure."""
    command = [sys.executable, "-P", "-m", "target_app", "init-db"]
    launcher.run("init-db", command, log=log, folder=folder, timeout_s=INIT_TIMEOUT_S, environment=env)


class Target:
    """The sale, listening on one port that stays the same over its restarts where nobody else takes it."""

    def __init__(self, folder: Path, launcher: Launcher, *, log: Path, component: str = "app") -> None:
        self.component = component
        self.folder = folder
        self.log = log
        self.port = 0
        self.launched: Launched | None = None
        self._launcher = launcher
        self._env: Mapping[str, str] = {}
        self._metrics_ports: tuple[int, ...] = ()

    @property
    def base_url(self) -> str:
        """The address that k6 calls."""
        return f"http://{LOOPBACK}:{self.port}"

    def launch(self, env: Mapping[str, str], metrics_ports: Sequence[int]) -> None:
        """Start it with one worker for each of ``metrics_ports``, without waiting. Raises EnvironmentFailure."""
        self._env, self._metrics_ports = env, tuple(metrics_ports)
        self._start(self._listen())

    def relaunch(self) -> None:
        """Start it again where it was, without waiting: same ports, its log going on. Raises EnvironmentFailure."""
        # a process whose first thread has ended may have others that still close what it had open
        give_up_s = time.monotonic() + CLOSING_S
        while True:
            try:
                listening = socket.create_server((LOOPBACK, self.port), backlog=BACKLOG)
                break
            except OSError as error:
                if time.monotonic() > give_up_s:
                    raise EnvironmentFailure(
                        f"{self.component} cannot listen where it was: {error.strerror}"
                    ) from error
                time.sleep(READY_POLL_S)
        self._start(listening, again=True)

    def _start(self, listening: socket.socket, *, again: bool = False) -> None:
        with listening:
            self.port = listening.getsockname()[1]
            metrics_ports = self._metrics_ports
            command = [
                sys.executable, "-P", "-m", "target_app", "serve", "--fd", str(listening.fileno()),
                "--workers", str(len(metrics_ports)), "--metrics-ports", ",".join(map(str, metrics_ports)),
            ]  # fmt: skip
            self.launched = self._launcher.launch(
                self.component,
                command,
                log=self.log,
                folder=self.folder,
                environment=self._env,
                fds=(listening.fileno(),),
                append=again,
            )
        # our own copy of the socket is closed: when the sale dies, connections are refused instead of left hanging

    def _listen(self) -> socket.socket:
        if self.port:
            try:
                return socket.create_server((LOOPBACK, self.port), backlog=BACKLOG)
            except OSError:  # another program took it between two trials
                pass
        try:
            return socket.create_server((LOOPBACK, 0), backlog=BACKLOG)
        except OSError as error:
            raise EnvironmentFailure(f"no port for the sale to listen on: {error.strerror}") from error

    def await_ready(self) -> None:
        """Return when it can sell. Raises EnvironmentFailure with its last log lines, MetricsPortBusyError."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        with httpx.Client(base_url=self.base_url, timeout=ANSWER_TIMEOUT_S) as client:
            while True:
                if self.launched is None:
                    raise EnvironmentFailure("the sale was not started")
                if self.launched.popen.poll() is not None:
                    said = last_lines(self.log)
                    if BUSY in last_lines(self.log, 50).lower():
                        raise MetricsPortBusyError(said)
                    raise EnvironmentFailure(
                        f"the sale ended while starting ({exit_text(self.launched.popen)}); its log ends: {said}"
                    )
                if ready(client):
                    return
                if time.monotonic() > deadline:
                    raise EnvironmentFailure(
                        f"the sale was not ready within {READY_TIMEOUT_S:g} s; its log ends: {last_lines(self.log)}",
                        "is the machine overloaded? look at it and try again",
                    )
                time.sleep(READY_POLL_S)

    def answers(self) -> bool:
        """Tell whether it can sell now, with all of its workers. From any thread."""
        with httpx.Client(base_url=self.base_url, timeout=ANSWER_TIMEOUT_S, trust_env=False) as client:
            return ready(client) and at_work(self._metrics_ports)

    def dead(self) -> str | None:
        """Return how it ended and its last log lines, None while it runs (or was never started)."""
        return self.launched.epitaph() if self.launched is not None else None

    def stop(self) -> None:
        """End it with all of its workers and wait for it. Idempotent.

        Without a word of goodbye, which would take it up to a second: it has nothing under way that anybody waits for.
        """
        if self.launched is not None:
            end(self.launched)
            self.launched = None


def ready(client: httpx.Client) -> bool:
    """Tell whether the sale can be measured: it sells, or answers that PostgreSQL has no connection left for it.

    The latter is what too few ``db_max_connections`` do, and no start that is still going on.
    """
    try:
        answer = client.get("/ready")
    except httpx.TransportError:  # nobody accepts connections yet, although something queues them
        return False
    return answer.status_code == httpx.codes.OK or FULL in answer.content
