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

from ticketbench.conclusions import Latency

if TYPE_CHECKING:
    from ticketbench.store import HistogramRow

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


def merge_rows(rows: "Iterable[HistogramRow]") -> Histogram:
    """Return one histogram of all ``rows``."""
    counts: dict[tuple[float, float], float] = {}
    count = sum_s = 0.0
    for row in rows:
        count += row.count
        sum_s += row.sum_s
        for low, high, inside in row.buckets:
            counts[low, high] = counts.get((low, high), 0.0) + inside
    return Histogram(_without_overlap(counts), count, sum_s)


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
