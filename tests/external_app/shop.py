"""Starts the shop behind uvicorn, and a Prometheus that scrapes it, for the tests that measure it from outside."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from ticketbench.binaries import Binaries
from ticketbench.stack.launch import Launcher
from ticketbench.stack.servers import PrometheusServer, free_port

ROOT = Path(__file__).parent.parent.parent
START_LIMIT_S = 30.0


@dataclass(frozen=True)
class Shop:
    """The running shop, scraped once a second as job ``app``."""

    url: str
    pid: int
    prometheus: PrometheusServer


@contextmanager
def running(folder: Path, binaries: Binaries, launcher: Launcher, **settings: str) -> Iterator[Shop]:
    """Run both with their data in ``folder``; ``settings`` are the shop's environment."""
    port = free_port()
    env = {**os.environ, "DATABASE_URL": f"sqlite:///{folder}/shop.db", **settings}
    command = [sys.executable, "-m", "uvicorn", "tests.external_app.app:app", "--port", str(port)]
    with (folder / "app.log").open("wb") as log:
        app = subprocess.Popen([*command, "--log-level", "warning"], cwd=ROOT, env=env, stdout=log, stderr=log)
    (folder / "prometheus").mkdir()
    prometheus = PrometheusServer(binaries.prometheus, folder / "prometheus", launcher, log=folder / "prometheus.log")
    prometheus.scrape((f"127.0.0.1:{port}",))
    try:
        prometheus.launch()
        _await_answer(f"http://127.0.0.1:{port}/openapi.json", app)
        prometheus.await_ready()
        _await_sample(prometheus, 'up{job="app"} == 1')
        yield Shop(f"http://127.0.0.1:{port}", app.pid, prometheus)
    finally:
        prometheus.stop()
        app.terminate()
        try:
            app.wait(10)
        except subprocess.TimeoutExpired:  # it lets its last requests come to their end, which may take
            app.kill()
            app.wait()


def _await_answer(url: str, app: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        try:
            httpx.get(url)
        except httpx.TransportError:
            assert app.poll() is None, "the shop did not start: its log is app.log"
            assert time.monotonic() < deadline, f"{url} gave no answer"
            time.sleep(0.05)
        else:
            return


def _await_sample(prometheus: PrometheusServer, query: str) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while not prometheus.query(query):
        assert time.monotonic() < deadline, f"no sample of {query}"
        time.sleep(0.1)
