"""A plan of rows as a whole run of the installed program: broken off in its second trial, and finished."""

import json
import signal
from pathlib import Path

import pytest
from program import Program, await_line

pytestmark = pytest.mark.e2e

SCRIPT = """
import http from 'k6/http';
export const options = {
  scenarios: { main: { executor: 'constant-arrival-rate', rate: 60, duration: '4s', preAllocatedVUs: 60 } },
  ext: { ticketbench: { title: 'WHAT', asks: 'how many?', look_at: 'the answers', goal: 'WHAT' } },
};
export default function () { http.get(`${__ENV.BASE_URL}/PATH`, { tags: { name: 'WHAT' } }); }
"""
PLAN = """
title = "a table"
[[row]]
name = "list"
scenario = "list.js"
set = { cache = "off" }
[[row.expect]]
text = "about sixty"
checks = ["requests_per_s about 60"]
[[row]]
name = "health"
scenario = "health.js"
[[row.expect]]
text = "nobody else asks"
checks = ["requests_per_s < 1", "error_ratio = 0"]
[[row.expect]]
text = "a busy pooler"
checks = ["queue.pgbouncer > 0"]
"""


def table(folder: Path) -> Path:
    folder.mkdir()
    for what, path in (("list", "matches"), ("health", "health")):
        (folder / f"{what}.js").write_text(SCRIPT.replace("WHAT", what).replace("PATH", path))
    plan = folder / "table.toml"
    plan.write_text(PLAN)
    return plan


def test_rows_run_their_own_scripts_and_are_finished_after_an_interruption(program: Program) -> None:
    plan = table(program.folder / "plans")
    process = program.start("run", "--plan", str(plan), "--set", "pool_size=3")
    await_line(process, "[2/2] window")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    (run,) = program.runs()
    assert run.name.endswith("-table")

    done = program("run", str(plan.parent / "health.js"), "--resume", str(run))
    assert done.code in {0, 3}, done.err  # on a busy machine nothing is valid
    assert "1 trial of 2 left" in done.err
    analysis = program.analysis()
    variants = {variant["variant"]: variant for variant in analysis["variants"]}
    assert [route["name"] for route in variants["list"]["routes"]] == ["GET list"]
    assert [route["name"] for route in variants["health"]["routes"]] == ["GET health"]
    assert {variant["levels"]["pool_size"] for variant in variants.values()} == {3}
    assert [variants[name]["levels"]["cache"] for name in ("list", "health")] == ["off", "on"]
    assert analysis["comparison"] == []
    results = {one["text"]: one for row in analysis["rows"] for one in row["expectations"]}
    assert results["about sixty"]["checks"][0]["measured"] == pytest.approx(60, rel=0.1)
    if done.code == 0:
        assert [one["status"] for one in results.values()] == ["met", "not_met", "unknown"]
        assert "health: expected nobody else asks: not met (requests " in " ".join(done.out.split())
    page = (run / "report.html").read_text()
    for told in ("What was expected, and what was measured", "nobody else asks", "what to look at: the answers"):
        assert told in page
    assert "about sixty" in (run / "report.md").read_text()
    recorded = json.loads((run / "run.json").read_text())["command"]
    assert recorded.startswith("ticketbench run --plan path/to/table.toml --set pool_size=3")
    assert not program.alive()
