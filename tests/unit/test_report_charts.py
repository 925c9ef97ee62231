"""Drawings: what thinning keeps, and that an SVG brings nothing of its own into the page."""

import re

import pytest

from ticketbench.report import charts
from ticketbench.report.charts import Drawing, Line


def drawing(key: str = "latency", **changes: object) -> Drawing:
    t_s = [float(t) for t in range(-5, 30)]
    values: list[float | None] = [0.01 + 0.001 * i for i in range(35)]
    values[10] = None
    given: dict[str, object] = {
        "key": key,
        "label": "p95",
        "unit": "seconds",
        "lines": (Line(0, t_s, values), Line(1, t_s, [v and v * 3 for v in values])),
        "window_s": 25.0,
        "span_s": (-5.0, 29.0),
        "marks": (10.0,),
        "limits": (0.2,),
    }
    return Drawing(**(given | changes))  # type: ignore[arg-type]


def test_thinning_keeps_every_extreme_and_gap() -> None:
    t_s = [float(t) for t in range(6000)]
    values: list[float | None] = [1.0] * 6000
    values[777], values[4001], values[2500] = 99.0, 0.25, None
    kept_t, kept = charts.thin(t_s, values)
    assert len(kept_t) == len(kept) <= charts.MAX_POINTS
    assert kept_t == sorted(kept_t)
    points = dict(zip(kept_t, kept, strict=True))
    assert points[777.0] == 99.0
    assert points[4001.0] == 0.25
    assert points[2500.0] is None


def test_a_short_line_is_left_alone() -> None:
    assert charts.thin([0.0, 1.0], [None, 2.0]) == ([0.0, 1.0], [None, 2.0])


def test_the_same_figure_twice_is_the_same_bytes() -> None:
    assert charts.draw(drawing()) == charts.draw(drawing())


def test_figures_share_no_id_and_point_only_to_their_own() -> None:
    first, second = charts.draw(drawing("one")), charts.draw(drawing("two"))
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    for svg, own in zip((first, second), ids, strict=True):
        targets = set(re.findall(r'href="#([^"]+)"', svg)) | set(re.findall(r"url\(#([^)]+)\)", svg))
        assert targets == own


def test_colours_are_the_pages_and_nothing_is_outside() -> None:
    svg = charts.draw(drawing())
    assert not re.search(r"#[0-9a-fA-F]{6}\b", svg)
    assert "var(--s1)" in svg
    assert "var(--s2)" in svg
    assert "var(--fig-slo)" in svg
    assert "var(--fig-shade)" in svg
    assert "http" not in svg
    assert "<!DOCTYPE" not in svg
    assert "font-family" not in svg


@pytest.mark.parametrize(("factor", "log"), [(2.0, False), (500.0, True)])
def test_latency_goes_logarithmic_only_when_it_must(factor: float, *, log: bool) -> None:
    lines = (Line(0, [0.0, 1.0, 2.0], [0.01, 0.01 * factor, 0.011]),)
    labels = re.findall(r">([\d.,]+ m?s|0)<", charts.draw(drawing(lines=lines, limits=())))
    assert ("100 ms" in labels) is log


def test_a_lone_second_between_gaps_is_still_marked() -> None:
    alone = charts._marked([float("nan"), 1.0, float("nan"), 2.0, 2.0], 0)
    assert 1 in alone


def test_nothing_measured_is_known() -> None:
    empty = (Line(0, [0.0, 1.0], [None, None]), Line(0, [0.0, 1.0], [5.0, 5.0], offered=True))
    assert not charts.has_values(drawing(lines=empty))
    assert charts.has_values(drawing())


@pytest.mark.parametrize("style", range(8))
def test_each_marker_has_its_sample(style: int) -> None:
    assert f"var(--s{style + 1})" in charts.swatch(style)


def test_styles_differ_beyond_the_colours() -> None:
    assert len({charts.swatch(style) for style in range(32)}) == 32
