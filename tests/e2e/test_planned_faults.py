"""Planned faults in whole runs of the installed program, on local processes and in containers."""

import json
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest
from program import Program, await_line

pytestmark = pytest.mark.e2e

LOAD = ("run", "purchase", "--set", "rate=40", "--set", "duration=24")
MEASURED = {0, 1}  # its SLOs may be missed: that is what faults are for


def faults(*texts: str) -> list[str]:
    return [word for text in texts for word in ("--fault", text)]


def effects_of(analysis: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the effect of each fault of the only trial; nothing sold was lost, and it can be believed."""
    (trial,) = analysis["trials"]
    assert trial["status"] == "done"
    assert trial["integrity"]["status"] == "pass"
    assert trial["validity"]["status"] != "invalid", trial["validity"]
    for effect in trial["faults"]:
        assert effect["problem"] == ""
        assert effect["at_s"] <= effect["undone_at_s"] <= effect["answered_at_s"]
    return {effect["fault"]: effect for effect in trial["faults"]}


def check_report(path: Path) -> None:
    page = (path / "report.html").read_text()
    assert "Planned faults" in page
    assert "var(--fig-fault)" in page
    assert "kill postgres at 6 for 1" in (path / "report.md").read_text()
    record = json.loads(next(path.glob("trials/*/trial.json")).read_text())
    assert record["disturbances"] == []  # nobody took what was planned for an accident


def test_what_fails_on_purpose_is_measured_and_marked(program: Program) -> None:
    done = program(*LOAD, *faults("kill postgres at 6 for 1", "restart app at 16"))
    assert done.code in MEASURED, done.err
    (path,) = program.runs()
    effects = effects_of(program.analysis())
    killed = effects["kill postgres at 6 for 1"]
    assert killed["goodput_before_per_s"] > 20
    assert killed["goodput_worst_per_s"] < 0.5 * killed["goodput_before_per_s"]
    assert killed["failed"] > 0
    assert killed["recovered_at_s"] > killed["answered_at_s"] - 1
    assert effects["restart app at 16"]["undone_at_s"] == pytest.approx(16, abs=2)
    check_report(path)
    assert "kill postgres at 6 for 1: goodput" in done.out
    command = json.loads((path / "run.json").read_text())["command"]
    assert shlex.split(command)[-10:-6] == faults("kill postgres at 6 for 1", "restart app at 16")
    assert not program.alive()


def test_a_run_that_ends_while_a_component_stands_still_leaves_nothing(program: Program) -> None:
    process = program.start(*LOAD, *faults("pause postgres at 1 for 20"))
    await_line(process, "planned fault: pause postgres")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    (trial,) = program.analysis()["trials"]
    assert trial["faults"][0]["answered_at_s"] is not None  # it was let go on, and its ledger read
    assert trial["integrity"]["status"] == "pass"
    assert out
    assert not program.alive()


def test_a_run_that_is_killed_while_a_component_stands_still_leaves_nothing(program: Program) -> None:
    process = program.start(*LOAD, *faults("pause postgres at 1 for 20"))
    await_line(process, "planned fault: pause postgres")
    process.kill()
    process.communicate()
    assert program("down").code == 0
    assert program.wait_until_gone(20) == []


def test_a_fault_that_cannot_be_is_told_before_anything_starts(program: Program) -> None:
    done = program("run", "purchase", "--fault", "pause cache at 1 for 1", "--fault", "kill app", "--set", "nope=1")
    assert done.code == 2
    assert "--fault 'pause cache at 1 for 1': 'cache' is no component that a fault is done to" in done.err
    assert "--fault 'kill app' is not of the form" in done.err
    assert "--set 'nope=1'" in done.err
    done = program(*LOAD, *faults("disconnect redis at 1 for 1", "pause app at 20 for 9"))
    assert done.code == 2
    assert "the docker stack can do that" in done.err
    assert "ends after 29 s, and the window of variant 'default' has 24 s" in done.err
    assert not program.runs()


@pytest.mark.xdist_group("docker")
def test_what_fails_on_purpose_in_containers_is_measured_and_marked(in_docker: Program) -> None:
    planned = faults(
        "pause app at 2 for 0.5", "kill postgres at 6 for 1", "cpu postgres to 0.5 at 12 for 1",
        "disconnect postgres at 14 for 1", "kill app-2 at 18",
    )  # fmt: skip
    done = in_docker(*LOAD, "--stack", "docker", "--set", "replicas=2", *planned)
    assert done.code in MEASURED, done.err
    (path,) = in_docker.runs()
    effects = effects_of(in_docker.analysis())
    assert len(effects) == 5
    assert effects["kill postgres at 6 for 1"]["failed"] > 0
    assert effects["disconnect postgres at 14 for 1"]["goodput_worst_per_s"] < 20
    check_report(path)
