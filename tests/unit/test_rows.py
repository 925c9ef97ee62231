"""Plans of rows: how they are read, what cannot stand beside them, what a variant runs, and what is concluded."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.unit import synthetic
from ticketbench import factors, plan
from ticketbench.analysis import expectations
from ticketbench.analysis.analyse import analyse, exit_code
from ticketbench.analysis.resources import Machine, saturation
from ticketbench.analysis.series import Series
from ticketbench.cli.external import ExternalOptions
from ticketbench.cli.options import RunOptions, request_of
from ticketbench.cli.resume import reopen
from ticketbench.errors import UsageError
from ticketbench.ledger_rows import Ack, LedgerRow
from ticketbench.model import Level, Plan, RunRecord, Scenario, Schedule, Slo, Variant
from ticketbench.plan_file import find_plan, read_plan_file
from ticketbench.report import ReportInput
from ticketbench.report.differed import differed
from ticketbench.report.expected import expected_table
from ticketbench.report.html_page import html
from ticketbench.report.markdown_page import markdown
from ticketbench.report.tables import variants_table
from ticketbench.row_file import AskedRow
from ticketbench.rows import RESOURCES, Check, Expectation, PlanRow, parse_check
from ticketbench.store import RunDirectory, save_run
from ticketbench.storing.purchases import Acks, Ledger

TWO_ROWS = """
title = "a table"
[[row]]
name = "quiet"
title = "few users"
scenario = "browse"
set = { rate = 25, cache = true }
[[row.expect]]
text = "under 100 ms"
checks = ["p95_s < 0.1"]
[[row]]
name = "rush"
scenario = "rush.js"
"""


def options(plan_file: Path, **changes: object) -> RunOptions:
    values: dict[str, object] = {
        "scenario": None, "vary": (), "fixed": (), "plan": str(plan_file), "trials": None, "seed": None, "stack": None,
        "output": None, "keep": False, "as_json": False, "external": ExternalOptions(),
    }  # fmt: skip
    return RunOptions(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "rush.js").write_text("export default function () {}")
    path = tmp_path / "table.toml"
    path.write_text(TWO_ROWS)
    return path


def test_a_row_has_its_scenario_levels_and_expectations(table: Path) -> None:
    file, problems = read_plan_file(table)
    assert problems == ()
    quiet, rush = file.rows
    assert (quiet.row.name, quiet.row.title, quiet.scenario) == ("quiet", "few users", "browse")
    assert quiet.row.levels == {"rate": 25.0, "cache": "on"}
    assert quiet.row.expect[0].checks == (Check(signals=("p95_s",), comparison="<", value=0.1),)
    assert rush.scenario == str(table.parent / "rush.js"), "a script is looked for beside the plan"


def test_the_bundled_table_has_the_three_rows_of_the_course_project() -> None:
    file, problems = read_plan_file(find_plan("course-table"))
    assert problems == ()
    assert [asked.row.title for asked in file.rows] == [
        "50 users browsing", "1000 users on the buy button", "50 users validating tickets",
    ]  # fmt: skip
    told = [one.text for asked in file.rows for one in asked.row.expect]
    assert told == [
        "about 50 requests/s", "0 % errors", "under 100 ms", "healthy", "connection pool exhaustion", "CPU saturation",
    ]  # fmt: skip


def test_faults_of_rows_are_told_all_at_once_by_their_own_names(tmp_path: Path) -> None:
    path = tmp_path / "table.toml"
    path.write_text("""
[[row]]
name = "Not A Name"
scenario = "browse"
[[row]]
scenario = 3
colour = "red"
[[row]]
name = "a"
scenario = "browse"
set = { pool_size = 0, nothing = 1, cache = [1] }
[[row.expect]]
checks = ["p95_s", "speed > 3", 7]
[[row.expect]]
text = "fast"
checks = ["p95_s is 3", "speed > 3"]
size = 3
""")
    _, problems = read_plan_file(path)
    for part in (
        "row 'Not A Name': name takes", "row 2 has no key 'colour': known are name", "row 2 lacks name",
        "row 2: scenario = 3 is not text", "row 'a': set.pool_size", "there is no factor 'nothing'",
        "row 'a': set.cache holds [1]", "row 'a': expect 1 lacks text", "row 'a': expect 1: checks is not a list",
        "row 'a': expect 2 has no key 'size'", "'p95_s is 3' is not of the form SIGNAL COMPARISON NUMBER",
        "there is no signal 'speed': known are offered_per_s",
    ):  # fmt: skip
        assert sum(part in problem for problem in problems) == 1, (part, problems)


def test_what_a_row_says_itself_cannot_be_said_beside_it(table: Path) -> None:
    table.write_text('scenario = "browse"\n' + TWO_ROWS + '[vary]\ncache = ["on", "off"]\n[[fault]]\ndo = "kill"\n'
                     'component = "redis"\nat = 1\n')  # fmt: skip
    with pytest.raises(UsageError) as caught:
        request_of(options(table, scenario="spike", vary=("cache=on,off",),
                           faults=("kill redis at 3",)))  # fmt: skip
    for said in ("SCENARIO spike", "--vary", "--fault", "scenario", "[vary]", "[[fault]]"):
        told = [p for p in caught.value.problems if p.removeprefix("plan table.toml: ").startswith(f"{said} cannot")]
        assert len(told) == 1, (said, caught.value.problems)


def test_an_unknown_scenario_is_told_with_the_rows_name(table: Path) -> None:
    table.write_text(TWO_ROWS.replace('"browse"', '"brows"'))
    with pytest.raises(UsageError) as caught:
        request_of(options(table))
    assert caught.value.problems[0].startswith("row 'quiet': scenario 'brows' is neither")


def test_the_request_has_a_script_for_each_row_and_a_name_that_travels(table: Path) -> None:
    asked = request_of(options(table))
    assert {name: path.name for name, path in asked.row_scripts.items()} == {"quiet": "browse.js", "rush": "rush.js"}
    assert asked.request.rows_from == "path/to/table.toml"


def test_what_the_command_line_sets_comes_before_a_rows_own_levels(table: Path) -> None:
    asked = request_of(options(table, fixed=("rate=3", "pool_size=4")))
    assert asked.request.fixed == {"rate": 3.0, "pool_size": 4}
    assert asked.request.rows[0].row.levels == {"cache": "on"}


# --- the plan ---------------------------------------------------------------------------------------------------------


def row(name: str, *checks: str, **levels: Level) -> PlanRow:
    problems: list[str] = []
    read = tuple(parse_check("here", text, problems) for text in checks)
    assert not problems
    expect = tuple(Expectation(text=f"expects {one.text}", checks=(one,)) for one in read if one is not None)
    return PlanRow(name=name, levels=levels, expect=expect)


def inspect(asked: AskedRow, levels: Mapping[str, Level]) -> tuple[Scenario, Schedule]:
    shape = "functional" if asked.scenario == "smoke" else "transient"
    return synthetic.scenario(name=asked.scenario, shape=shape), synthetic.schedule(per_s=float(levels.get("rate", 7)))  # type: ignore[arg-type]


def built(*rows: AskedRow, stack: str = "local", **fixed: Level) -> Plan:
    request = plan.Request(scenario="", rows=rows, repetitions=2, stack=stack, fixed=fixed, rows_from="table")
    return plan.build_rows(request, inspect)


def test_each_row_is_a_variant_with_a_scenario_of_its_own() -> None:
    plan_ = built(AskedRow(row("a", rate=20), "browse"), AskedRow(row("b", stock=5), "spike"), pool_size=3)
    assert [variant.name for variant in plan_.variants] == ["a", "b"]
    assert (plan_.scenario_of("a").name, plan_.scenario_of("b").name) == ("browse", "spike")
    assert plan_.row_of("b") == plan_.rows[1]
    assert plan_.variant("b").levels["stock"] == 5
    assert plan_.variant("a").levels["stock"] == factors.CATALOGUE["stock"].default
    assert {variant.levels["pool_size"] for variant in plan_.variants} == {3}, "what is set holds for all rows"
    assert plan_.schedules["a"].offered[0].from_per_s == 20
    assert sorted(trial.variant for trial in plan_.trials) == ["a", "a", "b", "b"]
    assert plan.command(plan_).startswith("ticketbench run --plan table --trials 2")
    assert plan_.scenario_names == "browse, spike"
    assert Plan.model_validate_json(plan_.model_dump_json()) == plan_


def test_a_script_is_read_as_it_will_be_told_in_a_trial() -> None:
    told: list[dict[str, Level]] = []

    def reads(asked: AskedRow, levels: Mapping[str, Level]) -> tuple[Scenario, Schedule]:
        told.append(dict(levels))
        own = {"stock": 700, "payment_ms": 20}
        return synthetic.scenario().model_copy(update={"levels": own}), synthetic.schedule(per_s=7)

    request = plan.Request(scenario="", rows=(AskedRow(row("a", rate=3), "spike"),), rows_from="table")
    plan.build_rows(request, reads)
    assert told == [{"rate": 3}, {"rate": 3, "stock": 700}]


def test_every_fault_of_the_rows_of_a_plan_is_told() -> None:
    rows = (AskedRow(row("a"), "smoke"), AskedRow(row("b", "queue.nobody > 0"), "browse"))
    with pytest.raises(UsageError) as caught:
        built(*rows)
    assert "row 'a': scenario 'smoke' is functional" in caught.value.problems[0]
    assert "row 'b': 'queue.nobody' is of no resource" in caught.value.problems[1]


def test_a_plan_whose_rows_are_not_its_variants_is_damaged() -> None:
    raw = json.loads(built(AskedRow(row("a"), "browse")).model_dump_json())
    raw["rows"][0]["name"] = "other"
    with pytest.raises(ValueError, match="rows, their scenarios and the variants"):
        Plan.model_validate(raw)


def test_a_plan_without_rows_is_as_before() -> None:
    plan_ = synthetic.run_record().plan
    raw = {k: v for k, v in json.loads(plan_.model_dump_json()).items() if not k.startswith("row")}
    old = Plan.model_validate(raw)
    assert old == plan_
    assert old.scenario_of("pool_size=10") is old.scenario
    assert old.row_of("pool_size=10") is None


def test_the_resources_that_a_check_may_name_are_those_that_are_measured() -> None:
    names = saturation(Series(None), np.array([0.0, 1.0]), Machine(cores=2, workers=1, max_vus=1))
    assert set(names) <= set(RESOURCES)


def test_a_resumed_run_of_rows_finds_its_scripts(tmp_path: Path) -> None:
    plan_ = built(AskedRow(row("a"), "browse"), AskedRow(row("b"), "spike"))
    directory = stored(tmp_path, plan_)
    resumed = reopen(directory, None)
    assert {name: path.name for name, path in resumed.row_scripts.items()} == {"a": "browse.js", "b": "spike.js"}
    with pytest.raises(UsageError, match="is not one of the rows' own scripts"):
        reopen(directory, "spike")


def test_rows_with_scripts_of_ones_own_are_resumed_by_naming_one(tmp_path: Path) -> None:
    plan_ = built(AskedRow(row("a"), "one.js"), AskedRow(row("b"), "two.js"))
    scenarios = {name: one.model_copy(update={"script": one.name}) for name, one in plan_.row_scenarios.items()}
    directory = stored(tmp_path, plan_.model_copy(update={"row_scenarios": scenarios}))
    for name in ("one.js", "two.js"):
        (tmp_path / name).write_text("")
    with pytest.raises(UsageError, match=r"needs the scripts of the run's rows again, one\.js, two\.js"):
        reopen(directory, None)
    resumed = reopen(directory, str(tmp_path / "two.js"))
    assert {name: path.name for name, path in resumed.row_scripts.items()} == {"a": "one.js", "b": "two.js"}


def stored(folder: Path, plan_: Plan) -> RunDirectory:
    run = synthetic.run_record().model_copy(update={"plan": plan_})
    (folder / "run").mkdir()
    directory = RunDirectory(folder / "run")
    save_run(directory, run)
    return directory


# --- what is concluded ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "low", "inside", "high"),
    [("p95_s < 2", None, 1.9, 2), ("p95_s <= 2", None, 2, 2.1), ("p95_s > 2", 2, 2.1, None),
     ("p95_s >= 2", 1.9, 2, None), ("p95_s = 2", 1.9, 2, 2.1), ("p95_s about 50", 44.9, 45, 55.1)],
)  # fmt: skip
def test_comparisons(text: str, low: float | None, inside: float, high: float | None) -> None:
    check = parse_check("here", text, [])
    assert check is not None
    assert check.text == text
    assert check.holds(inside)
    assert not any(check.holds(outside) for outside in (low, high) if outside is not None)


def measured_run(*rows: PlanRow, slos: tuple[Slo, ...] = ()) -> RunRecord:
    run = synthetic.run_record([row.name for row in rows])
    scenarios = {row.name: synthetic.scenario(name=f"s-{row.name}", slos=slos) for row in rows}
    changes = {"rows": rows, "row_scenarios": scenarios, "rows_from": "table"}
    return run.model_copy(update={"plan": run.plan.model_copy(update=changes)})


def trial(run: RunRecord, at: int) -> "synthetic.TrialData":
    trace = synthetic.Trace(seconds=30)
    trace.requests("purchase", per_s=100, latency_s=0.020)
    data = trace.build()
    record = data.record.model_copy(update={"trial": run.plan.trials[at]})
    return dataclasses.replace(data, record=record)


def test_expectations_are_judged_from_the_signals_and_shown_with_the_figures() -> None:
    run = measured_run(
        row("a", "requests_per_s about 100", "p95_s < 0.001", "queue.pgbouncer > 0"), row("b", "error_ratio = 0")
    )
    analysis = analyse(run, [trial(run, 0), trial(run, 1)])
    first, second = analysis.rows
    assert [one.status for one in first.expectations] == ["met", "not_met", "unknown"]
    assert first.expectations[2].reason == "there is no figure of queue.pgbouncer"
    assert [one.status for one in second.expectations] == ["met"]
    assert first.expectations[0].checks[0].measured == pytest.approx(100, rel=0.1)
    assert analysis.comparison == (), "rows are different questions"
    lines = expectations.row_lines(analysis.rows)
    assert lines[0].startswith("a: expected expects requests_per_s about 100: met (requests 1")
    data = ReportInput(run=run, analysis=analysis, timelines=())
    assert [r.cells[3].text for r in expected_table(data).rows] == ["✓ met", "▼ not met", "? cannot be told", "✓ met"]
    page, text = html(data).decode(), markdown(data).decode()
    for told in (page, text):
        assert "What was expected, and what was measured" in told
        assert "rows are not compared with each other" in told
    assert "against the reference" not in page


def test_of_several_signals_the_highest_counts() -> None:
    run = measured_run(row("a", "utilisation.pgbouncer_cpu | requests_per_s >= 90"))
    result = analyse(run, [trial(run, 0)]).rows[0].expectations[0]
    assert (result.status, result.checks[0].signal) == ("met", "requests_per_s")


def test_the_sentence_counts_expectations_and_no_bar_compares_rows() -> None:
    run = measured_run(row("a", "requests_per_s about 100", "p95_s < 0.001"), row("b", "error_ratio = 0"))
    analysis = analyse(run, [trial(run, 0), trial(run, 1)])
    assert analysis.outcome.sentence.startswith("2 of 3 expectations were met; a sells ")
    data = ReportInput(run=run, analysis=analysis, timelines=())
    assert [cell.share for shown in variants_table(data, {}).rows for cell in shown.cells] == [None] * 20


def test_what_to_look_at_is_told_with_each_rows_scenario() -> None:
    run = measured_run(row("a"), row("b"))
    scenarios = {"a": run.plan.row_scenarios["a"].model_copy(update={"look_at": "the pool"}),
                 "b": run.plan.row_scenarios["b"]}  # fmt: skip
    run = run.model_copy(update={"plan": run.plan.model_copy(update={"row_scenarios": scenarios})})
    data = ReportInput(run=run, analysis=analyse(run, []), timelines=())
    assert [shown.cells[1].note for shown in differed(data)[0].rows] == ["what to look at: the pool", ""]
    assert "what to look at: the pool" in html(data).decode()


def test_an_invalid_measurement_settles_no_expectation() -> None:
    run = measured_run(row("a", "requests_per_s about 100"))
    analysis = analyse(run, [])
    assert analysis.rows[0].expectations[0].status == "unknown"
    assert analysis.rows[0].expectations[0].reason.startswith("the measurement is invalid")


def test_each_row_decides_the_outcome() -> None:
    run = measured_run(row("a"), row("b"))
    analysis = analyse(run, [trial(run, 0)])
    assert analysis.outcome.status == "invalid"
    assert exit_code(analysis) == 3


def test_an_acknowledgement_without_a_key_is_found_by_the_tickets_number() -> None:
    ledger = Ledger.of([LedgerRow("capacity", 1, 5), LedgerRow("ticket", 1, 1, 7, "hold-abc")])
    acks = Acks.of([Ack(1.0, 1, "", 7), Ack(2.0, 1, "", 8)])
    assert acks.keyless
    assert acks.purchases.missing_in(ledger.told_by(keyless=True)) == 1
    assert not Acks.of([Ack(1.0, 1, "k", 7)]).keyless


def test_a_variant_of_a_run_is_found_by_its_rows_name() -> None:
    run = measured_run(row("a"), row("b"))
    assert run.plan.variant("a") == Variant(name="a", levels={})


def test_rows_of_one_scenario_under_one_load_are_compared() -> None:
    plan_ = built(AskedRow(row("plain"), "browse"), AskedRow(row("remedy", pool_size=20), "browse"))
    assert not plan_.apart
    run = synthetic.run_record().model_copy(update={"plan": plan_})
    pace = dataclasses.replace(synthetic.Trace(seconds=30)).requests("purchase", per_s=100)
    trials = []
    for planned in plan_.trials:
        data = pace.build()
        record = data.record.model_copy(update={"trial": planned, "levels": plan_.variant(planned.variant).levels})
        trials.append(dataclasses.replace(data, record=record))
    analysis = analyse(run, trials)
    assert {(f.baseline_variant, f.candidate_variant) for f in analysis.comparison} == {("plain", "remedy")}
    assert analysis.outcome.sentence.startswith("plain "), "the figures are the news"
    page = html(ReportInput(run=run, analysis=analysis, timelines=())).decode()
    assert "against the reference" in page
    assert "What was expected" not in page, "nothing was"
    other_load = built(AskedRow(row("plain", rate=20), "browse"), AskedRow(row("remedy"), "browse"))
    other_scenario = built(AskedRow(row("plain"), "browse"), AskedRow(row("remedy"), "spike"))
    assert other_load.apart
    assert other_scenario.apart
