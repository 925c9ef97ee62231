"""What the Docker engine is asked to make: compose.yaml's services as its API takes them."""

import io
import tarfile
from dataclasses import replace
from typing import Any

import pytest

from ticketbench.stack.compose import Compose
from ticketbench.stack.compose_file import read_compose
from ticketbench.stack.containers import bodies
from ticketbench.stack.containers.bodies import Belonging, Changes, container_body

MINE = Belonging(stack_id="20261122T101500Z-Spike.2-a1b2c3", run_id="run", owner="boot/1/2", created="2026-11-22")


@pytest.fixture(scope="module")
def compose() -> Compose:
    return read_compose({})


def body(compose: Compose, service: str, **changes: Any) -> dict[str, Any]:
    return container_body(compose, service, "sha256:abc", MINE, Changes(**changes))


def test_every_service_can_be_asked_for(compose: Compose) -> None:
    for name, service in compose.services.items():
        asked = body(compose, name, network_of="other" if service.network_of else None)
        assert asked["Image"] == "sha256:abc"
        assert asked["User"] == service.user
        assert asked["Labels"]["com.docker.compose.service"] == name


def test_a_project_is_named_as_compose_allows_it() -> None:
    assert MINE.project == "ticketbench-20261122t101500z-spike-2-a1b2c3"
    assert MINE.container("app") == f"{MINE.project}-app-1"


def test_a_further_replica_has_a_name_of_its_own(compose: Compose) -> None:
    second = body(compose, "app", number=2)
    assert second["Labels"]["com.docker.compose.service"] == "app"
    assert second["Labels"]["com.docker.compose.container-number"] == "2"
    [endpoint] = second["NetworkingConfig"]["EndpointsConfig"].values()
    assert endpoint["Aliases"] == ["app-2"] == [Changes(number=2).part("app")]
    assert MINE.container("app", 2) == f"{MINE.project}-app-2"


def test_what_is_made_is_found_by_composes_labels_and_by_ours(compose: Compose) -> None:
    labels = body(compose, "app")["Labels"]
    assert labels["com.docker.compose.project"] == MINE.project
    assert labels["com.docker.compose.oneoff"] == "False"
    assert labels[bodies.STACK] == MINE.stack_id  # and not what compose.yaml has for a stack by hand
    assert labels[bodies.OWNER] == "boot/1/2"
    assert body(compose, "seed", once=True)["Labels"]["com.docker.compose.oneoff"] == "True"
    assert bodies.volume_labels(MINE, "postgres-data")["com.docker.compose.volume"] == "postgres-data"
    assert bodies.network_labels(MINE)[bodies.STACK] == MINE.stack_id


def test_ports_are_published_on_the_loopback_only_wherever_one_is_free(compose: Compose) -> None:
    bindings = body(compose, "app", ports=(9101, 6565))["HostConfig"]["PortBindings"]
    assert set(bindings) == {"8000/tcp", "9101/tcp", "6565/tcp"}
    for ports in bindings.values():
        assert ports == [{"HostIp": "127.0.0.1", "HostPort": ""}]
    fixed = read_compose({"TICKETBENCH_PORT_APP": "8123"})
    assert body(fixed, "app")["HostConfig"]["PortBindings"]["8000/tcp"][0]["HostPort"] == "8123"


def test_k6_has_the_network_of_the_target_and_no_folder_of_this_machine(compose: Compose) -> None:
    asked = body(compose, "k6", network_of="abc")
    assert asked["HostConfig"]["NetworkMode"] == "container:abc"
    assert asked["HostConfig"]["Mounts"] == []
    assert "NetworkingConfig" not in asked
    assert "ExposedPorts" not in asked  # the engine refuses ports of a shared network


def test_a_check_of_health_has_no_start_period_in_which_newer_engines_check_every_5_s(compose: Compose) -> None:
    health = body(compose, "app")["Healthcheck"]
    assert "StartPeriod" not in health
    assert health["Interval"] >= 30e9


def test_limits_can_be_changed_later(compose: Compose) -> None:
    limited = read_compose({"TICKETBENCH_CPUS_APP": "1.5", "TICKETBENCH_MEMORY_APP": "256m"})
    host = body(limited, "app")["HostConfig"]
    assert (host["CpuPeriod"], host["CpuQuota"]) == (100_000, 150_000)
    assert "NanoCpus" not in host
    assert host["Memory"] == host["MemorySwap"] == 256 * 1024**2
    assert "CpuQuota" not in body(compose, "app")["HostConfig"]
    assert body(limited, "app", memory_bytes=64 * 1024**2)["HostConfig"]["Memory"] == 64 * 1024**2


def test_a_limit_is_taken_away_by_saying_so() -> None:
    assert bodies.cpu_limit(0.3) == {"cpu_period": 100_000, "cpu_quota": 30_000}
    assert bodies.cpu_limit(0)["cpu_quota"] == -1
    assert bodies.memory_limit(0) == {"mem_limit": -1, "memswap_limit": -1}
    assert bodies.pinned((0, 2)) == {"cpuset_cpus": "0,2"}


def test_the_environment_is_the_files_and_what_a_variant_adds(compose: Compose) -> None:
    env = body(compose, "app", environment={"TARGET_POOL_SIZE": "2", "TARGET_DATABASE_URL": "postgresql://x"})["Env"]
    assert "TARGET_POOL_SIZE=2" in env
    assert [entry for entry in env if entry.startswith("TARGET_DATABASE_URL=")] == [
        "TARGET_DATABASE_URL=postgresql://x"
    ]


def test_another_content_is_another_hash(compose: Compose) -> None:
    one, other = body(compose, "app"), body(compose, "app", environment={"TARGET_POOL_SIZE": "2"})
    key = "com.docker.compose.config-hash"
    assert one["Labels"][key] != other["Labels"][key]
    assert one["Labels"][key] == container_body(compose, "app", "sha256:abc", MINE, Changes())["Labels"][key]


def test_a_stack_to_be_kept_says_so() -> None:
    assert MINE.labels()[bodies.KEEP] == "no"
    assert replace(MINE, keep=True).labels()[bodies.KEEP] == "yes"


def test_an_archive_is_readable_by_all_and_its_folders_writable() -> None:
    packed = bodies.archive({"/etc/redis/x.conf": b"port 1"}, folders=["/ticketbench"])
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        entries = {entry.name: entry for entry in tar}
        assert entries["etc/redis/x.conf"].mode == 0o444
        assert entries["ticketbench"].isdir()
        assert entries["ticketbench"].mode == 0o777
        content = tar.extractfile("etc/redis/x.conf")
        assert content is not None
        assert content.read() == b"port 1"
