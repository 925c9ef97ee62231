"""Parts of the Docker stack that need no engine: words, addresses, k6's command line, figures of an answer."""

import json
from pathlib import Path
from typing import Any

import pytest
import requests
from docker.errors import APIError

from ticketbench import docker_socket
from ticketbench.errors import EnvironmentFailure
from ticketbench.sampling.containers import EngineError, read_stats
from ticketbench.stack.compose import Build
from ticketbench.stack.compose_file import read_compose
from ticketbench.stack.containers import engine, found, images, k6, limits, project
from ticketbench.stack.containers.services import SERVICES, variables
from ticketbench.stack.containers.watch import ended_text, limit_text
from ticketbench.stack.process import Process

# --- the engine -------------------------------------------------------------------------------------------------------


def test_the_socket_is_the_one_that_is_named() -> None:
    assert docker_socket.find({"DOCKER_HOST": "unix:///run/mine.sock"}) == "/run/mine.sock"


def test_an_engine_without_root_is_found(tmp_path: Path) -> None:
    (tmp_path / "docker.sock").touch()
    expected = str(tmp_path / "docker.sock")
    if Path(docker_socket.SYSTEM_SOCKET).exists():
        expected = docker_socket.SYSTEM_SOCKET
    assert docker_socket.find({"XDG_RUNTIME_DIR": str(tmp_path)}) == expected


@pytest.mark.parametrize("host", ["tcp://10.0.0.1:2375", "ssh://me@there", "npipe:////./pipe/docker"])
def test_a_remote_engine_is_refused(host: str) -> None:
    with pytest.raises(EnvironmentFailure, match="remote engine") as caught:
        docker_socket.find({"DOCKER_HOST": host})
    assert "--stack external" in caught.value.hint


def test_no_engine_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailure, match="no Docker engine runs here") as caught:
        docker_socket.reach(str(tmp_path / "none.sock"))
    assert "--stack local" in caught.value.hint


def test_an_engine_that_is_too_old_is_told_with_what_is_needed() -> None:
    with pytest.raises(docker_socket.NoEngine, match=r"Docker 19\.03 is too old.*API 1\.41 is needed"):
        docker_socket.require_api(docker_socket.Version("19.03", "1.40"))
    docker_socket.require_api(docker_socket.Version("20.10.24", "1.41"))
    docker_socket.require_api(docker_socket.Version("30.0", "2.0"))
    with pytest.raises(EnvironmentFailure, match="does not tell"):
        docker_socket.require_api(docker_socket.Version("", ""))


def api_error(said: str, status: int = 500) -> APIError:
    response = requests.Response()
    response.status_code = status
    return APIError("refused", response=response, explanation=said)


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("write /var/lib/docker/x: no space left on device", "docker system df"),
        ("Bind for 127.0.0.1:8123 failed: port is already allocated", "port"),
        ("network with name theirs already exists", "theirs is not ticketbench's"),
        ("unable to set memory limit to 20971520 (current usage: 71176192)", "give it more"),
        ('Conflict. The container name "/theirs" is already in use by container "1"', "theirs is not ticketbench's"),
    ],
)
def test_what_the_engine_refuses_is_told_with_what_to_do(said: str, hint: str) -> None:
    told = engine.failure("start app", api_error(said))
    assert said in told.message
    assert told.message.startswith("the Docker engine cannot start app")
    assert hint in told.hint


def test_a_port_that_is_taken_is_told_with_the_variable_that_names_it() -> None:
    with pytest.raises(EnvironmentFailure) as caught, engine.spoken("start redis", "TICKETBENCH_PORT_REDIS"):
        raise api_error("Bind for 127.0.0.1:8123 failed: port is already allocated")
    assert "set TICKETBENCH_PORT_REDIS to another" in caught.value.hint


def test_an_engine_that_goes_away_is_told() -> None:
    with pytest.raises(EnvironmentFailure, match="went away when it was to start app"), engine.spoken("start app"):
        raise requests.ConnectionError("broken pipe")


def test_a_bug_is_not_an_engines_failure() -> None:
    with pytest.raises(KeyError), engine.spoken("start app"):
        raise KeyError("x")


# --- whose it is ------------------------------------------------------------------------------------------------------


def test_an_owner_is_read_as_it_was_written() -> None:
    owner = Process(pid=12, started_ticks=345)
    assert found.read_owner(found.owner_text("boot", owner)) == ("boot", owner)
    assert found.read_owner(found.owner_text("boot", None)) == ("boot", None)
    assert found.read_owner("rubbish/x/y") == ("rubbish", None)


def test_each_stack_has_passwords_of_its_own_and_its_workers_are_scraped() -> None:
    one, other = (variables({"TICKETBENCH_IMAGE_K6": "mine"}, 2, "s") for _ in range(2))
    assert one["TICKETBENCH_IMAGE_K6"] == "mine"
    assert one["TICKETBENCH_METRICS_TARGETS"] == "app:9101,app:9102"
    replicas = variables({}, 2, "s", most_replicas=2)["TICKETBENCH_METRICS_TARGETS"]
    assert replicas == "app:9101,app:9102,app-2:9101,app-2:9102"
    secret = [name for name in one if "PASSWORD" in name]
    assert len(secret) == 5
    assert all(one[name] != other[name] for name in secret)
    compose = read_compose(one)
    assert set(SERVICES) <= compose.services.keys()
    assert "app:9101,app:9102" in compose.files("prometheus")["/etc/prometheus/prometheus.yml"]


# --- how a container ended --------------------------------------------------------------------------------------------


def test_an_end_is_told_in_words() -> None:
    assert ended_text("1", short_of_memory=False) == "exit status 1"
    assert ended_text("137", short_of_memory=False) == "killed by signal 9"
    assert ended_text("255", short_of_memory=False) == "exit status 255"
    assert ended_text("137", short_of_memory=True) == "killed for want of memory"
    assert limit_text(64 * 1024**2) == "its limit is 64 MiB"
    assert limit_text(0) == "it has no limit of its own"


def test_a_memory_limit_is_in_bytes_and_none_where_nothing_is_said() -> None:
    assert limits.memory_bytes({"app_memory_mb": 64.0}, "app") == 64 * 1024**2
    assert limits.memory_bytes({"app_memory_mb": 0.0}, "app") is None
    assert limits.memory_bytes({}, "redis") is None


# --- k6 ---------------------------------------------------------------------------------------------------------------

COMMAND = [
    "run", "-q", "--no-usage-report", "--include-system-env-vars=false", "--address", "127.0.0.1:4321",
    "--summary-export", "/run/t/k6-summary.tmp.json", "--console-output", "/run/t/k6-console.log",
    "--out", "experimental-prometheus-rw", "-e", "RATE=5", "-e", "BASE_URL=http://127.0.0.1:8000", "/scripts/spike.js",
]  # fmt: skip


def test_k6s_command_line_becomes_one_for_the_container_and_one_that_packs_the_script() -> None:
    words = k6.take_apart(COMMAND)
    assert words.port == 4321
    assert words.script == "/scripts/spike.js"
    assert words.inside[-1] == k6.ARCHIVE
    assert "/scripts/spike.js" not in words.inside
    assert words.inside[words.inside.index("--address") + 1] == "0.0.0.0:6565"
    assert words.outside == {
        "/ticketbench/k6-summary.tmp.json": Path("/run/t/k6-summary.tmp.json"),
        "/ticketbench/k6-console.log": Path("/run/t/k6-console.log"),
    }
    assert words.inside[words.inside.index("--summary-export") + 1] == "/ticketbench/k6-summary.tmp.json"
    # what decides the script's options is packed with it
    assert [word for word in words.packing if "=" in word] == [
        "--include-system-env-vars=false", "RATE=5", "BASE_URL=http://127.0.0.1:8000",
    ]  # fmt: skip
    assert not any(word.startswith("/run/t") for word in words.inside)


def test_a_command_line_that_is_not_ours_is_refused() -> None:
    with pytest.raises(ValueError, match="not a command line"):
        k6.take_apart(["inspect", "x.js"])


def test_a_place_is_read_as_it_was_written() -> None:
    place = k6.Place("/s", "1.41", "n", {"Image": "i", "HostConfig": {"Mounts": []}}, 1, "k6", "http://prometheus:9090")
    assert k6.Place.parse(place.text()) == place


def test_a_file_comes_out_of_an_archive_in_pieces(tmp_path: Path) -> None:
    from ticketbench.stack.containers.bodies import archive

    content = bytes(range(256)) * 20_000
    packed = archive({"/ticketbench/log": content})
    pieces = (packed[i : i + 7919] for i in range(0, len(packed), 7919))
    project.copied_out(pieces, tmp_path / "log")
    assert (tmp_path / "log").read_bytes() == content


# --- images -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def build(tmp_path: Path) -> Build:
    (tmp_path / "code" / "__pycache__").mkdir(parents=True)
    (tmp_path / "code" / "a.py").write_text("1")
    (tmp_path / "code" / "__pycache__" / "a.pyc").write_text("x")
    (tmp_path / "secret").write_text("not for an image")
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "Dockerfile").write_text("FROM scratch")
    (tmp_path / ".dockerignore").write_text("*\n!code\n**/__pycache__\n")
    return Build.model_construct(context=tmp_path, dockerfile="app/Dockerfile", args={"PYTHON_IMAGE": "p"})


def test_an_image_is_built_from_what_is_let_through_and_nothing_else(build: Build) -> None:
    import io
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(images.context_of(build))) as tar:
        assert sorted(tar.getnames()) == ["app/Dockerfile", "code/a.py"]


def test_an_image_is_built_anew_when_what_it_is_made_of_has_changed(build: Build) -> None:
    before = images.source_hash(build)
    (build.context / "secret").write_text("changed")
    (build.context / "code" / "__pycache__" / "a.pyc").write_text("y")
    assert images.source_hash(build) == before
    (build.context / "code" / "a.py").write_text("2")
    changed = images.source_hash(build)
    assert changed != before
    assert images.source_hash(build.model_copy(update={"args": {"PYTHON_IMAGE": "q"}})) != changed


def test_what_an_image_is_built_from_is_missing(build: Build) -> None:
    (build.context / "app" / "Dockerfile").unlink()
    with pytest.raises(EnvironmentFailure, match="cannot be read"):
        images.source_hash(build)


def test_what_the_app_image_has_installed_is_told_from_its_lock() -> None:
    told = images.packages(read_compose({}))
    assert {"fastapi", "sqlalchemy", "uvicorn"} <= told.keys()
    assert all(version[0].isdigit() for version in told.values())


def test_an_image_is_recorded_with_its_digest_or_its_content() -> None:
    plain = images.Image("redis", "redis:8", "sha256:aa", "", stand_in=False).version()
    assert (plain.part, plain.version, plain.source, plain.sha256) == ("redis", "redis:8", "image", "aa")
    stood = images.Image("redis", "mine", "sha256:aa", "sha256:bb", stand_in=True).version()
    assert (stood.source, stood.sha256) == ("stand-in image", "bb")


# --- figures ----------------------------------------------------------------------------------------------------------

STATS: dict[str, Any] = {
    "id": "abc",
    "cpu_stats": {
        "cpu_usage": {"total_usage": 1_500_000_000},
        "throttling_data": {"periods": 9, "throttled_time": 250_000_000},
    },
    "memory_stats": {"usage": 999, "stats": {"anon": 100, "file_mapped": 20, "inactive_file": 500}},
}


def test_figures_are_read_from_control_groups_of_either_version() -> None:
    figures = read_stats(STATS)
    assert figures is not None
    assert (figures.container, figures.cpu_s, figures.throttled_s, figures.memory_bytes) == ("abc", 1.5, 0.25, 120)
    old = read_stats({**STATS, "memory_stats": {"usage": 9, "stats": {"total_rss": 5, "total_mapped_file": 2}}})
    assert old is not None
    assert old.memory_bytes == 7


def test_a_container_without_a_limit_was_not_held_back_for_0_s_but_not_at_all() -> None:
    free = json.loads(json.dumps(STATS))
    free["cpu_stats"]["throttling_data"]["periods"] = 0
    figures = read_stats(free)
    assert figures is not None
    assert figures.throttled_s is None


def test_a_container_that_does_not_run_has_no_figures() -> None:
    stopped = json.loads(json.dumps(STATS))
    stopped["cpu_stats"]["cpu_usage"]["total_usage"] = 0
    assert read_stats(stopped) is None


def test_an_answer_that_makes_no_sense_is_not_a_figure() -> None:
    with pytest.raises(EngineError):
        read_stats({"id": "abc"})
