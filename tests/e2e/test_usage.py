import json
import subprocess
from pathlib import Path

import pytest
from program import PROGRAM, Program

BAD = [
    (("run",), "SCENARIO is missing: bundled are"),
    (("run", ""), "SCENARIO '' names no scenario: bundled are browse"),
    (("run", "--plan", ""), "--plan '' names no plan: bundled are course-table, durability, lockings"),
    (("run", "spike", "--resume", ""), "--resume '' names no run"),
    (("run", "nope"), "SCENARIO 'nope'"),
    (("run", "nope.js"), "SCENARIO 'nope.js' does not exist"),
    (("run", "."), "SCENARIO '.' is a folder"),
    (("run", "spike", "extra"), "extra"),
    (("run", "spike", "--vary", "pool_size=0"), "--vary 'pool_size=0': pool_size='0' is not possible"),
    (("run", "spike", "--vary", "poolsize=2"), "there is no factor 'poolsize': known are pool_size"),
    (
        ("run", "spike", "--set", "cache=maybe"),
        "--set 'cache=maybe': cache='maybe' is not possible: cache takes on, off",
    ),
    (("run", "spike", "--set", "pool_size=2", "--vary", "pool_size=2,3"), "both varied and set"),
    (("run", "spike", "--set", "pool_size=200", "--set", "workers=16"), "wants 3200 connections"),
    (("run", "spike", "--trials", "0"), "--trials '0' is not possible: it takes a whole number from 1 to 100"),
    (("run", "spike", "--trials", "x"), "--trials 'x' is not possible"),
    (("run", "spike", "--seed", "-1"), "--seed '-1' is not possible: it takes a whole number from 0"),
    (("run", "spike", "--stack", "cloud"), "--stack 'cloud' is not known: known are auto, docker, local, external"),
    (("run", "spike", "--plan", "nope"), "--plan 'nope' is neither a file nor a bundled plan"),
    (("run", "smoke", "--set", "rate=5"), "scenario 'smoke.js' does not use 'rate'"),
    (("run", "spike", "-o", ""), "-o '' names no folder"),
    (("run", "--nope"), "--nope"),
    (("nope",), "nope"),
    (("scenarios", "show", "nope"), "SCENARIO 'nope'"),
    (("scenarios", "check", "nope"), "SCENARIO 'nope'"),
    (("report",), "RUN"),
    (("report", "nope"), "RUN 'nope' is not a folder"),
    (("report", "nope", "--format", "pdf"), "--format 'pdf' is not known: known are html"),
    (("show", "nope"), "RUN 'nope' is not a folder"),
    (("show", "."), "holds no run.json"),
    (("audit", "nope"), "RUN 'nope' is not a folder"),
    (("compare", "nope", "nope"), "RUN 'nope' is not a folder"),
    (("compare", "a"), "CANDIDATE"),
    (("compare", "a", "b", "--format", "pdf"), "--format 'pdf' is not known: known are table, md, json"),
    (("down", "extra"), "extra"),
    (("run", "spike", "--trials", "9" * 5000), "is not possible: it takes a whole number from 1 to 100"),
    (("run", "x" * 300 + ".js"), "cannot be looked at: File name too long"),
    (("run", "--plan", "x" * 300), "cannot be looked at: File name too long"),
    (("run", "--resume", "x" * 300), "cannot be looked at: File name too long"),
    (("show", "x" * 300), "cannot be looked at: File name too long"),
    (("init", "x" * 300), "cannot be looked at: File name too long"),
    (("run", "~nobody-of-this-name/x.js"), "begins with a home folder that is not known"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(arguments)[:60] for arguments, _ in BAD])
def test_bad_input_is_exit_2_with_one_clear_line_and_nothing_started(
    program: Program, arguments: tuple[str, ...], message: str
) -> None:
    done = program(*arguments)
    assert done.code == 2
    assert done.out == ""
    complaints = [line for line in done.err.splitlines() if line.startswith("ticketbench: ")]
    assert len(complaints) == 1
    assert message in complaints[0]
    assert "Traceback" not in done.err
    assert not program.state.exists()
    assert not (program.folder / "reports").exists()


def test_bad_environment_and_plan_file_are_exit_2(program: Program) -> None:
    done = program("run", "spike", TICKETBENCH_TRIALS="many")
    assert done.code == 2
    assert "ticketbench: TICKETBENCH_TRIALS 'many' is not possible" in done.err
    done = program("run", "spike", TICKETBENCH_STACK="cloud")
    assert done.code == 2
    assert "ticketbench: TICKETBENCH_STACK 'cloud' is not known" in done.err
    plan = program.folder / "p.toml"
    plan.write_text("scenario = 'spike'\nbogus = 1\n[vary]\npool_size = [0]\n")
    done = program("run", "--plan", "p.toml")
    assert done.code == 2
    assert "no key 'bogus'" in done.err
    assert "pool_size='0' is not possible" in done.err


def test_the_faults_of_flags_variables_and_plan_file_are_told_together_each_where_it_is(program: Program) -> None:
    (program.folder / "p.toml").write_text("scenario = 'nope'\nstack = 'cloud'\nseed = -1\n[set]\ncache = 'hot'\n")
    del program.env["TICKETBENCH_STACK"]  # it would outrank the plan's
    done = program(
        "run", "--plan", "p.toml", "--vary", "pool_size=0", "--trials", "x", "--set", "nope=1", TICKETBENCH_OUTPUT=" "
    )
    assert done.code == 2
    told = [line.removeprefix("ticketbench: ") for line in done.err.splitlines() if line.startswith("ticketbench: ")]
    starts = (
        "plan p.toml: set.cache",
        "plan p.toml: seed = -1",
        "--vary 'pool_size=0'",
        "--set 'nope=1'",
        "--trials 'x'",
        "p.toml: scenario 'nope'",
        "TICKETBENCH_OUTPUT ' '",
        "p.toml: stack 'cloud'",
    )
    assert len(told) == len(starts), told
    for start in starts:
        assert any(line.startswith(start) for line in told), (start, told)
    assert not program.state.exists()


def test_what_does_not_go_together_is_told_with_the_rest(program: Program) -> None:
    done = program("run", "spike", "--vary", "pool_size=1,2", "--set", "pool_size=1", "--seed", "x")
    assert done.code == 2
    assert "both varied and set" in done.err
    assert "--seed 'x'" in done.err


def test_a_script_that_k6_cannot_read_is_exit_2(program: Program) -> None:
    (program.folder / "broken.js").write_text("export default function () {")
    done = program("run", "broken.js")
    assert done.code == 2
    assert str(program.folder) not in done.err
    assert not (program.folder / "reports").exists()


def test_a_group_of_commands_alone_tells_its_help_and_is_exit_2(program: Program) -> None:
    for arguments in ((), ("scenarios",)):
        done = program(*arguments)
        assert done.code == 2, arguments
        assert done.out == ""
        assert done.err.splitlines()[0].startswith("Usage: ticketbench"), arguments
        assert "\nCommands:\n" in done.err


def test_a_current_folder_that_was_removed_is_exit_4(program: Program) -> None:
    script = f"mkdir gone && cd gone && rmdir ../gone && exec {PROGRAM} init"
    done = subprocess.run(
        ["sh", "-c", script], cwd=program.folder, env=program.env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 4
    assert "the current folder cannot be used" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_and_version_are_exit_0(program: Program) -> None:
    for arguments in (("--help",), ("-h",), ("run", "--help"), ("scenarios", "--help"), ("--version",)):
        done = program(*arguments)
        assert done.code == 0, arguments
        assert done.out
        assert done.err == ""


def test_the_bundled_scenarios_are_listed_shown_and_fit_for_use(program: Program) -> None:
    listed = program("scenarios", "list", "--json")
    assert listed.code == 0
    names = {item["name"] for item in json.loads(listed.out)}
    assert names >= {"smoke", "browse", "spike", "purchase", "validate", "journey", "flash", "gate"}
    for name in sorted(names):
        done = program("scenarios", "check", name)
        closed = name in ("flash", "gate", "visitors")  # on purpose, and told
        assert (done.code, "its load is closed" in done.out) == ((3, True) if closed else (0, False)), name
        shown = program("scenarios", "show", name)
        assert shown.code == 0
        assert "pool_size" in shown.out
    assert program("scenarios", "list").code == 0


def test_an_output_that_cannot_be_written_is_exit_4_before_anything_starts(program: Program) -> None:
    (program.folder / "file").write_text("")
    done = program("run", "smoke", "-o", "file")
    assert done.code == 4
    assert "cannot make a folder" in done.err
    assert not Path(program.state).exists()


def test_down_with_nothing_up_is_exit_0(program: Program) -> None:
    done = program("down")
    assert done.code == 0
    assert done.out == "nothing of ticketbench is up\n"
    assert json.loads(program("down", "--json").out) == {"down": [], "left_alone": {}}
