"""Each server on its own: a real answer, the features that measuring needs, a busy port, an end that leaves nothing."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
import redis

from ticketbench.binaries import Binaries
from ticketbench.errors import EnvironmentFailure
from ticketbench.stack.launch import Launcher, switched_user
from ticketbench.stack.postgres import PostgresServer
from ticketbench.stack.process import labelled
from ticketbench.stack.servers import PrometheusServer, RedisServer, Server, free_port


def test_postgres_counts_statements_and_syncs_to_disk(postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        connection.execute("SELECT 'a statement to be counted'")
        texts = connection.execute("SELECT query FROM pg_stat_statements").fetchall()
        settings = dict(connection.execute("SELECT name, setting FROM pg_settings").fetchall())
    assert ("SELECT $1",) in texts
    assert settings["fsync"] == "on"
    assert settings["track_io_timing"] == "on"
    assert int(settings["max_connections"]) >= 300


def test_postgres_and_redis_refuse_a_wrong_password(postgres_server: PostgresServer, redis_url: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres_server.dsn(password="wrong"))
    wrong = "redis://:wrong@" + redis_url.partition("@")[2]
    with redis.Redis.from_url(wrong) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_prometheus_takes_remote_writes_and_native_histograms(prometheus_url: str) -> None:
    flags = httpx.get(f"{prometheus_url}/api/v1/status/flags").json()["data"]
    assert flags["web.enable-remote-write-receiver"] == "true"
    assert "native-histograms" in flags["enable-feature"]


@pytest.fixture(params=["postgres", "redis", "prometheus"])
def make_server(
    request: pytest.FixtureRequest, binaries: Binaries, launcher: Launcher, server_folder: Path
) -> Iterator[Callable[[Callable[[], int]], Server]]:
    """Make a fresh server of each kind that asks the given function for its port."""
    made: list[Server] = []

    def make(ports: Callable[[], int]) -> Server:
        folder = server_folder / f"{request.param}-{len(list(server_folder.iterdir()))}"
        folder.mkdir()
        log = folder.with_suffix(".log")
        server: Server
        if request.param == "postgres":
            server = PostgresServer(binaries.postgres, folder, launcher, log=log, ports=ports)
            server.prepare()
        elif request.param == "redis":
            server = RedisServer(binaries.redis, folder, launcher, log=log, ports=ports)
        else:
            server = PrometheusServer(binaries.prometheus, folder, launcher, log=log, ports=ports)
        made.append(server)
        return server

    yield make
    for server in made:
        server.stop()


def test_a_busy_port_is_left_for_another(make_server: Callable[[Callable[[], int]], Server]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = taken.getsockname()[1]
        ports = iter([busy, busy])
        server = make_server(lambda: next(ports, 0) or free_port())
        server.launch()
        assert server.port == busy
        server.await_ready()
        assert server.port != busy
        assert server.dead() is None


def test_only_busy_ports_is_a_failure_that_says_so(make_server: Callable[[Callable[[], int]], Server]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy: int = taken.getsockname()[1]
        server = make_server(lambda: busy)
        server.launch()
        with pytest.raises(EnvironmentFailure, match=r"(?i)address already in use") as failure:
            server.await_ready()
    assert "ports in a row" in failure.value.hint


def test_stop_ends_the_whole_family_and_may_be_called_again(
    make_server: Callable[[Callable[[], int]], Server],
) -> None:
    server = make_server(free_port)
    server.launch()
    server.await_ready()
    assert server.launched is not None
    process = server.launched.process
    assert process in labelled(f"tests-{os.getpid()}")
    server.stop()
    server.stop()
    assert not process.alive()
    assert process not in labelled(f"tests-{os.getpid()}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the user")
def test_root_without_user_namespaces_runs_postgres_as_nobody(
    binaries: Binaries, launcher: Launcher, server_folder: Path
) -> None:
    folder = server_folder / "switched"
    folder.mkdir()
    server = PostgresServer(
        binaries.postgres, folder, launcher, log=server_folder / "switched.log", identity=switched_user()
    )
    try:
        server.prepare()
        server.launch()
        server.await_ready()
        assert server.launched is not None
        assert Path(f"/proc/{server.launched.process.pid}").stat().st_uid == 65534
    finally:
        server.stop()
