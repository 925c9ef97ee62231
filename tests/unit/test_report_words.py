"""How figures are rounded and said, and the comparison in words."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ticketbench.conclusions import Comparison, Finding, Verdict
from ticketbench.report import comparison_json, comparison_markdown, comparison_table, wording
from ticketbench.report.table import Cell, Column, Row, Table


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 ms"), (0.000412, "0.412 ms"), (0.00999, "9.99 ms"), (0.0123, "12.3 ms"), (0.42, "420 ms"),
        (0.99949, "999 ms"), (0.9996, "1.00 s"), (4.3772, "4.38 s"), (75.0, "75.0 s"), (1234.0, "1,234 s"),
        (None, None), (float("nan"), None), (float("inf"), None),
    ],
)  # fmt: skip
def test_seconds(value: float | None, text: str | None) -> None:
    assert wording.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 ms"), (0.000412, "0.41 ms"), (0.0123, "12.3 ms"), (0.0243, "24 ms"), (0.4123, "410 ms"),
        (0.994, "990 ms"), (0.9996, "1.00 s"), (1.412, "1.41 s"), (4.3772, "4.4 s"), (75.0, "75 s"), (1234.0, "1230 s"),
        (None, None), (float("nan"), None), (float("inf"), None),
    ],
)  # fmt: skip
def test_a_latency_has_as_many_digits_as_its_histogram_bears(value: float | None, text: str | None) -> None:
    assert wording.latency(value) == text


@given(st.floats(min_value=1e-5, max_value=1e5))
def test_a_shown_latency_is_well_within_a_bucket(value: float) -> None:
    figure, unit = (wording.latency(value) or "").split(" ")
    assert float(figure) * {"ms": 1e-3, "s": 1.0}[unit] == pytest.approx(value, rel=0.0255)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.0609, "<0.1"), (0.1, "0.1"), (2.34, "2.3"), (5.0, "5"), (9.96, "10"), (41.3, "41"),
     (1234.5, "1,234"), (-0.01, ">-0.1"), (None, None), (float("nan"), None)],
)  # fmt: skip
def test_a_queue_is_said_roughly_and_never_rounded_to_nothing(value: float | None, text: str | None) -> None:
    assert wording.rough(value) == text


def test_a_whole_number_is_said_as_one_whatever_its_type() -> None:
    # JSON gives ints, and before Python 3.12 these have no is_integer()
    assert wording.rough(2) == wording.rough(2.0) == "2"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0 %"), (0.004, "<1 %"), (0.432, "43 %"), (0.9951, "99 %"), (1.0, "100 %"), (1.5, "150 %"), (None, None)],
)
def test_a_busy_fraction_is_whole_percent_and_never_rounded_to_all(value: float | None, text: str | None) -> None:
    assert wording.busy(value) == text


def test_compared_signals_have_names_for_people() -> None:
    names = ("traffic.goodput_per_s", "latency_s.p95", "per_request.cpu_s", "per_request.db_s", "errors.ratio")
    assert [wording.signal(name) for name in names] == [
        "goodput", "latency, p95", "CPU for one request", "time in PostgreSQL for one request", "failed requests",
    ]  # fmt: skip


def test_a_limit_of_nothing_reads_as_no_limit() -> None:
    assert wording.variant("pool_size=2,app_cpus=0") == "pool_size=2, app_cpus=no limit"
    assert wording.variant("redis_cpus=0.0,app_cpus=0.05,stock=0") == "redis_cpus=no limit, app_cpus=0.05, stock=0"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 %"), (1.0, "100 %"), (0.00001, "<0.01 %"), (0.0123, "1.23 %"), (0.1234, "12.3 %"),
        (0.99991, "99.99 %"),
        (0.999999, "99.99 %"), (0.9982, "99.8 %"), (1.5, "150 %"), (None, None),
    ],
)  # fmt: skip
def test_percent_never_rounds_to_nothing_or_to_all(value: float | None, text: str | None) -> None:
    assert wording.percent(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.6352, "1.64x"), (0.971, "0.97x"), (2.4, "2.4x"), (31.24, "31x"), (0.0172, "58x lower"), (0.0, "0x")],
)
def test_times(value: float, text: str) -> None:
    assert wording.times(value) == text


@given(st.floats(min_value=1e-6, max_value=1e6))
def test_a_shown_number_is_within_half_a_percent(value: float) -> None:
    shown = wording.number(value)
    assert shown is not None
    assert float(shown.replace(",", "")) == pytest.approx(value, rel=0.0051)


@given(st.text())
def test_cleaned_text_can_be_encoded_and_holds_no_control_character(text: str) -> None:
    cleaned = wording.clean(text)
    cleaned.encode()
    assert not [c for c in cleaned if (ord(c) < 32 and c not in "\t\n") or 0x7F <= ord(c) < 0xA0]
    assert wording.clean(cleaned) == cleaned


def test_a_lopsided_table_is_a_bug() -> None:
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        Table("t", (Column("a", "A"), Column("b", "B")), (Row((Cell("1"),)),))


def finding(signal: str, verdict: Verdict, **changes: object) -> Finding:
    given_: dict[str, object] = {
        "signal": signal, "baseline_variant": "a", "candidate_variant": "a", "baseline": 0.1, "candidate": 0.12,
        "ratio": 1.2, "verdict": verdict, "gates": False, "reason": "because | <b>",
    }  # fmt: skip
    return Finding.model_validate(given_ | changes)


COMPARISON = Comparison(
    baseline_run="20261122T100000Z-spike",
    candidate_run="20261122T110000Z-spike",
    verdict="regressed",
    sentence="the app needs 1.2x the CPU for a request",
    exit_code=1,
    findings=(
        finding("per_request.cpu_app_s", "regressed", gates=True, interval=(1.1, 1.3)),
        finding("errors.ratio", "unchanged", ratio=None, difference=0.0002, baseline=0.0, candidate=0.0002),
        finding("goodput_per_s", "inconclusive", baseline=None, ratio=None),
    ),
    environment_differences=("kernel 6.1 and 6.2",),
)


def test_the_comparison_is_a_table_with_figures_in_their_units() -> None:
    cpu, errors, goodput = comparison_table(COMPARISON).rows
    assert [c.text for c in cpu.cells[1:5]] == ["100 ms", "120 ms", "▼ 1.20x, worse", "decides"]
    assert cpu.cells[3].note == "interval 1.10x to 1.30x"
    assert [c.text for c in errors.cells[1:5]] == ["0 %", "0.02 %", "= +0.02 points, about the same", "informs"]
    assert [c.text for c in goodput.cells[1:4]] == ["not measured", "0.12", "not measured"]
    assert goodput.cells[1].note == "no figure in the baseline"


def test_the_comparison_in_markdown() -> None:
    text = comparison_markdown(COMPARISON).decode()
    assert text.startswith("### ▼ worse: the app needs 1.2x")
    assert "- kernel 6.1 and 6.2" in text
    assert "because \\| &lt;b&gt;" in text
    assert "exit code 1" in text


def test_the_comparison_in_json_is_the_record() -> None:
    assert Comparison.model_validate(json.loads(comparison_json(COMPARISON))) == COMPARISON
