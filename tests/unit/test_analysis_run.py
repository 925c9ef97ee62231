"""Whole runs: from made-up trials to outcome, sentence, exit code and the comparison of two stored runs."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.synthetic import Trace, run_record, scenario, schedule, spike
from ticketbench.analysis.analyse import analyse, exit_code
from ticketbench.analysis.compare import compare
from ticketbench.conclusions import Analysis, Comparison
from ticketbench.errors import UsageError
from ticketbench.fault_plan import parse_faults
from ticketbench.model import RunRecord, Threshold, Trial
from ticketbench.store import TrialData
from ticketbench.storing.purchases import Acks

SLO = "http_req_duration{name:purchase}"
Side = tuple[RunRecord, Analysis]


def two_variants(slow: Trace | None = None) -> Analysis:
    run = run_record(["pool_size=10,cache=on", "pool_size=2,cache=on"])
    other = slow or Trace(dropped_per_s=18).requests("purchase", per_s=82, latency_s=1.2)
    other.trial_id, other.variant = "t02", "pool_size=2,cache=on"
    return analyse(run, [spike("t01", "pool_size=10,cache=on").build(), other.build()])


def oversold(trial: TrialData, by: int) -> TrialData:
    assert trial.ledger is not None
    ledger = replace(trial.ledger, capacity={1: len(trial.ledger.tickets) - by}, stock={})
    return replace(trial, ledger=ledger)


# --- a run ------------------------------------------------------------------------------------------------------------


def test_variants_are_compared_with_the_reference() -> None:
    found = two_variants()
    assert found.outcome.status == "pass"
    assert exit_code(found) == 0
    assert found.outcome.sentence.startswith(
        "pool_size=10,cache=on sells 100 tickets/s (p95 39 ms), "
        "pool_size=2,cache=on sells 82 tickets/s (0.82x, p95 2.4 s); 0 oversold, 0 lost of 5460 acknowledged"
    )
    findings = {finding.signal: finding for finding in found.comparison}
    assert findings["traffic.goodput_per_s"].verdict == "regressed"
    assert findings["traffic.goodput_per_s"].ratio == pytest.approx(0.82)
    assert findings["latency_s.p95"].verdict == "regressed"
    assert not any(finding.gates for finding in found.comparison)
    assert found.variants[1].validity.status == "lower_bound"


def test_a_missed_slo_of_the_reference_decides() -> None:
    def judged(variant: str) -> Analysis:
        run = run_record(["a=1", "a=2"])
        missed = Threshold(metric=SLO, expression="p(95)<30", ok=False, value=38.6)
        trials = [
            spike(trial.id, trial.variant, thresholds=(missed,) if trial.variant == variant else ()).build()
            for trial in run.plan.trials
        ]
        return analyse(run, trials)

    reference = judged("a=1")
    assert (reference.outcome.status, exit_code(reference)) == ("slo_missed", 1)
    assert reference.outcome.sentence.startswith(
        "a=1 missed its SLO: p95 latency of purchase was 38.6 ms, not below 30 ms. a=1 sells 100 tickets/s, "
    )  # and not another p95 of a=1
    assert reference.outcome.sentence.count("p95") == 2
    assert judged("a=2").outcome.status == "pass"


def test_slos_have_one_order_in_all_variants() -> None:
    run = run_record(["a=1", "a=2"])
    names = ("http_reqs", SLO, "http_req_failed")
    thresholds = [Threshold(metric=name, expression="rate<1", ok=True, value=0.5) for name in names]
    orders = (thresholds, thresholds[::-1])  # k6 sums them up in an order of its own each time
    trials = [
        spike(trial.id, trial.variant, thresholds=tuple(order)).build()
        for trial, order in zip(run.plan.trials, orders, strict=True)
    ]
    first, second = analyse(run, trials).variants
    assert [slo.metric for slo in first.slos] == [slo.metric for slo in second.slos] == sorted(names)


def test_of_many_missed_slos_two_are_told_and_the_others_counted() -> None:
    missed = tuple(
        Threshold(metric=SLO, expression=expression, ok=False, value=38.6)
        for expression in ("avg<1", "max<2", "med<3", "p(90)<4")
    )
    sentence = analyse(run_record(), [spike(thresholds=missed).build()]).outcome.sentence
    assert (
        "missed its SLO: mean latency of purchase was 38.6 ms, not below 1 ms, and highest latency of purchase was"
        " 38.6 ms, not below 2 ms (and 2 more). "
    ) in sentence
    assert "(p95 " in sentence


def test_a_threshold_over_no_data_is_not_ok() -> None:
    empty = Threshold(metric="http_req_duration{name:nobody}", expression="p(95)<500", ok=True, value=0.0)
    found = analyse(run_record(), [spike(thresholds=(empty,)).build()])
    assert (found.outcome.status, exit_code(found)) == ("invalid", 3)
    assert found.variants[0].slos[0].ok is False
    assert found.variants[0].slos[0].values == (None,)


def test_integrity_outweighs_all_in_any_variant() -> None:
    run = run_record(["locking=atomic", "locking=none"])
    bad = oversold(spike("t02", "locking=none", exit_code=107).build(), by=12)
    found = analyse(run, [spike("t01", "locking=atomic").build(), bad])
    assert (found.outcome.status, exit_code(found)) == ("integrity_violated", 5)
    assert found.outcome.sentence.startswith(
        "Integrity is violated in 1 of 2 variants: locking=none: 12 oversold, 0 lost of 3000 acknowledged"
        " (match 1 was oversold by 12 tickets: 3000 sold of 2988)"
    )


def test_invalid_is_the_references_or_a_failed_trials() -> None:
    run = run_record(["a=1", "a=2"])

    def outcome(first: dict[str, Any], second: dict[str, Any]) -> Analysis:
        return analyse(run, [spike("t01", "a=1", **first).build(), spike("t02", "a=2", **second).build()])

    assert outcome({}, {}).outcome.status == "pass"
    assert outcome({"exit_code": 107}, {}).outcome.status == "invalid"
    assert outcome({}, {"exit_code": 107}).outcome.status == "pass"
    failed = outcome({}, {"status": "failed", "reasons": ("redis died",)})
    assert (failed.outcome.status, exit_code(failed)) == ("invalid", 3)
    assert "trial t02 of a=2: the trial failed: redis died" in failed.outcome.sentence


def test_a_run_without_trials_is_invalid() -> None:
    found = analyse(run_record(), [])
    assert (found.outcome.status, exit_code(found)) == ("invalid", 3)
    assert found.variants[0].trials == 0
    assert found.variants[0].signals.latency_s.p95 is None
    assert "1 of 1 planned trials were not measured" in found.variants[0].validity.reasons[0]


def test_a_route_that_does_not_exist_ends_with_3() -> None:
    trace = Trace().requests("/tickets/buy", per_s=100, status="404", expected=False, latency_s=0.001)
    found = analyse(run_record(of=scenario(goal=None)), [trace.build(acks=Acks.of(()), ledger=None)])
    assert exit_code(found) == 3
    assert "POST /tickets/buy does not exist: 100 % of its 3000 requests were answered 404" in found.outcome.sentence


def test_quantiles_are_merged_and_rates_are_means() -> None:
    run = run_record(repetitions=2)
    fast = Trace(trial_id="t01").requests("purchase", per_s=100, latency_s=0.010, sigma=0.05)
    slow = Trace(trial_id="t02", repetition=2).requests("purchase", per_s=100, latency_s=1.0, sigma=0.05)
    variant = analyse(run, [fast.build(), slow.build()]).variants[0]
    assert variant.trials == 2
    assert variant.signals.latency_s.p95 == pytest.approx(1.0, rel=0.1)  # their mean would be about 0.55
    assert variant.signals.latency_s.count == 6000
    assert variant.signals.traffic.goodput_per_s == pytest.approx(100)
    assert variant.routes[0].latency_s.p95 == variant.signals.latency_s.p95
    assert variant.per_request["cpu_app_s"] == pytest.approx(0.006)


def test_a_trial_that_cannot_be_believed_is_left_out_and_named() -> None:
    run = run_record(repetitions=2)
    torn = Trace(trial_id="t02", repetition=2, exit_code=107).requests("purchase", per_s=100, latency_s=5.0)
    variant = analyse(run, [spike("t01").build(), torn.build()]).variants[0]
    assert variant.signals.latency_s.p95 == pytest.approx(0.0388, rel=0.01)
    assert variant.validity.status == "invalid"
    assert variant.validity.reasons[0].startswith("t02: k6 ended with exit code 107")
    assert "the figures are of the 1 of 2 trials that can be believed" in variant.validity.reasons


def test_a_trial_that_cannot_be_believed_is_compared_with_nothing() -> None:
    found = two_variants(Trace(exit_code=107).requests("purchase", per_s=100, latency_s=5.0))
    assert {finding.verdict for finding in found.comparison} == {"inconclusive"}
    assert all("no believable trial of the candidate" in finding.reason for finding in found.comparison)


def test_a_functional_run_is_about_answers() -> None:
    run = run_record(of=scenario(name="smoke", shape="functional", goal=None), load=schedule(seconds=5, per_s=4))
    trace = Trace(seconds=5).requests("matches", per_s=4, method="GET", status="200")
    found = analyse(run, [trace.build()])
    assert found.outcome.sentence == (
        "smoke: all 20 requests were answered as expected; 0 oversold, no purchase was acknowledged; "
        "the script sets no SLO that it could miss"
    )
    assert exit_code(found) == 0


def test_an_unknown_integrity_is_said() -> None:
    found = analyse(run_record(), [spike().build(ledger=None)])
    assert found.variants[0].integrity.status == "unknown"
    assert found.outcome.status == "invalid"
    assert exit_code(found) == 3
    assert "could not be audited: the ledger was not stored" in found.outcome.sentence


def test_a_trial_without_its_acknowledgements_is_never_a_pass() -> None:
    found = analyse(run_record(), [spike().build(acks=None)])
    assert found.variants[0].integrity.lost is None
    assert (found.outcome.status, exit_code(found)) == ("invalid", 3)
    assert "could not be audited" in found.outcome.sentence
    none_logged = analyse(run_record(), [spike().build(acks=Acks.of(()))])  # the script's own way
    assert none_logged.outcome.status == "pass"


def test_a_matrix_that_is_not_whole_is_never_a_pass() -> None:
    run = run_record(["a=1", "a=2"])
    first, second = run.plan.trials

    def trial(planned: Trial, **changes: Any) -> TrialData:
        trace = Trace(trial_id=planned.id, variant=planned.variant, position=planned.position, **changes)
        return trace.requests("purchase", per_s=100).build()

    whole = analyse(run, [trial(first), trial(second)])
    assert whole.outcome.status == "pass"
    missing = analyse(run, [trial(first)])
    assert (missing.outcome.status, exit_code(missing)) == ("invalid", 3)
    assert "1 of 2 planned trials are missing" in missing.outcome.sentence
    interrupted = analyse(run, [trial(first), trial(second, status="interrupted", reasons=("interrupted",))])
    assert interrupted.outcome.status == "invalid"


def test_of_many_variants_the_extremes_are_named() -> None:
    names = [f"a={n}" for n in range(1, 6)]
    run = run_record(names)
    trials = [
        Trace(trial_id=t.id, variant=t.variant, position=t.position).requests("purchase", per_s=100 - 3 * n).build()
        for n, t in enumerate(run.plan.trials)
    ]
    sentence = analyse(run, trials).outcome.sentence
    assert sentence.startswith("a=1 sells 100 tickets/s")
    assert "a=2 sells 97 tickets/s (0.97x" in sentence
    assert "a=5 sells 88 tickets/s (0.88x" in sentence
    assert "(2 more variants lie between)" in sentence
    assert "a=3" not in sentence


# --- two runs ---------------------------------------------------------------------------------------------------------


def stored(
    run_id: str, *, repetitions: int = 1, per_s: float = 100, latency_s: float = 0.02, app: float = 0.6, **options: Any
) -> Side:
    """A run whose trials differ a little, as real ones do."""
    run = run_record(repetitions=repetitions, run_id=run_id, **options)
    trials = []
    for n, trial in enumerate(run.plan.trials):
        trace = Trace(trial_id=trial.id, repetition=trial.repetition, position=trial.position)
        trace.requests("purchase", per_s=per_s, latency_s=latency_s * (1 + 0.004 * n)).requests(
            "match", per_s=20, method="GET", status="200"
        )
        trace.cpu["app"] = app * (1 + 0.003 * n)
        trials.append(trace.build())
    return run, analyse(run, trials)


def verdicts(found: Comparison) -> dict[str, str]:
    return {finding.signal: finding.verdict for finding in found.findings}


@pytest.mark.parametrize("repetitions", [1, 3])
def test_the_same_code_is_unchanged(repetitions: int) -> None:
    found = compare(stored("a", repetitions=repetitions), stored("b", repetitions=repetitions))
    assert (found.verdict, found.exit_code) == ("unchanged", 0)
    assert set(verdicts(found).values()) == {"unchanged"}
    assert found.environment_differences == ()


@pytest.mark.parametrize("repetitions", [1, 3])
def test_more_cpu_per_request_gates(repetitions: int) -> None:
    baseline, candidate = stored("a", repetitions=repetitions), stored("b", repetitions=repetitions, app=0.8)
    found = compare(baseline, candidate)
    assert (found.verdict, found.exit_code) == ("regressed", 1)
    cpu = next(finding for finding in found.findings if finding.signal == "per_request.cpu_s")
    assert cpu.gates
    assert cpu.ratio == pytest.approx(1.05 / 0.85, rel=0.01)
    assert (cpu.interval is None) == (repetitions == 1)
    back = compare(candidate, baseline)
    assert (back.verdict, back.exit_code) == ("improved", 0)


def test_latency_alone_settles_nothing() -> None:
    found = compare(stored("a", repetitions=3), stored("b", repetitions=3, latency_s=0.04))
    assert verdicts(found)["latency_s.p95"] == "regressed"
    assert (found.verdict, found.exit_code) == ("inconclusive", 3)
    assert "two stored runs cannot settle this" in found.sentence
    better = compare(stored("a", repetitions=3, latency_s=0.04), stored("b", repetitions=3))
    assert verdicts(better)["latency_s.p95"] == "improved"
    assert (better.verdict, better.exit_code) == ("unchanged", 0)


def test_errors_gate() -> None:
    run = run_record(run_id="b")
    trace = spike().requests("match", per_s=20, method="GET", status="200")
    trace.requests("purchase", per_s=5, status="503", expected=False)
    found = compare(stored("a"), (run, analyse(run, [trace.build()])))
    assert verdicts(found)["errors.ratio"] == "regressed"
    assert found.exit_code == 1


def test_no_data_is_never_0() -> None:
    run = run_record(run_id="b")
    data = spike().requests("match", per_s=20, method="GET", status="200").build()
    assert data.series is not None
    kept = data.series.drop(columns=[c for c in data.series.columns if c.startswith("pg.")])
    found = compare(stored("a"), (run, analyse(run, [TrialData(data.record, kept, *_rest(data))])))
    assert verdicts(found)["per_request.db_s"] == "inconclusive"
    assert (found.verdict, found.exit_code) == ("inconclusive", 3)
    nothing = run_record(run_id="c")
    assert compare(stored("a"), (nothing, analyse(nothing, []))).exit_code == 3


def _rest(data: TrialData) -> tuple[Any, Any, Any]:
    return data.histograms, data.acks, data.ledger


def test_a_side_that_cannot_be_believed_or_only_bounds_settles_nothing() -> None:
    for exit_status, dropped, word in ((107, 0, "cannot be believed"), (0, 5, "is a lower bound only")):
        run = run_record(run_id="b")
        trace = Trace(exit_code=exit_status, dropped_per_s=dropped).requests("purchase", per_s=100 - dropped)
        trace.cpu["app"] = 1.2
        found = compare(stored("a"), (run, analyse(run, [trace.build()])))
        assert (found.verdict, found.exit_code) == ("inconclusive", 3)
        assert f"the candidate {word}" in found.sentence
        assert not any(finding.gates for finding in found.findings if finding.signal != "integrity")


def test_a_violated_candidate_is_5_whatever_else() -> None:
    run = run_record(run_id="b", cores=4)
    bad = (run, analyse(run, [oversold(spike().build(), by=3)]))
    found = compare(stored("a"), bad, force=True)
    assert (found.verdict, found.exit_code) == ("regressed", 5)
    assert "3 oversold" in found.sentence
    assert compare(bad, stored("a"), force=True).exit_code == 3  # violated before only, but the machines differ
    same = compare(bad, (run_record(run_id="c", cores=4), bad[1]))
    assert same.exit_code == 5
    assert verdicts(same)["integrity"] == "unchanged"


def test_unlike_runs_are_refused_with_each_difference() -> None:
    other = stored("b", cores=8, cpu_model="Other CPU", kernel="6.9")
    with pytest.raises(UsageError) as refused:
        compare(stored("a"), other)
    assert refused.value.exit_code == 2
    text = " | ".join(refused.value.problems)
    assert "cores 2 and 8" in text
    assert "cpu_model Example CPU and Other CPU" in text
    assert "kernel 6.1 and 6.9" in text
    forced = compare(stored("a"), other, force=True)
    assert len(forced.environment_differences) == 3
    assert (forced.verdict, forced.exit_code) == ("inconclusive", 3)


def test_another_load_or_scenario_is_unlike() -> None:
    run = run_record(["rate=100", "rate=200"], run_id="a")
    found = analyse(run, [spike(t.id, t.variant).build() for t in run.plan.trials])
    with pytest.raises(UsageError, match="load rate=100 and rate=200"):
        compare((run, found), (run, found), "rate=100", "rate=200")
    changed = run_record(of=scenario().model_copy(update={"sha256": "c" * 64}), run_id="b")
    with pytest.raises(UsageError, match="scenario spike changed"):
        compare(stored("a"), (changed, analyse(changed, [spike().build()])))
    faulty = run.model_copy(
        update={"run_id": "c", "plan": run.plan.model_copy(update={"faults": parse_faults(["kill app at 3"])})}
    )
    with pytest.raises(UsageError, match="planned faults none and kill app at 3"):
        compare((run, found), (faulty, found), "rate=100", "rate=100")


def test_variants_are_chosen_by_name() -> None:
    run = run_record(["pool_size=10", "pool_size=2"], run_id="a")
    trials = [spike(t.id, t.variant).requests("match", per_s=20, method="GET", status="200") for t in run.plan.trials]
    side = (run, analyse(run, [trial.build() for trial in trials]))
    found = compare(side, side, "pool_size=10", "pool_size=2")
    assert found.verdict == "unchanged"
    assert found.sentence.startswith("pool_size=2 against pool_size=10: no signal that may decide is worse")
    with pytest.raises(UsageError, match="known are pool_size=10, pool_size=2"):
        compare(side, side, "pool_size=3", None)
    with pytest.raises(UsageError, match="the same variant"):
        compare(side, side)


def test_analysis_can_be_stored_and_read_again() -> None:
    found = two_variants()
    assert Analysis.model_validate_json(found.model_dump_json()) == found
    compared = compare(stored("a"), stored("b"))
    assert Comparison.model_validate_json(compared.model_dump_json()) == compared
