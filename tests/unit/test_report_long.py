"""A report over hours stays a page that opens, and leaves out no peak."""

from dataclasses import replace

import pytest

from tests.unit import report_data
from ticketbench.report import ReportInput
from ticketbench.report.charts import MAX_POINTS, thin
from ticketbench.report.html_page import html

MOST_BYTES = 3_000_000


@pytest.fixture(scope="module")
def hour() -> ReportInput:
    """Sixteen trials of an hour, all of them drawn."""
    return report_data.spike(repetitions=4, seconds=3600)


def test_sixteen_hours_fit_a_page_that_says_how_it_draws_them(hour: ReportInput) -> None:
    page = html(hour)
    assert len(page) < MOST_BYTES
    assert page.count(b'<svg class="plot"') >= 6
    longest = max(len(line.t_s) for line in hour.timelines)
    assert f"{longest:,} seconds are more than a line can show".encode() in page
    short = html(report_data.spike())
    assert b"more than a line can show" not in short


def test_a_peak_of_one_second_and_a_gap_of_one_survive(hour: ReportInput) -> None:
    line = hour.timelines[0]
    for at in (0, 17, 1801, 2345, len(line.t_s) - 1):
        values = list(line.p95_s)
        values[at] = 1234.5
        values[at - 3] = None
        spoiled = replace(line, p95_s=values)
        t_s, drawn = thin(spoiled.t_s, spoiled.p95_s)
        assert len(t_s) <= MAX_POINTS
        assert (spoiled.t_s[at], 1234.5) in zip(t_s, drawn, strict=True)
        assert None in drawn
