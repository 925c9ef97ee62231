"""A wall clock that is set and a ticketbench that stands still are noticed; nothing else is."""

import pytest

from ticketbench.clocks import CLOCK_STEP_S, STANDSTILL_S, ClockWatch


class Clocks:
    """A steady clock and a wall clock that a test moves."""

    def __init__(self) -> None:
        self.steady_s = 1000.0
        self.ahead_s = 1_700_000_000.0

    def wall(self) -> float:
        return self.steady_s + self.ahead_s

    def steady(self) -> float:
        return self.steady_s


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def watch(clocks: Clocks) -> ClockWatch:
    return ClockWatch(clocks.wall, clocks.steady)


def passes(clocks: Clocks, watch: ClockWatch, seconds: float) -> None:
    for _ in range(round(seconds / 0.2)):
        clocks.steady_s += 0.2
        watch.look()


def test_clocks_that_agree_are_no_disturbance(clocks: Clocks, watch: ClockWatch) -> None:
    passes(clocks, watch, 10)
    clocks.ahead_s += CLOCK_STEP_S / 2
    passes(clocks, watch, 10)
    assert watch.between(0, float("inf")) == ()


def test_what_passed_before_the_watching_is_no_standstill(clocks: Clocks, watch: ClockWatch) -> None:
    clocks.steady_s += 5
    clocks.ahead_s += 5
    watch.begin()
    passes(clocks, watch, 2)
    assert watch.between(0, float("inf")) == ()


@pytest.mark.parametrize(("step_s", "said"), [(2.5, "set forward by 2.5 s"), (-0.3, "set back by 0.3 s")])
def test_a_clock_that_is_set_is_told_once_with_its_step(
    clocks: Clocks, watch: ClockWatch, step_s: float, said: str
) -> None:
    passes(clocks, watch, 1)
    clocks.ahead_s += step_s
    passes(clocks, watch, 5)
    (found,) = watch.between(0, 0)  # whenever it was: times before and after it do not compare
    assert found.kind == "clock_step"
    assert found.seconds == pytest.approx(step_s)
    assert said in found.text


def test_small_steps_add_up(clocks: Clocks, watch: ClockWatch) -> None:
    for _ in range(3):
        clocks.ahead_s += CLOCK_STEP_S * 0.6
        passes(clocks, watch, 1)
    assert [found.seconds for found in watch.between(0, 0)] == [pytest.approx(1.2 * CLOCK_STEP_S)]


def test_a_standstill_is_told_where_it_fell_into_the_time_asked_for(clocks: Clocks, watch: ClockWatch) -> None:
    passes(clocks, watch, 2)
    began_s = clocks.wall()
    clocks.steady_s += STANDSTILL_S + 2
    watch.look()
    passes(clocks, watch, 2)
    (found,) = watch.between(began_s + 1, began_s + 2)
    assert (found.kind, found.seconds) == ("standstill", pytest.approx(STANDSTILL_S + 2))
    assert found.at_s == pytest.approx(began_s)
    assert "stood still for 3.0 s" in found.text
    assert watch.between(began_s - 5, began_s - 1) == ()
    assert watch.between(clocks.wall(), clocks.wall() + 5) == ()


def test_readings_that_were_interrupted_are_taken_again(clocks: Clocks) -> None:
    late_s = [0.0]

    def steady() -> float:
        clocks.steady_s += late_s.pop() if late_s else 0.0
        return clocks.steady_s

    watch = ClockWatch(clocks.wall, steady)
    # the process loses the processor for 0.9 s between the two clocks: taken at their word they would lie apart
    late_s[:] = [0.9, 0.0]
    watch.look()
    assert watch.between(0, float("inf")) == ()


def test_the_real_clocks_agree() -> None:
    watch = ClockWatch()
    for _ in range(100):
        watch.look()
    assert [found for found in watch.between(0, float("inf")) if found.kind == "clock_step"] == []
