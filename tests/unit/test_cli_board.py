"""The panel's lines, from events as a run tells them."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from ticketbench.cli.board import Board
from ticketbench.events import (
    Event,
    Figures,
    Notice,
    Phase,
    Planned,
    PlannedTrial,
    Progress,
    Provide,
    TrialStored,
)

TRIALS = (PlannedTrial(1, "pool_size=2", 47.0), PlannedTrial(2, "pool_size=10", 43.0), PlannedTrial(3, "x=3", 40.0))
PLANNED = Planned("spike", TRIALS, 131.5)
KNOWN = Figures(finished_per_s=178.24, goodput_per_s=92.3, p95_s=0.8123, error_ratio=0.0312, dropped=12)


def board(*events: tuple[float, Event]) -> Board:
    made = Board(begun_s=0.0)
    for at_s, event in events:
        made.apply(event, at_s)
    return made


def lines(made: Board, now_s: float, width: int = 80) -> list[str]:
    """What a terminal of this width would get, without colours; asserts that no line folds."""
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None, markup=False, highlight=False)
    console.print(made.frame(now_s, width))
    got = out.getvalue().removesuffix("\n").split("\n")
    assert all(cell_len(line) < width for line in got), got
    return [line.rstrip() for line in got]


def progress(phase: str = "window", figures: Figures = KNOWN, **changes: object) -> Progress:
    fields: dict[str, object] = {
        "phase": phase, "variant": "pool_size=2", "trial": 1, "of": 3, "elapsed_s": 12.0, "left_s": 18.0,
        "offered_per_s": 180.0, "figures": figures,
    }  # fmt: skip
    return Progress(**{**fields, **changes})  # type: ignore[arg-type]


def in_window() -> Board:
    return board(
        (1.0, PLANNED),
        (1.0, Phase("start", "PostgreSQL, Redis and Prometheus")),
        (2.0, Phase("reset", "pool_size=2", 1, 3)),
        (7.0, Phase("warm-up", "pool_size=2", 1, 3, 7.0)),
        (14.0, Phase("window", "pool_size=2", 1, 3, 30.0)),
        (26.0, progress()),
    )


def test_a_window_says_where_it_is_what_it_sees_and_what_comes_next() -> None:
    got = lines(in_window(), 26.0)
    assert got[0] == ""
    assert got[1] == "spike  trial 1 of 3  pool_size=2"
    assert got[2].startswith("window   ")
    assert got[2].endswith(" 12 s, 18 s left")
    assert got[3].startswith("plan     ")
    # 47 - 25 s of this trial, the other two, and 1.5 s for the report
    assert got[3].endswith(" 25 s, 1 min 46 s left")
    assert got[4].split() == ["offered", "180.0/s", "goodput", "92.3/s", "errors", "3.1", "%"]
    assert got[5].split() == ["finished", "178.2/s", "p95", "810", "ms", "dropped", "12"]
    assert got[6] == "next     pool_size=10  (43 s)"
    assert len(got) == 7


def test_every_frame_of_a_width_has_the_same_height() -> None:
    moments = [
        (board((0.0, PLANNED)), 0.0),
        (board((0.0, PLANNED), (0.0, Phase("start"))), 1.0),
        (in_window(), 26.0),
        (in_window(), 1e9),
        (board((0.0, PLANNED), (0.0, Phase("window", "v" * 500, 3, 3, None)), (1.0, progress(trial=3))), 2.0),
    ]
    for width, height in ((120, 7), (80, 7), (61, 7), (60, 8), (40, 8), (39, 11), (30, 11)):
        assert {len(lines(made, now_s, width)) for made, now_s in moments} == {height}, width


@pytest.mark.parametrize("width", [1, 2, 5, 9, 12, 20, 40, 80, 120, 1000])
def test_no_width_folds_a_line(width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None)
    console.print(in_window().frame(26.0, width))
    assert all(cell_len(line) <= width for line in out.getvalue().split("\n"))


def test_what_nobody_knows_is_a_dash_and_not_zero() -> None:
    made = board((0.0, PLANNED), (0.0, Phase("window", "pool_size=2", 1, 3)), (1.0, progress(figures=Figures())))
    got = lines(made, 2.0)
    assert got[2].endswith(" 2 s")  # the end is not known, so neither is what is left
    assert got[4].split() == ["offered", "180.0/s", "goodput", "-", "errors", "-"]
    assert got[5].split() == ["finished", "-", "p95", "-", "dropped", "-"]


def test_the_figures_of_a_phase_do_not_outlive_it() -> None:
    made = in_window()
    made.apply(Phase("audit", "pool_size=2", 1, 3), 45.0)
    assert "92.3" not in "\n".join(lines(made, 45.0))


def test_huge_numbers_keep_their_places() -> None:
    huge = Figures(finished_per_s=1e18, goodput_per_s=999_999.4, p95_s=1e12, error_ratio=1.0, dropped=10**15)
    made = in_window()
    made.apply(progress(figures=huge, offered_per_s=1234567.0), 27.0)
    for width in (40, 80):
        usual, got = lines(in_window(), 27.0, width), lines(made, 27.0, width)
        assert [line.find("goodput") for line in usual] == [line.find("goodput") for line in got]
    text = " ".join(lines(made, 27.0))
    for shown in ("1e+18/s", "999,999/s", "1e+12 s", "100.0 %", "1e+15", "1.2e+06/s"):
        assert shown in text


def test_names_from_outside_are_cut_and_bring_no_codes_and_no_markup() -> None:
    nasty = "[bold red]x[/]\x1b[2J\x07\n\u202e" + "é" * 300
    planned = Planned(nasty, (PlannedTrial(1, nasty, 10.0), PlannedTrial(2, nasty, 10.0)), 20.0)
    for moment in ((), ((1.0, Phase("window", nasty, 1, 2, 5.0)),)):
        got = lines(board((0.0, planned), *moment), 2.0)
        assert len(got) == 7
        assert "[bold red]x[/]" in got[1]
        assert not any(code in "".join(got) for code in "\x1b\x07\u202e")
        assert got[6].startswith("next     [bold red]x[/]")


def test_the_last_trial_has_none_after_it() -> None:
    made = in_window()
    made.apply(Phase("reset", "x=3", 3, 3), 100.0)
    assert lines(made, 100.0)[6] == "next     the report"
    assert made.left_s(100.0) == pytest.approx(41.5)
    made.apply(TrialStored(3, 3, "x=3", "done", ""), 140.0)
    made.apply(Phase("stop"), 140.0)
    assert made.left_s(140.5) == pytest.approx(1.5)
    assert lines(made, 140.5)[6] == "next     the report"


def test_a_plan_without_trials_is_drawn_too() -> None:
    assert len(lines(board((0.0, Planned("spike", (), 0.0)), (0.0, Phase("start"))), 1.0)) == 7


def test_a_trial_that_overruns_leaves_no_negative_time() -> None:
    made = in_window()
    assert made.left_s(1000.0) == pytest.approx(43 + 40 + 1.5)
    assert lines(made, 1000.0)[2].endswith(", 0 s left")


def test_a_closed_model_promises_a_bound_only() -> None:
    made = board((0.0, Planned("own.js", TRIALS[:1], 47.0, at_most=True)), (0.0, Phase("window", "default", 1, 1)))
    assert "at most 40 s left" in lines(made, 7.0)[3]
    made.apply(Phase("audit", "default", 1, 1), 8.0)
    assert "at most 4 s left" in lines(made, 8.0)[3]  # it was done long before its schedule's end


def test_before_the_plan_a_download_is_shown() -> None:
    made = board((0.0, Provide("prometheus", "downloading", 12_300_000, 98_000_000)))
    assert lines(made, 0.0) == ["", "prometheus: downloading 12.3 MB of 98.0 MB"]
    made.apply(Notice("something"), 1.0)
    made.apply(PLANNED, 1.0)
    assert len(lines(made, 1.0)) == 7
