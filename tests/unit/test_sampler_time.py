"""What the sampler notices of time itself: that it did not run, and that somebody set the clock."""

import pytest

from ticketbench.sampling.clock import GAP_S, STEP_S, Time


class Clocks:
    """Two clocks that only the test moves."""

    def __init__(self) -> None:
        self.steady_s = 1000.0
        self.ahead_s = 1.7e9
        self.interrupt_s = 0.0

    def steady(self) -> float:
        return self.steady_s

    def wall(self) -> float:
        now_s = self.steady_s + self.ahead_s
        self.steady_s += self.interrupt_s  # the process lost its core between two readings
        self.interrupt_s = 0.0
        return now_s

    def watched(self) -> Time:
        return Time(1.0, self.wall, self.steady)


def test_looks_that_are_a_little_late_are_no_gap() -> None:
    clocks = Clocks()
    time = clocks.watched()
    for late_s in (0.0, 0.9 * GAP_S, 0.0, 0.3):
        clocks.steady_s += 1.0 + late_s
        time.look()
    assert (time.gap_s, time.stepped_s) == (0.0, 0.0)


def test_gaps_add_up_to_the_time_in_which_it_did_not_run() -> None:
    clocks = Clocks()
    time = clocks.watched()
    for seconds in (1.0, 6.0, 1.0, 3.5):
        clocks.steady_s += seconds
        time.look()
    assert time.gap_s == pytest.approx(5.0 + 2.5)
    assert time.stepped_s == 0.0


@pytest.mark.parametrize("step_s", [-4.0, -0.2, 0.2, 3600.0])
def test_a_clock_that_was_set_is_counted_either_way_and_is_no_gap(step_s: float) -> None:
    clocks = Clocks()
    time = clocks.watched()
    for ahead_s in (0.0, step_s, 0.0):
        clocks.steady_s += 1.0
        clocks.ahead_s += ahead_s
        time.look()
    assert time.stepped_s == pytest.approx(abs(step_s))
    assert time.gap_s == 0.0


def test_a_clock_that_is_slewed_was_not_set() -> None:
    clocks = Clocks()
    time = clocks.watched()
    for _ in range(200):
        clocks.steady_s += 1.0
        clocks.ahead_s += 0.01 * STEP_S
        time.look()
    assert time.stepped_s == 0.0


def test_an_interruption_between_two_readings_is_no_step() -> None:
    clocks = Clocks()
    time = clocks.watched()
    clocks.steady_s += 1.0
    clocks.interrupt_s = 0.3
    time.look()
    assert time.stepped_s == 0.0
    clocks.steady_s += 1.0
    time.look()
    assert (time.gap_s, time.stepped_s) == (0.0, 0.0)
