"""Golden signals of made-up trials whose figures are known."""

import pytest

from tests.unit.synthetic import T0, Trace, run_record, scenario, schedule, spike
from ticketbench.analysis.signals import Measurement, measure, offered_iterations
from ticketbench.analysis.timeline import timeline
from ticketbench.model import OfferedSlope, RunRecord, Window
from ticketbench.store import TrialData

STEADY = scenario(name="purchase", shape="steady")


def measured(trial: TrialData, run: RunRecord | None = None) -> Measurement:
    found = measure(trial, run or run_record())
    assert found is not None
    return found


def test_the_usual_trial() -> None:
    m = measured(spike().build())
    traffic, latency = m.signals.traffic, m.signals.latency_s
    assert traffic.offered_per_s == traffic.achieved_per_s == traffic.goodput_per_s == pytest.approx(100)
    assert (traffic.good, traffic.dropped, latency.count) == (3000, 0, 3000)
    assert latency.p50 == pytest.approx(0.020, rel=0.03)
    assert latency.p95 == pytest.approx(0.020 * 1.931, rel=0.05)  # lognormal, sigma 0.4: e^(0.4 x 1.645)
    assert latency.mean == pytest.approx(0.020 * 1.0833, rel=0.01)  # e^(0.4^2 / 2)
    assert m.signals.errors.ratio == 0
    # the builder's cores and statement seconds, over 100 requests a second
    assert m.per_request == pytest.approx(
        {"cpu_app_s": 0.006, "cpu_postgres_s": 0.002, "cpu_redis_s": 0.0005, "cpu_k6_s": 0.002, "db_s": 0.0015}
    )
    usage = m.signals.saturation
    assert usage["app_cpu"].utilisation == pytest.approx(0.6)
    assert usage["postgres_cpu"].utilisation == pytest.approx(0.1)
    assert usage["host_cpu"].utilisation == pytest.approx(1.15 / 2)
    assert usage["other_cpu"].utilisation == pytest.approx(0.025)
    assert usage["event_loop"].utilisation == pytest.approx(0.5)
    assert usage["event_loop"].queue == pytest.approx(0.002)
    assert (usage["db_pool"].utilisation, usage["db_pool"].queue) == (pytest.approx(0.4), 0.5)
    assert usage["load_generator"].utilisation == pytest.approx(20 / 500)


def test_the_pool_is_measured_by_its_counters_of_seconds_where_there_are_any() -> None:
    trace = spike()
    trace.counter("app.pool_hold_s", per_s=7.5)  # of 10 connections
    trace.counter("app.pool_wait_s", per_s=3.25)
    m = measured(trace.build())
    usage = m.signals.saturation["db_pool"]
    assert (usage.utilisation, usage.queue) == (pytest.approx(0.75), pytest.approx(3.25))
    trace.counter("app.pool_hold_s", per_s=12.0)  # holds that began before the window end in it
    assert measured(trace.build()).signals.saturation["db_pool"].utilisation == 1.0


def test_a_pooler_and_a_balancer_are_resources_of_the_variants_that_have_them() -> None:
    assert not {"pgbouncer", "haproxy"} & set(measured(spike().build()).signals.saturation)
    trace = spike()
    trace.gauge("pgbouncer.pool_size", 20)
    trace.counter("pgbouncer.xact_s", per_s=5)
    trace.counter("pgbouncer.wait_s", per_s=1.5)
    trace.gauge("haproxy.queue", 0)
    trace.counter("cpu_s{component=haproxy}", per_s=0.2)
    usage = measured(trace.build()).signals.saturation
    assert (usage["pgbouncer"].utilisation, usage["pgbouncer"].queue) == (pytest.approx(0.25), pytest.approx(1.5))
    assert usage["haproxy_cpu"].utilisation == pytest.approx(0.2)
    assert (usage["haproxy"].utilisation, usage["haproxy"].queue) == (None, 0)


def test_a_payment_provider_is_a_resource_that_is_full_where_it_has_a_limit() -> None:
    trace = spike()
    assert "payment" not in measured(trace.build()).signals.saturation
    trace.gauge("payment.busy", 3)
    trace.gauge("payment.limit", 4)
    trace.counter("payment.served_s", per_s=3)
    trace.counter("payment.waited_s", per_s=2.5)
    usage = measured(trace.build()).signals.saturation["payment"]
    assert (usage.utilisation, usage.queue) == (pytest.approx(0.75), pytest.approx(2.5))
    unlimited = spike()
    unlimited.gauge("payment.busy", 3)
    unlimited.gauge("payment.limit", 0)
    unlimited.counter("payment.served_s", per_s=3)
    unlimited.counter("payment.waited_s", per_s=0)
    usage = measured(unlimited.build()).signals.saturation["payment"]
    assert (usage.utilisation, usage.queue) == (None, 0)


def test_warm_up_never_counts() -> None:
    trace = spike(warmup_s=5).requests("purchase", per_s=300, latency_s=2.0, scenario="warmup", since_s=0, until_s=5)
    run = run_record(load=schedule(warmup_s=5))
    m = measured(trace.build(), run)
    assert m.requests == 3000
    assert m.signals.traffic.achieved_per_s == pytest.approx(100)
    assert m.signals.latency_s.p99 == pytest.approx(0.020 * 2.536, rel=0.1)
    assert m.everything.count == 4500  # what k6's own summary is held against


def test_success_and_failure_are_kept_apart() -> None:
    trace = spike()
    trace.requests("purchase", per_s=50, latency_s=3.0, status="503", expected=False)
    trace.requests("purchase", per_s=10, latency_s=5.0, status="0", expected=False, error="1050")
    trace.requests("purchase", per_s=40, latency_s=0.001, status="409")
    m = measured(trace.build())
    assert m.signals.latency_s.count == 3000
    assert m.signals.latency_s.p99 == pytest.approx(0.020 * 2.536, rel=0.1)
    assert m.signals.errors.ratio == pytest.approx(60 / 200)
    assert m.signals.errors.by_kind == {"503": 1500, "time-out": 300}
    assert m.signals.errors.answered == {"409": 1200}
    (route,) = m.routes
    assert (route.requests, route.failed) == (6000, 1800)
    assert route.bad.quantile(0.5) == pytest.approx(3.0, rel=0.15)
    assert route.good.count == 3000  # the fast 409s flatter nobody
    assert m.per_request["cpu_app_s"] == pytest.approx(0.6 / 190)  # time-outs were not answered


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        ("500", "1500", "500"),
        ("0", "1212", "connection refused"),
        ("0", "1999", "k6 error 1999"),
        ("0", "", "no answer"),
    ],
)
def test_failures_have_words(status: str, error: str, kind: str) -> None:
    trace = spike().requests("match", per_s=5, status=status, expected=False, error=error)
    assert measured(trace.build()).signals.errors.by_kind == {kind: 150}


def test_without_a_goal_every_success_counts() -> None:
    trace = spike().requests("matches", per_s=50, method="GET", status="200")
    assert measured(trace.build()).signals.traffic.goodput_per_s == pytest.approx(100)
    everything = run_record(of=scenario(goal=None))
    assert measured(trace.build(), everything).signals.traffic.goodput_per_s == pytest.approx(150)


def test_a_steady_window_is_cut_by_time() -> None:
    # one k6 scenario: 10 s of slow warm-up, then 30 s of window
    trace = Trace(seconds=30, warmup_s=10)
    trace.requests("purchase", per_s=100, latency_s=0.020)
    trace.requests("purchase", per_s=100, latency_s=1.0, since_s=0, until_s=9)
    run = run_record(of=STEADY, load=schedule(warmup_s=10).model_copy(update={"warmup_scenarios": ()}))
    m = measured(trace.build(), run)
    assert m.signals.traffic.goodput_per_s == pytest.approx(100, rel=0.05)
    assert m.signals.traffic.achieved_per_s == pytest.approx(100, rel=0.05)
    assert m.signals.latency_s.p99 == pytest.approx(0.020 * 2.536, rel=0.1)


def test_a_steady_rate_is_of_the_even_flow_and_its_slowest_answers_count() -> None:
    # 20 a second are still to be answered when the load ends, and the first second of journeys waits for its jitter
    trace = Trace(seconds=30, drain_s=4)
    trace.requests("purchase", per_s=lambda s: 100 if s >= 1 else 40, latency_s=0.020, until_s=30)
    trace.requests("purchase", per_s=20, latency_s=4.0, since_s=30, until_s=34)
    trial = trace.build()
    window = Window(start_s=T0 + 0.4, end_s=T0 + 30.4)
    record = trial.record.model_copy(update={"window": window})
    m = measured(TrialData(record, trial.series, trial.histograms, None, None), run_record(of=STEADY))
    assert m.signals.traffic.goodput_per_s == pytest.approx(100)
    assert m.signals.traffic.requests_per_s == pytest.approx(100)
    assert m.per_request["cpu_app_s"] == pytest.approx(0.006)
    assert m.latency.count == 40 + 29 * 100 + 4 * 20
    assert m.signals.latency_s.p99 == pytest.approx(4.0, rel=0.3)


def test_a_backlog_that_is_cleared_within_the_window_is_no_goodput_beyond_what_was_offered() -> None:
    # what the warm-up had piled up is served first: next to nothing of the window's in its first seconds, then more
    trace = Trace(seconds=24).requests("purchase", per_s=lambda s: 5 if s < 4 else 119)
    m = measured(trace.build(), run_record(of=STEADY, load=schedule(seconds=24)))
    traffic = m.signals.traffic
    assert traffic.offered_per_s == 100
    assert traffic.goodput_per_s == traffic.requests_per_s == pytest.approx(100)
    # a cost is of a time and of what was answered in it, backlog or not: (2 x 5 + 20 x 119) / 22 a second
    assert m.per_request["cpu_app_s"] == pytest.approx(0.6 / ((2 * 5 + 20 * 119) / 22))


def test_what_a_system_that_falls_behind_still_answers_after_the_window_is_no_goodput_of_it() -> None:
    trace = Trace(seconds=30, drain_s=20).requests("purchase", per_s=60, until_s=50)
    m = measured(trace.build(), run_record(of=STEADY))
    assert m.signals.traffic.offered_per_s == 100
    assert m.signals.traffic.goodput_per_s == pytest.approx(60)


def test_the_answers_after_the_last_arrival_stretch_a_transient_and_not_what_was_offered() -> None:
    m = measured(spike(drain_s=10).build())
    assert m.signals.traffic.offered_per_s == m.signals.traffic.achieved_per_s == pytest.approx(100)
    assert m.signals.traffic.goodput_per_s == pytest.approx(75)  # 3000 in 40 s


def test_a_closed_model_offers_nothing() -> None:
    m = measured(spike().build(), run_record(load=schedule(open_model=False)))
    assert m.signals.traffic.offered_per_s is None
    assert m.signals.traffic.achieved_per_s == pytest.approx(100)


def test_sold_out_is_the_first_409() -> None:
    assert measured(spike().build()).sold_out_after_s is None
    trace = spike().requests("purchase", per_s=40, status="409", since_s=12)
    assert measured(trace.build()).sold_out_after_s == pytest.approx(12)


def test_nothing_measured_is_none() -> None:
    m = measured(spike().build(series=False, histograms=False))
    traffic = m.signals.traffic
    assert (traffic.achieved_per_s, traffic.goodput_per_s, m.signals.errors.ratio) == (None, None, None)
    assert m.signals.latency_s.p95 is None
    assert m.per_request == {}
    assert all(s.utilisation is None and s.queue is None for s in m.signals.saturation.values())
    no_window = spike().build()
    record = no_window.record.model_copy(update={"window": None})
    assert measure(TrialData(record, no_window.series, no_window.histograms, None, None), run_record()) is None


def test_offered_slopes_are_areas() -> None:
    ramp = OfferedSlope(start_s=0, end_s=10, from_per_s=0, to_per_s=100)
    flat = OfferedSlope(start_s=10, end_s=20, from_per_s=100, to_per_s=100)
    over = OfferedSlope(start_s=5, end_s=15, from_per_s=10, to_per_s=10)
    both = schedule().model_copy(update={"offered": (ramp, flat, over)})
    assert offered_iterations(both, 0, 20) == pytest.approx(500 + 1000 + 100)
    assert offered_iterations(both, 5, 10) == pytest.approx((50 + 100) / 2 * 5 + 50)
    assert offered_iterations(both, 30, 40) == 0


def test_the_timeline_adds_up_to_the_trial() -> None:
    def rate(second: float) -> float:
        return 20.0 if second < 15 else 120.0

    trace = Trace(seconds=30, warmup_s=5)
    trace.requests("purchase", per_s=rate)
    trace.requests("purchase", per_s=30, scenario="warmup", since_s=0, until_s=5)
    trace.requests("purchase", per_s=10, status="503", expected=False, since_s=20)
    run = run_record(load=schedule(warmup_s=5))
    line = timeline(trace.build(), run.plan.schedules["pool_size=10"], run.plan.scenario)
    assert line is not None
    assert line.t_s[0] == -4
    assert line.t_s[-1] == 31
    lengths = {len(values) for values in (line.t_s, line.offered_per_s, line.finished_per_s, line.goodput_per_s)}
    assert lengths == {36}
    assert sum(value or 0 for value in line.goodput_per_s) == 10 * 20 + 20 * 120
    assert sum(value or 0 for value in line.offered_per_s) == pytest.approx(3000)
    at = line.t_s.index(20.0)
    assert line.error_ratio[at] == pytest.approx(10 / 130)
    assert line.p50_s[at] == pytest.approx(0.020, rel=0.05)
    assert line.p50_s[0] is None  # the warm-up scenario's requests are on other data and never count
    assert line.utilisation["app_cpu"][at] == pytest.approx(0.6)
    assert line.queue["db_pool"][at] == 0.5


def test_a_timeline_of_nothing_is_none_and_missing_seconds_are_gaps() -> None:
    run = run_record()
    planned = run.plan.schedules["pool_size=10"]
    assert timeline(spike().build(series=False, histograms=False), planned, run.plan.scenario) is None
    only_k6 = timeline(spike().build(series=False), planned, run.plan.scenario)
    assert only_k6 is not None
    assert only_k6.goodput_per_s == [100.0] * 30
    assert only_k6.finished_per_s == [None] * 30
    assert only_k6.utilisation == {}
