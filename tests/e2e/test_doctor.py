"""Each check of ``ticketbench doctor`` that can fail, made to fail for real."""

import json
import os
import shutil
import socket
import subprocess
import sys
from typing import Any

import pytest
from engines import said_to_be
from program import PROGRAM, Finished, Program


def checks(done: Finished) -> dict[str, dict[str, Any]]:
    told = json.loads(done.out)
    assert told["ready"] == (done.code == 0) == all(check["status"] != "failing" for check in told["checks"])
    assert done.code in (0, 4)
    return {check["name"]: check for check in told["checks"]}


def limited(program: Program, limits: str, *arguments: str, **env: str) -> Finished:
    """Run the program in a shell that first gives itself ``limits``."""
    done = subprocess.run(
        ["bash", "-c", f'{limits} && exec "$@"', "bash", PROGRAM, *arguments],
        cwd=program.folder,
        env={**program.env, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def test_a_machine_that_can_run_is_told_so_and_nothing_is_changed(program: Program) -> None:
    assert program("doctor", "--provide").code == 0
    done = program("doctor")
    assert done.code == 0, done.out
    assert "a run can be made" in done.out.splitlines()[-1]
    assert all(len(line) <= 120 for line in done.out.splitlines())
    home = program.folder / "home"
    home.mkdir()
    narrow = program("doctor", COLUMNS="80", HOME=str(home), TICKETBENCH_STATE=str(home / "state"))
    assert "~/state" in narrow.out
    assert str(home) not in narrow.out
    assert all(len(line) <= 80 for line in narrow.out.splitlines())
    assert "\x1b" not in done.out
    told = checks(program("doctor", "--json"))
    assert {"k6", "PostgreSQL", "Redis", "Prometheus"} <= {
        name for name, each in told.items() if each["status"] == "ok"
    }
    assert list(program.folder.rglob("*")) == [home]


def test_missing_programs_are_named_and_fetched_only_when_asked(program: Program) -> None:
    tools = program.folder / "bin"
    tools.mkdir()
    cache = {"TICKETBENCH_CACHE": str(program.folder / "cache")}
    for tool in ("apt-get", "dpkg-deb"):
        (tools / tool).symlink_to(shutil.which(tool) or "/bin/false")
    told = checks(program("doctor", "--json", PATH=str(tools), **cache))
    for name in ("k6", "PostgreSQL", "Redis", "Prometheus"):
        assert told[name]["status"] == "warning", told[name]
        assert "--provide" in told[name]["remedy"]
    assert not (program.folder / "cache").exists()

    (tools / "apt-get").unlink()
    unfit = tools / "redis-server"
    unfit.write_text("#!/bin/sh\necho 'Redis server v=5.0.14'\n")
    unfit.chmod(0o755)
    done = program("doctor", "--json", PATH=str(tools), **cache)
    assert done.code == 4
    told = checks(done)
    assert told["Prometheus"]["status"] == "failing"
    assert "TICKETBENCH_PROMETHEUS" in told["Prometheus"]["remedy"]
    assert "5.0.14" in told["Redis"]["text"]


def test_a_named_program_that_is_unfit_fails(program: Program) -> None:
    told = checks(program("doctor", "--json", TICKETBENCH_K6="/bin/true", TICKETBENCH_POSTGRES="/nowhere"))
    assert (told["k6"]["status"], told["PostgreSQL"]["status"]) == ("failing", "failing")
    assert "TICKETBENCH_K6=/bin/true is not a working k6" in told["k6"]["text"]
    assert "does not exist" in told["PostgreSQL"]["text"]


def test_limits_of_open_files_are_held_against_the_scenarios(program: Program) -> None:
    few = checks(limited(program, "ulimit -n 100", "doctor", "--json"))["open files"]
    assert few["status"] == "failing"
    some = checks(limited(program, "ulimit -n 500", "doctor", "--json"))["open files"]
    assert some["status"] == "warning"
    assert "spike" in some["text"]
    assert "smoke" not in some["text"]
    assert checks(limited(program, "ulimit -Sn 300", "doctor", "--json"))["open files"]["status"] == "ok"


def test_without_descriptors_for_its_ports_no_run_is_promised(program: Program) -> None:
    told = checks(limited(program, "ulimit -n 20", "doctor", "--json"))
    assert told["ports"]["status"] == "failing"
    assert "Too many open files" in told["ports"]["text"]


def test_folders_that_cannot_be_written(program: Program) -> None:
    (program.folder / "file").write_text("")
    done = program("doctor", "--json", "-o", "file/reports", TICKETBENCH_STATE=str(program.folder / "file" / "state"))
    told = checks(done)
    assert done.code == 4
    for name in ("state folder", "output folder"):
        assert told[name]["status"] == "failing"
        assert "is not a folder" in told[name]["text"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system, which takes root")
def test_a_full_and_a_read_only_disk(program: Program) -> None:
    for name, options in (("small", "size=4m"), ("shut", "ro,size=4m")):
        (program.folder / name).mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(program.folder / name)]
        # in a mount namespace of its own: nothing is left mounted, however the test ends
        done = subprocess.run(
            ["unshare", "--mount", "bash", "-c", f'{" ".join(mount)} && exec "$@"', "bash", PROGRAM, "doctor", "--json",
             "-o", f"{name}/reports"],
            cwd=program.folder,
            env={**program.env, "TICKETBENCH_STATE": str(program.folder / name / "state")},
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        told = checks(Finished(done.returncode, done.stdout, done.stderr))
        assert (told["state folder"]["status"], told["output folder"]["status"]) == ("failing", "failing")
        assert ("4 MB free" if name == "small" else "Read-only file system") in told["state folder"]["text"]


def test_one_core_and_a_busy_neighbour(program: Program) -> None:
    core = min(os.sched_getaffinity(0))
    busy = subprocess.Popen(["sh", "-c", "while :; do :; done"])
    try:
        told = checks(limited(program, f"taskset -pc {core} $$ >/dev/null", "doctor", "--json"))
    finally:
        busy.kill()
        busy.wait()
    assert told["cores"]["status"] == "warning"
    assert told["cores"]["text"].startswith("1 of")
    assert told["other load"]["status"] == "warning"
    assert "sh " in told["other load"]["text"]


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user needs neither unshare nor setpriv")
def test_root_without_a_way_to_be_another(program: Program) -> None:
    done = program("doctor", "--json", PATH=str(program.folder))
    assert done.code == 4
    assert checks(done)["rights"]["status"] == "failing"


def test_what_is_up_or_was_left_behind_is_told(program: Program) -> None:
    stacks = program.state / "stacks"
    (stacks / "20260101T000000Z-spike-abc123").mkdir(parents=True)
    (stacks / "20260101T000000Z-spike-abc123" / "stack.json").write_text("{")
    (program.folder / "reports" / "20260101T000000Z-spike").mkdir(parents=True)
    stranger = subprocess.Popen(
        [sys.executable, "-c", "input()"],
        stdin=subprocess.PIPE,
        env={**os.environ, "TICKETBENCH_STACK": "elsewhere-1"},
    )
    try:
        done = program("doctor", "--json")
    finally:
        stranger.kill()
        stranger.communicate()
    told = [each["text"] for each in json.loads(done.out)["checks"] if each["name"] in ("stacks", "leftovers")]
    assert any("20260101T000000Z-spike-abc123: left behind" in text for text in told)
    assert any("elsewhere-1: 1 process of a stack; whether its run is going on cannot be told" in text for text in told)
    assert any("1 run folders without a trial" in text for text in told)
    assert done.code == 0


def test_an_engine_of_docker_is_seen_and_a_silent_one_does_not_hold_us(program: Program) -> None:
    path = program.folder / "docker.sock"
    with said_to_be(path, "27.1", "1.46"):
        told = checks(program("doctor", "--json", DOCKER_HOST=f"unix://{path}"))
    assert "27.1" in told["Docker"]["text"]
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(program.folder / "silent.sock"))
        silent.listen()
        told = checks(program("doctor", "--json", DOCKER_HOST=f"unix://{program.folder / 'silent.sock'}"))
    assert "does not tell its version" in told["Docker"]["text"]


def test_a_bad_output_folder_is_a_usage_error(program: Program) -> None:
    done = program("doctor", "-o", "")
    assert (done.code, done.out) == (2, "")
    assert "-o '' names no folder" in done.err
