"""The sampler while servers die, stand still or come back: it goes on, tells which, and loses nothing of the others."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.integration.sampled import PATIENCE_S, Figures, fresh_target, json_lines, root_of, until
from ticketbench.binaries import Binaries
from ticketbench.collecting.prometheus import Prometheus
from ticketbench.sampler_process import SamplerProcess
from ticketbench.stack.launch import Launcher
from ticketbench.stack.postgres import PostgresServer
from ticketbench.stack.process import descendants, identify
from ticketbench.stack.protocol import Component, DatabaseAccess
from ticketbench.stack.servers import PrometheusServer, RedisServer, Server


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "sampler.log"


S = TypeVar("S", bound=Server)


@contextmanager
def up(server: S) -> Iterator[S]:
    """A server that this test may stop, kill or restart."""
    try:
        server.launch()
        server.await_ready()
        yield server
    finally:
        server.stop()


def folder_for(server_folder: Path, name: str) -> Path:
    folder = server_folder / f"{name}-{os.getpid()}-{time.monotonic_ns()}"
    folder.mkdir()
    return folder


@pytest.fixture
def own_postgres(
    binaries: Binaries, launcher: Launcher, tmp_path: Path, server_folder: Path
) -> Iterator[PostgresServer]:
    folder = folder_for(server_folder, "sampler")
    server = PostgresServer(binaries.postgres, folder, launcher, log=tmp_path / "postgres.log")
    server.prepare()
    with up(server):
        yield server


@pytest.fixture
def own_redis(binaries: Binaries, launcher: Launcher, server_folder: Path) -> Iterator[RedisServer]:
    folder = folder_for(server_folder, "redis")
    with up(RedisServer(binaries.redis, folder, launcher, log=folder / "log")) as server:
        yield server


@pytest.fixture
def own_prometheus(binaries: Binaries, launcher: Launcher, server_folder: Path) -> Iterator[PrometheusServer]:
    folder = folder_for(server_folder, "prometheus")
    with up(PrometheusServer(binaries.prometheus, folder, launcher, log=folder / "log")) as server:
        yield server


def signal_tree(server: Server, signum: int) -> None:
    root = identify(root_of(server))
    assert root is not None
    for process in (root, *descendants([root])):
        process.signal(signum)


def sources(log: Path, key: str) -> set[str]:
    """Return the sources that the log tells trouble of (``source``), or that it is over (``recovered``)."""
    return {str(line[key]) for line in json_lines(log) if key in line}


def times_of(prometheus_url: str, selector: str, start_s: float) -> list[float]:
    with Prometheus(prometheus_url) as prometheus:
        answers = prometheus.samples(selector, start_s, time.time())
    return [float(at_s) for at_s, _ in answers[0]["values"]] if answers else []


def test_it_outlives_the_targets_database_and_a_restart_of_the_server(
    own_postgres: PostgresServer, prometheus_url: str, redis_url: str, log: Path
) -> None:
    figures = Figures(prometheus_url)
    access = DatabaseAccess(own_postgres.dsn(), redis_url)
    sampler = SamplerProcess.start(prometheus_url, access, [Component("postgres", root_of(own_postgres))], log)
    try:
        for _ in range(2):  # dropped with the target's connections still open, as between two trials
            with psycopg.connect(fresh_target(own_postgres.dsn()), autocommit=True) as connection:
                connection.execute("SELECT pg_sleep(0.3)")
                figures.settle("pg_calls_total")
                until(lambda: figures.get("tb_pg_backends", state="idle") == 1)
        assert figures.get("tb_pg_statement_calls_total", query="SELECT pg_sleep($1)") == 2
        idle_s = figures.get("tb_pg_wait_seconds_total", wait="idle")

        port = own_postgres.port
        own_postgres.stop()
        until(lambda: "error" in log.read_text())
        assert sampler.alive()
        again = own_postgres
        again._ports = lambda: port
        again.launch()
        again.await_ready()
        sampler.watch("postgres", root_of(again))
        until(lambda: "recovered" in log.read_text())
        with psycopg.connect(make_conninfo(own_postgres.dsn(), dbname="tickets"), autocommit=True):
            figures.settle()
            until(lambda: figures.get("tb_pg_wait_seconds_total", wait="idle") > idle_s + 0.3)
        assert figures.get("tb_pg_wait_seconds_total", wait="idle") < idle_s + PATIENCE_S
    finally:
        sampler.stop()


def test_a_prometheus_that_is_away_for_a_while_gets_it_all_later(
    binaries: Binaries, launcher: Launcher, server_folder: Path, postgres_dsn: str, redis_url: str, log: Path
) -> None:
    folder = server_folder / f"prometheus-{time.monotonic_ns()}"
    folder.mkdir()
    server = PrometheusServer(binaries.prometheus, folder, launcher, log=folder / "log")
    server.launch()
    server.await_ready()
    port = server.port
    try:
        sampler = SamplerProcess.start(server.url, DatabaseAccess(postgres_dsn, redis_url), [], log)
        figures = Figures(server.url)
        try:
            figures.settle("sampler_ticks_total")
            server.stop()
            away_s = time.time()
            until(lambda: '"source": "push"' in log.read_text())
            until(lambda: time.time() > away_s + 3)
            server._ports = lambda: port
            server.launch()
            server.await_ready()
            until(lambda: '"recovered": "push"' in log.read_text())
            with Prometheus(server.url) as prometheus:
                samples = prometheus.samples(
                    'tb_sampler_ticks_total{job="sampler",what="proc"}', away_s - 1, time.time()
                )
            times = [float(t) for t, _ in samples[0]["values"]]
            assert len(times) >= 4
            assert max(b - a for a, b in pairwise(times)) < 1.9
            assert figures.get("tb_sampler_push_failures_total") >= 1
        finally:
            sampler.stop()
    finally:
        server.stop()


def test_servers_that_stand_still_are_told_of_and_nothing_else_is_lost(
    own_postgres: PostgresServer, own_redis: RedisServer, own_prometheus: PrometheusServer, log: Path
) -> None:
    figures = Figures(own_prometheus.url)
    servers: tuple[Server, ...] = (own_postgres, own_redis, own_prometheus)
    access = DatabaseAccess(own_postgres.dsn(), own_redis.url)
    components = [Component(server.name, root_of(server)) for server in servers]
    sampler = SamplerProcess.start(own_prometheus.url, access, components, log)
    try:
        with psycopg.connect(fresh_target(own_postgres.dsn()), autocommit=True):
            figures.settle()
            began_s = time.time()
            for server in servers:
                signal_tree(server, signal.SIGSTOP)
            until(lambda: {"waits", "redis", "push"} <= sources(log, "source"))
            assert sampler.alive()
            for server in servers:
                signal_tree(server, signal.SIGCONT)
            stood_s = time.time() - began_s
            until(lambda: {"waits", "redis", "push"} <= sources(log, "recovered"))
            figures.settle()
            figures.settle("redis_clients")
            # one backend was idle throughout; what nobody could see counts for two seconds at most
            idle_s = figures.get("tb_pg_wait_seconds_total", wait="idle")
            assert idle_s <= time.time() - began_s + PATIENCE_S
        # what the machine did meanwhile was measured, kept, and taken by Prometheus afterwards
        measured = times_of(own_prometheus.url, 'tb_cpu_seconds_total{job="sampler",component="other"}', began_s)
        assert max(b - a for a, b in pairwise([began_s, *measured])) < 1.9
        asked = times_of(own_prometheus.url, 'tb_redis_clients{job="sampler"}', began_s)
        assert max(b - a for a, b in pairwise([began_s, *asked])) > stood_s - 2.5
        assert figures.get("tb_sampler_gap_seconds_total") == 0
    finally:
        for server in servers:
            signal_tree(server, signal.SIGCONT)
        sampler.stop()


def test_the_end_is_not_held_up_by_a_server_that_stands_still(
    own_postgres: PostgresServer, prometheus_url: str, redis_url: str, log: Path
) -> None:
    figures = Figures(prometheus_url)
    sampler = SamplerProcess.start(prometheus_url, DatabaseAccess(own_postgres.dsn(), redis_url), [], log)
    try:
        signal_tree(own_postgres, signal.SIGSTOP)
        until(lambda: "waits" in sources(log, "source"))
        stopped_s = time.time()
        sampler.stop()
        assert sampler._process.returncode == 0
        assert figures.newest_s("tb_sampler_ticks_total") >= stopped_s - 0.05
    finally:
        signal_tree(own_postgres, signal.SIGCONT)
        sampler.stop()


def test_a_sampler_that_was_stopped_says_for_how_long(
    prometheus_url: str, postgres_dsn: str, redis_url: str, log: Path
) -> None:
    figures = Figures(prometheus_url)
    dsn = fresh_target(postgres_dsn)
    sampler = SamplerProcess.start(prometheus_url, DatabaseAccess(postgres_dsn, redis_url), [], log)
    try:
        with psycopg.connect(dsn, autocommit=True):
            figures.settle()
            idle_s = figures.get("tb_pg_wait_seconds_total", wait="idle")
            began_s = time.time()
            os.kill(sampler.pid, signal.SIGSTOP)
            time.sleep(6.0)  # the measured quantity
            os.kill(sampler.pid, signal.SIGCONT)
            stood_s = time.time() - began_s
            figures.settle("sampler_gap_seconds_total")
            figures.settle()
            gap_s = figures.get("tb_sampler_gap_seconds_total")
            seen_s = figures.get("tb_pg_wait_seconds_total", wait="idle") - idle_s
            took_s = time.time() - began_s
        assert stood_s - 1.1 <= gap_s <= stood_s  # less the second that it would have waited anyway
        assert figures.get("tb_sampler_clock_step_seconds_total") == 0
        # a gap of six seconds counts for two: what happened in it nobody saw. The figure that it is counted from was up
        # to two seconds old.
        assert seen_s <= took_s - 6.0 + 2.0 + 2.0
    finally:
        os.kill(sampler.pid, signal.SIGCONT)
        sampler.stop()


def _group_parent() -> Path | None:
    """Return the folder in which a group with a CPU limit can be made here, None where none can."""
    for folder, limit in ((Path("/sys/fs/cgroup/cpu"), "cpu.cfs_quota_us"), (Path("/sys/fs/cgroup"), "cpu.max")):
        probe = folder / f"ticketbench-probe-{os.getpid()}"
        try:
            probe.mkdir()
        except OSError:
            continue
        try:
            if (probe / limit).exists() and os.access(probe / limit, os.W_OK):
                return folder
        finally:
            probe.rmdir()
    return None


def test_a_limited_component_is_throttled_as_long_as_its_group_says(
    own_redis: RedisServer, own_prometheus: PrometheusServer, log: Path
) -> None:
    parent = _group_parent()
    if parent is None:
        pytest.skip("no control group with a CPU limit can be made here: needs root and a writable cpu controller")
    group = parent / f"ticketbench-test-{os.getpid()}"
    figures = Figures(own_prometheus.url)
    sampler: SamplerProcess | None = None
    group.mkdir()
    try:
        if (group / "cpu.max").exists():
            (group / "cpu.max").write_text("5000 100000")
        else:
            (group / "cpu.cfs_period_us").write_text("100000")
            (group / "cpu.cfs_quota_us").write_text("5000")
        pid = root_of(own_redis)
        (group / "cgroup.procs").write_text(str(pid))
        access = DatabaseAccess("", own_redis.url)
        sampler = SamplerProcess.start(own_prometheus.url, access, [Component("redis", pid)], log)
        before_s = figures.get("tb_cpu_throttled_seconds_total", component="redis")
        with own_redis.client() as client:
            for _ in range(3):  # 5 ms of CPU in each 100 ms are all it may use
                client.eval("local n = 0; for i = 1, 3000000 do n = n + i end; return n", 0)
        until(lambda: figures.get("tb_cpu_throttled_seconds_total", component="redis") > before_s + 0.2)
        assert "app" not in {labels["component"] for labels, _ in figures.all("tb_cpu_throttled_seconds_total")}
    finally:
        if sampler is not None:
            sampler.stop()
        own_redis.stop()
        until(lambda: not (group / "cgroup.procs").read_text().strip())
        group.rmdir()
