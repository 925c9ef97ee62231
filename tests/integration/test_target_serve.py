"""The sale as processes: a supervisor, its workers on one socket, their metrics, and every way they may end."""

import asyncio
import contextlib
import json
import os
import re
import select
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
import redis as redis_client

from tests.integration.paying import ProviderProcess

GUARDED = ("pessimistic", "optimistic", "atomic", "redis")
REDIS_NUMBER = 8  # a database of Redis for these tests alone
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


@pytest.fixture(scope="module")
def place(postgres_dsn: str, redis_url: str) -> Iterator[Site]:
    name = f"serve_{uuid.uuid4().hex[:12]}"
    url = urlsplit(postgres_dsn)._replace(path=f"/{name}").geturl()
    cache_url = urlsplit(redis_url)._replace(path=f"/{REDIS_NUMBER}").geturl()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TARGET_")}
    environment = {**kept, "TARGET_DATABASE_URL": url, "TARGET_REDIS_URL": cache_url}
    with psycopg.connect(postgres_dsn, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        try:
            with psycopg.connect(url, autocommit=True) as sql, redis_client.Redis.from_url(cache_url) as cache:
                yield Site(environment, sql, cache)
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def site(place: Site) -> Site:
    """The stores with nothing in them."""
    place.sql.execute("DROP TABLE IF EXISTS matches, tickets, holds, checkouts, payments, sessions, buyers")
    place.redis.flushdb()
    return place


Serve = Callable[..., Served]


@pytest.fixture
def serve(site: Site, tmp_path: Path) -> Iterator[Serve]:
    """Start the sale, with a payment provider where it has one; whatever still runs at the end is killed."""
    started: list[Served] = []
    providers: list[ProviderProcess] = []

    def start(*, workers: int = 1, ready: bool = True, pass_fd: int | None = None, **levels: str) -> Served:
        if (payment_ms := levels.pop("payment_ms", None)) is not None:
            providers.append(ProviderProcess(tmp_path, payment_ms=payment_ms))
            providers[-1].start()
            levels["payment_url"] = providers[-1].url
        seeded = site.run("init-db", "--reset", **levels)
        assert seeded.returncode == 0, seeded.stderr
        port, *metrics_ports = free_ports(1 + workers)
        where = ["--port", str(port)] if pass_fd is None else ["--fd", str(pass_fd)]
        served = Served(
            subprocess.Popen(
                [
                    *COMMAND,
                    *("serve", "--workers", str(workers), "--metrics-ports", ",".join(map(str, metrics_ports))),
                    *where,
                ],
                env={**site.environment, **{f"TARGET_{name.upper()}": level for name, level in levels.items()}},
                stderr=subprocess.PIPE,
                text=True,
                pass_fds=() if pass_fd is None else (pass_fd,),
            ),
            port,
            metrics_ports,
        )
        started.append(served)
        if ready:
            served.await_ready()
        return served

    yield start
    for provider in providers:
        provider.end()
    for served in started:
        for pid in (served.process.pid, *served.workers):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        served.process.communicate(timeout=DEADLINE_S)


async def rush(url: str, buyers: int) -> Counter[int]:
    """Have sixty buyers at a time ask for the hot match until each has an answer; return the answers by status."""
    waiting = list(range(buyers))
    answers: Counter[int] = Counter()

    async def queue(client: httpx.AsyncClient) -> None:
        while waiting:
            buyer = f"buyer-{waiting.pop()}"
            status = 503
            while status == 503:
                answer = await client.post(
                    "/matches/1/purchases", headers={"Idempotency-Key": buyer}, json={"buyer": buyer}
                )
                status = answer.status_code
            answers[status] += 1

    async with httpx.AsyncClient(base_url=url, limits=httpx.Limits(max_connections=60), timeout=DEADLINE_S) as client:
        await asyncio.gather(*(queue(client) for _ in range(60)))
    return answers


# --- serving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "levels",
    [
        *({"locking": locking, "payment_ms": "1"} for locking in GUARDED),
        {"data_layer": "asyncpg", "round_trips": "fewest", "purchase_route": "lean"},
    ],
    ids=[*GUARDED, "fastest"],
)
def test_several_workers_sell_to_the_last_ticket_and_count_it_right(
    serve: Serve, site: Site, levels: dict[str, str]
) -> None:
    served = serve(workers=2, stock="70", pool_size="5", pool_timeout_s="30", **levels)
    assert asyncio.run(rush(served.url, 300)) == {201: 70, 409: 230}
    assert site.sold() == 70
    assert served.total('target_purchases_total{outcome="sold"}') == 70
    assert served.total('target_purchases_total{outcome="sold_out"}') == 230
    route = 'route="/matches/{match_id}/purchases"'
    assert served.total(f'target_requests_total{{method="POST",{route},status="201"}}') == 70
    assert served.total(f'target_request_seconds_bucket{{le="+Inf",{route}}}') >= 300
    assert served.total("target_inflight") == 0
    assert served.total("target_pool_size") == 10
    assert served.total("target_pool_checked_out") == served.total("target_pool_waiters") == 0
    assert served.total("target_pool_checkouts_total") >= 300
    assert served.total("target_loop_cpu_seconds_total") > 0
    assert served.total("process_cpu_seconds_total") >= served.total("target_loop_cpu_seconds_total") / 2


def test_several_workers_without_a_guard_oversell(serve: Serve, site: Site) -> None:
    served = serve(workers=2, locking="none", stock="30", payment_ms="2", pool_timeout_s="30")
    sold = asyncio.run(rush(served.url, 200))[201]
    assert sold == site.sold() > 30


def test_it_takes_over_a_socket_that_listens(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        served = serve(ready=False, pass_fd=listening.fileno())
        served.port = listening.getsockname()[1]
        served.await_ready()
        assert HTTP.get(f"{served.url}/matches/1").json()["id"] == 1


def test_metrics_answer_while_the_loop_is_blocked(serve: Serve) -> None:
    served = serve(validate_cost="5000000")
    blocked = threading.Thread(target=HTTP.post, args=(f"{served.url}/tickets/SEED-000001/validation",))
    blocked.start()
    until(lambda: served.total("target_loop_lag_max_seconds") > 0.1, "the lag of a blocked loop")
    blocked.join()
    stage = 'target_stage_seconds_total{route="/tickets/{code}/validation",stage="cpu"}'
    until(lambda: served.total(stage) > 0.1, "the seconds of hashing")


def test_a_folder_of_the_same_name_does_not_take_the_packages_place(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "target_app").mkdir()
    (tmp_path / "target_app" / "__main__.py").write_text("raise SystemExit('the wrong one')")
    (tmp_path / "target_app" / "__init__.py").write_text("")
    monkeypatch.chdir(tmp_path)
    served = serve()
    assert HTTP.get(f"{served.url}/health").status_code == 200


# --- ending -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_after_the_purchases_under_way(serve: Serve, site: Site, signum: signal.Signals) -> None:
    served = serve(workers=2, payment_ms="1500", payment="in_transaction")
    answers: list[httpx.Response] = []

    def buy() -> None:
        answers.append(
            HTTP.post(f"{served.url}/matches/1/purchases", headers={"Idempotency-Key": "k"}, json={"buyer": "ann"})
        )

    buying = threading.Thread(target=buy)
    buying.start()
    until(lambda: served.total("target_pool_checked_out") == 1, "a purchase that pays")
    served.process.send_signal(signum)
    assert served.ended() == (0, "")
    buying.join()
    assert [answer.status_code for answer in answers] == [201]
    assert site.sold() == 1
    assert not any(alive(pid) for pid in served.workers)
    with pytest.raises(httpx.ConnectError):
        HTTP.get(served.url)


def test_a_worker_that_dies_takes_the_others_with_it(serve: Serve) -> None:
    served = serve(workers=2)
    os.kill(served.workers[1], signal.SIGKILL)
    assert served.ended() == (1, "target_app: worker 2 was killed by SIGKILL: stopped all\n")
    assert not any(alive(pid) for pid in served.workers)


def test_workers_die_with_their_supervisor(serve: Serve) -> None:
    served = serve(workers=2)
    served.process.kill()
    until(lambda: not any(alive(pid) for pid in served.workers), "the workers' end")


def test_a_worker_without_its_supervisor_does_not_start(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ended = subprocess.run(
            [*COMMAND, "worker", "--fd", str(listening.fileno()), "--metrics-port", "0", "--parent", "1"],
            env=site.environment,
            pass_fds=(listening.fileno(),),
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_S,
        )
    assert (ended.returncode, ended.stderr) == (1, "target_app: the supervisor is gone\n")


# --- refusing ---------------------------------------------------------------------------------------------------------


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
