"""Runs of somebody else's system: how they are judged and compared, and what is told of what never reached it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.unit.synthetic import Trace, run_record, spike, without
from ticketbench.analysis.analyse import analyse, exit_code
from ticketbench.analysis.compare import compare
from ticketbench.analysis.series import Series
from ticketbench.cli import output
from ticketbench.conclusions import Analysis
from ticketbench.errors import UsageError
from ticketbench.model import ExternalSystem, MappedSignal, RunRecord
from ticketbench.store import TrialData

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
