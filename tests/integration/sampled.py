"""What the tests of the sampler ask Prometheus, PostgreSQL and the sampler's log."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from ticketbench.collecting.prometheus import Prometheus
from ticketbench.stack.servers import Server

PATIENCE_S = 20.0


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


class Figures:
    """The sampler's latest figures in Prometheus."""

    def __init__(self, prometheus_url: str) -> None:
        self.url = prometheus_url

    def all(self, metric: str) -> list[tuple[Mapping[str, str], float]]:
        with Prometheus(self.url) as prometheus:
            return prometheus.latest(f'{metric}{{job="sampler"}}')

    def get(self, metric: str, **labels: str) -> float:
        """Return a figure; 0 for one that has not come up yet."""
        found = [v for metric_labels, v in self.all(metric) if labels.items() <= dict(metric_labels).items()]
        assert len(found) <= 1
        return found[0] if found else 0.0

    def newest_s(self, metric: str) -> float:
        with Prometheus(self.url) as prometheus:
            found = prometheus.latest(f'max(timestamp({metric}{{job="sampler"}}))')
        return found[0][1] if found else 0.0

    def settle(self, what: str = "waits") -> None:
        """Wait until figures are in that were all taken after this call."""
        metric = "tb_pg_wait_seconds_total" if what == "waits" else f"tb_{what}"
        now_s = time.time()
        until(lambda: self.newest_s(metric) > now_s)


def fresh_target(dsn: str) -> str:
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS tickets WITH (FORCE)")
        admin.execute("CREATE DATABASE tickets")
    return make_conninfo(dsn, dbname="tickets")


def root_of(server: Server) -> int:
    assert server.launched is not None
    return server.launched.popen.pid


def json_lines(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines()]
