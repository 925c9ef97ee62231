"""Latency histograms that can be merged: quantiles come from merged buckets and are never averaged.

Inside a bucket the samples are taken to lie evenly on a logarithmic scale. k6's native buckets are exponential (each
1.09 times the one before), so this makes the error of a quantile the same factor everywhere: a quantile is never off by
more than its own bucket, 9 %, and by less than half of it where the density is smooth. A bucket that reaches down to
zero has no logarithm and is interpolated linearly.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from ticketbench.conclusions import Latency

if TYPE_CHECKING:
    from ticketbench.storing.histograms import Histograms

Bucket = tuple[float, float, float]

_ROUNDING: Final = 1e-9


@dataclass(frozen=True)
class Histogram:
    """Counts of requests by duration: ``buckets`` are (lower, upper, count) in seconds, sorted, without overlap.

    ``count`` and ``sum_s`` are exact where the source's were; counts may be fractional.
    """

    buckets: tuple[Bucket, ...]
    count: float
    sum_s: float

    @property
    def mean(self) -> float | None:
        """Mean duration in seconds, from the exact sum; None without requests."""
        return self.sum_s / self.count if self.count > 0 else None

    def quantile(self, q: float) -> float | None:
        """Return the duration in seconds that a share ``q`` (0 to 1) of the requests did not exceed.

        None without requests. A quantile in a bucket without upper end is that bucket's lower end: a lower bound.
        """
        if not 0 <= q <= 1:
            raise ValueError(f"a quantile lies between 0 and 1, not at {q}")
        total = sum(count for _, _, count in self.buckets)
        if total <= 0:
            return None
        rank = q * total * (1 - _ROUNDING)  # or a bucket's last request falls beyond a gap by the last bit of a sum
        below = 0.0
        for low, high, count in self.buckets:
            if below + count >= rank:
                return _inside(low, high, (rank - below) / count)
            below += count
        return _inside(*self.buckets[-1][:2], 1.0)  # q = 1 and a rounding error

    def share_above(self, seconds: float) -> float | None:
        """Return the share (0 to 1) of requests that took longer than ``seconds``; None without requests."""
        total = sum(count for _, _, count in self.buckets)
        if total <= 0:
            return None
        above = sum(count * (1 - _share_below(low, high, seconds)) for low, high, count in self.buckets)
        return min(1.0, above / total)

    def latency(self) -> Latency:
        """Return the quantiles that are reported."""
        return Latency(
            p50=self.quantile(0.50),
            p95=self.quantile(0.95),
            p99=self.quantile(0.99),
            mean=self.mean,
            count=round(self.count),
        )


EMPTY = Histogram((), 0.0, 0.0)


def merge_rows(rows: "Histograms") -> Histogram:
    """Return one histogram of all ``rows``."""
    inside = np.bincount(rows.bucket, weights=rows.inside, minlength=len(rows.bounds))
    counts = {
        (low, high): count
        for (low, high), count in zip(rows.bounds.tolist(), inside.tolist(), strict=True)
        if count > 0
    }
    return Histogram(_without_overlap(counts), float(rows.count.sum()), float(rows.sum_s.sum()))


def quantiles_of_each(rows: "Histograms", group: NDArray[np.int64], groups: int, q: float) -> NDArray[np.float64]:
    """Return the quantile ``q`` of the requests of each group of rows; NaN for a group without requests.

    ``group`` numbers each row's group from 0 to ``groups`` - 1; rows of a negative number are left out. The same
    figures as :func:`merge_rows` and :meth:`Histogram.quantile` would give one after the other.
    """
    counts, bounds = _by_group(rows, group, groups)
    below = np.cumsum(counts, axis=1)
    total = below[:, -1] if below.shape[1] else np.zeros(groups)
    rank = q * total * (1 - _ROUNDING)
    reached = (below >= rank[:, None]) & (counts > 0)
    at = np.where(reached.any(axis=1), reached.argmax(axis=1), below.shape[1] - 1) if below.shape[1] else None
    found = np.full(groups, np.nan)
    if at is None:
        return found
    each = np.arange(groups)
    some = total > 0
    low, high, inside = bounds[at, 0], bounds[at, 1], counts[each, at]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.minimum(1.0, (rank - (below[each, at] - inside)) / inside)
        logarithmic = low * (high / low) ** share
    linear = np.maximum(0.0, low + share * np.where(np.isinf(high), 0.0, high - low))
    value = np.where(np.isinf(high), low, np.where(low <= 0, linear, logarithmic))
    found[some] = value[some]
    return found


def _by_group(
    rows: "Histograms", group: NDArray[np.int64], groups: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each group's requests by bucket (groups x buckets), and the buckets: sorted, and without overlap."""
    kept = rows.only(group >= 0)
    width = len(rows.bounds)
    cell = np.repeat(group[group >= 0], kept.lengths) * width + kept.bucket
    flat = np.bincount(cell, weights=kept.inside, minlength=groups * width)
    counts: NDArray[np.float64] = flat.astype(np.float64).reshape(groups, width)
    order = np.lexsort((rows.bounds[:, 1], rows.bounds[:, 0]))
    order = order[counts.sum(axis=0)[order] > 0]
    bounds, counts = rows.bounds[order], counts[:, order]
    if (bounds[:-1, 1] <= bounds[1:, 0]).all():
        return counts, bounds
    edges = sorted(set(bounds.ravel().tolist()))
    parts = {pair: at for at, pair in enumerate(pairwise(edges))}
    split = np.zeros((len(bounds), len(parts)))
    for at, (low, high) in enumerate(bounds.tolist()):
        for part_low, part_high, share in _parts(low, high, edges):
            split[at, parts[part_low, part_high]] = share
    return counts @ split, np.array(list(parts), dtype=np.float64)


def merge(histograms: Iterable[Histogram]) -> Histogram:
    """Return one histogram of several, as if their requests had been counted together."""
    counts: dict[tuple[float, float], float] = {}
    count = sum_s = 0.0
    for histogram in histograms:
        count += histogram.count
        sum_s += histogram.sum_s
        for low, high, inside in histogram.buckets:
            counts[low, high] = counts.get((low, high), 0.0) + inside
    return Histogram(_without_overlap(counts), count, sum_s)


def _inside(low: float, high: float, share: float) -> float:
    """Return the point of a bucket below which ``share`` of its requests lie."""
    if math.isinf(high):
        return low
    if low <= 0:
        return max(0.0, low + share * (high - low))
    return float(low * (high / low) ** share)


def _share_below(low: float, high: float, at: float) -> float:
    """Return the share of a bucket's requests that took ``at`` seconds or less; the inverse of :func:`_inside`."""
    if at >= high:
        return 1.0
    if at <= low or math.isinf(high):
        return 0.0
    if low <= 0:
        return (at - low) / (high - low)
    return math.log(at / low) / math.log(high / low)


def _without_overlap(counts: Mapping[tuple[float, float], float]) -> tuple[Bucket, ...]:
    """Return sorted buckets; where a source halved its resolution, wide buckets are split at the narrow ones' edges."""
    ordered = [(low, high, count) for (low, high), count in sorted(counts.items()) if count > 0]
    if all(before[1] <= after[0] for before, after in pairwise(ordered)):
        return tuple(ordered)
    edges = sorted({edge for low, high, _ in ordered for edge in (low, high)})
    split: dict[tuple[float, float], float] = {}
    for low, high, count in ordered:
        for part_low, part_high, share in _parts(low, high, edges):
            split[part_low, part_high] = split.get((part_low, part_high), 0.0) + share * count
    return tuple((low, high, count) for (low, high), count in sorted(split.items()) if count > 0)


def _parts(low: float, high: float, edges: list[float]) -> Iterator[Bucket]:
    for part_low, part_high in pairwise(edges[bisect_left(edges, low) : bisect_right(edges, high)]):
        yield part_low, part_high, _share_below(low, high, part_high) - _share_below(low, high, part_low)
