"""The commands of the target: what they refuse, the schema of the settings, and the seeding of a database."""

import contextlib
import json
import select
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from tests.integration.target_processes import COMMAND, DEADLINE_S, HTTP, Served, Site, free_ports, until


def test_a_wrong_level_is_named(site: Site) -> None:
    port, metrics_port = free_ports(2)
    ended = site.run("serve", "--workers", "1", "--metrics-ports", f"{metrics_port}", "--port", f"{port}", locking="so")
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        "target_app: TARGET_LOCKING: Input should be 'none', 'pessimistic', 'optimistic', 'atomic' or 'redis'",
        "target_app: worker 1 exited with status 1: stopped all",
    ]


@pytest.mark.parametrize("busy", ["--port", "--metrics-ports"])
def test_a_busy_port_is_named(site: Site, busy: str) -> None:
    port, metrics_port = free_ports(2)
    with socket.create_server(("127.0.0.1", port if busy == "--port" else metrics_port)):
        ended = site.run("serve", "--workers", "1", "--metrics-ports", f"{metrics_port}", "--port", f"{port}")
    assert ended.returncode == 1
    assert f"127.0.0.1:{port if busy == '--port' else metrics_port}: Address already in use" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("server", ["database_url", "redis_url"])
def test_a_server_that_is_not_there_is_named_without_its_password(site: Site, server: str) -> None:
    port, metrics_port, nobody = free_ports(3)
    scheme = "postgresql" if server == "database_url" else "redis"
    ended = site.run(
        *("serve", "--workers", "1", "--metrics-ports", f"{metrics_port}", "--port", f"{port}"),
        **{server: f"{scheme}://somebody:hidden-word@127.0.0.1:{nobody}/0"},
    )
    assert ended.returncode == 1
    assert f"target_app: {'PostgreSQL' if server == 'database_url' else 'Redis'} cannot be used: " in ended.stderr
    assert "hidden-word" not in ended.stderr
    assert "Traceback" not in ended.stderr


def test_ports_must_match_workers(site: Site) -> None:
    ended = site.run("serve", "--workers", "2", "--metrics-ports", "1", "--port", "0")
    assert ended.returncode == 2
    assert "names 1 ports for 2 workers" in ended.stderr


def test_metrics_ports_can_follow_on_the_first(site: Site) -> None:
    assert site.run("init-db").returncode == 0
    first = two_free_ports_in_a_row()
    port = free_ports(1)[0]
    served = Served(
        subprocess.Popen(
            [*COMMAND, "serve", "--port", str(port), "--workers", "2", "--first-metrics-port", str(first)],
            env=site.environment,
            stderr=subprocess.PIPE,
            text=True,
        ),
        port,
        [first, first + 1],
    )
    try:
        until(served.ready, "two workers serve")
        until(lambda: all(map(answers, served.metrics_ports)), "the metrics of both workers")
    finally:
        served.process.terminate()
        assert served.ended()[0] == 0


def two_free_ports_in_a_row() -> int:
    """Return the first of two neighbours that were free a moment ago."""
    for first in range(20_000, 32_000, 2):
        try:
            with socket.create_server(("127.0.0.1", first)), socket.create_server(("127.0.0.1", first + 1)):
                return first
        except OSError:
            continue
    pytest.fail("no two free ports in a row")


def answers(port: int) -> bool:
    try:
        return HTTP.get(f"http://127.0.0.1:{port}/metrics").status_code == 200
    except httpx.TransportError:
        return False


def test_the_last_metrics_port_has_to_be_one(site: Site) -> None:
    ended = site.run("serve", "--workers", "2", "--first-metrics-port", "65535", "--port", "0")
    assert ended.returncode == 2
    assert "--first-metrics-port 65535: no 2 ports from there on" in ended.stderr


def test_the_settings_are_printed_as_a_schema(site: Site) -> None:
    ended = site.run("settings", database_url="not read")
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["properties"]["locking"]["default"] == "atomic"


def test_a_database_is_seeded_once(site: Site) -> None:
    assert site.run("init-db", stock="12").returncode == 0
    again = site.run("init-db", stock="13")
    assert again.returncode == 1
    assert again.stderr.startswith("target_app: the database holds a sale already")
    capacity = "SELECT capacity FROM matches WHERE id = 1"
    assert site.sql.execute(capacity).fetchone() == (12,)
    assert site.run("init-db", "--reset", stock="13").returncode == 0
    assert site.sql.execute(capacity).fetchone() == (13,)
    assert site.run("init-db", "--keep", stock="14").returncode == 0
    assert site.sql.execute(capacity).fetchone() == (13,)


@contextlib.contextmanager
def starting_up(database_url: str, refusals: list[bytes]) -> Iterator[str]:
    """Serve the database on another port, as one that is not there yet: each of ``refusals`` ends a connection."""
    real = urlsplit(database_url)
    assert real.hostname is not None
    assert real.port is not None
    address = (real.hostname, real.port)

    class Door(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            if refusals:
                self.request.recv(65536)
                self.request.sendall(refusals.pop(0))
                return
            with socket.create_connection(address) as database:
                other = {database: self.request, self.request: database}
                while True:
                    for source in select.select(list(other), [], [])[0]:
                        if not (data := source.recv(65536)):
                            return
                        other[source].sendall(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Door) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield real._replace(netloc=f"{real.username}:{real.password}@127.0.0.1:{server.server_address[1]}").geturl()
        server.shutdown()


# What PostgreSQL answers while it comes up, in its protocol.
_FIELDS = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0"
STARTING_UP = b"E" + (len(_FIELDS) + 4).to_bytes(4, "big") + _FIELDS


def test_a_database_that_comes_up_is_waited_for(site: Site) -> None:
    refusals = [b"", STARTING_UP, STARTING_UP]
    with starting_up(site.environment["TARGET_DATABASE_URL"], refusals) as url:
        seeded = site.run("init-db", "--wait-s", f"{DEADLINE_S}", database_url=url)
    assert seeded.returncode == 0, seeded.stderr
    assert refusals == []


@pytest.mark.parametrize("refusal", [b"", STARTING_UP], ids=["cut off", "starting up"])
def test_a_database_is_not_waited_for_unasked(site: Site, refusal: bytes) -> None:
    refusals = [refusal] * 3
    with starting_up(site.environment["TARGET_DATABASE_URL"], refusals) as url:
        seeded = site.run("init-db", database_url=url)
    assert seeded.returncode == 1
    assert seeded.stderr.startswith("target_app: the database could not be seeded")
    assert len(refusals) == 2


def test_waiting_does_not_help_a_wrong_password(site: Site) -> None:
    url = urlsplit(site.environment["TARGET_DATABASE_URL"])
    wrong = url._replace(netloc=f"{url.username}:wrong@{url.hostname}:{url.port}").geturl()
    seeded = site.run("init-db", "--wait-s", "3600", database_url=wrong)
    assert seeded.returncode == 1
    assert "password authentication failed" in seeded.stderr
