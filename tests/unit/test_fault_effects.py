"""What planned faults did, from made-up trials of which it is known."""

from dataclasses import replace

import pytest

from tests.unit.synthetic import T0, Trace, run_record, schedule
from ticketbench.analysis.analyse import analyse
from ticketbench.analysis.fault_effects import fault_effects
from ticketbench.analysis.sentences import fault_sentence
from ticketbench.conclusions import FaultEffect
from ticketbench.fault_plan import CarriedFault, parse_faults
from ticketbench.model import OfferedSlope, Schedule

SECONDS = 40


def carried(text: str, lasting: float = 3.0, answered: float = 4.0) -> CarriedFault:
    (fault,) = parse_faults([text])
    began_s = T0 + fault.at_s
    return CarriedFault(fault=fault, began_s=began_s, ended_s=began_s + lasting, answered_s=began_s + answered)


def effects(*faults: CarriedFault, good: object, bad: object = 0.0, load: Schedule | None = None) -> list[FaultEffect]:
    """Return the effects on goodput and failures that are functions of the second of the window."""
    trace = Trace(seconds=SECONDS)
    trace.requests("purchase", per_s=good)  # type: ignore[arg-type]
    trace.requests("purchase", per_s=bad, status="503", expected=False)  # type: ignore[arg-type]
    trial = trace.build()
    record = trial.record.model_copy(update={"faults": faults})
    return list(fault_effects(replace(trial, record=record), run_record(load=load or schedule(seconds=SECONDS))))


def test_an_outage_is_measured_from_before_to_as_before() -> None:
    (effect,) = effects(
        carried("kill postgres at 15 for 3"),
        good=lambda t: 0.0 if 15 <= t < 21 else 100.0,
        bad=lambda t: 50.0 if 15 <= t < 21 else 0.0,
    )
    assert effect.goodput_before_per_s == pytest.approx(100, rel=0.02)
    assert effect.goodput_worst_per_s == 0
    assert (effect.at_s, effect.undone_at_s, effect.answered_at_s) == (15, 18, 19)
    assert effect.recovered_at_s == pytest.approx(21, abs=1)
    assert effect.failed == pytest.approx(300, rel=0.05)
    assert effect.p95_worst_s is None  # none succeeded


def test_goodput_that_stays_low_is_never_as_before() -> None:
    (effect,) = effects(carried("pause redis at 15 for 3"), good=lambda t: 100.0 if t < 15 else 60.0)
    assert effect.recovered_at_s is None
    assert effect.goodput_worst_per_s == pytest.approx(60, rel=0.05)
    assert "not as before until the window's end" in fault_sentence(effect)


def test_a_rate_that_falls_meanwhile_is_held_against_what_was_offered() -> None:
    falling = Schedule(
        window_start_s=0, window_end_s=SECONDS, total_s=SECONDS, open_model=True, max_vus=100,
        offered=(
            OfferedSlope(start_s=0, end_s=16, from_per_s=100, to_per_s=100),
            OfferedSlope(start_s=16, end_s=SECONDS, from_per_s=30, to_per_s=30),
        ),
    )  # fmt: skip
    (effect,) = effects(
        carried("pause redis at 15 for 3"), good=lambda t: 100.0 if t < 15 else 0.0 if t < 19 else 30.0, load=falling
    )
    assert effect.recovered_at_s == pytest.approx(19, abs=1)


def test_what_an_earlier_fault_did_is_not_what_a_later_one_is_held_against() -> None:
    _, second = effects(
        carried("kill postgres at 10 for 3"),
        carried("pause redis at 17 for 3"),
        good=lambda t: 0.0 if 10 <= t < 15 else 100.0,
    )
    assert second.goodput_before_per_s == pytest.approx(100, rel=0.02)


def test_a_fault_in_the_first_seconds_has_no_before_and_one_that_never_came_nothing_at_all() -> None:
    first, never = effects(
        carried("kill app at 1"), CarriedFault(fault=parse_faults(["kill app at 30"])[0]), good=100.0
    )
    assert first.goodput_before_per_s is None
    assert first.recovered_at_s is None
    assert (never.at_s, never.failed, never.goodput_worst_per_s) == (None, None, None)
    assert fault_sentence(never) == "kill app at 30: the load ended before"


def test_an_app_that_is_killed_on_purpose_may_have_counted_less() -> None:
    trace = Trace(seconds=SECONDS)
    trace.requests("purchase", per_s=100.0)
    trial = trace.build()
    seen = [name for name in trial.series.columns if name.startswith("app.requests")]  # type: ignore[union-attr]
    trial.series[seen] *= 0.9  # type: ignore[index]
    run = run_record(load=schedule(seconds=SECONDS))
    assert analyse(run, [trial]).trials[0].validity.status == "invalid"
    for text, status in (
        ("pause app at 9 for 1", "invalid"),
        ("kill app at 9", "valid"),
        ("kill redis at 9", "invalid"),
    ):
        record = trial.record.model_copy(update={"faults": (carried(text),)})
        judged = analyse(run, [replace(trial, record=record)]).trials[0].validity
        assert judged.status == status, text
        if status == "valid":
            assert any("ended on purpose" in reason for reason in judged.reasons)


def test_a_trial_whose_fault_never_came_is_not_the_one_that_was_planned() -> None:
    trace = Trace(seconds=SECONDS)
    trace.requests("purchase", per_s=100.0)
    trial = trace.build()
    never = CarriedFault(fault=parse_faults(["kill app at 30"])[0])
    planned = replace(trial, record=trial.record.model_copy(update={"faults": (never,)}))
    judged = analyse(run_record(load=schedule(seconds=SECONDS)), [planned]).trials[0].validity
    assert judged.status == "invalid"
    assert judged.reasons[0] == "the planned fault 'kill app at 30' never came: the load had ended before"
