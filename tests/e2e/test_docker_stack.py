"""Whole runs on the Docker stack through the installed program, in good and in bad weather; nothing may be left."""

import csv
import gzip
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer
from typing import Any

import httpx
import pytest
from program import Program, await_line

from ticketbench import docker_socket
from ticketbench.errors import EnvironmentFailure

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("docker")]

DOCKER = ("--stack", "docker")
SHORT = ("--set", "duration=8", "--set", "rate=60")


class Engine:
    """What the tests ask of the engine by its own client."""

    def __init__(self, client: str) -> None:
        self._client = client

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run([self._client, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def left(self, *labels: str) -> list[str]:
        """The ids of containers, networks and volumes with one of these labels."""
        found = []
        for label in labels:
            wanted = ("-q", "--filter", f"label={label}")
            found += self("ps", "-a", *wanted).split()
            found += self("network", "ls", *wanted).split()
            found += self("volume", "ls", *wanted).split()
        return found

    def container(self, service: str, run: str) -> str:
        """The id of a service's running container."""
        ids = self("ps", "-q", "--filter", f"label=ticketbench.run={run}",
                   "--filter", f"label=com.docker.compose.service={service}").split()  # fmt: skip
        assert len(ids) == 1, ids
        return ids[0]


@pytest.fixture
def engine(docker: str) -> Engine:
    return Engine(docker)


@pytest.fixture
def run(program: Program, engine: Engine, stack_images: dict[str, str]) -> Iterator[Program]:
    """The program, with the images that are here. Afterwards the engine has nothing of its runs."""
    program.with_engine(stack_images)
    yield program
    program.end()
    names = [path.name for path in program.folder.glob("reports/*")]
    left = engine.left(*(f"ticketbench.run={name}" for name in names))
    if left:
        program("down")
    assert not left, f"left in the engine: {left}"


def only_run(run: Program) -> Path:
    (found,) = run.folder.glob("reports/*")
    return found


def columns(path: Path, trial: str = "001") -> dict[str, list[float]]:
    with gzip.open(path / "trials" / trial / "series.csv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows if row[name]] for name in rows[0]}


def record(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "run.json").read_text())
    return found


def grown(values: list[float]) -> float:
    return values[-1] - values[0]


# --- good weather -----------------------------------------------------------------------------------------------------


def test_a_run_in_containers_is_a_run_like_any_other(run: Program) -> None:
    done = run("run", "spike", *DOCKER, *SHORT, "--vary", "pool_size=2,10")
    assert done.code in {0, 1, 3}, done.err  # how fast this machine is, and what else it does, is not the question
    path = only_run(run)
    assert Path(done.last_line) == path.relative_to(run.folder) / "report.html"
    kept = record(path)
    assert kept["plan"]["stack"] == "docker"
    images = {each["part"]: each for each in kept["environment"]["binaries"]}
    assert set(images) == {"k6", "postgres", "redis", "prometheus", "app"}
    for image in images.values():
        assert image["source"] in {"image", "stand-in image"}
        assert len(image["sha256"]) == 64
    assert images["app"]["version"] == "ticketbench-app:tests"
    assert kept["environment"]["packages"]["fastapi"]
    analysis = run.analysis()
    for variant in analysis["variants"]:
        assert variant["integrity"]["status"] == "pass"
        assert variant["integrity"]["sold"] > 0

    in_containers = [columns(path, trial) for trial in ("001", "002")]
    for series in in_containers:
        for name in ("app", "k6", "postgres", "redis", "prometheus", "ticketbench"):
            assert grown(series[f"cpu_s{{component={name}}}"]) > 0, name
            assert max(series[f"memory_bytes{{component={name}}}"]) > 1e6, name
            assert grown(series[f"run_delay_s{{component={name}}}"]) >= 0, name
        assert not any(name.startswith("cpu_throttled_s") for name in series)

    # the same signals by the same names, wherever it was measured
    assert run("run", "spike", "--stack", "local", *SHORT, "--set", "pool_size=2", "-o", "local").code in {0, 1, 3}
    (local,) = (run.folder / "local").iterdir()
    of_processes = {name for name in columns(local) if not name.startswith("sampler.ticks")}
    of_containers = {name for name in in_containers[0] if not name.startswith("sampler.ticks")}
    # there when it happens, or named by the server's version
    varying = ("pg.wait_s", "pg.statement", "app.errors", "k6.failed", "cpu_throttled_s", "redis.command")
    steady = {name for name in of_processes ^ of_containers if not name.startswith(varying)}
    assert not steady


def test_limits_hold_and_what_they_cost_is_seen(run: Program) -> None:
    done = run("run", "spike", *DOCKER, *SHORT, "--set", "app_cpus=0.2", "--set", "redis_memory_mb=64",
               "--set", "postgres_memory_mb=512")  # fmt: skip
    assert done.code in {0, 1, 3}, done.err
    series = columns(only_run(run))
    assert grown(series["cpu_throttled_s{component=app}"]) > 0.5
    assert grown(series["cpu_s{component=app}"]) < 0.3 * len(series["cpu_s{component=app}"])


def test_a_stack_that_is_kept_is_seen_by_compose_and_ended_by_down(run: Program, engine: Engine) -> None:
    done = run("run", "smoke", *DOCKER, "--keep")
    assert done.code == 0, done.err
    (told,) = json.loads(run("status", "--json").out)
    assert told["keep"]
    assert {name: part["state"] for name, part in told["components"].items()} == dict.fromkeys(
        ("app", "postgres", "redis", "prometheus"), "running"
    )
    with socket.create_connection(("127.0.0.1", int(told["access"]["base_url"].rpartition(":")[2])), 5):
        pass
    project = engine("inspect", "-f", '{{index .Config.Labels "com.docker.compose.project"}}',
                     engine.container("app", only_run(run).name))  # fmt: skip
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0:
        seen = engine("compose", "-p", project, "ps", "--services").split()
        assert sorted(seen) == ["app", "postgres", "prometheus", "redis"]
        assert "redis" in engine("compose", "-p", project, "logs", "--no-color", "redis").lower()
    # a kept stack is nobody's leftover: the next run spares it
    assert run("run", "smoke", *DOCKER, "-o", "again").code == 0
    assert engine.left(f"ticketbench.run={only_run(run).name}")
    down = run("down")
    assert down.code == 0
    assert "down" in down.out
    assert only_run(run).name not in run("status").out


def test_a_stack_can_be_brought_up_to_play_with(run: Program, engine: Engine) -> None:
    made = run("up", *DOCKER, "--set", "pool_size=3", "--json")
    assert made.code == 0, made.err
    told = json.loads(made.out)
    assert told["keep"]
    assert not told["in_use"]
    try:
        answer = httpx.get(f"{told['access']['base_url']}/ready", timeout=5)
        assert answer.status_code == 200
        app = engine.container("app", "up")
        assert "TARGET_POOL_SIZE=3" in engine("inspect", "-f", "{{.Config.Env}}", app)
        said = run("logs", "postgres", "-n", "1").out
        assert "postgres | " in said
        assert "app | " not in said
        wrong = run("logs", "mysql")
        assert wrong.code == 2
        assert "there is no log of 'mysql': known are app, postgres, prometheus, redis" in wrong.err
        # another user's, or another folder's, is seen and left alone
        other = {"TICKETBENCH_STATE": str(run.folder / "other")}
        assert "kept by another user or TICKETBENCH_STATE" in run("status", **other).out
        run("down", **other)
        assert engine.container("app", "up") == app
    finally:
        assert run("down").code == 0
    assert not engine.left(f"ticketbench.stack={told['stack_id']}")


def test_what_up_cannot_do_is_told_at_once(run: Program) -> None:
    done = run("up", "--stack", "cloud", "--set", "rate=3", "--set", "pool_size=x")
    assert done.code == 2
    assert "--stack 'cloud' is not known: known are auto, local, docker" in done.err
    assert "pool_size='x' is not possible" in done.err


def test_a_limit_that_is_a_factor_is_no_variable(run: Program) -> None:
    limits = {"TICKETBENCH_CPUS_APP": "0.5", "TICKETBENCH_MEMORY_REDIS": "64m", "TICKETBENCH_CPUS_POSTGRES": "0"}
    done = run("run", "smoke", *DOCKER, **limits, TICKETBENCH_PORT_NONE="1")
    assert done.code == 2
    assert "TICKETBENCH_CPUS_APP=0.5 is for docker compose alone: a run is told by --set app_cpus=" in done.err
    assert (
        "TICKETBENCH_MEMORY_REDIS=64m is for docker compose alone: a run is told by --set redis_memory_mb=" in done.err
    )
    assert "there is no variable TICKETBENCH_PORT_NONE" in done.err
    assert "CPUS_POSTGRES" not in done.err


# --- interrupted ------------------------------------------------------------------------------------------------------


def test_after_a_kill_everything_is_found_and_taken_down(run: Program, engine: Engine) -> None:
    process = run.start("run", "spike", *DOCKER, *SHORT)
    await_line(process, "window")
    process.send_signal(signal.SIGKILL)
    process.wait()
    name = only_run(run).name
    assert len(engine.left(f"ticketbench.run={name}")) >= 5
    told = run("status").out
    assert "left behind, in Docker" in told
    # by its labels alone
    subprocess.run(["rm", "-rf", str(run.state)], check=True)
    assert "left behind, in Docker" in run("status").out
    assert run("down").code == 0
    assert not engine.left(f"ticketbench.run={name}")


def test_a_run_of_another_folder_is_seen_and_never_ended(run: Program) -> None:
    process = run.start("run", "spike", *DOCKER, *SHORT)
    await_line(process, "window")
    other = {"TICKETBENCH_STATE": str(run.folder / "other")}
    assert f"{only_run(run).name}" in run("status", **other).out
    down = run("down", "--force", **other)
    assert "left alone, it is in use by a run of another user" in down.err
    assert f"{only_run(run).name}" not in down.out
    _, err = process.communicate(timeout=120)
    assert process.returncode in {0, 1, 3}, err


def test_the_next_run_takes_down_what_a_killed_one_left(run: Program, engine: Engine) -> None:
    process = run.start("run", "smoke", *DOCKER)
    await_line(process, "reset")
    process.send_signal(signal.SIGKILL)
    process.wait()
    (killed,) = run.folder.glob("reports/*")
    done = run("run", "smoke", *DOCKER, "-o", "again")
    assert done.code == 0, done.err
    assert "took down what a killed run had left behind" in done.err
    assert not engine.left(f"ticketbench.run={killed.name}")


def test_ctrl_c_keeps_what_was_measured(run: Program) -> None:
    process = run.start("run", "spike", *DOCKER, *SHORT)
    await_line(process, "window")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    trial = json.loads((only_run(run) / "trials" / "001" / "trial.json").read_text())
    assert trial["load"]["requests"] > 0
    assert (only_run(run) / "trials" / "001" / "ledger.csv.gz").exists()


# --- bad weather: one message, exit code 4, nothing left --------------------------------------------------------------


def refused(run: Program, *arguments: str, **env: str) -> str:
    """Run smoke; it must end with exit code 4 and one message, which is returned."""
    done = run("run", "smoke", *DOCKER, *arguments, **env)
    assert done.code == 4, done.err
    said = [line for line in done.err.splitlines() if line.startswith("ticketbench: ")]
    assert len(said) == 1, done.err
    assert "Traceback" not in done.err
    return done.err[done.err.index("ticketbench: ") :]


def test_no_engine(run: Program) -> None:
    said = refused(run, DOCKER_HOST=f"unix://{run.folder}/none.sock")
    assert "no Docker engine runs here" in said
    assert "--stack local" in said


def test_a_remote_engine(run: Program) -> None:
    assert "remote engine" in refused(run, DOCKER_HOST="tcp://127.0.0.1:2375")


class _OldEngine(BaseHTTPRequestHandler):
    """Docker 19.03, as far as it is asked."""

    def do_GET(self) -> None:
        body = b'{"Version": "19.03.15", "ApiVersion": "1.40", "MinAPIVersion": "1.12"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "a Unix socket"

    def log_request(self, *args: object) -> None:
        """Say nothing."""


def test_an_engine_that_is_too_old(run: Program) -> None:
    path = run.folder / "old.sock"
    with UnixStreamServer(str(path), _OldEngine) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        old = {"DOCKER_HOST": f"unix://{path}"}
        said = refused(run, **old)
        # it has nothing of ours, and is no reason not to take down what else there is
        assert [run(*words, **old).code for words in (("status",), ("down",), ("logs",))] == [0, 0, 0]
        server.shutdown()
        thread.join()
    assert "Docker 19.03.15 is too old: it speaks API 1.40, and API 1.41 is needed (Docker 20.10)" in said
    assert "--stack local" in said


def test_an_engine_that_does_not_answer_is_never_taken_for_none(run: Program) -> None:
    path = run.folder / "odd.sock"

    def hang_up() -> None:
        while True:
            try:
                listening.accept()[0].close()
            except OSError:
                return

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        threading.Thread(target=hang_up, daemon=True).start()
        odd = {"DOCKER_HOST": f"unix://{path}"}
        assert "does not tell its version" in refused(run, **odd)
        for words in (("status",), ("status", "--json"), ("down",), ("logs",)):
            done = run(*words, **odd)
            assert done.code == 4
            assert "does not tell its version" in done.err
            assert "nothing of ticketbench is up" not in done.out
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a socket that another user may not use")
def test_an_engine_that_may_not_be_used(run: Program) -> None:
    path = run.folder / "closed.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0o600)
        run.folder.chmod(0o711)
        # in this very process: another user may be unable to read the interpreter's folder
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.setgid(65534)
                os.setuid(65534)
                docker_socket.reach(str(path))
            except EnvironmentFailure as error:
                status = 0 if "group docker" in error.hint else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_auto_is_the_local_stack_where_no_engine_answers_and_says_why(run: Program) -> None:
    done = run("run", "smoke", "--stack", "auto", DOCKER_HOST=f"unix://{run.folder}/none.sock")
    assert done.code == 0, done.err
    assert "on the local stack, because not on Docker: no Docker engine runs here" in done.err
    assert record(only_run(run))["plan"]["stack"] == "local"


def test_auto_is_docker_where_it_can_be(run: Program) -> None:
    done = run("run", "smoke", "--stack", "auto")
    assert done.code == 0, done.err
    assert "on the docker stack" in done.err
    assert record(only_run(run))["plan"]["stack"] == "docker"


def test_a_factor_of_docker_alone(run: Program) -> None:
    done = run("run", "smoke", "--stack", "local", "--set", "app_memory_mb=64")
    assert done.code == 2
    assert "'app_memory_mb' cannot be had on the local stack: only on docker" in done.err


def test_an_image_that_is_not_there(run: Program) -> None:
    said = refused(run, TICKETBENCH_IMAGE_REDIS="127.0.0.1:9/none:1")
    assert "the image 127.0.0.1:9/none:1 (redis) is not here and cannot be pulled" in said
    assert "TICKETBENCH_IMAGE_REDIS" in said


def test_a_port_that_is_taken(run: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        said = refused(run, TICKETBENCH_PORT_REDIS=str(port))
    assert str(port) in said
    assert "TICKETBENCH_PORT_REDIS" in said


def test_a_container_that_ends_while_starting(run: Program, stack_images: dict[str, str]) -> None:
    k6 = stack_images.get("TICKETBENCH_IMAGE_K6", "grafana/k6:1.1.0")
    said = refused(run, TICKETBENCH_IMAGE_REDIS=k6, TICKETBENCH_PORT_REDIS="")
    assert "redis" in said.lower()
    assert "its log ends" in said or "cannot start redis" in said


def test_a_container_that_is_short_of_memory_says_so_with_its_limit(run: Program) -> None:
    said = refused(run, "--set", "app_memory_mb=24")
    # its first process, or the worker that it had started
    assert "the sale ended while starting: " in said
    assert "killed for want of memory (its limit is 24 MiB)" in said
    assert "app_memory_mb" in said


def test_a_container_that_is_killed_in_mid_trial(run: Program, engine: Engine) -> None:
    process = run.start("run", "spike", *DOCKER, *SHORT)
    await_line(process, "window")
    engine("kill", engine.container("redis", only_run(run).name))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 4, err
    assert "redis died in mid-trial: killed by signal 9; its log ends:" in err
    trial = json.loads((only_run(run) / "trials" / "001" / "trial.json").read_text())
    assert trial["status"] == "failed"
    assert (only_run(run) / "trials" / "001" / "series.csv.gz").exists()


def test_a_container_that_is_paused_in_mid_trial(run: Program, engine: Engine) -> None:
    process = run.start("run", "spike", *DOCKER, *SHORT)
    await_line(process, "window")
    engine("pause", engine.container("postgres", only_run(run).name))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 4, err
    assert "postgres died in mid-trial: it was paused (docker pause)" in err
    # it was let go on, so that the ledger could be read
    assert (only_run(run) / "trials" / "001" / "ledger.csv.gz").exists()


def test_names_that_somebody_else_has_taken(run: Program, engine: Engine) -> None:
    # the random part of the stack's id made certain, so that its names can be taken before it
    (run.folder / "sitecustomize.py").write_text(
        "import secrets\n"
        "drawn = secrets.token_hex\n"
        "secrets.token_hex = lambda size=None: 'abcdef' if size == 3 else drawn(size)\n"
    )
    run.env["PYTHONPATH"] = str(run.folder)
    for kind, name in (("volume", "ticketbench-up-abcdef_postgres-data"), ("network", "ticketbench-up-abcdef_default")):
        engine(kind, "create", "--label", "theirs=yes", name)
        try:
            done = run("up", *DOCKER)
            assert done.code == 4, done.err
            assert f"{name} is not ticketbench's and is left alone: rename or remove it" in done.err
            assert engine(kind, "ls", "-q", "--filter", "label=theirs=yes")
            assert not engine.left("ticketbench.run=up")
        finally:
            engine(kind, "rm", name)


def test_somebody_elses_project_is_never_touched(run: Program, engine: Engine, stack_images: dict[str, str]) -> None:
    image = stack_images.get("TICKETBENCH_IMAGE_REDIS", "redis:8.0.3")
    # as `docker compose -f compose/compose.yaml up` labels what it makes
    theirs = engine(
        "create", "--label", "ticketbench.stack=compose", "--label", "com.docker.compose.project=theirs", image
    )
    try:
        assert run("run", "smoke", *DOCKER).code == 0
        run("down")
        assert engine("inspect", "-f", "{{.Id}}", theirs) == theirs
    finally:
        engine("rm", "-v", theirs)
