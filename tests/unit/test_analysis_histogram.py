"""Histograms: quantiles against the exact ones of the samples that were put into buckets, and what merging keeps."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.synthetic import GROWTH, buckets_of
from ticketbench.analysis.histogram import EMPTY, Histogram, merge, merge_rows, quantiles_of_each
from ticketbench.storing.histograms import HistogramRow, Histograms

SAMPLES = st.lists(st.floats(1e-4, 30.0), min_size=1, max_size=200)


def histogram(samples: list[float], growth: float = GROWTH) -> Histogram:
    return Histogram(buckets_of(samples, growth), len(samples), sum(samples))


@given(SAMPLES, st.floats(0, 1))
def test_a_quantile_is_off_by_one_bucket_at_most(samples: list[float], q: float) -> None:
    exact = sorted(samples)[max(0, math.ceil(q * len(samples) - 1e-9) - 1)]
    found = histogram(samples).quantile(q)
    assert found is not None
    assert exact / GROWTH * (1 - 1e-9) <= found <= exact * GROWTH * (1 + 1e-9)


@given(SAMPLES, st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_quantiles_rise_and_share_above_is_their_inverse(samples: list[float], one: float, other: float) -> None:
    h = histogram(samples)
    low, high = h.quantile(min(one, other)), h.quantile(max(one, other))
    assert low is not None
    assert high is not None
    assert low <= high
    assert h.share_above(low) == pytest.approx(1 - min(one, other), abs=1e-6)


@given(SAMPLES, SAMPLES)
def test_merging_is_counting_together(one: list[float], other: list[float]) -> None:
    merged, together = merge([histogram(one), histogram(other)]), histogram(one + other)
    assert merged.count == together.count
    assert merged.mean == pytest.approx(together.mean)
    for q in (0.01, 0.5, 0.95, 0.99):
        assert merged.quantile(q) == pytest.approx(together.quantile(q))


@given(SAMPLES, SAMPLES)
def test_resolutions_merge_without_losing_a_request(fine: list[float], coarse: list[float]) -> None:
    merged = merge([histogram(fine), histogram(coarse, GROWTH**2)])
    assert sum(count for _, _, count in merged.buckets) == pytest.approx(len(fine) + len(coarse))
    assert all(a[1] <= b[0] for a, b in zip(merged.buckets, merged.buckets[1:], strict=False))
    everything = sorted(fine + coarse)
    median, exact = merged.quantile(0.5), everything[math.ceil(0.5 * len(everything)) - 1]
    assert median is not None
    assert exact / GROWTH**2.01 <= median <= exact * GROWTH**2.01


@given(SAMPLES)
def test_the_unit_of_time_does_not_matter(samples: list[float]) -> None:
    seconds = histogram(samples)
    scaled = Histogram(tuple((low * 1000, high * 1000, n) for low, high, n in seconds.buckets), 1, 1)
    p95 = seconds.quantile(0.95)
    assert p95 is not None
    assert scaled.quantile(0.95) == pytest.approx(p95 * 1000)


def test_interpolation_by_hand() -> None:
    h = Histogram(((0.0, 1.0, 2.0), (1.0, 4.0, 2.0)), 4, 6.0)
    assert h.quantile(0.25) == pytest.approx(0.5)  # the bucket at zero: linear
    assert h.quantile(0.75) == pytest.approx(2.0)  # halfway between 1 and 4 on a logarithmic scale
    assert h.share_above(2.0) == pytest.approx(0.25)
    assert h.mean == 1.5
    assert Histogram(((1.0, math.inf, 3.0),), 3, 9.0).quantile(0.5) == 1.0


def test_fractional_counts() -> None:
    h = Histogram(((1.0, 2.0, 0.25), (2.0, 4.0, 0.75)), 1.0, 2.5)
    assert h.quantile(0.25) == pytest.approx(2.0)
    assert h.quantile(0.625) == pytest.approx(2 * math.sqrt(2))


def test_nothing_measured_is_none_and_never_zero() -> None:
    assert EMPTY.quantile(0.95) is None
    assert EMPTY.mean is None
    assert EMPTY.share_above(0.1) is None
    assert merge([]) == EMPTY
    assert EMPTY.latency().p99 is None
    assert EMPTY.latency().count == 0


def test_a_quantile_beyond_one_is_a_bug() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        EMPTY.quantile(95)


def test_rows_merge_like_histograms() -> None:
    rows = [
        HistogramRow(t, "load", "purchase", "POST", "201", True, "", 2.0, 0.02, ((0.009, 0.01, 2.0),)) for t in (1, 2)
    ]
    assert merge_rows(Histograms.of(rows)) == Histogram(((0.009, 0.01, 4.0),), 4.0, 0.04)


ROWS = st.lists(st.tuples(st.integers(-1, 3), SAMPLES, st.sampled_from([GROWTH, GROWTH**2])), max_size=8)


@given(ROWS, st.floats(0, 1))
def test_quantiles_of_groups_are_those_of_their_merged_rows(
    rows: list[tuple[int, list[float], float]], q: float
) -> None:
    stored = [
        HistogramRow(0, "load", "r", "GET", "200", True, "", len(s), sum(s), buckets_of(s, growth))
        for _, s, growth in rows
    ]
    found = quantiles_of_each(Histograms.of(stored), np.array([group for group, _, _ in rows], dtype=np.int64), 4, q)
    for group in range(4):
        merged = merge_rows(Histograms.of(row for row, (of, _, _) in zip(stored, rows, strict=True) if of == group))
        expected = merged.quantile(q)
        assert math.isnan(found[group]) if expected is None else found[group] == pytest.approx(expected, rel=1e-9)
