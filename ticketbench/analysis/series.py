"""The columns of a trial's series as increases of counters and means of gauges over intervals.

Every figure is an array with one value for each interval between neighbouring ``edges`` (Unix seconds), NaN where it is
not known: a trial's window is two edges, a figure of it second by second is many. Nothing missing becomes a zero.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
Labels = Mapping[str, str]
Where = Callable[[Labels], bool]

# Where samples cover less than this share of an interval, its figure is unknown instead of extrapolated. Half: a scrape
# a second leaves a whole window covered but for its edges, and a dead source is found within half of the interval.
LEAST_COVERAGE: Final = 0.5

# Labels of totals that exist from the start of a process or of the machine. Other labelled counters count events: their
# column appears with the first event, so what came before it is zero. Without the difference a process's CPU time since
# its birth would count as used in the window.
_TOTALS_BY: Final = frozenset({"component", "mode", "kind", "resource"})
# Scrapes further apart than this are somebody else's: a scrape of ours that fails leaves a gap of two seconds.
COARSE_S: Final = 3.0
LEAST_SAMPLES: Final = 2
_NEXT_LABEL: Final = re.compile(r",(?=[A-Za-z_][A-Za-z0-9_]*=)")


def parse_column(column: str) -> tuple[str, dict[str, str]]:
    """Split ``name{label=value,label=value}``; values may hold braces and commas that no ``label=`` follows."""
    name, brace, rest = column.partition("{")
    if not brace or not rest.endswith("}"):
        return column, {}
    pairs = (part.partition("=") for part in _NEXT_LABEL.split(rest[:-1]))
    return name, {label: value for label, _, value in pairs}


class Series:
    """The series of one trial. ``None`` stands for a trial without any: all its figures are unknown."""

    def __init__(self, frame: "pd.DataFrame | None") -> None:
        self._columns: dict[str, list[tuple[dict[str, str], Array]]] = {}
        self.t: Array = np.empty(0)
        if frame is None or frame.empty:
            return
        self.t = frame.index.to_numpy(dtype=float)
        for column in frame.columns:
            values = frame[column].to_numpy(dtype=float)
            if not np.isnan(values).all():
                name, labels = parse_column(str(column))
                self._columns.setdefault(name, []).append((labels, values))

    def names(self) -> frozenset[str]:
        """Return the names that have a value anywhere."""
        return frozenset(self._columns)

    def has(self, name: str, where: Where | None = None) -> bool:
        """Return whether any column of this name (and these labels) has a value."""
        return any(True for _ in self._matching(name, where))

    def labels(self, name: str) -> tuple[dict[str, str], ...]:
        """Return the label sets of a name."""
        return tuple(labels for labels, _ in self._columns.get(name, []))

    def _matching(self, name: str, where: Where | None) -> Iterator[tuple[dict[str, str], Array]]:
        return ((labels, v) for labels, v in self._columns.get(name, []) if where is None or where(labels))

    def increase(self, name: str, edges: Array, where: Where | None = None) -> Array:
        """Return by how much the counters of ``name`` grew in each interval, summed over the matching columns.

        Counters never fall: a dip (one worker's scrape failed) is bridged. Between samples growth is taken as even. NaN
        where no column matches, or where too little of the interval was sampled.
        """
        found = [self._growth(name, labels, values, edges) for labels, values in self._matching(name, where)]
        if not found:
            return np.full(len(edges) - 1, np.nan)
        stacked = np.vstack(found)
        known = ~np.isnan(stacked)
        return np.where(known.any(axis=0), np.where(known, stacked, 0.0).sum(axis=0), np.nan)

    def _growth(self, name: str, labels: Labels, values: Array, edges: Array) -> Array:
        known = ~np.isnan(values)
        t, total = self.t[known], np.maximum.accumulate(values[known])
        gap_s = float(np.median(np.diff(t))) if len(t) > 1 else 0.0
        coarse = gap_s > COARSE_S
        if coarse and len(edges) == 2 and ((t >= edges[0]) & (t <= edges[1])).sum() < LEAST_SAMPLES:
            return np.full(1, np.nan)  # a window with so few samples would get the figure of another time
        if _counts_events(name, labels):
            if not known[0]:
                before = [self.t[0], t[0] - 1.0] if t[0] - 1.0 > self.t[0] else [self.t[0]]
                t, total = np.insert(t, 0, before), np.insert(total, 0, np.zeros(len(before)))
            grown = np.diff(np.interp(edges, t, total))
            # no news of events for a second or two is that there were none; for longer than a scrape it is nothing
            return np.where(edges[1:] > t[-1] + gap_s, np.nan, grown) if coarse else grown
        low, high = np.clip(edges[:-1], t[0], t[-1]), np.clip(edges[1:], t[0], t[-1])
        length, covered = np.diff(edges), high - low
        enough = (covered > 0) & (covered >= LEAST_COVERAGE * length)
        grown = np.interp(high, t, total) - np.interp(low, t, total)
        return np.where(enough, grown * length / np.where(enough, covered, 1.0), np.nan)

    def highest(self, name: str, edges: Array, where: Where | None = None) -> float | None:
        """Return the highest sample between the first and last edge, summed over the matching columns, or None."""
        inside = (self.t > edges[0]) & (self.t <= edges[-1])
        values = self._sum(name, where)[inside]
        return None if np.isnan(values).all() else float(np.nanmax(values))

    def pairs(self, name: str, by: str, where: Where | None = None) -> list[tuple[float, float]]:
        """Return the samples of two gauges that were taken together, over all that was stored."""
        both = zip(self._sum(name, where), self._sum(by, where), strict=True)
        return [(float(one), float(other)) for one, other in both if not np.isnan(one) and not np.isnan(other)]

    def gauge(self, name: str, edges: Array, where: Where | None = None) -> Array:
        """Return the mean of the samples in each interval, summed over the matching columns; NaN without samples."""
        return self._means(self._sum(name, where), edges)

    def ratio(self, name: str, by: str, edges: Array) -> Array:
        """Return the mean of one gauge over another, sample by sample, where the divisor is not zero."""
        above, below = self._sum(name, None), self._sum(by, None)
        return self._means(quotient(above, below), edges)

    def _sum(self, name: str, where: Where | None) -> Array:
        found = [values for _, values in self._matching(name, where)]
        if not found:
            return np.full(len(self.t), np.nan)
        stacked = np.vstack(found)
        return np.where(np.isnan(stacked).all(axis=0), np.nan, np.nansum(stacked, axis=0))

    def _means(self, values: Array, edges: Array) -> Array:
        known = ~np.isnan(values)
        at = np.searchsorted(edges, self.t[known], side="left") - 1  # the interval (edge, next edge] of each sample
        inside = (at >= 0) & (at < len(edges) - 1)
        sums = np.bincount(at[inside], weights=values[known][inside], minlength=len(edges) - 1)
        counts = np.bincount(at[inside], minlength=len(edges) - 1)
        return quotient(sums.astype(np.float64), counts.astype(np.float64))

    def missed(self, name: str, edges: Array, least: float) -> float:
        """Return the share (0 to 1) of the samples between the first and last edge that miss or are below ``least``."""
        inside = (self.t > edges[0]) & (self.t <= edges[-1])
        values = self._sum(name, None)[inside]
        return float(np.mean(~(values >= least))) if len(values) else 1.0

    def total(self, name: str, where: Where | None = None) -> float | None:
        """Return by how much the counters grew over all that was stored; None where no column matches."""
        if not self.has(name, where):
            return None
        whole = np.array([self.t[0], self.t[-1]])
        return known(self.increase(name, whole, where)[0])


def _counts_events(name: str, labels: Labels) -> bool:
    return name.startswith("k6.") or bool(labels.keys() - _TOTALS_BY)


def quotient(above: Array, below: Array) -> Array:
    """Return ``above / below``, NaN where the divisor is zero or unknown."""
    out: Array = np.full(len(below), np.nan)
    np.divide(above, below, out=out, where=below > 0)
    return out


def known(value: float) -> float | None:
    """Return a plain float, or None for NaN."""
    return None if np.isnan(value) else float(value)
