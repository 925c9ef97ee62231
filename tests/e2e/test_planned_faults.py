"""Planned faults in whole runs of the installed program, on local processes and in containers."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from program import Program, await_line

from ticketbench.errors import EXIT_INTEGRITY
from ticketbench.plan_file import find_plan, read_plan_file

pytestmark = pytest.mark.e2e

LOAD = ("run", "purchase", "--set", "rate=40", "--set", "duration=24")
MEASURED = {0, 1}  # its SLOs may be missed: that is what faults are for


def faults(*texts: str) -> list[str]:
    return [word for text in texts for word in ("--fault", text)]


def assert_unharmed(trial: dict[str, Any]) -> None:
    """Say that what was planned spoilt no measurement. What else this machine does meanwhile may."""
    told = [reason for reason in trial["validity"]["reasons"] if "on purpose" not in reason]
    harm = ("died", "was stopped", "scraped", "counted", "series", "planned fault")
    assert not [reason for reason in told if any(word in reason for word in harm)]


def effects_of(analysis: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the effect of each fault of the only trial; nothing sold was lost, and it can be believed."""
    (trial,) = analysis["trials"]
    assert trial["status"] == "done"
    assert trial["integrity"]["status"] == "pass"
    assert_unharmed(trial)
    for effect in trial["faults"]:
        assert effect["problem"] == ""
        assert effect["at_s"] <= effect["undone_at_s"] <= effect["answered_at_s"]
    return {effect["fault"]: effect for effect in trial["faults"]}


def check_report(path: Path, killed: str) -> None:
    page = (path / "report.html").read_text()
    assert "Planned faults" in page
    assert "var(--fig-fault)" in page
    assert killed in (path / "report.md").read_text()
    for record in path.glob("trials/*/trial.json"):
        kinds = {each["kind"] for each in json.loads(record.read_text())["disturbances"]}
        assert kinds <= {"shared_machine"}  # by another test; nobody took what was planned for an accident


def test_what_postgres_confirmed_survives_its_death_only_where_commits_wait_for_the_disk(program: Program) -> None:
    extra = faults("restart app at 17")
    planned = read_plan_file(find_plan("durability"))[0].faults
    done = program("run", "--plan", "durability", *faults(*(fault.text for fault in planned)), *extra)
    assert done.code == EXIT_INTEGRITY, done.err
    (path,) = program.runs()
    analysis = program.analysis()
    trials = {trial["variant"]: trial for trial in analysis["trials"]}
    on, off = (trials[f"synchronous_commit={level}"] for level in ("on", "off"))
    assert (on["integrity"]["status"], on["integrity"]["lost"]) == ("pass", 0)
    assert (off["integrity"]["status"], off["integrity"]["oversold"]) == ("violated", 0)
    assert 0 < off["integrity"]["lost"] < 200  # of a fifth of a second or two before each kill
    for trial in (on, off):
        assert trial["status"] == "done"
        assert_unharmed(trial)
        assert len(trial["faults"]) == 4
        for effect in trial["faults"]:
            assert effect["problem"] == ""
            assert effect["at_s"] <= effect["undone_at_s"] <= effect["answered_at_s"]
        assert trial["faults"][0]["failed"] > 0
        assert trial["faults"][1]["goodput_before_per_s"] > 50
    check_report(path, "kill postgres at 4 for 0.5")
    assert "kill postgres at 9 for 0.5: goodput" in done.out
    assert "--fault 'restart app at 17'" in json.loads((path / "run.json").read_text())["command"]
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
    unplugged = effects["disconnect postgres at 14 for 1"]
    assert unplugged["p95_worst_s"] > 0.4 or unplugged["failed"] > 0  # whoever came meanwhile waited, or was refused
    check_report(path, "kill postgres at 6 for 1")
