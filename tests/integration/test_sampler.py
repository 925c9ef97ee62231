"""The sampler process on real servers: what it sees agrees with what was done, and nothing that happens blinds it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from threading import Thread

import psycopg
import pytest
import redis
from psycopg.conninfo import make_conninfo

from ticketbench.binaries import Binaries
from ticketbench.collect import wait_idle
from ticketbench.collecting.prometheus import Prometheus
from ticketbench.errors import EnvironmentFailure
from ticketbench.sampler_process import SamplerProcess
from ticketbench.stack.launch import Launcher
from ticketbench.stack.postgres import PostgresServer
from ticketbench.stack.protocol import Component, DatabaseAccess
from ticketbench.stack.servers import PrometheusServer, free_port

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


@pytest.fixture
def own_postgres(
    binaries: Binaries, launcher: Launcher, tmp_path: Path, server_folder: Path
) -> Iterator[PostgresServer]:
    """A PostgreSQL that this test may restart."""
    folder = server_folder / f"sampler-{os.getpid()}-{time.monotonic_ns()}"
    folder.mkdir()
    server = PostgresServer(binaries.postgres, folder, launcher, log=tmp_path / "postgres.log")
    try:
        server.prepare()
        server.launch()
        server.await_ready()
        yield server
    finally:
        server.stop()


def root_of(server: PostgresServer) -> int:
    assert server.launched is not None
    return server.launched.popen.pid


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "sampler.log"


@pytest.fixture
def sampler(
    prometheus_url: str, postgres_server: PostgresServer, redis_url: str, log: Path
) -> Iterator[SamplerProcess]:
    process = SamplerProcess.start(
        prometheus_url,
        DatabaseAccess(postgres_server.dsn(), redis_url),
        [Component("postgres", root_of(postgres_server))],
        log,
    )
    yield process
    process.stop()
    assert json_lines(log) == []


def json_lines(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_a_lock_held_for_a_known_time_is_seen_for_that_time(
    sampler: SamplerProcess, prometheus_url: str, postgres_dsn: str
) -> None:
    figures = Figures(prometheus_url)
    dsn = fresh_target(postgres_dsn)
    with psycopg.connect(dsn) as holder, psycopg.connect(dsn, autocommit=True) as waiter:
        holder.execute("CREATE TABLE stock (n int); INSERT INTO stock VALUES (1)")
        holder.commit()
        figures.settle()
        before_s = figures.get("tb_pg_wait_seconds_total", wait="Lock:transactionid")
        idle_before_s = figures.get("tb_pg_wait_seconds_total", wait="idle in transaction")
        holder.execute("UPDATE stock SET n = 2")
        begun_s = time.monotonic()
        thread = Thread(target=waiter.execute, args=("UPDATE stock SET n = 3",))
        thread.start()
        time.sleep(1.5)  # the measured quantity
        holder.commit()
        thread.join()
        held_s = time.monotonic() - begun_s
        figures.settle()
        seen_s = figures.get("tb_pg_wait_seconds_total", wait="Lock:transactionid") - before_s
        idle_s = figures.get("tb_pg_wait_seconds_total", wait="idle in transaction") - idle_before_s
        assert figures.get("tb_pg_backends", state="idle") == 2
    # at 10 Hz the ends of an interval are known to a tenth of a second each
    assert seen_s == pytest.approx(held_s, abs=0.3)
    assert idle_s == pytest.approx(held_s, abs=0.3)


def test_a_sleeping_statement_counts_in_seconds_calls_and_waits(
    sampler: SamplerProcess, prometheus_url: str, postgres_dsn: str
) -> None:
    figures = Figures(prometheus_url)
    dsn = fresh_target(postgres_dsn)
    with psycopg.connect(dsn, autocommit=True) as connection:
        figures.settle()
        for _ in range(4):
            connection.execute("SELECT /* naps */ pg_sleep(0.25)")
    figures.settle("pg_exec_seconds_total")
    statement = {labels["query"]: v for labels, v in figures.all("tb_pg_statement_seconds_total")}
    assert statement["SELECT pg_sleep($1)"] == pytest.approx(1.0, abs=0.2)
    assert figures.get("tb_pg_statement_calls_total", query="SELECT pg_sleep($1)") == 4
    assert figures.get("tb_pg_exec_seconds_total") >= 1.0
    assert figures.get("tb_pg_wait_seconds_total", wait="Timeout:PgSleep") == pytest.approx(1.0, abs=0.3)
    # statements of other databases, the sampler's own among them, are none of the target's
    assert not [query for query in statement if "pg_stat" in query]


def test_cpu_of_backends_agrees_with_what_they_burnt(
    sampler: SamplerProcess, prometheus_url: str, postgres_server: PostgresServer
) -> None:
    figures = Figures(prometheus_url)
    dsn = fresh_target(postgres_server.dsn())
    for _ in range(3):  # what the making of the database cost is in
        figures.settle("cpu_seconds_total")
    before_s = figures.get("tb_cpu_seconds_total", component="postgres")
    with psycopg.connect(dsn, autocommit=True) as connection:
        pid = connection.info.backend_pid
        begun = time.monotonic()
        connection.execute("SET max_parallel_workers_per_gather = 0")
        while time.monotonic() - begun < 1.2:
            connection.execute("SELECT sum(sqrt(n)) FROM generate_series(1, 100000) n")
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        burnt_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    figures.settle("cpu_seconds_total")
    figures.settle("cpu_seconds_total")
    figures.settle("cpu_seconds_total")
    seen_s = figures.get("tb_cpu_seconds_total", component="postgres") - before_s
    assert burnt_s > 0.3
    # beside the backend: its birth, the checkpointer, and the sampler's own backend
    assert burnt_s - 0.05 <= seen_s <= burnt_s + 0.25


def test_redis_commands_are_counted_from_the_start(
    sampler: SamplerProcess, prometheus_url: str, redis_url: str
) -> None:
    figures = Figures(prometheus_url)
    with redis.Redis.from_url(redis_url) as client:
        for number in range(50):
            client.set("sampler-test", number)
        client.get("sampler-test")
        client.get("no such key")
        client.delete("sampler-test")
    figures.settle("redis_commands_total")
    assert figures.get("tb_redis_commands_total", command="set") == 50
    assert figures.get("tb_redis_hits_total") == 1
    assert figures.get("tb_redis_misses_total") == 1
    assert 0 < figures.get("tb_redis_command_seconds_total", command="set") < 1
    assert not [labels for labels, _ in figures.all("tb_redis_commands_total") if labels["command"] == "info"]


def test_machine_and_own_cost(sampler: SamplerProcess, prometheus_url: str) -> None:
    figures = Figures(prometheus_url)
    figures.settle("host_cpu_seconds_total")
    names = {labels["component"] for labels, _ in figures.all("tb_cpu_seconds_total")}
    assert names == {"postgres", "ticketbench", "other"}
    first = {labels["mode"]: v for labels, v in figures.all("tb_host_cpu_seconds_total")}
    begun_s = figures.newest_s("tb_host_cpu_seconds_total")
    until(lambda: figures.newest_s("tb_host_cpu_seconds_total") >= begun_s + 2.5)
    span_s = figures.newest_s("tb_host_cpu_seconds_total") - begun_s
    last = {labels["mode"]: v for labels, v in figures.all("tb_host_cpu_seconds_total")}
    assert set(last) == {"user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"}
    cores = os.cpu_count() or 1
    assert sum(last.values()) - sum(first.values()) == pytest.approx(cores * span_s, rel=0.25)
    assert figures.get("tb_sampler_push_failures_total") == 0
    assert figures.get("tb_sampler_ticks_total", what="waits") >= 20
    assert figures.get("tb_memory_bytes", component="ticketbench") > 10 << 20


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


def test_the_end_of_stdin_ends_it_and_what_it_saw_is_pushed(
    prometheus_url: str, postgres_dsn: str, redis_url: str, log: Path
) -> None:
    sampler = SamplerProcess.start(prometheus_url, DatabaseAccess(postgres_dsn, redis_url), [], log)
    assert sampler.alive()
    stopped_s = time.time()
    sampler.stop()
    sampler.stop()
    assert not sampler.alive()
    assert sampler._process.returncode == 0
    assert Figures(prometheus_url).newest_s("tb_sampler_ticks_total") >= stopped_s - 0.05
    with pytest.raises(EnvironmentFailure, match="has ended"):
        sampler.watch("app", 1)


def test_it_dies_with_who_started_it(prometheus_url: str, postgres_dsn: str, redis_url: str, tmp_path: Path) -> None:
    script = """
import json, os, sys
from pathlib import Path
from ticketbench.sampler_process import SamplerProcess
from ticketbench.stack.protocol import DatabaseAccess
url, dsn, redis, log = json.loads(sys.stdin.readline())
sampler = SamplerProcess.start(url, DatabaseAccess(dsn, redis), [], Path(log))
print(sampler.pid, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(
            json.dumps([prometheus_url, postgres_dsn, redis_url, str(tmp_path / "log")]).encode() + b"\n"
        )
        parent.stdin.flush()
        pid = int(parent.stdout.readline())
        assert running(pid)
        parent.kill()
        parent.wait()
    until(lambda: not running(pid))


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_no_password_is_on_its_command_line_or_in_its_environment(
    sampler: SamplerProcess, postgres_server: PostgresServer
) -> None:
    password = psycopg.conninfo.conninfo_to_dict(postgres_server.dsn())["password"]
    assert isinstance(password, str)
    for file in ("cmdline", "environ"):
        assert password.encode() not in Path(f"/proc/{sampler.pid}/{file}").read_bytes()


def test_what_cannot_be_reached_at_the_start_is_said_without_its_password(
    prometheus_url: str, postgres_dsn: str, redis_url: str, log: Path
) -> None:
    away = free_port()
    password = psycopg.conninfo.conninfo_to_dict(postgres_dsn)["password"]
    assert isinstance(password, str)
    for url, access in (
        (f"http://127.0.0.1:{away}", DatabaseAccess(postgres_dsn, redis_url)),
        (prometheus_url, DatabaseAccess(make_conninfo(postgres_dsn, port=away), redis_url)),
        (prometheus_url, DatabaseAccess(postgres_dsn, f"redis://:secret-word@127.0.0.1:{away}/0")),
        (prometheus_url, DatabaseAccess(f"postgresql://u:{password}@[", redis_url)),
    ):
        with pytest.raises(EnvironmentFailure, match="could not start") as failure:
            SamplerProcess.start(url, access, [], log)
        assert password not in failure.value.message
        assert "secret-word" not in failure.value.message
    assert len(json_lines(log)) == 4


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


def test_nobody_to_ask_is_not_idle(prometheus_url: str) -> None:
    assert not wait_idle(prometheus_url, deadline_s=0.3)
