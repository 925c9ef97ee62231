import csv
import gzip
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from program import PROGRAM, Program, await_line

# A small rush: enough to sell out, to queue behind two connections, and to lose updates; 5 + 2 s come before it.
SHORT = ("--set", "duration=8", "--set", "rate=120")


def variant(analysis: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (item for item in analysis["variants"] if item["variant"] == name)
    return dict(found)


def assert_only_others_are_to_blame(variant: dict[str, Any]) -> None:
    """Other tests share the machine: that they took it is the only thing that may be wrong with a measurement."""
    doubts = variant["validity"]["reasons"] if variant["validity"]["status"] == "invalid" else []
    assert all("others took" in doubt or "waited for a core" in doubt for doubt in doubts), variant["validity"]


def rows(run: Path, name: str, trial: str = "001") -> list[dict[str, str]]:
    with gzip.open(run / "trials" / trial / name, "rt", newline="") as file:
        return list(csv.DictReader(file))


def test_a_smoke_test_passes_and_leaves_a_whole_run(program: Program) -> None:
    done = program("run", "smoke")
    assert done.code == 0, done.err
    (run,) = program.runs()
    assert Path(done.last_line) == run.relative_to(program.folder) / "report.html"
    for name in ("run.json", "analysis.json", "report.html", "report.md"):
        assert (run / name).stat().st_size > 0
    trial = run / "trials" / "001"
    for name in ("trial.json", "k6-summary.json", "series.csv.gz", "histograms.csv.gz", "acks.csv.gz", "ledger.csv.gz"):
        assert (trial / name).stat().st_size > 0
    analysis = program.analysis()
    assert analysis["outcome"]["status"] == "pass"
    assert analysis["variants"][0]["integrity"]["status"] == "pass"
    assert not program.alive()
    assert not list(program.state.rglob("*.json"))
    told = json.loads(program("report", str(run), "--format", "md", "--json").out)
    assert told == [{"run_id": run.name, "reports": [str(run / "report.md")]}]


def test_nothing_of_the_machine_or_its_secrets_is_in_the_run(program: Program) -> None:
    assert program("run", "smoke").code == 0
    (run,) = program.runs()
    for path in run.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            text = gzip.decompress(content) if path.suffix == ".gz" else content
            for secret in (str(program.folder), f"{Path.home()}/", os.uname().nodename):
                if len(secret) > 3:
                    assert secret.encode() not in text, f"{secret} in {path.relative_to(run)}"
            assert not re.search(rb"://\w+:[^*@/\s]{6,}@", text), path


def test_a_pool_of_two_cannot_keep_up(program: Program) -> None:
    # Two connections that wait 60 ms for each payment sell 30 tickets a second at most, ten sell 150, and neither needs
    # much of a machine that other tests use as well.
    slow = ("--set", "payment_ms=60", "--set", "rate=60", "--set", "duration=8", "--set", "stock=5000")
    done = program("run", "spike", "--vary", "pool_size=10,2", *slow)
    analysis = program.analysis()
    wide, narrow = variant(analysis, "pool_size=10"), variant(analysis, "pool_size=2")
    assert narrow["signals"]["traffic"]["goodput_per_s"] < 0.9 * wide["signals"]["traffic"]["goodput_per_s"]
    assert narrow["signals"]["latency_s"]["p95"] > 3 * wide["signals"]["latency_s"]["p95"]
    assert narrow["signals"]["saturation"]["db_pool"]["utilisation"] > 0.7
    assert narrow["signals"]["saturation"]["db_pool"]["queue"] > 5
    for item in (wide, narrow):
        assert item["integrity"]["status"] == "pass"
        assert item["integrity"]["lost"] == 0
        assert_only_others_are_to_blame(item)
    assert any(finding["candidate_variant"] == "pool_size=2" for finding in analysis["comparison"])
    assert done.code in (0, 1, 3), done.err
    assert not program.alive()


def test_the_race_oversells_and_the_audit_counts_what_sql_counts(program: Program) -> None:
    done = program("run", "spike", "--set", "locking=none", *SHORT, "--set", "stock=150", "--keep")
    assert done.code == 5, done.err
    integrity = program.analysis()["variants"][0]["integrity"]
    status = program("status", "--json")
    (stack,) = json.loads(status.out)
    with psycopg.connect(stack["access"]["postgres_dsn"]) as connection:
        row = connection.execute(
            "SELECT coalesce(sum(greatest(0, n - capacity)), 0), coalesce(sum(n), 0) FROM ("
            " SELECT m.capacity, (SELECT count(*) FROM tickets t WHERE t.match_id = m.id) AS n"
            " FROM matches m WHERE m.on_sale) counted"
        ).fetchone()
    assert row is not None
    assert integrity["oversold"] == int(row[0]) > 0
    assert integrity["sold"] == int(row[1])
    assert program("audit", str(program.runs()[0])).code == 5
    down = program("down")
    assert down.code == 0
    assert program.alive() == []
    assert json.loads(program("status", "--json").out) == []


def test_guarded_lockings_sell_exactly_what_there_is(program: Program) -> None:
    program(
        "run", "spike", "--vary", "locking=pessimistic,optimistic,atomic,redis", *SHORT, "--set", "stock=200"
    )  # fmt: skip
    analysis = program.analysis()
    assert len(analysis["variants"]) == 4
    for item in analysis["variants"]:
        integrity = item["integrity"]
        assert (integrity["status"], integrity["oversold"], integrity["lost"], integrity["duplicated"]) == (
            "pass", 0, 0, 0,
        ), item  # fmt: skip
        assert integrity["acknowledged"] > 200  # the hot match's 200, and the warm-up's on other matches
        assert item["signals"]["errors"]["answered"].get("409", 0) > 0
        assert item["sold_out_after_s"] is not None


MISSING_ROUTE = """
import http from 'k6/http';
export const options = { scenarios: { main: {
  executor: 'constant-arrival-rate', rate: 40, timeUnit: '1s', duration: '8s', preAllocatedVUs: 20 } } };
export default function () { http.post(`${__ENV.BASE_URL}/tickets/buy`, '{}'); }
"""


def test_a_route_that_does_not_exist_is_never_a_fast_system(program: Program) -> None:
    (program.folder / "wrong.js").write_text(MISSING_ROUTE)
    done = program("run", "wrong.js")
    assert done.code in (1, 3), done.err
    analysis = program.analysis()
    assert analysis["outcome"]["status"] == "invalid"
    reasons = " ".join(analysis["variants"][0]["validity"]["reasons"])
    assert "/tickets/buy" in reasons
    assert "404" in reasons
    assert "100" in reasons
    assert not analysis["variants"][0]["signals"]["traffic"]["goodput_per_s"]


THROWS = """
import http from 'k6/http';
export const options = { scenarios: { main: {
  executor: 'constant-arrival-rate', rate: 40, timeUnit: '1s', duration: '5s', preAllocatedVUs: 20 } } };
export default function () { http.get(`${__ENV.BASE_URL}/health`); throw new Error('no such seat'); }
"""


def test_a_script_that_throws_after_its_answer_never_passes(program: Program) -> None:
    (program.folder / "throws.js").write_text(THROWS)
    done = program("run", "throws.js")
    assert done.code == 3, done.err
    assert re.search(r"INVALID\s+all \d+ iterations ended with an exception: no such seat", done.out), done.out
    (variant,) = program.analysis()["variants"]
    assert variant["signals"]["errors"]["ratio"] == 0  # each request was answered: only the log tells
    (run,) = program.runs()
    (thrown,) = json.loads((run / "trials" / "001" / "trial.json").read_text())["load"]["thrown"]
    assert (thrown["scenario"], thrown["first"]) == ("main", "no such seat")
    assert thrown["iterations"] > 150
    assert "correct throws.js: where it threw is in" in done.err
    assert "error: no such seat" in (run / "trials" / "001" / "logs" / "k6.log").read_text()
    assert program("show", str(run)).code == 3


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_window_keeps_what_was_measured(program: Program, sent: signal.Signals, code: int) -> None:
    process = program.start("run", "spike", *SHORT)
    await_line(process, " window ")
    time.sleep(3)  # some seconds of the window are to be kept
    process.send_signal(sent)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    (run,) = program.runs()
    trial = json.loads((run / "trials" / "001" / "trial.json").read_text())
    assert trial["status"] == "interrupted"
    assert rows(run, "acks.csv.gz")
    assert rows(run, "ledger.csv.gz")
    assert rows(run, "series.csv.gz")
    assert out.rstrip().endswith("report.html")
    assert program.analysis()["outcome"]["status"] == "invalid"
    assert program.alive() == []


def test_a_killed_ticketbench_leaves_nothing_alive(program: Program) -> None:
    process = program.start("run", "spike", *SHORT)
    await_line(process, " window ")
    process.kill()
    process.communicate(timeout=30)
    assert program.wait_until_gone(5) == []
    assert program("down").code == 0
    assert not list(program.state.rglob("*.json"))


@pytest.mark.parametrize("component", ["redis", "app", "k6"])  # test_faults.py has the others
def test_a_server_that_dies_in_the_window_is_named_and_the_rest_is_kept(program: Program, component: str) -> None:
    process = program.start("run", "spike", *SHORT)
    await_line(process, " window ")
    time.sleep(2)  # some seconds of the window are to be kept
    os.kill(pid_of(program, component), signal.SIGKILL)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 4, err
    assert component in err
    (run,) = program.runs()
    trial = json.loads((run / "trials" / "001" / "trial.json").read_text())
    assert trial["status"] == "failed"
    assert any(component in reason for reason in trial["reasons"]), trial["reasons"]
    assert rows(run, "acks.csv.gz")
    if component not in ("postgres", "redis"):
        assert rows(run, "ledger.csv.gz")
    if component != "prometheus":
        assert rows(run, "series.csv.gz")
    assert out.rstrip().endswith("report.html")
    assert program.analysis()["outcome"]["status"] == "invalid"
    assert program.alive() == []


def pid_of(program: Program, component: str) -> int:
    words = {
        "postgres": "listen_addresses",
        "redis": "redis-server|valkey-server",
        "prometheus": "storage.tsdb",
        "app": "target_app serve",
        "k6": " run -q",
    }[component]
    for pid, command in program.processes().items():
        if re.search(words, command) and "setpriv" not in command and "unshare" not in command:
            return pid
    raise AssertionError(f"no process of {component} among {program.alive()}")


def test_two_runs_compare_and_a_plan_file_does_what_flags_do(program: Program) -> None:
    plan = program.folder / "plan.toml"
    plan.write_text("scenario = 'spike'\nseed = 3\n[set]\nduration = 5\nrate = 40\n")
    first = program("run", "--plan", "plan.toml")
    second = program("run", "spike", "--set", "duration=5", "--set", "rate=40", "--seed", "3")
    baseline, candidate = program.runs()
    for done, run in ((first, baseline), (second, candidate)):
        assert done.code in (0, 1, 3), done.err
        assert_only_others_are_to_blame(json.loads((run / "analysis.json").read_text())["variants"][0])
    assert (
        json.loads((baseline / "run.json").read_text())["plan"]
        == json.loads((candidate / "run.json").read_text())["plan"]
    )

    compared = program("compare", str(baseline), str(candidate), "--json")
    assert compared.code in (0, 1, 3), compared.err
    comparison = json.loads(compared.out)
    assert comparison["exit_code"] == compared.code
    assert {finding["verdict"] for finding in comparison["findings"]} <= {
        "regressed", "improved", "unchanged", "inconclusive",
    }  # fmt: skip
    assert all(finding["reason"] for finding in comparison["findings"])
    markdown = program("compare", str(baseline), str(candidate), "--format", "md")
    assert "|" in markdown.out

    record = json.loads((candidate / "run.json").read_text())
    record["environment"]["cores"] += 2
    (candidate / "run.json").write_text(json.dumps(record))
    unlike = program("compare", str(baseline), str(candidate))
    assert unlike.code == 2
    assert "cores" in unlike.err
    assert program("compare", str(baseline), str(candidate), "--force").code == 3

    for name in ("analysis.json", "report.html", "report.md"):
        (baseline / name).unlink()
    again = program("report", str(baseline), "--format", "html", "--format", "json", "--format", "junit")
    assert again.code == 0
    assert len(again.out.splitlines()) == 3
    assert (baseline / "report.html").is_file()
    assert program("show", str(baseline)).code == first.code


def test_a_script_that_throws_is_its_own_fault_and_a_closed_pipe_changes_no_code(program: Program) -> None:
    (program.folder / "throws.js").write_text(
        "export const options = { vus: 1, duration: '2s' };\n"
        "export function setup() { throw new Error('no <b>stock</b>'); }\nexport default function () {}\n"
    )
    done = program("run", "throws.js")
    assert done.code == 3, done.err
    assert "no <b>stock</b>" in done.err
    (run,) = program.runs()
    assert "<b>stock</b>" not in (run / "report.html").read_text()

    shown = program("show", str(run))
    assert shown.code == 3
    for command in (f"show {run} | true", f"show --json {run} | true", f"audit {run} | true", f"show {run} >&-"):
        pipe = f"set -o pipefail; {PROGRAM} {command}"
        piped = subprocess.run(["bash", "-c", pipe], env=program.env, capture_output=True, text=True, check=False)
        assert piped.returncode == (program("audit", str(run)).code if "audit" in command else 3), command
        assert "Traceback" not in piped.stderr
    full = subprocess.run(
        ["bash", "-c", f"{PROGRAM} show {run} > /dev/full"],
        env=program.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert full.returncode == 4
    assert "Traceback" not in full.stderr

    (run / "trials" / "001" / "ledger.csv.gz").unlink()
    assert program("show", str(run)).code == 3
    assert program("audit", str(run)).code == 3
