"""The phases of a load as the sampler shows them."""

import json
from typing import Any

import pytest

from ticketbench.sampling.phases import LoadPhase, Phases, command, offered_at

WARM_UP = LoadPhase("run-001", "pool_size=2,cache=on", "warm-up", "purchase")
WINDOW = LoadPhase("run-001", "pool_size=2,cache=on", "window", "purchase", ((0, 10, 20, 40), (5, 10, 3, 3)))
OFFERED = ("tb_trial_offered_per_s", (("trial", "run-001"),))


def line(phase: LoadPhase | None) -> str:
    return json.dumps(command(phase)) + "\n"


def marked(phase: LoadPhase, value: float, goal: str = "purchase") -> tuple[Any, ...]:
    labels = (("goal", goal), ("phase", phase.phase), ("trial", phase.trial), ("variant", phase.variant))
    return ("tb_trial_phase", labels, value)


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_phase_is_one_while_it_holds_and_zero_once_when_it_is_over() -> None:
    phases = Phases()
    assert phases.samples() == []
    assert phases.take(line(WARM_UP))
    assert phases.samples() == [marked(WARM_UP, 1.0)]
    assert phases.samples() == [marked(WARM_UP, 1.0)]
    assert phases.take(line(None))
    assert phases.samples() == [marked(WARM_UP, 0.0)]
    assert phases.samples() == []


def test_the_next_phase_ends_the_one_before() -> None:
    phases = Phases(Clock())
    phases.take(line(WARM_UP))
    phases.samples()
    phases.take(line(WINDOW))
    assert phases.samples() == [marked(WARM_UP, 0.0), marked(WINDOW, 1.0), (*OFFERED, 20.0)]


def test_the_offered_rate_follows_its_slopes_from_the_phases_begin() -> None:
    clock = Clock()
    phases = Phases(clock)
    phases.take(line(WINDOW))
    offered = []
    for now_s in (100.0, 102.5, 105.0, 110.0):
        clock.now_s = now_s
        offered.append({sample[:2]: sample[2] for sample in phases.samples()}[OFFERED])
    assert offered == [20.0, 25.0, 33.0, 0.0]


def test_several_slopes_add_up() -> None:
    assert offered_at(WINDOW.offered, 7.5) == 35.0 + 3.0
    assert offered_at((), 7.5) == 0.0


def test_the_end_shows_that_nothing_holds_any_longer() -> None:
    phases = Phases(Clock())
    phases.take(line(WINDOW))
    phases.samples()
    assert phases.end() == [(*OFFERED, 0.0), marked(WINDOW, 0.0)]
    assert phases.end() == []


@pytest.mark.parametrize(("goal", "pattern"), [(None, ".+"), ("purchase", "purchase"), ("GET /a?b=1", r"GET\ /a\?b=1")])
def test_the_goal_is_a_pattern_of_request_names(goal: str | None, pattern: str) -> None:
    phases = Phases()
    phase = LoadPhase("run-001", "default", "drain", goal)
    phases.take(line(phase))
    assert phases.samples() == [marked(phase, 1.0, pattern)]


def test_other_lines_are_not_taken_and_garbled_phases_are_named() -> None:
    phases = Phases()
    for other in ("", "nonsense", "[1]", '{"unwatch": "k6"}'):
        assert not phases.take(other)
    whole = command(WINDOW)["phase"]
    for garbled in ({}, 3, {**whole, "offered": [[1, 2]]}, {**whole, "offered": "x"}):
        with pytest.raises(ValueError, match="not a phase"):
            phases.take(json.dumps({"phase": garbled}))
    assert phases.samples() == []
