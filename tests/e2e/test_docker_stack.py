"""Whole runs on the Docker stack through the installed program, whole and broken off; nothing may be left."""

import json
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from engines import DOCKER, Engine
from program import Program, await_line, columns

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("docker")]

SHORT = ("--set", "duration=8", "--set", "rate=60")


def only_run(in_docker: Program) -> Path:
    (found,) = in_docker.folder.glob("reports/*")
    return found


def record(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "run.json").read_text())
    return found


def grown(values: list[float]) -> float:
    return values[-1] - values[0]


# --- good weather -----------------------------------------------------------------------------------------------------


def test_a_run_in_containers_is_a_run_like_any_other(in_docker: Program) -> None:
    done = in_docker("run", "spike", *DOCKER, *SHORT, "--vary", "pool_size=2,10")
    assert done.code in {0, 1, 3}, done.err  # how fast this machine is, and what else it does, is not the question
    path = only_run(in_docker)
    assert Path(done.last_line) == path.relative_to(in_docker.folder) / "report.html"
    kept = record(path)
    assert kept["plan"]["stack"] == "docker"
    images = {each["part"]: each for each in kept["environment"]["binaries"]}
    assert set(images) == {"k6", "postgres", "redis", "prometheus", "app"}
    for image in images.values():
        assert image["source"] in {"image", "stand-in image"}
        assert len(image["sha256"]) == 64
    assert images["app"]["version"] == "ticketbench-app:tests"
    assert kept["environment"]["packages"]["fastapi"]
    analysis = in_docker.analysis()
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
    assert in_docker("run", "spike", "--stack", "local", *SHORT, "--set", "pool_size=2", "-o", "local").code in {
        0,
        1,
        3,
    }
    (local,) = (in_docker.folder / "local").iterdir()
    of_processes = {name for name in columns(local) if not name.startswith("sampler.ticks")}
    of_containers = {name for name in in_containers[0] if not name.startswith("sampler.ticks")}
    # there when it happens, or named by the server's version
    varying = ("pg.wait_s", "pg.statement", "app.errors", "k6.failed", "cpu_throttled_s", "redis.command")
    steady = {name for name in of_processes ^ of_containers if not name.startswith(varying)}
    assert not steady


def test_limits_hold_and_what_they_cost_is_seen(in_docker: Program) -> None:
    done = in_docker("run", "spike", *DOCKER, *SHORT, "--set", "app_cpus=0.1", "--set", "redis_memory_mb=64",
               "--set", "postgres_memory_mb=512")  # fmt: skip
    assert done.code in {0, 1, 3}, done.err
    series = columns(only_run(in_docker))
    assert grown(series["cpu_throttled_s{component=app}"]) > 0.5
    assert grown(series["cpu_s{component=app}"]) < 0.2 * len(series["cpu_s{component=app}"])


def test_a_stack_that_is_kept_is_seen_by_compose_and_ended_by_down(in_docker: Program, engine: Engine) -> None:
    done = in_docker("run", "smoke", *DOCKER, "--keep")
    assert done.code == 0, done.err
    (told,) = json.loads(in_docker("status", "--json").out)
    assert told["keep"]
    assert {name: part["state"] for name, part in told["components"].items()} == dict.fromkeys(
        ("app", "postgres", "redis", "prometheus"), "running"
    )
    with socket.create_connection(("127.0.0.1", int(told["access"]["base_url"].rpartition(":")[2])), 5):
        pass
    project = engine("inspect", "-f", '{{index .Config.Labels "com.docker.compose.project"}}',
                     engine.container("app", only_run(in_docker).name))  # fmt: skip
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0:
        seen = engine("compose", "-p", project, "ps", "--services").split()
        assert sorted(seen) == ["app", "postgres", "prometheus", "redis"]
        assert "redis" in engine("compose", "-p", project, "logs", "--no-color", "redis").lower()
    # a kept stack is nobody's leftover: the next run spares it
    assert in_docker("run", "smoke", *DOCKER, "-o", "again").code == 0
    assert engine.left(f"ticketbench.run={only_run(in_docker).name}")
    down = in_docker("down")
    assert down.code == 0
    assert "down" in down.out
    assert only_run(in_docker).name not in in_docker("status").out


def test_a_stack_can_be_brought_up_to_play_with(in_docker: Program, engine: Engine) -> None:
    made = in_docker("up", *DOCKER, "--set", "pool_size=3", "--json")
    assert made.code == 0, made.err
    told = json.loads(made.out)
    assert told["keep"]
    assert not told["in_use"]
    try:
        answer = httpx.get(f"{told['access']['base_url']}/ready", timeout=5)
        assert answer.status_code == 200
        app = engine.container("app", "up")
        assert "TARGET_POOL_SIZE=3" in engine("inspect", "-f", "{{.Config.Env}}", app)
        said = in_docker("logs", "postgres", "-n", "1").out
        assert "postgres | " in said
        assert "app | " not in said
        wrong = in_docker("logs", "mysql")
        assert wrong.code == 2
        assert "there is no log of 'mysql': known are app, postgres, prometheus, redis" in wrong.err
        # another user's, or another folder's, is seen and left alone
        other = {"TICKETBENCH_STATE": str(in_docker.folder / "other")}
        assert "kept by another user or TICKETBENCH_STATE" in in_docker("status", **other).out
        in_docker("down", **other)
        assert engine.container("app", "up") == app
    finally:
        assert in_docker("down").code == 0
    assert not engine.left(f"ticketbench.stack={told['stack_id']}")


def test_what_up_cannot_do_is_told_at_once(in_docker: Program) -> None:
    done = in_docker("up", "--stack", "cloud", "--set", "rate=3", "--set", "pool_size=x")
    assert done.code == 2
    assert "--stack 'cloud' is not known: known are auto, local, docker" in done.err
    assert "pool_size='x' is not possible" in done.err


def test_a_limit_that_is_a_factor_is_no_variable(in_docker: Program) -> None:
    limits = {"TICKETBENCH_CPUS_APP": "0.5", "TICKETBENCH_MEMORY_REDIS": "64m", "TICKETBENCH_CPUS_POSTGRES": "0"}
    done = in_docker("run", "smoke", *DOCKER, **limits, TICKETBENCH_PORT_NONE="1")
    assert done.code == 2
    assert "TICKETBENCH_CPUS_APP=0.5 is for docker compose alone: a run is told by --set app_cpus=" in done.err
    assert (
        "TICKETBENCH_MEMORY_REDIS=64m is for docker compose alone: a run is told by --set redis_memory_mb=" in done.err
    )
    assert "there is no variable TICKETBENCH_PORT_NONE" in done.err
    assert "CPUS_POSTGRES" not in done.err


# --- interrupted ------------------------------------------------------------------------------------------------------


def test_after_a_kill_everything_is_found_and_taken_down(in_docker: Program, engine: Engine) -> None:
    process = in_docker.start("run", "spike", *DOCKER, *SHORT)
    await_line(process, "window")
    process.send_signal(signal.SIGKILL)
    process.wait()
    name = only_run(in_docker).name
    assert len(engine.left(f"ticketbench.run={name}")) >= 5
    told = in_docker("status").out
    assert "left behind, in Docker" in told
    # by its labels alone
    subprocess.run(["rm", "-rf", str(in_docker.state)], check=True)
    assert "left behind, in Docker" in in_docker("status").out
    assert in_docker("down").code == 0
    assert not engine.left(f"ticketbench.run={name}")


def test_a_run_of_another_folder_is_seen_and_never_ended(in_docker: Program) -> None:
    process = in_docker.start("run", "spike", *DOCKER, *SHORT)
    await_line(process, "window")
    other = {"TICKETBENCH_STATE": str(in_docker.folder / "other")}
    assert f"{only_run(in_docker).name}" in in_docker("status", **other).out
    down = in_docker("down", "--force", **other)
    assert "left alone, it is in use by a run of another user" in down.err
    assert f"{only_run(in_docker).name}" not in down.out
    _, err = process.communicate(timeout=120)
    assert process.returncode in {0, 1, 3}, err


def test_the_next_run_takes_down_what_a_killed_one_left(in_docker: Program, engine: Engine) -> None:
    process = in_docker.start("run", "smoke", *DOCKER)
    await_line(process, "reset")
    process.send_signal(signal.SIGKILL)
    process.wait()
    (killed,) = in_docker.folder.glob("reports/*")
    done = in_docker("run", "smoke", *DOCKER, "-o", "again")
    assert done.code == 0, done.err
    assert "took down what a killed run had left behind" in done.err
    assert not engine.left(f"ticketbench.run={killed.name}")


def test_ctrl_c_keeps_what_was_measured(in_docker: Program) -> None:
    process = in_docker.start("run", "spike", *DOCKER, *SHORT)
    await_line(process, "window")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    trial = json.loads((only_run(in_docker) / "trials" / "001" / "trial.json").read_text())
    assert trial["load"]["requests"] > 0
    assert (only_run(in_docker) / "trials" / "001" / "ledger.csv.gz").exists()
