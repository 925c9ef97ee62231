"""The three-valued rule: by hand, and as properties."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ticketbench.analysis import wording
from ticketbench.analysis.verdict import Judged, Sample, compare_ratio, compare_risk
from ticketbench.analysis.wording import duration, number, percent, signed_percent, times

POSITIVE = st.floats(1e-3, 1e3)


def latency(baseline: list[float], candidate: list[float], *, margin: float = 0.05, paired: bool = False) -> Judged:
    return compare_ratio(baseline, candidate, margin=margin, lower_is_better=True, paired=paired)


def goodput(baseline: list[float], candidate: list[float]) -> Judged:
    return compare_ratio(baseline, candidate, margin=0.03, lower_is_better=False, paired=False)


@pytest.mark.parametrize(
    ("candidate", "verdict"),
    [(1.0, "unchanged"), (1.04, "unchanged"), (0.96, "unchanged"), (1.07, "inconclusive"), (0.94, "inconclusive"),
     (1.2, "regressed"), (0.8, "improved")],
)  # fmt: skip
def test_one_trial_each_decides_by_the_margin_and_says_so(candidate: float, verdict: str) -> None:
    found = latency([1.0], [candidate])
    assert found.verdict == verdict
    assert found.ratio == pytest.approx(candidate)
    assert found.interval is None
    assert "one trial cannot tell noise from change" in found.reason
    assert goodput([1.0], [candidate]).verdict != "regressed" or candidate < 1


def test_a_welch_interval_by_hand() -> None:
    # log 2 and log 8 have variance log(2)^2 x 2: s^2/n = log(2)^2; the other side has none; df = 1, t = 12.706
    found = latency([2.0, 8.0], [4.0, 4.0])
    assert found.ratio == pytest.approx(1.0)
    assert found.interval is not None
    assert math.log(found.interval[1]) == pytest.approx(12.7062 * math.log(2), rel=1e-4)
    assert found.verdict == "inconclusive"


def test_a_paired_interval_sees_through_what_both_arms_share() -> None:
    baseline = [1.0, 2.0, 4.0, 8.0]
    candidate = [1.21, 2.40, 4.83, 9.62]
    assert latency(baseline, candidate).verdict == "inconclusive"
    paired = latency(baseline, candidate, paired=True)
    assert paired.verdict == "regressed"
    assert paired.interval is not None
    assert 1.15 < paired.interval[0] < 1.2 < paired.interval[1] < 1.25


def test_a_change_below_the_margin_is_unchanged_however_certain() -> None:
    found = latency([1.0, 1.001, 0.999], [1.02, 1.021, 1.019])
    assert found.interval is not None
    assert found.interval[0] > 1
    assert found.verdict == "unchanged"


def test_no_variance_in_either_arm() -> None:
    assert goodput([100.0, 100.0], [100.0, 100.0]).verdict == "unchanged"
    assert goodput([100.0, 100.0], [80.0, 80.0]).verdict == "regressed"
    assert goodput([80.0, 80.0], [100.0, 100.0]).verdict == "improved"


def test_missing_data_settles_nothing() -> None:
    for baseline, candidate, who in (
        ([], [1.0], "the baseline"),
        ([1.0], [], "the candidate"),
        ([], [], "either side"),
    ):
        found = latency(baseline, candidate)
        assert found.verdict == "inconclusive"
        assert found.ratio is None
        assert who in found.reason
    assert compare_risk([], [Sample(0.0, 100)], margin=0.001).verdict == "inconclusive"
    assert latency([0.0], [0.0]).verdict == "inconclusive"


def test_nothing_sold_any_more_is_no_division_by_zero() -> None:
    assert goodput([100.0], [0.0]).verdict == "regressed"
    assert goodput([0.0], [100.0]).verdict == "improved"
    assert goodput([0.0, 5.0], [3.0]).verdict == "inconclusive"


@given(st.lists(POSITIVE, min_size=1, max_size=6), st.lists(POSITIVE, min_size=1, max_size=6), st.booleans())
def test_swapping_the_arms_negates_the_effect(one: list[float], other: list[float], lower: bool) -> None:
    def judge(a: list[float], b: list[float]) -> Judged:
        return compare_ratio(a, b, margin=0.05, lower_is_better=lower, paired=False)

    there, back = judge(one, other), judge(other, one)
    assert there.ratio is not None
    assert back.ratio is not None
    assert math.log(there.ratio) == pytest.approx(-math.log(back.ratio), abs=1e-9)
    if there.interval and back.interval:
        assert math.log(there.interval[0]) == pytest.approx(-math.log(back.interval[1]), abs=1e-6)
    near = abs(abs(math.log(there.ratio)) - math.log(1.05)) < 1e-9  # a tie that rounding decides
    assume(not near)
    if there.verdict == "regressed":
        assert back.verdict == "improved"


@given(st.lists(POSITIVE, min_size=1, max_size=6), st.lists(POSITIVE, min_size=1, max_size=6), st.floats(0.5, 5e3))
def test_the_unit_does_not_matter(one: list[float], other: list[float], scale: float) -> None:
    plain, scaled = latency(one, other), latency([x * scale for x in one], [x * scale for x in other])
    assert plain.ratio == pytest.approx(scaled.ratio)


@given(st.lists(POSITIVE, min_size=2, max_size=6), st.lists(POSITIVE, min_size=2, max_size=6))
def test_a_regression_is_beyond_noise_and_margin(one: list[float], other: list[float]) -> None:
    found = latency(one, other)
    assert found.ratio is not None
    assert found.interval is not None
    if found.verdict == "regressed":
        assert found.interval[0] > 1
        assert found.ratio >= 1.05 * (1 - 1e-12)
    if found.verdict == "unchanged":
        assert found.interval[1] < 1.05


def test_none_seen_reads_as_up_to_three_in_n() -> None:
    few = compare_risk([Sample(0.0, 1000)], [Sample(0.0, 1000)], margin=0.001)
    assert few.verdict == "inconclusive"
    assert few.interval == (-0.003, 0.003)
    assert "none of 1000 requests failed, which still reads as up to 0.3 %" in few.reason
    assert "more than 3000 requests" in few.reason
    many = compare_risk([Sample(0.0, 4000)], [Sample(0.0, 2000), Sample(0.0, 2000)], margin=0.001)
    assert many.verdict == "unchanged"


def test_risks_by_trial() -> None:
    clean, broken = [Sample(0.0, 3000)] * 3, [Sample(0.020, 3000), Sample(0.022, 3000), Sample(0.021, 3000)]
    worse, better = compare_risk(clean, broken, margin=0.001), compare_risk(broken, clean, margin=0.001)
    assert (worse.verdict, better.verdict) == ("regressed", "improved")
    assert worse.difference == pytest.approx(0.021)
    assert better.difference == pytest.approx(-0.021)
    assert worse.ratio is None
    same = [Sample(0.0101, 3000), Sample(0.0100, 3000), Sample(0.0099, 3000)]
    assert compare_risk(same, same, margin=0.001).verdict == "unchanged"
    noisy = [Sample(0.0, 3000), Sample(0.05, 3000)]
    assert compare_risk(same, noisy, margin=0.001).verdict == "inconclusive"


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(0.0105, "unchanged"), (0.0115, "inconclusive"), (0.05, "regressed"), (0.0, "improved")]
)
def test_one_trials_risk(ratio: float, verdict: str) -> None:
    found = compare_risk([Sample(0.01, 9000)], [Sample(ratio, 9000)], margin=0.001)
    assert found.verdict == verdict
    assert found.difference == pytest.approx(ratio - 0.01)


def test_a_few_errors_of_few_requests_are_not_told_from_none() -> None:
    assert compare_risk([Sample(0.0, 300)], [Sample(0.005, 300)], margin=0.001).verdict == "inconclusive"


def test_figures_in_words() -> None:
    assert [number(x) for x in (0, 0.01234, 1.5, 81.23, 199.0, 12345, 1e6)] == [
        "0", "0.0123", "1.5", "81.2", "199", "12300", "1000000",
    ]  # fmt: skip
    assert [percent(x) for x in (0, 0.00001, 0.0005, 0.062, 0.5, 0.9996, 1)] == [
        "0 %", "less than 0.01 %", "0.05 %", "6.2 %", "50 %", "99.9 %", "100 %",
    ]  # fmt: skip
    assert [duration(x) for x in (0.00085, 0.0412, 1.234)] == ["850 us", "41.2 ms", "1.23 s"]
    assert [wording.latency(x) for x in (0.00085, 0.0412, 1.234, 4.38)] == ["0.85 ms", "41 ms", "1.23 s", "4.4 s"]
    assert [times(x) for x in (0.0172, 0.0972, 0.97, 1.64, 3.14, 31.4)] == [
        "0.017x", "0.10x", "0.97x", "1.64x", "3.1x", "31x",
    ]  # fmt: skip
    assert signed_percent(-0.031) == "-3.1 %"
