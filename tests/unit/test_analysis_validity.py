"""Each reason not to believe a trial, planted in a trial that is otherwise sound."""

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.unit.synthetic import T0, Trace, run_record, scenario, schedule, spike, without
from ticketbench.analysis.signals import measure
from ticketbench.analysis.thrown import thrown_ratio
from ticketbench.analysis.validity import judge
from ticketbench.conclusions import Validity
from ticketbench.model import Disturbance, ExternalSystem, RunRecord, Threshold, Thrown
from ticketbench.store import TrialData
from ticketbench.storing.histograms import Histograms

STEADY = scenario(name="purchase", shape="steady")
SMOKE = scenario(name="smoke", shape="functional", goal=None)


def judged(trial: TrialData, run: RunRecord | None = None) -> Validity:
    record = run or run_record()
    return judge(trial, record, measure(trial, record))


def with_load(trial: TrialData, **changes: Any) -> TrialData:
    assert trial.record.load is not None
    record = trial.record.model_copy(update={"load": trial.record.load.model_copy(update=changes)})
    return TrialData(record, trial.series, trial.histograms, trial.acks, trial.ledger)


def only_reason(validity: Validity) -> str:
    assert len(validity.reasons) == 1, validity.reasons
    return validity.reasons[0]


def has(reasons: Sequence[str], part: str) -> bool:
    return any(part in reason for reason in reasons)


def test_a_sound_trial_is_valid_without_a_word() -> None:
    assert judged(spike().build()) == Validity(status="valid")


def test_dropped_iterations_bound_the_latency() -> None:
    trace = Trace(dropped_per_s=5).requests("purchase", per_s=95)
    found = judged(trace.build())
    assert found.status == "lower_bound"
    assert "k6 dropped 150 of 3000 scheduled iterations (5 %)" in only_reason(found)


def test_achieved_below_offered_is_the_systems_doing_while_k6_is_well() -> None:
    found = judged(Trace().requests("purchase", per_s=90).build())
    assert found.status == "lower_bound"
    assert "only 90/s of 100/s offered" in only_reason(found)
    assert judged(Trace().requests("purchase", per_s=96).build()).status == "valid"


def test_a_generator_short_of_cpu_measured_itself() -> None:
    slow = Trace().requests("purchase", per_s=80)
    slow.cpu["k6"] = 0.95
    found = judged(slow.build())
    assert found.status == "invalid"
    assert "the generator was measured, not the system: k6 used 95 % of the one core" in only_reason(found)
    busy = spike()
    busy.cpu["k6"] = 0.9
    assert judged(busy.build()).status == "lower_bound"
    assert judged(with_load(busy.build(), gomaxprocs=None)).status == "valid"


def test_a_generator_that_waits_for_a_core_on_a_full_machine() -> None:
    trace = Trace().requests("purchase", per_s=80)
    trace.cpu.update({"app": 0.95, "postgres": 0.55, "k6": 0.31})
    trace.counter("run_delay_s{component=k6}", per_s=0.4)
    found = judged(trace.build())
    assert found.status == "invalid"
    assert "on average 0.4 of k6's threads waited for a core while the machine was 98 % busy" in only_reason(found)
    trace.counter("run_delay_s{component=k6}", per_s=2.2)  # of several threads: no share of the time
    assert "on average 2.2 of k6's threads waited for a core" in only_reason(judged(trace.build()))


@pytest.mark.parametrize(
    ("cores", "app", "status"),
    [(0.28, 0.3, "valid"), (0.4, 0.3, "lower_bound"), (1.2, 0.05, "lower_bound"), (1.2, 0.4, "invalid")],
)
def test_cpu_that_others_took(cores: float, app: float, status: str) -> None:
    """More than half of the machine gone is another machine only where nothing was left over."""
    trace = spike()
    trace.cpu.update({"other": cores, "app": app, "postgres": 0.1})
    found = judged(trace.build())
    assert found.status == status
    if status != "valid":
        assert f"others took {cores / 2:.0%}".replace("%", " %") in only_reason(found)


def test_steal_is_noted() -> None:
    trace = spike()
    trace.steal = 0.15
    found = judged(trace.build())
    assert found.status == "valid"
    assert "stole 7.5 %" in only_reason(found)


def test_a_window_too_short() -> None:
    run = run_record(of=STEADY, load=schedule(seconds=15))
    found = judged(spike(seconds=15).build(), run)
    assert found.status == "invalid"
    assert "15 s is too short for a steady scenario" in only_reason(found)
    assert judged(spike(seconds=15).build(), run_record(load=schedule(seconds=15))).status == "valid"
    assert "interrupted" in only_reason(judged(spike(seconds=15, status="interrupted").build(), run))
    few = judged(Trace().requests("purchase", per_s=3).build(), run_record(load=schedule(per_s=3)))
    assert few.status == "invalid"
    assert only_reason(few).endswith(
        "90 requests towards the goal are too few: a p95 needs 100; raise the rate or the duration"
    )
    closed = judged(Trace().requests("purchase", per_s=3).build(), run_record(load=schedule(open_model=False)))
    assert only_reason(closed).endswith("let more virtual users ask, or for longer")  # it has no rate


def test_missing_series_are_named() -> None:
    whole = spike().build()
    assert has(judged(without(whole, "k6.")).reasons, "k6's series are missing")
    assert judged(without(whole, "k6.")).status == "invalid"
    no_histograms = judged(TrialData(whole.record, whole.series, None, whole.acks, whole.ledger))
    assert no_histograms.status == "invalid"
    assert has(no_histograms.reasons, "histograms are missing")
    no_sampler = judged(without(whole, "cpu_s", "host_cpu_s", "run_delay_s", "sampler."))
    assert no_sampler.status == "lower_bound"
    assert "whether others took CPU is unknown" in only_reason(no_sampler)
    assert "the app's series are missing" in only_reason(judged(without(whole, "app.")))
    assert judged(without(whole, "app."), run_record(stack="external")).reasons == ()
    nothing = judged(spike().build(series=False, histograms=False))
    assert nothing.status == "invalid"


def test_k6s_totals_against_prometheus() -> None:
    whole = spike().build()
    assert judged(with_load(whole, requests=3020, iterations=3020)).status == "valid"
    found = judged(with_load(whole, requests=3200, iterations=3200))
    assert found.status == "invalid"
    assert has(found.reasons, "k6 counted 3200 requests and Prometheus holds 3000 (6.2 % apart)")
    assert has(found.reasons, "k6 counted 3200 iterations and Prometheus holds 3000")


def test_histograms_that_miss_seconds() -> None:
    whole = spike().build()
    assert whole.histograms is not None
    found = judged(replace(whole, histograms=Histograms.of(tuple(whole.histograms)[:-2])))
    assert found.status == "invalid"
    assert "k6 counted 3000 requests and its stored histograms hold 2800" in only_reason(found)


def stranger_of_an_external_system(trial: TrialData) -> tuple[str, ...]:
    run = run_record(stack="external")
    system = ExternalSystem(scheme="http", where="loopback", port=8000, path="")
    return judged(trial, run.model_copy(update={"plan": run.plan.model_copy(update={"external": system})})).reasons


def test_requests_of_iterations_that_k6_interrupted_are_nobody_elses() -> None:
    trace = spike(warmup_s=5).requests("purchase", per_s=20, scenario="warmup", since_s=0, until_s=5)
    run = run_record(load=schedule(warmup_s=5))
    # two scenarios end with up to 50 virtual users each in mid-request: 100, and 1 % of 3100 besides
    trace.extra["app.requests{method=POST,route=/purchase,status=503}"] = np.where(trace.t > T0 + 5, 130.0, 0.0)
    assert judged(trace.build(), run).reasons == ()
    trace.extra["app.requests{method=POST,route=/purchase,status=503}"] *= 1.1
    assert "the app answered 3243 requests and k6 counted 3100" in only_reason(judged(trace.build(), run))


def test_the_apps_count_against_k6s() -> None:
    trace = spike()
    assert judged(trace.counter("app.requests{method=GET,route=/ready,status=200}", per_s=0.3).build()).reasons == ()
    stranger = judged(trace.counter("app.requests{method=GET,route=/matches,status=200}", per_s=20).build())
    assert stranger.status == "lower_bound"
    assert "the app answered 3609 requests and k6 counted 3000" in only_reason(stranger)
    assert "somebody" in only_reason(stranger)
    assert "somebody else" not in only_reason(stranger)  # who should know the address of an app of ours?
    external = stranger_of_an_external_system(trace.build())
    assert any(reason.endswith("somebody else used the system, which can do at least this") for reason in external)
    fewer = spike().build()
    assert fewer.series is not None
    fewer.series["app.requests{method=POST,route=/purchase,status=201}"] *= 0.5
    found = judged(fewer)
    assert found.status == "invalid"
    assert "k6 got 3000 answers and the app counted 1500" in only_reason(found)


def test_a_request_that_k6_gave_up_may_be_answered() -> None:
    trace = spike().requests("purchase", per_s=20, status="0", expected=False, error="1050", latency_s=5.0)
    trace.counter("app.requests{method=POST,route=/purchase,status=503}", per_s=20)
    assert not has(judged(trace.build()).reasons, "somebody else")


def threw(iterations: int, scenario: str = "load") -> Thrown:
    return Thrown(scenario=scenario, iterations=iterations, first="boom")


def test_a_script_that_throws_measured_something_else() -> None:
    whole = spike().build()
    every = judged(with_load(whole, thrown=(threw(3000),)))
    assert every.status == "invalid"
    assert only_reason(every) == "all 3000 iterations ended with an exception: boom"
    many = judged(with_load(whole, thrown=(threw(240),)))
    assert many.status == "invalid"
    assert only_reason(many) == "240 of 3000 iterations (8 %) ended with an exception: boom"
    few = judged(with_load(whole, thrown=(threw(60),)))
    assert few.status == "valid"
    assert only_reason(few) == "60 of 3000 iterations (2 %) ended with an exception: boom"
    assert thrown_ratio(with_load(whole, thrown=(threw(60),)), run_record()) == 0.02
    smoke = run_record(of=SMOKE)
    assert judged(with_load(whole, thrown=(threw(3000),)), smoke).status == "invalid"


def test_a_throw_in_the_warm_up_changes_no_figure_of_the_window() -> None:
    trace = spike(warmup_s=5).requests("purchase", per_s=20, scenario="warmup", since_s=0, until_s=5)
    found = judged(with_load(trace.build(), thrown=(threw(100, "warmup"),)), run_record(load=schedule(warmup_s=5)))
    assert found.status == "valid"
    assert only_reason(found) == "all 100 iterations of the warm-up ended with an exception: boom"


def test_k6s_own_p95_against_the_histograms() -> None:
    whole = spike().build()
    assert judged(with_load(whole, trends_ms={"http_req_duration": {"p(95)": 40.0}})).status == "valid"
    found = judged(with_load(whole, trends_ms={"http_req_duration": {"p(95)": 60.0}}))
    assert found.status == "invalid"
    assert "k6's own p95 of all requests is 60 ms and the stored histograms say 38.8 ms" in only_reason(found)
    assert judged(with_load(whole, trends_ms={})).status == "valid"


def test_a_p95_inside_a_gap_is_no_contradiction() -> None:
    trace = Trace().requests("purchase", per_s=95, latency_s=0.005, sigma=0.1)
    trace.requests("purchase", per_s=5, latency_s=2.0, sigma=0.1)
    between = with_load(trace.build(), trends_ms={"http_req_duration": {"p(95)": 600.0}})
    assert judged(between).status == "valid"


def test_most_requests_failing_names_the_kinds() -> None:
    trace = Trace().requests("purchase", per_s=40)
    trace.requests("purchase", per_s=50, status="503", expected=False)
    trace.requests("purchase", per_s=10, status="0", expected=False, error="1212", latency_s=1e-4)
    found = judged(trace.build())
    assert found.status == "invalid"
    reason = next(reason for reason in found.reasons if "most requests failed" in reason)
    assert "1800 of 3000 (60 %: 1500 x 503, 300 x connection refused)" in reason


@pytest.mark.parametrize(("good", "status"), [(40, "lower_bound"), (9, "invalid")])
def test_a_system_that_turns_most_away_but_serves_the_rest_is_overloaded_not_unbelievable(
    good: int, status: str
) -> None:
    trace = Trace().requests("purchase", per_s=good)
    trace.requests("purchase", per_s=100 - good, status="503", expected=False, latency_s=2.0)
    found = judged(trace.build())
    assert found.status == status
    assert f"most requests failed: {(100 - good) * 30} of 3000" in found.reasons[0]


@pytest.mark.parametrize("shape", ["transient", "functional"])
def test_a_route_that_does_not_exist_is_never_a_fast_system(shape: Any) -> None:
    of = scenario(shape=shape, goal=None)
    trace = Trace().requests("/tickets/buy", per_s=100, status="404", expected=False, latency_s=0.001)
    found = judged(trace.build(), run_record(of=of))
    assert found.status == "invalid"
    assert found.reasons[0] == ("POST /tickets/buy does not exist: 100 % of its 3000 requests were answered 404")


def test_a_route_that_was_asked_for_three_times_in_vain_does_not_exist_either() -> None:
    def seen(vain: int, well: int) -> Validity:
        trace = spike()
        for count, status in ((vain, "404"), (well, "200")):
            since_s = trace.warmup_s + 10  # one a second
            trace.requests("seats", per_s=1, method="GET", status=status, expected=status == "200",
                           since_s=since_s, until_s=since_s + count)  # fmt: skip
        return judged(trace.build())

    found = seen(3, 0)
    assert found.status == "invalid"
    assert found.reasons[0] == "GET seats does not exist: 100 % of its 3 requests were answered 404"
    for vain, well in ((2, 0), (3, 1), (8, 1)):  # somebody may have asked for what is no longer there
        assert seen(vain, well).status == "valid"


def test_a_group_of_addresses_is_not_called_a_route_that_does_not_exist() -> None:
    trace = Trace().requests("(other)", per_s=100, method="GET", status="404", expected=False, latency_s=0.001)
    found = judged(trace.build(), run_record(of=scenario(goal=None)))
    assert found.status == "invalid"
    assert found.reasons[0] == (
        "GET requests went to too many addresses to tell apart, and 100 % of these 3000 were answered 404: give"
        " requests whose address varies a name tag"
    )


def test_why_nothing_of_the_goal_succeeded_is_told_of_the_goal_and_in_words() -> None:
    trace = Trace().requests("purchase", per_s=90, status="0", expected=False, error="1212", latency_s=1e-4)
    trace.requests("purchase", per_s=10, status="500", expected=False).requests("matches", per_s=100, method="GET")
    assert has(
        judged(trace.build()).reasons,
        "not one request towards the goal succeeded (2700 x connection refused, 300 x 500): there is no latency",
    )


def test_a_404_that_the_script_expects_is_an_answer() -> None:
    trace = spike().requests("match", per_s=20, method="GET", status="404")
    trace.requests("match", per_s=20, method="GET", status="200")
    assert judged(trace.build()).status == "valid"


def test_a_script_that_calls_every_answer_a_success_does_not_hide_a_missing_route() -> None:
    beside_others = spike().requests("/match/buy", per_s=20, status="404")
    found = judged(beside_others.build())
    assert found.status == "invalid"
    assert found.reasons[0] == "POST /match/buy does not exist: 100 % of its 600 requests were answered 404"
    functional = run_record(of=scenario(shape="functional"))
    assert judged(beside_others.build(), functional).status == "valid"  # it checks the 404 on purpose


def test_a_load_without_one_success_is_no_fast_system() -> None:
    trace = Trace().requests("purchase", per_s=100, status="418", latency_s=0.001)
    found = judged(trace.build())
    assert found.status == "invalid"
    assert "not one request towards the goal succeeded (3000 x 418)" in found.reasons[0]


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_a_trial_that_did_not_end_by_itself(status: Any) -> None:
    found = judged(spike(status=status, reasons=("PostgreSQL died (exit 137)",)).build())
    assert found.status == "invalid"
    assert "PostgreSQL died (exit 137)" in found.reasons[0]


def test_k6s_exit_code() -> None:
    assert judged(spike(exit_code=99).build()).status == "valid"  # a threshold was missed: that is an answer
    assert "exit code 107" in only_reason(judged(spike(exit_code=107).build()))


def test_a_threshold_over_nothing_is_never_a_pass() -> None:
    def threshold(metric: str, value: float | None) -> Threshold:
        return Threshold(metric=metric, expression="p(95)<500", ok=True, value=value)

    def status(one: Threshold, trends: dict[str, dict[str, float]] | None = None) -> str:
        trial = spike(thresholds=(one,)).build()
        assert trial.record.load is not None
        known = {**trial.record.load.trends_ms, **(trends or {})}
        return judged(with_load(trial, trends_ms=known)).status

    assert status(threshold("http_req_duration{name:purchase}", 30.0)) == "valid"
    assert status(threshold("http_req_duration{name:purchases}", 0.0)) == "invalid"
    assert status(threshold("http_req_duration{name:purchase,status:503}", 0.0)) == "invalid"
    assert status(threshold("http_req_duration{flavour:sweet}", 3.0)) == "valid"  # a tag of the script's own
    assert status(threshold("dropped_iterations{scenario:load}", None)) == "valid"  # nothing was dropped
    assert status(threshold("checkout_time", None)) == "invalid"
    assert status(threshold("checkout_time", 0.0), {"checkout_time": {"avg": 0.0, "p(95)": 0.0}}) == "invalid"
    assert status(threshold("checkout_time", 5.0), {"checkout_time": {"avg": 4.0, "p(95)": 5.0}}) == "valid"


def test_a_functional_scenario_makes_no_performance_claim() -> None:
    run = run_record(of=SMOKE, load=schedule(seconds=5, per_s=2))
    trace = Trace(seconds=5).requests("matches", per_s=1, method="GET", status="200")
    trace.cpu.update({"other": 1.5, "k6": 0.02, "app": 0.1, "postgres": 0.1})
    assert judged(trace.build(), run) == Validity(status="valid")


def test_nothing_at_all() -> None:
    whole = spike().build()
    record = whole.record.model_copy(update={"window": None, "load": None, "status": "failed", "reasons": ("no port",)})
    found = judged(TrialData(record, None, None, None, None))
    assert found.status == "invalid"
    assert found.reasons[0] == "the trial failed: no port"
    assert has(judged(Trace().build()).reasons, "k6 sent no request that counts")


def test_sampler_and_scrapes_that_lag_are_noted() -> None:
    trace = spike()
    trace.counter("sampler.late_s", per_s=0.5).counter("sampler.push_failures", per_s=0.2)
    trace.gauge("app.up", 0.0)
    found = judged(trace.build())
    assert found.status == "valid"
    assert has(found.reasons, "late by 0.5 s each second")
    assert has(found.reasons, "6 of the sampler's pushes")
    assert has(found.reasons, "in 100 % of the seconds")


def test_a_sampler_that_stood_still_has_not_seen_who_took_the_cpu() -> None:
    short = judged(spike().counter("sampler.gap_s", per_s=0.05).build())
    assert short.status == "valid"
    assert has(short.reasons, "the sampler itself stood still for 1.5 s")
    assert judged(spike().counter("sampler.gap_s", per_s=0.02).build()).reasons == ()
    assert judged(spike().counter("sampler.gap_s", per_s=0.2).build()).status == "lower_bound"


def test_a_clock_that_the_sampler_saw_being_set() -> None:
    whole = spike().counter("sampler.clock_step_s", per_s=0.1).build()
    found = judged(whole)
    assert found.status == "invalid"
    assert "the machine's clock was set by 3 s" in only_reason(found)
    told = Disturbance(kind="clock_step", at_s=whole.record.started_s, seconds=3.0, text="the clock was set")
    record = whole.record.model_copy(update={"disturbances": (told,)})
    assert only_reason(judged(dataclasses.replace(whole, record=record))) == "the clock was set"
