"""The target as processes: its commands run to their end, and the sale served until a test ends it."""

import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg
import redis as redis_client

PROCESSES_REDIS_NUMBER = 8  # a database of Redis for these tests alone
DEADLINE_S = 60.0
# One client, since making one costs more than a request; no connection is kept, so that none outlives its server.
HTTP = httpx.Client(limits=httpx.Limits(max_keepalive_connections=0), timeout=DEADLINE_S)
COMMAND = (sys.executable, "-P", "-m", "target_app")


def until(condition: Callable[[], bool], what: str) -> None:
    """Return once the condition holds; fail after ``DEADLINE_S``."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S:g} s: {what}"
        time.sleep(0.01)


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback that were free a moment ago, each another one."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def alive(pid: int) -> bool:
    """Whether a process runs; one that is only waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@dataclass
class Served:
    """A supervisor that was started, and what it said when it had ended."""

    process: "subprocess.Popen[str]"
    port: int
    metrics_ports: list[int]
    workers: list[int] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ready(self) -> bool:
        assert self.process.poll() is None, self.process.communicate()[1]
        try:
            return HTTP.get(f"{self.url}/ready").status_code == 200
        except httpx.TransportError:
            return False

    def await_ready(self) -> None:
        until(self.ready, "ready")
        until(lambda: all(self._scrapable(port) for port in self.metrics_ports), "metrics of every worker")
        self.workers = children(self.process.pid)

    @staticmethod
    def _scrapable(port: int) -> bool:
        try:
            # The listening socket is there before the worker accepts: the loop's ticks tell that it serves.
            return metric(HTTP.get(f"http://127.0.0.1:{port}/metrics").text, "target_loop_lag_samples_total") > 0
        except httpx.TransportError:
            return False

    def total(self, name: str) -> float:
        """Return a metric summed over the workers."""
        return sum(metric(HTTP.get(f"http://127.0.0.1:{port}/metrics").text, name) for port in self.metrics_ports)

    def ended(self) -> tuple[int, str]:
        """Wait for the end; return exit code and standard error."""
        _, said = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, said


def metric(text: str, name: str) -> float:
    """Return the value of one line, or the sum of all lines of that name."""
    values = re.findall(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
    assert values, f"{name} is not exported"
    return sum(map(float, values))


@dataclass(frozen=True)
class Site:
    """Where the stores of these tests are, as the environment of the target."""

    environment: dict[str, str]
    sql: "psycopg.Connection[tuple[int]]"
    redis: "redis_client.Redis"

    def run(self, *arguments: str, **levels: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of the target to its end."""
        environment = {**self.environment, **{f"TARGET_{name.upper()}": level for name, level in levels.items()}}
        return subprocess.run(
            [*COMMAND, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=DEADLINE_S
        )

    def sold(self) -> int:
        row = self.sql.execute("SELECT count(*) FROM tickets WHERE match_id <> 21").fetchone()
        assert row is not None
        return row[0]


Serve = Callable[..., Served]
