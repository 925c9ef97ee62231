"""The sampler process on real servers: what it sees agrees with what was done, and nothing that happens blinds it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import psycopg
import pytest
import redis
from psycopg.conninfo import make_conninfo

from tests.integration.sampled import Figures, fresh_target, json_lines, root_of, until
from ticketbench.errors import EnvironmentFailure
from ticketbench.sampler_process import SamplerProcess
from ticketbench.sampling.phases import LoadPhase
from ticketbench.stack.postgres import PostgresServer
from ticketbench.stack.protocol import Component, DatabaseAccess
from ticketbench.stack.servers import free_port


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
from ticketbench.sampling.phases import LoadPhase
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


def test_the_phases_of_a_load_are_seen_as_long_as_they_hold(
    prometheus_url: str, postgres_dsn: str, redis_url: str, log: Path
) -> None:
    figures = Figures(prometheus_url)
    sampler = SamplerProcess.start(prometheus_url, DatabaseAccess(postgres_dsn, redis_url), [], log)

    def phases() -> dict[str, float]:
        found = figures.all("tb_trial_phase")
        return {labels["phase"]: value for labels, value in found if labels["trial"] == "phases-001"}

    try:
        sampler.phase(LoadPhase("phases-001", "pool_size=2,cache=on", "warm-up", "purchase"))
        until(lambda: phases() == {"warm-up": 1.0})
        sampler.phase(LoadPhase("phases-001", "pool_size=2,cache=on", "window", "purchase", ((0, 3600, 70, 70),)))
        until(lambda: phases() == {"warm-up": 0.0, "window": 1.0})
        assert figures.get("tb_trial_offered_per_s", trial="phases-001") == 70
    finally:
        sampler.stop()  # in the middle of a phase: it must not seem to go on
    assert phases() == {"warm-up": 0.0, "window": 0.0}
    assert figures.get("tb_trial_offered_per_s", trial="phases-001") == 0
    sampler.phase(None)  # whoever marks a phase need not care that the sampler has ended
    assert json_lines(log) == []
