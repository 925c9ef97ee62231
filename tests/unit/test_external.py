"""Somebody else's system without one: options, what is recorded, and how a run of it is judged."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.unit.synthetic import Trace, run_record, spike, without
from ticketbench import plan as planning
from ticketbench.analysis.analyse import analyse, exit_code
from ticketbench.analysis.compare import compare
from ticketbench.analysis.series import Series
from ticketbench.cli import output
from ticketbench.cli.external import ExternalOptions, refuse_elsewhere, require_same, system_of, words_again
from ticketbench.conclusions import Analysis
from ticketbench.errors import UsageError
from ticketbench.logs import blot_out
from ticketbench.model import ExternalSystem, MappedSignal, RunRecord
from ticketbench.plan_file import PlanFile, read_plan_file
from ticketbench.store import TrialData

NO_FILE = PlanFile(None, {}, {}, None, None, None)
TARGET = "http://127.0.0.1:8000/shop"


@pytest.fixture(autouse=True)
def _no_headers_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TICKETBENCH_HEADERS", raising=False)


def plan_file(tmp_path: Path, text: str) -> PlanFile:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    file, problems = read_plan_file(path)
    if problems:
        raise UsageError(*problems)
    return file


# --- options ----------------------------------------------------------------------------------------------------------


def test_a_flag_wins_over_the_environment_and_that_over_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = plan_file(tmp_path, f'target = "{TARGET}"\n[headers]\nA = "plan"\nB = "plan"\nC = "plan"\n')
    monkeypatch.setenv("TICKETBENCH_HEADERS", "b: environment\n\nC: environment: with a colon\n")
    problems: list[str] = []
    system = system_of(ExternalOptions(headers=("c: flag",)), file, problems)
    assert problems == []
    assert system is not None
    assert system.target.url == TARGET
    assert dict(system.headers) == {"A": "plan", "b": "environment", "c": "flag"}


def test_a_fault_is_told_by_the_name_that_it_was_given_under(tmp_path: Path) -> None:
    file = plan_file(tmp_path, 'target = "shop"\n')
    problems: list[str] = []
    options = ExternalOptions(prometheus="9090", selector="x", from_variables=frozenset({"prometheus"}))
    assert system_of(options, file, problems) is None
    assert [problem.split(" '")[0] for problem in problems] == [
        "plan: target",
        "TICKETBENCH_PROMETHEUS",
        "--prometheus-selector",
    ]


def test_a_variable_for_all_runs_contradicts_no_other_stack() -> None:
    problems: list[str] = []
    options = ExternalOptions(target=TARGET, prometheus=TARGET, from_variables=frozenset({"target"}))
    refuse_elsewhere(options, NO_FILE, "local", problems)
    assert problems == ["--prometheus belongs to --stack external (the stack is local)"]


def test_a_header_of_the_plan_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '[headers]\nAuthorization = { env = "SHOP_TOKEN" }\n'
    monkeypatch.setenv("SHOP_TOKEN", "Bearer abcdefgh")
    assert plan_file(tmp_path, text).headers == {"Authorization": "Bearer abcdefgh"}
    monkeypatch.delenv("SHOP_TOKEN")
    with pytest.raises(UsageError, match=r"headers\.Authorization takes the variable SHOP_TOKEN, which is not set"):
        plan_file(tmp_path, text)


def test_faults_of_a_plan_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        plan_file(tmp_path, 'target = 8000\nprometheus = true\nheaders = { A = 1 }\ntargets = "x"\n')
    told = "\n".join(caught.value.problems)
    for text in ("target = 8000 is not text", "prometheus = True is not text", "headers.A is neither", "'targets'"):
        assert text in told


def test_a_mapping_lies_beside_its_plan_and_a_bundled_one_does_not(tmp_path: Path) -> None:
    assert plan_file(tmp_path, 'prometheus_mapping = "own.toml"').prometheus_mapping == str(tmp_path / "own.toml")
    assert plan_file(tmp_path, 'prometheus_mapping = "bundled"').prometheus_mapping == "bundled"


@pytest.mark.parametrize("header", ["X-A:", "X-A: a\nX-B: b", ": value", "X A: b", "X-Ä: b"])
def test_what_is_no_header_is_refused(header: str) -> None:
    problems: list[str] = []
    assert system_of(ExternalOptions(target=TARGET, headers=(header,)), NO_FILE, problems) is None
    assert len(problems) == 1


@pytest.mark.parametrize("where", ["--header", "TICKETBENCH_HEADERS", "plan: headers"])
def test_a_value_that_is_not_ascii_is_refused_by_the_name_it_was_given_under(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = plan_file(tmp_path, '[headers]\nX-A = "geheim-ü"\n') if where.startswith("plan") else NO_FILE
    if where == "TICKETBENCH_HEADERS":
        monkeypatch.setenv(where, "X-A: geheim-ü")
    given = ("X-A: geheim-ü",) if where == "--header" else ()
    problems: list[str] = []
    assert system_of(ExternalOptions(target=TARGET, headers=given), file, problems) is None
    assert problems == [f"{where}: the value of X-A is not ASCII, and a header can hold nothing else"]


@pytest.mark.parametrize("value", ["...", "<value>"])
def test_what_stands_for_a_value_is_refused_as_one(value: str) -> None:
    problems: list[str] = []
    assert system_of(ExternalOptions(target=TARGET, headers=(f"X-A: {value}",)), NO_FILE, problems) is None
    assert problems == [f"--header: {value} stands for the value of X-A, which ticketbench does not keep: put it in"]


def test_a_header_stands_once_in_each_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKETBENCH_HEADERS", "X-B: 1\nX-B: 2")
    problems: list[str] = []
    file = plan_file(tmp_path, '[headers]\nX-C = "1"\nx-c = "2"\n')
    assert system_of(ExternalOptions(target=TARGET, headers=("X-A: 1", "x-a: 2")), file, problems) is None
    assert problems == [
        "plan: headers: X-C is given twice (as X-C and x-c: case does not count): give it once",
        "TICKETBENCH_HEADERS: X-B is given twice: give it once",
        "--header: X-A is given twice (as X-A and x-a: case does not count): give it once",
    ]


def test_lines_of_a_variable_and_flags_are_counted_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKETBENCH_HEADERS", "A: 1\nB: 2\nthird")
    problems: list[str] = []
    assert system_of(ExternalOptions(target=TARGET, headers=("first",)), NO_FILE, problems) is None
    assert [problem.partition(" is not")[0] for problem in problems] == [
        "TICKETBENCH_HEADERS (number 3)",
        "--header (number 1)",
    ]


def test_the_options_that_name_the_system_again_leave_out_what_variables_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKETBENCH_HEADERS", "x-secret: 1\nX-Tenant: 2")
    file = plan_file(tmp_path, f'target = "{TARGET}"\n[headers]\nX-Secret = "p"\nX-Plan = "p"\n')
    options = ExternalOptions(
        prometheus="http://localhost:9090",
        selector='job="shop"',
        headers=("X-Tenant: 7",),
        from_variables=frozenset({"prometheus"}),
    )
    words = words_again(options, file)
    assert words == (
        "--target", TARGET, "--prometheus-selector", 'job="shop"', "--header", "X-Plan: <value>",
        "--header", "X-Tenant: <value>",
    )  # fmt: skip
    problems: list[str] = []
    system = system_of(options, file, problems)
    assert system is not None, problems
    record = system.record()
    assert record.headers_from_variable == ("x-secret",)  # the flag's X-Tenant wins over the variable's
    assert [word for word in planning.external_words(record) if word.startswith("X-")] == [
        "X-Plan: <value>",
        "X-Tenant: <value>",
    ]
    # given as flags, in another order and case, it is the same system
    flags = replace(options, headers=("x-plan: p", "X-TENANT: 7"))
    again = system_of(flags, replace(NO_FILE, target=TARGET), problems)
    assert again is not None, problems
    require_same(again, record)


def test_a_variable_is_named_where_its_value_is_at_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    every = frozenset({"target", "prometheus", "mapping", "selector"})
    problems: list[str] = []
    options = ExternalOptions(
        target="http://192.0.2.1", prometheus="http://0.0.0.0:9090", mapping="nope", selector="x", from_variables=every
    )
    assert system_of(options, NO_FILE, problems) is None
    assert sorted(problem.partition(" '")[0] for problem in problems) == [
        "TICKETBENCH_PROMETHEUS",
        "TICKETBENCH_PROMETHEUS_MAPPING",
        "TICKETBENCH_PROMETHEUS_SELECTOR",
        "TICKETBENCH_TARGET",
    ]
    problems.clear()
    options = ExternalOptions(
        target=TARGET, prometheus=TARGET, selector='job="x"', from_variables=frozenset({"target", "selector"})
    )
    system = system_of(options, NO_FILE, problems)
    assert system is not None, problems
    assert system.target_said == "TICKETBENCH_TARGET"
    assert system.source is not None
    assert system.source.selector_said == "TICKETBENCH_PROMETHEUS_SELECTOR"


def test_an_empty_flag_is_not_taken_for_none(tmp_path: Path) -> None:
    problems: list[str] = []
    assert system_of(ExternalOptions(target=""), plan_file(tmp_path, f'target = "{TARGET}"'), problems) is None
    assert problems == ["--target '' is empty"]


def test_what_is_recorded_names_no_host_and_no_value() -> None:
    options = ExternalOptions(
        target=TARGET, prometheus="http://localhost:9090", headers=("Authorization: Bearer abcdefgh",)
    )
    problems: list[str] = []
    system = system_of(options, NO_FILE, problems)
    assert system is not None, problems
    record = system.record()
    text = record.model_dump_json()
    assert not any(word in text for word in ("127.0.0.1", "localhost", "abcdefgh"))
    assert (record.scheme, record.where, record.port, record.path) == ("http", "loopback", 8000, "/shop")
    assert record.headers == ("Authorization",)
    assert "abcdefgh" not in repr(system)
    assert "abcdefgh" not in repr(options)
    words = planning.external_words(record)
    assert words[:2] == ["--target", TARGET]
    assert words[-1] == "Authorization: <value>"
    require_same(system, record)
    with pytest.raises(UsageError, match="port 8001 and 8000"):
        require_same(system, record.model_copy(update={"port": 8001}))


def test_of_another_machine_the_command_says_host_and_needs_the_permission_again() -> None:
    record = ExternalSystem(scheme="https", where="remote", port=443, path="")
    assert planning.external_words(record) == ["--target", "https://HOST:443", "--allow-remote-target"]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("said Bearer abc-def-ghi", "said ***"),
        ("token=abc-def-ghi.", "token=***."),
        ("a Bearer of news", "a *** of news"),
        ('"q\\"uoted-secret"', '"***"'),
        ('{\\"k\\":\\"q\\\\\\"uoted-secret\\"}', '{\\"k\\":\\"***\\"}'),
        ("7 of 9", "7 of 9"),
    ],
)
def test_secrets_are_blotted_out_of_what_is_kept(text: str, kept: str) -> None:
    assert blot_out(text, ["Bearer abc-def-ghi", 'q"uoted-secret', "7"]) == kept


# --- judging ----------------------------------------------------------------------------------------------------------

SIGNALS = (
    MappedSignal(column="app.requests", kind="counter", unit="requests"),
    MappedSignal(column="app.inflight", kind="gauge", unit="requests"),
    MappedSignal(column="resource.used{resource=seats}", kind="gauge"),
    MappedSignal(column="resource.capacity{resource=seats}", kind="gauge"),
)


def external(where: str = "loopback", **changes: Any) -> RunRecord:
    run = run_record(stack="external", **changes)
    system = ExternalSystem.model_validate(
        {"scheme": "http", "where": where, "port": 8000, "path": "", "mapping": "m", "signals": SIGNALS}
    )
    return run.model_copy(update={"plan": run.plan.model_copy(update={"external": system})})


_SERVERS = tuple(f"{name}{{component={of}}}" for name in ("cpu_s", "run_delay_s") for of in ("postgres", "redis"))


def trial(**columns: Any) -> TrialData:
    """Return a trial of k6 and the machine only, with ``columns`` in the place of the app's."""
    data = replace(without(spike().build(ledger=None), "app.", "pg.", "redis.", *_SERVERS), ledger=None)
    assert data.series is not None
    return replace(data, series=data.series.assign(**columns)) if columns else data


def judged(data: TrialData, run: RunRecord | None = None) -> Analysis:
    return analyse(run or external(), [data])


def test_nothing_is_audited_and_that_is_neither_a_pass_nor_a_fault() -> None:
    analysis = judged(trial())
    (variant,) = analysis.variants
    assert variant.integrity.status == "not_audited"
    assert variant.integrity.oversold is None
    assert analysis.outcome.status == "pass"
    assert exit_code(analysis) == 0
    assert "integrity not audited: the system is external" in analysis.outcome.sentence
    assert analysis.outcome.sentence.startswith("The system answers 100 requests/s (p95 ")


def test_what_holds_for_every_trial_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    run = external(variants=("rate=10", "rate=20"), repetitions=2)
    trials = []
    for planned in run.plan.trials:
        data = replace(
            spike(planned.id, planned.variant, reasons=("app.inflight is missing",)).build(ledger=None), ledger=None
        )
        trials.append(without(data, "app.", "pg.", "redis.", *_SERVERS))
    analysis = analyse(run, trials)
    for variant in analysis.variants:
        assert len(variant.validity.reasons) == len(set(variant.validity.reasons)) == 2
        assert len(variant.integrity.reasons) == 1
        assert not any(reason.startswith("t0") for reason in (*variant.validity.reasons, *variant.integrity.reasons))
    output.print_analysis(analysis, run.plan)
    told = " ".join(capsys.readouterr().out.split())  # however it was wrapped
    assert told.count("could not be checked") == 1
    assert told.count("both variants: app.inflight is missing") == 1
    assert told.count("not audited") == 1 + len(analysis.variants)  # the sentence, and the table's cells


def test_on_a_stack_of_ours_the_same_trial_is_invalid() -> None:
    analysis = analyse(run_record(), [trial()])
    assert analysis.variants[0].integrity.status == "unknown"
    assert exit_code(analysis) == 3


def test_a_rule_without_its_series_could_not_be_checked() -> None:
    reasons = " ".join(judged(trial()).variants[0].validity.reasons)
    assert "whether anybody else used the system meanwhile could not be checked" in reasons


def test_more_used_than_there_is_stands_beside_not_audited() -> None:
    data = trial(**{"resource.used{resource=seats}": 53.0, "resource.capacity{resource=seats}": 50.0})
    (variant,) = judged(data).variants
    assert variant.integrity.status == "not_audited"
    assert variant.integrity.reasons[0].startswith("seats: 53 used of a capacity of 50, 3 more than there are")
    assert variant.signals.saturation["seats"].utilisation == pytest.approx(1.06)


def test_as_much_used_as_there_is_is_nothing_to_say() -> None:
    data = trial(**{"resource.used{resource=seats}": 50.0, "resource.capacity{resource=seats}": 50.0})
    assert len(judged(data).variants[0].integrity.reasons) == 1


def test_fewer_requests_than_k6_sent_are_noted_and_contradict_nothing() -> None:
    data = trial()
    assert data.series is not None
    data = trial(**{"app.requests{route=/}": np.linspace(0, 500, len(data.series))})
    (variant,) = judged(data).variants
    assert variant.validity.status == "valid"
    assert any(
        "counts requests in another way, which could not be checked" in text for text in variant.validity.reasons
    )


def test_what_the_sentence_says_is_not_said_below_it(capsys: pytest.CaptureFixture[str]) -> None:
    run = external()
    analysis = judged(replace(trial(), record=trial().record.model_copy(update={"status": "interrupted"})), run)
    output.print_analysis(analysis, run.plan)
    told = capsys.readouterr().out
    assert analysis.outcome.status == "invalid"
    assert told.count("the trial was interrupted") == 1


def busy_others() -> TrialData:
    data = trial()
    assert data.series is not None
    seconds = np.arange(len(data.series), dtype=float)
    return trial(**{"cpu_s{component=other}": seconds * 0.8})  # of two cores


def test_cpu_of_others_may_be_the_systems_own_on_this_machine_only() -> None:
    (here,) = judged(busy_others()).variants
    assert here.validity.status == "valid"
    assert any("so whether others disturbed it could not be checked" in text for text in here.validity.reasons)
    (there,) = judged(busy_others(), external("remote")).variants
    assert there.validity.status == "lower_bound"


def coarse(every: int) -> pd.Series:
    data = trial()
    assert data.series is not None
    rows = np.arange(len(data.series))
    sampled = (rows % every == 0) | (rows == rows[-1])  # as the first scrape after the load is
    return pd.Series(np.where(sampled, rows * 10.0, np.nan), index=data.series.index)


def test_the_systems_own_figures_come_from_its_samples() -> None:
    data = trial(**{"app.requests{route=/a}": coarse(5), "app.inflight": coarse(10)})
    own = {signal.column: signal for signal in judged(data).variants[0].own}
    assert own["app.requests{route=/a}"].value == pytest.approx(10)
    assert own["app.requests{route=/a}"].most is None
    assert own["app.inflight"].most == 300  # the last one lies beyond the window
    assert "resource.used{resource=seats}" not in own  # never 0 where nothing was there


def test_a_window_with_fewer_than_two_samples_has_no_figure() -> None:
    series = Series(pd.DataFrame({"x": [0.0, *[np.nan] * 14, 150.0, *[np.nan] * 14, 300.0]}, index=np.arange(31.0)))
    assert np.isnan(series.increase("x", np.array([3.0, 13.0]))[0])
    assert np.isnan(series.increase("x", np.array([3.0, 20.0]))[0])
    assert series.increase("x", np.array([0.0, 30.0]))[0] == 300


def test_events_are_counted_up_to_the_last_scrape_and_not_beyond() -> None:
    samples = [np.nan, 5.0, *[np.nan] * 4, 40.0, *[np.nan] * 4, 70.0, *[np.nan] * 9]
    series = Series(pd.DataFrame({"app.requests{route=/a}": samples}, index=np.arange(float(len(samples)))))
    assert series.increase("app.requests", np.array([0.0, 12.0]))[0] == 70  # it began at 0: the column came up in row 1
    assert series.increase("app.requests", np.array([6.0, 16.0]))[0] == 30
    assert np.isnan(series.increase("app.requests", np.array([6.0, 20.0]))[0])  # a scrape that is due and not there


def test_two_runs_of_it_can_be_compared_by_what_is_known() -> None:
    sides = [external(run_id=f"2026112{n}T120000Z-spike") for n in (2, 3)]
    comparison = compare(*((side, judged(trial(), side)) for side in sides))
    assert [one.signal for one in comparison.findings if one.gates] == ["errors.ratio"]
    assert comparison.sentence.startswith("20261123T120000Z-spike against 20261122T120000Z-spike: errors.ratio")


def test_a_system_here_and_one_there_are_unlike() -> None:
    here, there = external(), external("remote", run_id="20261123T120000Z-spike")
    with pytest.raises(UsageError, match="system on loopback and remote"):
        compare((here, judged(trial(), here)), (there, judged(trial(), there)))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"scheme": "https"}, "system at http port 8000 and https port 8000"),
        ({"port": 8001}, "system at http port 8000 and http port 8001"),
        ({"path": "/v2"}, "system at http port 8000 and http port 8000 /v2"),
    ],
)
def test_systems_at_two_addresses_are_unlike(changes: dict[str, object], told: str) -> None:
    one, other = external(), external(run_id="20261123T120000Z-spike")
    system = other.plan.external
    assert system is not None
    plan = other.plan.model_copy(update={"external": system.model_copy(update=changes)})
    other = other.model_copy(update={"plan": plan})
    sides = ((one, judged(trial(), one)), (other, judged(trial(), other)))
    with pytest.raises(UsageError, match=f"unlike: {told}$"):
        compare(*sides)
    forced = compare(*sides, force=True)
    assert forced.environment_differences == (told,)
    assert forced.exit_code == 3


# --- what never reached it --------------------------------------------------------------------------------------------


def of_trace(trace: Trace) -> TrialData:
    return replace(without(trace.build(ledger=None), "app.", "pg.", "redis.", *_SERVERS), ledger=None)


def first_reason(trace: Trace) -> tuple[str, str]:
    validity = judged(of_trace(trace)).variants[0].validity
    return validity.status, validity.reasons[0]


def test_a_redirect_to_another_host_is_explained_before_anything_else() -> None:
    trace = Trace().requests("purchase", per_s=50, status="302")
    trace.requests("purchase", per_s=50, status="0", error="1110", expected=False)
    assert first_reason(trace) == (
        "invalid",
        "the system redirects to another host, which ticketbench does not let k6 reach: 1500 of 1500 requests ended"
        " there (docs/external.md)",
    )


def test_a_few_requests_for_another_host_are_a_note() -> None:
    trace = spike().requests("logo", per_s=2, status="0", error="1110", expected=False)
    validity = judged(of_trace(trace)).variants[0].validity
    assert validity.status == "valid"
    assert "the script goes to another host" in " ".join(validity.reasons)


def test_a_target_that_dies_is_told_with_its_second() -> None:
    trace = Trace(warmup_s=5).requests("purchase", per_s=100, until_s=17)
    trace.requests("purchase", per_s=100, status="0", error="1212", expected=False, since_s=17)
    status, reason = first_reason(trace)
    assert status == "invalid"
    assert reason == (
        "the target stopped answering about 12 s into the window: all 1800 requests from then on failed"
        " (1800 x connection refused)"
    )


def test_one_that_never_answered_in_the_window_died_before_it() -> None:
    trace = Trace().requests("purchase", per_s=100, status="0", error="1212", expected=False)
    assert first_reason(trace)[1].startswith("the target stopped answering before the window had begun: all 3000")


def test_one_that_answers_again_was_not_dead() -> None:
    trace = spike().requests("purchase", per_s=20, status="0", error="1212", expected=False)
    assert not any("stopped answering" in text for text in judged(of_trace(trace)).variants[0].validity.reasons)
    late = Trace(drain_s=3).requests("purchase", per_s=100, until_s=20)
    late.requests("purchase", per_s=100, status="0", error="1050", expected=False, since_s=20)
    late.requests("purchase", per_s=5, since_s=31, until_s=32)
    assert not any("stopped answering" in text for text in judged(of_trace(late)).variants[0].validity.reasons)
