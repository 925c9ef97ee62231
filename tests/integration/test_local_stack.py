"""The whole local stack: reset between trials, what has died, and how it ends."""

import contextlib
import dataclasses
import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
import redis

from ticketbench import factors, machine
from ticketbench.binaries import Binaries
from ticketbench.errors import EnvironmentFailure
from ticketbench.isolation import CORES, CpuGroup
from ticketbench.model import Level
from ticketbench.stack import Endpoints
from ticketbench.stack.local import LocalStack
from ticketbench.stack.process import Process, await_end, descendants, identify, labelled
from ticketbench.stack.state import folder_of, running


@pytest.fixture(scope="module")
def stack(binaries: Binaries) -> Iterator[LocalStack]:
    """One stack for the tests that only apply variants to it."""
    stack = LocalStack("tests/of the stack", binaries)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


def levels(**changed: Level) -> dict[str, Level]:
    return {**factors.defaults(), **changed}


def metric(endpoints: Endpoints, name: str) -> list[float]:
    """Return the value of a metric without labels from each worker."""
    values = []
    for target in endpoints.app_metrics:
        lines = httpx.get(f"http://{target}/metrics").text.splitlines()
        values += [float(line.split()[1]) for line in lines if line.split()[0] == name]
    return values


def rows(endpoints: Endpoints, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(endpoints.access.postgres_dsn) as connection:
        return connection.execute(query).fetchall()  # type: ignore[arg-type]


def test_apply_puts_all_data_back(stack: LocalStack) -> None:
    endpoints = stack.apply(levels(stock=17))
    seeded = rows(endpoints, "SELECT id, stock FROM matches ORDER BY id")
    tickets = rows(endpoints, "SELECT count(*) FROM tickets")
    assert 17 in {stock for _, stock in seeded}
    with psycopg.connect(endpoints.access.postgres_dsn) as connection:
        connection.execute("DELETE FROM tickets")
        connection.execute("UPDATE matches SET stock = 0")
    with redis.Redis.from_url(endpoints.access.redis_url) as client:
        client.set("left-over", "1")

    again = stack.apply(levels(stock=17))
    assert rows(again, "SELECT id, stock FROM matches ORDER BY id") == seeded
    assert rows(again, "SELECT count(*) FROM tickets") == tickets
    with redis.Redis.from_url(again.access.redis_url) as client:
        assert client.get("left-over") is None
    assert again.base_url == endpoints.base_url
    before = {part.name: part.pid for part in endpoints.components}
    after = {part.name: part.pid for part in again.components}
    assert before.pop("app") != after.pop("app")  # fresh for each trial
    assert before == after


def test_levels_reach_the_database_and_the_target(stack: LocalStack) -> None:
    endpoints = stack.apply(levels(stock=3, index="off", pool_size=4, max_overflow=2))
    indexes = rows(endpoints, "SELECT indexname FROM pg_indexes WHERE indexname = 'tickets_buyer_match'")
    assert indexes == []
    assert 3 in {stock for (stock,) in rows(endpoints, "SELECT stock FROM matches")}
    assert metric(endpoints, "target_pool_size") == [4]
    assert metric(endpoints, "target_pool_max") == [6]
    with_index = stack.apply(levels(stock=3))
    assert len(rows(with_index, "SELECT indexname FROM pg_indexes WHERE indexname = 'tickets_buyer_match'")) == 1


def scraped(endpoints: Endpoints) -> set[str]:
    """Return what Prometheus scrapes once the stack says that nothing is missing any more."""
    give_up_s = time.monotonic() + 30
    while missing := endpoints.unscraped():
        assert time.monotonic() < give_up_s, missing
        time.sleep(0.1)
    answer = httpx.get(f"{endpoints.prometheus_url}/api/v1/query", params={"query": 'up{job="app"} == 1'}).json()
    return {series["metric"]["instance"] for series in answer["data"]["result"]}


def test_prometheus_scrapes_each_worker_and_no_other(stack: LocalStack) -> None:
    for workers in (3, 1, 2):
        endpoints = stack.apply(levels(workers=workers))
        assert len(endpoints.app_metrics) == workers
        assert scraped(endpoints) == set(endpoints.app_metrics)
        assert httpx.get(f"{endpoints.base_url}/ready").status_code == 200
        assert len(metric(endpoints, "process_cpu_seconds_total")) == workers


def test_the_target_cannot_take_the_reserved_connections(stack: LocalStack) -> None:
    endpoints = stack.apply(levels())
    roles = rows(endpoints, "SELECT DISTINCT rolsuper FROM pg_stat_activity JOIN pg_roles ON rolname = usename"
                            " WHERE datname = 'tickets' AND pid <> pg_backend_pid()")  # fmt: skip
    assert roles == [(False,)]


def test_statistics_start_from_zero_and_can_be_read(stack: LocalStack) -> None:
    endpoints = stack.apply(levels())
    texts = [str(text) for (text,) in rows(endpoints, "SELECT query FROM pg_stat_statements")]
    assert not [text for text in texts if "CREATE DATABASE" in text or "INSERT" in text]


def test_settings_are_those_that_hold(stack: LocalStack) -> None:
    settings = stack.apply(levels()).settings
    assert settings["postgres.fsync"] == "on"
    assert settings["postgres.shared_buffers"] == "128MB"
    assert settings["redis.maxmemory-policy"] == "noeviction"
    assert settings["redis.appendonly"] == "no"
    # what is not its default is told without being named, but never where something lies
    assert settings["postgres.pg_stat_statements.max"] == "1000"
    assert settings["postgres.max_wal_senders"] == "0"
    assert not [name for name, value in settings.items() if value.startswith("/") or "port" in name]


def test_no_text_of_a_record_holds_a_password(stack: LocalStack) -> None:
    endpoints = stack.apply(levels())
    password = endpoints.access.postgres_dsn.split(":")[2].split("@")[0]
    assert password not in repr(endpoints)
    commands = [Path(f"/proc/{part.pid}/cmdline").read_text() for part in endpoints.components]
    assert not [command for command in commands if password in command]
    folder = folder_of(stack.stack_id)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert password not in (folder / "stack.json").read_text()  # not kept: nobody will need it
    assert stat.S_IMODE((folder / "stack.json").stat().st_mode) == 0o600


def test_a_busy_metrics_port_is_left_for_another(stack: LocalStack) -> None:
    first = stack.apply(levels())
    os.kill(next(part.pid for part in first.components if part.name == "app"), signal.SIGTERM)
    host, _, port = first.app_metrics[0].partition(":")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _bind_when_free(taken, (host, int(port)), first)
        taken.listen()
        endpoints = stack.apply(levels())
    assert endpoints.app_metrics[0] != first.app_metrics[0]
    assert scraped(endpoints) == set(endpoints.app_metrics)


def _bind_when_free(taken: socket.socket, address: tuple[str, int], endpoints: Endpoints) -> None:
    app = next(part.pid for part in endpoints.components if part.name == "app")
    assert await_end([process for process in labelled_of(endpoints) if process.pid == app], 10)
    taken.bind(address)


def labelled_of(endpoints: Endpoints) -> tuple[Process, ...]:
    """Return the processes of the stack that these endpoints belong to."""
    folder = endpoints.logs["app"].parent.parent
    return labelled(folder.name)


def kill(pid: int) -> None:
    process = identify(pid)
    assert process is not None
    process.signal(signal.SIGKILL)
    assert await_end([process], 10)


def test_a_dead_sale_is_named_with_its_last_words_and_replaced_by_the_next(stack: LocalStack) -> None:
    endpoints = stack.apply(levels())
    assert endpoints.dead() == {}
    kill(next(part.pid for part in endpoints.components if part.name == "app"))
    died = endpoints.dead()
    assert list(died) == ["app"]
    assert died["app"].startswith("killed by SIGKILL; ")
    assert stack.apply(levels()).dead() == {}


@pytest.mark.parametrize(
    ("victim", "last_words"),
    [("postgres", "ready to accept connections"), ("redis", "Ready to accept"), ("prometheus", "")],
)
def test_a_dead_server_is_named_with_its_last_words(binaries: Binaries, victim: str, last_words: str) -> None:
    stack = LocalStack("victim", binaries)
    try:
        servers = stack.start()
        assert stack.dead() == {}
        kill(next(part.pid for part in servers.components if part.name == victim))
        died = stack.dead()
        assert list(died) == [victim]
        assert died[victim].startswith("killed by SIGKILL; ")
        assert last_words in died[victim]
        with pytest.raises(EnvironmentFailure, match=f"{victim} died"):
            stack.apply(levels())
    finally:
        stack.stop()
    assert stack.dead() == {}
    assert labelled(stack.stack_id) == ()
    assert not folder_of(stack.stack_id).exists()


@pytest.mark.parametrize("part", ["postgres", "redis", "prometheus"])
def test_a_server_that_does_not_start_leaves_nothing(binaries: Binaries, tmp_path: Path, part: str) -> None:
    broken = tmp_path / binaries.program(part).name
    broken.write_text("#!/bin/sh\necho 'I will not'\nexit 3\n")
    broken.chmod(0o755)
    if part == "postgres":
        (tmp_path / "initdb").symlink_to(binaries.initdb)
    stack = LocalStack("broken", dataclasses.replace(binaries, programs={**binaries.programs, part: broken}))
    # initdb refuses to work with a postgres that is none; the others end with their own words
    with pytest.raises(EnvironmentFailure, match=r"initdb failed|exit status 3.*I will not"):
        stack.start()
    assert labelled(stack.stack_id) == ()
    assert not folder_of(stack.stack_id).exists()
    stack.stop()


def test_a_sale_that_does_not_start_says_why_and_the_next_may(stack: LocalStack) -> None:
    with pytest.raises(EnvironmentFailure, match="TARGET_POOL_SIZE"):
        stack.apply(levels(pool_size=0))
    assert stack.apply(levels()).dead() == {}


def test_stop_before_start_and_twice(binaries: Binaries) -> None:
    stack = LocalStack("never", binaries)
    stack.stop()
    stack.start()
    assert [state.stack_id for state in running()].count(stack.stack_id) == 1
    stack.stop()
    stack.stop()
    assert stack.stack_id not in [state.stack_id for state in running()]


def test_an_interrupt_while_starting_leaves_nothing(binaries: Binaries) -> None:
    stack = LocalStack("interrupted", binaries)

    # it strikes somewhere between the first process and the last answer; wherever it does, nothing may stay
    def strike(_signum: int, _frame: object) -> None:
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGALRM, strike)
    try:
        for after_s in (0.05, 0.15, 0.3, 0.5):
            with contextlib.suppress(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, after_s)
                stack.start()
                signal.setitimer(signal.ITIMER_REAL, 0)
            stack.stop()
            assert labelled(stack.stack_id) == ()
            assert not folder_of(stack.stack_id).exists()
            stack = LocalStack("interrupted", binaries)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        stack.stop()


def stop_when_it_runs(stack: LocalStack, component: str) -> threading.Thread:
    """Send SIGSTOP to a component as soon as it is written down as running."""

    def strike() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for state in running():
                if state.stack_id == stack.stack_id:
                    for item in state.processes:
                        if item.component == component and item.process.alive():
                            item.process.signal(signal.SIGSTOP)
                            return
            time.sleep(0.005)

    thread = threading.Thread(target=strike)
    thread.start()
    return thread


@pytest.mark.parametrize("component", ["initdb", "prometheus", "postgres"])
def test_a_server_that_is_stopped_while_starting_is_named_and_nothing_stays(binaries: Binaries, component: str) -> None:
    stack = LocalStack("stopped", binaries)
    thread = stop_when_it_runs(stack, component)
    try:
        with pytest.raises(EnvironmentFailure, match=rf"{component} was stopped \(SIGSTOP\)"):
            stack.start()
            stack.apply(levels())  # it may have been struck in the last moment of the start
    finally:
        thread.join()
        stack.stop()
    assert labelled(stack.stack_id) == ()
    assert not folder_of(stack.stack_id).exists()


def test_what_is_stopped_in_a_reset_is_named_and_the_stack_can_be_ended(binaries: Binaries) -> None:
    stack = LocalStack("stopped", binaries)
    try:
        pids = {part.name: part.pid for part in stack.start().components}
        for component in ("redis", "postgres", "prometheus"):
            os.kill(pids[component], signal.SIGSTOP)
            with pytest.raises(EnvironmentFailure, match=rf"{component} was stopped \(SIGSTOP\)"):
                stack.apply(levels())
    finally:
        for process in labelled(stack.stack_id):  # stopped to the last one, they still end
            process.signal(signal.SIGSTOP)
        stack.stop()
    assert labelled(stack.stack_id) == ()
    assert not folder_of(stack.stack_id).exists()


def test_components_are_held_to_cores_and_limits_for_one_variant(stack: LocalStack) -> None:
    found = machine.isolation()
    if found.no_limits or found.split is None:
        pytest.skip(found.no_limits or found.no_pinning)
    endpoints = stack.apply(levels(pinning="split", app_cpus=0.5, postgres_cpus=0.4, redis_cpus=0.3))
    roots = {part.name: identify(part.pid) for part in endpoints.components}
    trees = {name: (root, *descendants([root])) for name, root in roots.items() if root is not None}
    (state,) = [state for state in running() if state.stack_id == stack.stack_id]
    groups = {Path(folder).name.rpartition("-")[2]: CpuGroup(Path(folder)) for folder in state.groups}
    for name, cpus in (("app", 0.5), ("postgres", 0.4), ("redis", 0.3)):
        assert groups[name].limited_to() == pytest.approx(cpus)
        assert {process.pid for process in trees[name]} <= set(groups[name].pids())
        assert {core for process in trees[name] for core in cores(process)} == set(found.split.system)
    assert {core for process in trees["prometheus"] for core in cores(process)} == set(found.split.generator)
    assert os.sched_getaffinity(0) == set(found.split.generator)

    endpoints = stack.apply(levels())
    assert [group.limited_to() for group in groups.values()] == [0, 0, 0]
    assert os.sched_getaffinity(0) == set(CORES)
    for part in endpoints.components:
        root = identify(part.pid)
        assert root is not None
        assert {core for process in (root, *descendants([root])) for core in cores(process)} == set(CORES)


def cores(process: Process) -> set[int]:
    return set().union(*(os.sched_getaffinity(int(task.name)) for task in Path(f"/proc/{process.pid}/task").iterdir()))
