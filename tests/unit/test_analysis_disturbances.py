"""What came over a trial from outside weighs by what it can have spoilt."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from tests.unit.synthetic import T0, Trace, run_record, scenario, schedule, spike, without
from ticketbench.analysis.signals import measure
from ticketbench.analysis.validity import judge
from ticketbench.conclusions import Validity
from ticketbench.model import Disturbance, DisturbanceKind, RunRecord
from ticketbench.store import TrialData

WARMUP_S = 10
STOOD = "ticketbench itself stood still for 4.0 s in mid-trial (stopped, or the machine slept)"
RUN = run_record(load=schedule(warmup_s=WARMUP_S))


def judged(trial: TrialData, *disturbances: Disturbance, run: RunRecord = RUN) -> Validity:
    record = trial.record.model_copy(update={"disturbances": disturbances})
    disturbed = dataclasses.replace(trial, record=record)
    return judge(disturbed, run, measure(disturbed, run))


def standstill(at_s: float, seconds: float = 4.0) -> Disturbance:
    return Disturbance(kind="standstill", at_s=T0 + at_s, seconds=seconds, text=STOOD)


def warmed(**options: Any) -> Trace:
    return spike(warmup_s=WARMUP_S, **options).counter("sampler.gap_s", per_s=0.0)


@pytest.mark.parametrize(("kind", "status"), [("clock_step", "invalid"), ("shared_machine", "lower_bound")])
def test_a_clock_that_was_set_and_a_shared_machine_say_what_they_come_to(kind: DisturbanceKind, status: str) -> None:
    found = judged(warmed().build(), Disturbance(kind=kind, at_s=T0, seconds=2.0, text="something happened for 2 s"))
    assert found == Validity.model_validate({"status": status, "reasons": ["something happened for 2 s"]})


@pytest.mark.parametrize("at_s", [1.0, 5.5])
def test_a_standstill_of_ticketbench_alone_in_the_warm_up_is_noted_and_spoils_nothing(at_s: float) -> None:
    found = judged(warmed().build(), standstill(at_s))
    assert found.status == "valid"
    (said,) = found.reasons
    assert said == f"{STOOD}: that was in the warm-up, the load went on as scheduled, and the window is whole"


@pytest.mark.parametrize("at_s", [6.5, WARMUP_S + 5.0, WARMUP_S + 29.0])
def test_one_that_reaches_into_the_window_makes_the_trial_invalid(at_s: float) -> None:
    found = judged(warmed().build(), standstill(at_s))
    assert (found.status, found.reasons) == (
        "invalid",
        (f"{STOOD}: that was in the window, which is not to be believed",),
    )


def test_one_after_the_window_of_a_steady_scenario_is_noted() -> None:
    trial = warmed(drain_s=6).build()
    assert trial.record.window is not None
    window = trial.record.window.model_copy(update={"end_s": T0 + WARMUP_S + 30})
    steady = run_record(of=scenario(shape="steady"), load=schedule(warmup_s=WARMUP_S))
    record = trial.record.model_copy(update={"window": window})
    found = judged(dataclasses.replace(trial, record=record), standstill(WARMUP_S + 31.0), run=steady)
    assert found.status == "valid"
    assert "in what came after the window" in found.reasons[0]


@pytest.mark.parametrize("at_s", [-2.0, 0.0])
def test_before_k6s_start_was_seen_nobody_knows_where_the_window_lies(at_s: float) -> None:
    found = judged(warmed().build(), standstill(at_s))
    assert found.status == "invalid"
    assert "when k6 began, and so where the window lies, is not known" in found.reasons[0]


def test_a_machine_that_slept_took_the_load_with_it() -> None:
    trace = warmed()
    trace.extra["sampler.gap_s"] = np.where(trace.t >= T0 + 6, 3.5, 0.0)  # it woke when ticketbench did
    found = judged(trace.build(), standstill(2.0))
    assert found.status == "invalid"
    assert "so did the whole machine" in found.reasons[0]
    trace.extra["sampler.gap_s"] = np.where(trace.t >= T0 + 2, 3.5, 0.0)  # at another time: not the same pause
    assert judged(trace.build(), standstill(5.5)).reasons[0].endswith("the window is whole")


def test_without_the_sampler_nobody_knows_what_else_stood_still() -> None:
    found = judged(without(warmed().build(), "sampler."), standstill(2.0))
    assert found.status == "invalid"
    assert "whether the load stood still as well is not known" in found.reasons[0]


def test_what_claims_nothing_that_depends_on_time_is_only_told() -> None:
    smoke = run_record(of=scenario(name="smoke", shape="functional", goal=None), load=schedule(seconds=5, per_s=2))
    found = judged(Trace(seconds=5).requests("purchase", per_s=2).build(), standstill(1.0), run=smoke)
    assert found == Validity(status="valid", reasons=(STOOD,))
