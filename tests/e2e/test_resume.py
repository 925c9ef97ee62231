import json
import signal
from pathlib import Path

from program import Program, await_line

# Seven seconds of load a trial, 5 + 2 s of warm-up and quiet before it.
PLAN = ("--vary", "cache=on,off", "--set", "duration=6", "--set", "rate=40")


def trial_files(run: Path, trial: str) -> dict[str, bytes]:
    folder = run / "trials" / trial
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_script(program: Program) -> Path:
    script = program.folder / "mine.js"
    script.write_text(
        "import http from 'k6/http';\n"
        "export const options = { vus: 1, duration: '3s' };\n"
        "export default function () { http.get(`${__ENV.BASE_URL}/matches`); }\n"
    )
    return script


def interrupted(program: Program, sent: signal.Signals, *arguments: str) -> Path:
    """Start two trials, and end ticketbench in the window of the second."""
    process = program.start("run", *arguments)
    await_line(process, "[2/2] window")
    process.send_signal(sent)
    process.communicate(timeout=120)
    (run,) = program.runs()
    assert not program.wait_until_gone(20)
    return run


def test_an_interrupted_run_is_finished_under_its_own_plan(program: Program) -> None:
    run = interrupted(program, signal.SIGINT, "spike", *PLAN)
    before, planned = trial_files(run, "001"), (run / "run.json").read_bytes()
    partial = trial_files(run, "002")
    assert json.loads(partial["trial.json"])["status"] == "interrupted"

    refused = program("run", "--resume", str(run), "--trials", "3", "--vary", "cache=on")
    assert refused.code == 2
    assert "--trials" in refused.err
    assert "--vary" in refused.err

    done = program("run", "--resume", str(run), TICKETBENCH_TRIALS="3")
    assert done.code in {0, 1, 3}, done.err
    assert "1 trial of 2 left" in done.err
    assert trial_files(run, "001") == before
    assert (run / "run.json").read_bytes() == planned
    assert (run / "superseded" / "002-1" / "trial.json").read_bytes() == partial["trial.json"]
    trials = [json.loads((run / "trials" / name / "trial.json").read_text()) for name in ("001", "002")]
    assert [trial["status"] for trial in trials] == ["done", "done"]
    assert [trial["session"] for trial in trials] == [1, 2]
    assert not program.alive()

    again = program("run", "--resume", str(run))
    assert again.code == done.code
    assert "nothing is left to do" in again.err
    assert again.last_line == done.last_line


def test_a_killed_run_is_finished_and_one_that_goes_on_is_left_alone(program: Program) -> None:
    script = write_script(program)
    run = interrupted(program, signal.SIGKILL, str(script), "--trials", "2")
    assert not (run / "trials" / "002" / "trial.json").exists()
    process = program.start("run", str(script), "--resume", str(run))
    await_line(process, "[2/2] window")
    meanwhile = program("run", str(script), "--resume", str(run))
    assert meanwhile.code == 2
    assert "is being measured by another ticketbench" in meanwhile.err
    _, err = process.communicate(timeout=120)
    assert process.returncode in {0, 1, 3}, err
    trials = [json.loads((run / "trials" / name / "trial.json").read_text()) for name in ("001", "002")]
    assert [trial["status"] for trial in trials] == ["done", "done"]
    assert not program.alive()


def test_a_changed_script_is_not_mixed_into_a_run(program: Program) -> None:
    script = write_script(program)
    run = interrupted(program, signal.SIGTERM, str(script), "--trials", "2")
    unnamed = program("run", "--resume", str(run))
    assert unnamed.code == 2
    assert "mine.js" in unnamed.err
    other = program("run", "spike", "--resume", str(run))
    assert other.code == 2
    assert "mine.js" in other.err
    original = script.read_text()
    script.write_text(original + "// changed\n")
    changed = program("run", str(script), "--resume", str(run))
    assert changed.code == 2
    assert "changed since the run began: scenario mine.js" in changed.err
