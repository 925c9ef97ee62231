"""Progress as plain lines."""

import pytest

from ticketbench.cli.lines import ALIVE_EVERY_S, Lines
from ticketbench.events import Figures, Notice, Phase, Progress, Provide, TrialStored


class _Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def tick(elapsed_s: float, figures: Figures, left_s: float | None = 18.0) -> Progress:
    return Progress("window", "pool_size=2", 1, 4, elapsed_s, left_s, 180.0, figures)


def test_a_long_window_shows_life_every_ten_seconds_and_nothing_in_between(capsys: pytest.CaptureFixture[str]) -> None:
    clock = _Clock()
    draw = Lines(clock)
    draw(Phase("window", "pool_size=2", 1, 4, 30.0))
    for second in range(1, 31):
        clock.now_s = float(second)
        draw(tick(second, Figures(178.2, 92.31, 0.812, 0.003, 12), 30.0 - second))
    assert ALIVE_EVERY_S == 10.0
    told = capsys.readouterr()
    assert told.out == ""
    got = told.err.splitlines()
    assert len(got) == 4
    assert got[0] == "   0.0 s  [1/4] window pool_size=2 (30 s)"
    assert got[1] == (
        "  10.0 s  [1/4] window 10 s, 20 s left: offered 180.0/s, finished 178.2/s, goodput 92.3/s, p95 810 ms, "
        "errors 0.3 %, dropped 12"
    )


def test_what_is_not_known_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    clock = _Clock()
    draw = Lines(clock)
    clock.now_s = 10.0
    draw(Progress("window", "default", 1, 1, 10.0, None, None, Figures()))
    clock.now_s = 20.0
    draw(Progress("window", "default", 1, 1, 20.0, None, None, Figures(dropped=0)))
    assert capsys.readouterr().err.splitlines() == [
        "  10.0 s  [1/1] window 10 s: no figures yet",
        "  20.0 s  [1/1] window 20 s: dropped 0",
    ]


def test_lines_from_outside_bring_no_codes(capsys: pytest.CaptureFixture[str]) -> None:
    draw = Lines()
    draw(Notice("a\x1b[2Jb\nc"))
    draw(TrialStored(1, 2, "x\r=1", "done", "fine"))
    draw(Provide("k6", "downloading", 1_000_000))
    got = capsys.readouterr().err
    assert len(got.splitlines()) == 3
    assert not any(code in got for code in "\x1b\r")
    assert "[1/2] x\ufffd=1: done; fine" in got
