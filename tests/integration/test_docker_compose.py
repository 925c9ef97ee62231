"""compose/compose.yaml for real: what Compose reads in it, the image that it builds, the stack that it brings up."""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg
import pytest
from packaging.version import Version

from tests.conftest import without_docker
from ticketbench.stack.compose import Service
from ticketbench.stack.compose_file import read_compose

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("docker")]

ROOT: Final = Path(__file__).parents[2]
FILE: Final = ROOT / "compose" / "compose.yaml"
INLINE_CONFIGS: Final = Version("2.23.1")
DEADLINE_S: Final = 120.0
# Measured: 86 MB. What only the toolkit needs (pandas, numpy, scipy, matplotlib) would be 300 MB more.
MOST_ADDED_BYTES: Final = 130_000_000
PASSWORDS: Final = {f"TICKETBENCH_PASSWORD_{name}": f"{name.lower()}-word" for name in ("POSTGRES", "SALE", "REDIS")}


@dataclass(frozen=True)
class Program:
    """Docker's client, with the variables that name the stack's images."""

    words: tuple[str, ...]
    variables: Mapping[str, str]

    def __call__(self, *arguments: str, **more: str) -> str:
        """Run it to its end and return what it printed."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TICKETBENCH_")}
        ran = subprocess.run(
            [*self.words, *arguments],
            env={**environment, **self.variables, **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, f"{' '.join(arguments)}: {ran.stderr}"
        return ran.stdout


def until(condition: Callable[[], bool], what: str) -> None:
    """Return once the condition holds; fail after ``DEADLINE_S``."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S:g} s: {what}"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def client(docker: str, stack_images: dict[str, str]) -> Program:
    return Program((docker,), stack_images)


@pytest.fixture(scope="module")
def compose(docker: str) -> Program:
    """`docker compose` for a project of these tests alone; it needs no image."""
    asked = subprocess.run([docker, "compose", "version", "--short"], capture_output=True, text=True, check=False)
    said = asked.stdout.strip().removeprefix("v")
    if asked.returncode != 0 or Version(re.split("[-+~]", said)[0]) < INLINE_CONFIGS:
        without_docker(f"Docker Compose: {said or 'not there'}, and {INLINE_CONFIGS} or later is needed")
    project = f"ticketbench-test-{os.getpid()}"
    return Program((docker, "compose", "--ansi", "never", "-p", project, "-f", str(FILE)), {})


# --- what Compose reads -----------------------------------------------------------------------------------------------


def as_compose_has_it(service: Service, texts: Mapping[str, str]) -> dict[str, Any]:
    """Return a record in the words of `docker compose config --format json`."""
    health = service.healthcheck
    assert health is not None or not service.ports or service.name == "haproxy"
    return {
        "image": service.image,
        "user": service.user,
        "command": list(service.command),
        "environment": dict(service.environment),
        "labels": dict(service.labels),
        "profiles": list(service.profiles),
        "network_mode": service.network_mode,
        "depends_on": {name: need.condition for name, need in service.depends_on.items()},
        "ports": [(port.target, str(port.published), port.host_ip) for port in service.ports],
        "volumes": [(mount.type, mount.source, mount.target, mount.read_only) for mount in service.volumes],
        "configs": [(use.source, use.target, texts[use.source]) for use in service.configs],
        "healthcheck": list(health.test) if health else None,
        "interval": f"{health.interval_s // 60:.0f}m0s" if health else None,
        "cap_drop": list(service.cap_drop),
        "security_opt": list(service.security_opt),
        "cpus": service.cpus,
        "memory": (service.memory_bytes, service.memory_swap_bytes, service.shm_bytes),
        "pull_policy": service.pull_policy,
    }


def from_compose(read: Mapping[str, Any], texts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same of what it printed, where what is not said is left out."""
    health = read.get("healthcheck", {})
    return {
        "image": read["image"],
        "user": read["user"],
        "command": read.get("command") or [],
        "environment": read.get("environment", {}),
        "labels": read.get("labels", {}),
        "profiles": read.get("profiles", []),
        "network_mode": read.get("network_mode"),
        "depends_on": {name: need["condition"] for name, need in read.get("depends_on", {}).items()},
        "ports": [(port["target"], port["published"], port["host_ip"]) for port in read.get("ports", [])],
        "volumes": [
            (mount["type"], mount["source"], mount["target"], mount.get("read_only", False))
            for mount in read.get("volumes", [])
        ],
        "configs": [(use["source"], use["target"], texts[use["source"]]["content"]) for use in read.get("configs", [])],
        "healthcheck": health.get("test"),
        "interval": health.get("interval"),
        "cap_drop": read.get("cap_drop", []),
        "security_opt": read.get("security_opt", []),
        "cpus": float(read.get("cpus", 0)),
        "memory": tuple(int(read.get(key, 0)) for key in ("mem_limit", "memswap_limit", "shm_size")),
        "pull_policy": read.get("pull_policy", "missing"),
    }


OTHERS: Final = {
    "TICKETBENCH_IMAGE_POSTGRES": "elsewhere/postgres:1",
    "TICKETBENCH_PORT_APP": "18000",
    "TICKETBENCH_CPUS_POSTGRES": "1.5",
    "TICKETBENCH_MEMORY_APP": "512m",
    "TICKETBENCH_METRICS_TARGETS": "app:9101,app:9102",
    "TICKETBENCH_IMAGE_REDIS": "",
    **PASSWORDS,
}


@pytest.mark.parametrize("variables", [{}, OTHERS], ids=["the defaults", "other values"])
def test_we_read_what_compose_reads(compose: Program, variables: dict[str, str]) -> None:
    printed = json.loads(compose("--profile", "*", "config", "--format", "json", **variables))
    ours = read_compose(variables)
    assert set(printed["services"]) == set(ours.services)
    for name, service in ours.services.items():
        theirs = from_compose(printed["services"][name], printed["configs"])
        if service.network_mode:  # Compose adds what follows from it
            assert theirs["depends_on"].pop("app") == "service_started"
        expected = as_compose_has_it(service, ours.configs)
        expected["depends_on"].pop(service.network_of, None)
        assert theirs == expected, name
    build = ours.services["app"].build
    assert build is not None
    theirs = printed["services"]["app"]["build"]
    assert theirs == {"context": str(build.context), "dockerfile": build.dockerfile, "args": dict(build.args)}
    for section in ("volumes", "networks"):
        records = getattr(ours, section)
        assert {name: made["labels"] for name, made in printed[section].items()} == {
            name: dict(record.labels) for name, record in records.items()
        }


# --- the app image ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def app_image(client: Program) -> str:
    """The image, built by the classic builder, which is the Docker SDK's."""
    image = client.variables["TICKETBENCH_IMAGE_APP"]
    build = read_compose(client.variables).services["app"].build
    assert build is not None
    client(
        *("build", "--force-rm", "-t", image, "-f", str(build.context / build.dockerfile)),
        *(word for name, value in build.args.items() for word in ("--build-arg", f"{name}={value}")),
        str(build.context),
        DOCKER_BUILDKIT="0",
    )
    return image


def test_the_app_image_is_not_root_and_cannot_change_itself(client: Program, app_image: str) -> None:
    look = "import os, pathlib; print(os.getuid(), os.getgid(), [str(p) for p in pathlib.Path('/srv').rglob('*')"
    look += " if os.access(p, os.W_OK)], os.access('/srv', os.W_OK), bool(list(pathlib.Path('/srv').rglob('*.pyc'))))"
    printed = client("run", "--rm", "--network", "none", "--entrypoint", "python", app_image, "-c", look)
    assert printed.split() == ["10001", "10001", "[]", "False", "True"]


def test_the_app_image_is_the_target(client: Program, app_image: str) -> None:
    printed = client("run", "--rm", "--network", "none", app_image, "settings")
    assert json.loads(printed)["properties"]["locking"]["default"] == "atomic"


def test_the_app_image_is_small_and_tells_what_it_stands_on(client: Program, app_image: str) -> None:
    base = client.variables.get("TICKETBENCH_IMAGE_PYTHON", "")
    if not base:
        base = next(iter(read_compose({}).services["app"].build.args.values()))  # type: ignore[union-attr]
    inspected = json.loads(client("image", "inspect", app_image, base))
    added = inspected[0]["Size"] - inspected[1]["Size"]
    assert 0 < added < MOST_ADDED_BYTES
    stands_on = "ticketbench.standin"
    labels = [image["Config"]["Labels"] or {} for image in inspected]
    assert labels[0].get(stands_on) == labels[1].get(stands_on)
    if "standin" in base:
        assert labels[0][stands_on]


# --- the whole stack --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Up:
    """The stack as `docker compose up` left it."""

    compose: Program
    client: Program
    project: str

    def address(self, service: str, port: int) -> str:
        return self.compose("port", service, str(port)).strip()

    def query(self, expression: str) -> list[dict[str, Any]]:
        url = f"http://{self.address('prometheus', 9090)}/api/v1/query"
        answer = httpx.get(url, params={"query": expression}, timeout=10)
        found: list[dict[str, Any]] = answer.raise_for_status().json()["data"]["result"]
        return found

    def left(self) -> list[str]:
        """Return containers, volumes and networks of the project."""
        ours = ("--filter", f"label=com.docker.compose.project={self.project}", "-q")
        return [
            *self.client("ps", "-a", *ours).split(),
            *self.client("volume", "ls", *ours).split(),
            *self.client("network", "ls", *ours).split(),
        ]


@pytest.fixture(scope="module")
def up(compose: Program, client: Program) -> Iterator[Up]:
    """The stack, brought up by `docker compose up` alone. Afterwards nothing of it may be left."""
    ours = Program(compose.words, {**client.variables, **PASSWORDS})
    brought = Up(ours, client, compose.words[compose.words.index("-p") + 1])
    try:
        ours("up", "-d")
        until(lambda: answers(f"http://{brought.address('app', 8000)}/ready"), "the sale answers")
        yield brought
    finally:
        ours("--profile", "*", "down", "-v", "--timeout", "5")
        assert brought.left() == []


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def test_the_sale_sells(up: Up) -> None:
    with httpx.Client(base_url=f"http://{up.address('app', 8000)}", timeout=10) as buyer:
        sold = buyer.post("/matches/2/purchases", json={"buyer": "somebody"}, headers={"Idempotency-Key": "compose-1"})
        assert sold.status_code == 201, sold.text


def test_prometheus_scrapes_the_sale(up: Up) -> None:
    until(lambda: [each["value"][1] for each in up.query('up{job="app"}')] == ["1"], "the app is scraped")
    [scraped] = up.query('up{job="app"}')
    assert scraped["metric"]["instance"] == "app:9101"


def test_k6_calls_the_sale_in_its_own_network_and_reports_to_prometheus(up: Up) -> None:
    said = up.compose("run", "--rm", "-T", "k6", "run", "--quiet", "/scenarios/smoke.js")
    assert "33 " in said
    counted = "sum(last_over_time(k6_http_reqs_total[10m]))"
    until(lambda: [each["value"][1] for each in up.query(counted)] == ["33"], "k6's requests are in Prometheus")
    assert up.query("last_over_time(k6_http_req_duration_seconds[10m])"), "no native histograms"


def test_the_sale_is_no_superuser_and_statements_are_counted(up: Up) -> None:
    address = up.address("postgres", 5432)
    superuser = f"postgresql://ticketbench:{PASSWORDS['TICKETBENCH_PASSWORD_POSTGRES']}@{address}/tickets"
    with psycopg.connect(superuser) as connection:
        row = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = 'sale'").fetchone()
        assert row == (False,)
        assert connection.execute("SHOW max_connections").fetchone() == ("300",)
        row = connection.execute("SELECT count(*) > 0 FROM pg_stat_statements").fetchone()
        assert row == (True,)
        owners = connection.execute("SELECT DISTINCT tableowner FROM pg_tables WHERE tablename = 'tickets'").fetchall()
        assert owners == [("sale",)]


def test_nothing_runs_as_root_and_nothing_is_open_to_others(up: Up) -> None:
    for container in json.loads(up.client("inspect", *up.compose("ps", "-q").split())):
        name = container["Config"]["Labels"]["com.docker.compose.service"]
        users = {line.split()[0] for line in up.client("top", container["Id"], "-o", "uid,pid").splitlines()[1:]}
        assert users, name
        assert "0" not in users, name
        published = [each for each in container["NetworkSettings"]["Ports"].values() if each]
        assert {bound["HostIp"] for each in published for bound in each} == {"127.0.0.1"}, name


def test_a_second_up_keeps_what_was_sold_and_limits_what_it_is_told_to(up: Up) -> None:
    with httpx.Client(base_url=f"http://{up.address('app', 8000)}", timeout=10) as buyer:
        first = buyer.post("/matches/3/purchases", json={"buyer": "keeper"}, headers={"Idempotency-Key": "compose-2"})
        assert first.status_code == 201, first.text
    up.compose("up", "-d", TICKETBENCH_CPUS_APP="0.5", TICKETBENCH_MEMORY_APP="300m")
    until(lambda: answers(f"http://{up.address('app', 8000)}/ready"), "the sale answers again")
    with httpx.Client(base_url=f"http://{up.address('app', 8000)}", timeout=10) as buyer:
        again = buyer.post("/matches/3/purchases", json={"buyer": "keeper"}, headers={"Idempotency-Key": "compose-2"})
    assert again.json()["code"] == first.json()["code"]
    [app] = json.loads(up.client("inspect", up.compose("ps", "-q", "app").strip()))
    assert app["HostConfig"]["NanoCpus"] == 500_000_000
    assert app["HostConfig"]["Memory"] == app["HostConfig"]["MemorySwap"] == 300 * 1024**2


def test_the_remedies_come_with_their_profiles(up: Up) -> None:
    told = {"TICKETBENCH_DATABASE_AT": "pgbouncer:6432", "TICKETBENCH_POOLER": "pgbouncer"}
    up.compose("--profile", "pgbouncer", "--profile", "haproxy", "up", "-d", **told)
    until(lambda: answers(f"http://{up.address('haproxy', 8080)}/ready"), "the sale answers behind HAProxy")
    with httpx.Client(base_url=f"http://{up.address('haproxy', 8080)}", timeout=10) as buyer:
        sold = buyer.post("/matches/4/purchases", json={"buyer": "somebody"}, headers={"Idempotency-Key": "compose-3"})
        assert sold.status_code == 201, sold.text
    console = f"postgresql://ticketbench:ticketbench@{up.address('pgbouncer', 6432)}/pgbouncer"
    with psycopg.connect(console, autocommit=True, prepare_threshold=None) as connection:
        pools = connection.execute("SHOW POOLS").fetchall()
    assert ("tickets", "sale") in [row[:2] for row in pools]
    figures = httpx.get(f"http://{up.address('haproxy', 8404)}/ticketbench;csv", timeout=5).text
    assert "sale,app," in figures
