"""Native histograms: from what Prometheus holds, cumulative over time, to the requests of each second.

A bucket is (lower, upper, count), lower exclusive, its count not cumulative over buckets. Resolutions are nested: a
coarser layout's bounds are among the finer one's, so counts move from finer to coarser without error.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

Bucket = tuple[float, float, float]

# Bounds come as decimal text; two bounds closer than this, relative to their size, are the same.
_SAME: Final = 1e-9
# What is left of a bucket after a subtraction of two equal sums of counts.
_NOTHING: Final = 1e-6


@dataclass(frozen=True)
class Histogram:
    """How many took how long, and their sum in seconds."""

    count: float = 0.0
    sum_s: float = 0.0
    buckets: tuple[Bucket, ...] = field(default=())

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Self:
        """Read Prometheus's JSON: ``{"count", "sum", "buckets": [[boundary rule, lower, upper, count], ...]}``.

        The bucket around zero, closed on both sides, holds what took no measurable time: it becomes (0, its bound).
        Raises KeyError or ValueError for anything else.
        """
        buckets = []
        for _, lower, upper, count in raw.get("buckets") or ():
            buckets.append((max(float(lower), 0.0), float(upper), float(count)))
        return cls(float(raw["count"]), float(raw["sum"]), tuple(sorted(buckets)))

    def since(self, earlier: "Histogram") -> "Histogram":
        """Return what came after ``earlier``. Fewer than before means that counting began anew: all of it is new."""
        if self.count < earlier.count:
            return self
        merged: dict[tuple[float, float], float] = {}
        for low, high, count in _in_layout_of(self.buckets, earlier.buckets):
            merged[low, high] = merged.get((low, high), 0.0) + count
        for low, high, count in _in_layout_of(earlier.buckets, tuple((*bounds, 0.0) for bounds in merged)):
            merged[low, high] = merged.get((low, high), 0.0) - count
        kept = tuple((low, high, count) for (low, high), count in sorted(merged.items()) if count > _NOTHING)
        return Histogram(self.count - earlier.count, self.sum_s - earlier.sum_s, kept)

    def plus(self, other: "Histogram") -> "Histogram":
        """Return the requests of both."""
        merged: dict[tuple[float, float], float] = {}
        for low, high, count in _in_layout_of(self.buckets, other.buckets):
            merged[low, high] = merged.get((low, high), 0.0) + count
        for low, high, count in _in_layout_of(other.buckets, tuple((*bounds, 0.0) for bounds in merged)):
            merged[low, high] = merged.get((low, high), 0.0) + count
        return Histogram(
            self.count + other.count, self.sum_s + other.sum_s, tuple((*key, n) for key, n in sorted(merged.items()))
        )


def _in_layout_of(buckets: Sequence[Bucket], other: Sequence[Bucket]) -> Iterable[Bucket]:
    """Yield ``buckets``, each widened to the bucket of ``other`` that encloses it, if there is one."""
    uppers = [upper for _, upper, _ in other]
    for low, high, count in buckets:
        at = bisect_left(uppers, high * (1 - _SAME))
        if at < len(other) and other[at][0] <= low * (1 + _SAME) + 1e-300:
            yield other[at][0], other[at][1], count
        else:
            yield low, high, count
