"""From Prometheus's answers to the columns of series.csv.gz.

What was not measured stays empty (NaN): nothing here invents a value. The one thing that is filled is a gap of one
worker's counter while others go on, for the sum over workers must not fall because one scrape was late.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from ticketbench.collecting.naming import column, sampler_column, target_column
from ticketbench.collecting.prometheus import Answer

if TYPE_CHECKING:
    import pandas as pd

Values = NDArray[np.float64]

# What Prometheus adds to whatever it scrapes; `job` is also the sampler's own.
_PLUMBING: Final = frozenset({"__name__", "instance", "job"})


# The sampler pushes each second; what is older than this is not the present. Longer than a push may be late on an
# overloaded machine, which is when its figures matter most.
_SILENT_S: Final = 5.0
# Servers that only some variants have, and how many rows around a reading of one its figures are of the present.
_COMPANIONS: Final = ("pgbouncer", "haproxy", "payment")
_NEAR_ROWS: Final = 3


class Frame:
    """The columns in the making: ``rows`` rows from ``first_s`` (Unix seconds) on, one each ``step_s``.

    Prometheus is asked ``shift_s`` after each row's time.
    """

    def __init__(self, first_s: float, rows: int, step_s: float, shift_s: float) -> None:
        self._first_s = first_s
        self.rows = rows
        self._step_s = step_s
        self._shift_s = shift_s
        self._columns: dict[str, Values] = {}

    @property
    def columns(self) -> Iterable[str]:
        """The columns so far."""
        return self._columns

    def row(self, t: float) -> int:
        """Return the row that an evaluation at ``t`` belongs to."""
        return round((t - self._shift_s - self._first_s) / self._step_s)

    def row_after(self, t: float) -> int:
        """Return the first row that knows a sample taken at ``t``."""
        return math.ceil((t - self._shift_s - self._first_s) / self._step_s - 1e-6)

    def time(self, row: int) -> float:
        """Return the Unix seconds of a row."""
        return self._first_s + row * self._step_s

    def values(self, answer: Answer) -> Values:
        """Return an evaluated answer as one value for each row, NaN where it has none."""
        return self._placed(((self.row(float(t)), float(text)) for t, text in answer.get("values", ())))

    def samples(self, samples: Iterable[tuple[float, float]]) -> Values:
        """Return samples (time, value), oldest first, as the newest that each row knows, NaN where none is new."""
        return self._placed((self.row_after(t), value) for t, value in samples)

    def _placed(self, rows: Iterable[tuple[int, float]]) -> Values:
        values = np.full(self.rows, np.nan)
        for row, value in rows:
            if 0 <= row < self.rows:
                values[row] = value
        return values

    def add(self, name: str, values: Values) -> None:
        """Add a column, or add up with what it holds; two series have a sum where either is known."""
        known = self._columns.get(name)
        if known is None:
            self._columns[name] = values
        else:
            self._columns[name] = np.where(np.isnan(known), values, known + np.nan_to_num(values))

    def pandas(self) -> "pd.DataFrame":
        """Return the frame, columns sorted, index ``t`` in Unix seconds. Columns without any value are left out."""
        import pandas as pd  # heavy

        kept = {name: v for name, v in sorted(self._columns.items()) if not np.isnan(v).all()}
        t = self._first_s + self._step_s * np.arange(self.rows)
        return pd.DataFrame(kept, index=pd.Index(t, name="t", dtype=float))


def forward(values: Values, until: int) -> Values:
    """Return ``values`` with each gap after the first one filled by what came before, up to row ``until`` inclusive."""
    known = np.flatnonzero(~np.isnan(values))
    if not len(known):
        return values
    filled = values.copy()
    rows = np.arange(len(values))
    last = np.maximum.accumulate(np.where(np.isnan(values), -1, rows))
    inside = (last >= 0) & (rows <= until)
    filled[inside] = values[last[inside]]
    return filled


def continued(values: Values) -> Values:
    """Return a counter of one process without the fall that its restart makes; gaps stay gaps."""
    known = np.flatnonzero(~np.isnan(values))
    if len(known) < 2:
        return values
    seen = values[known]
    lost = np.where(np.diff(seen) < 0, seen[:-1], 0.0)
    lifted = values.copy()
    lifted[known[1:]] += np.cumsum(lost)
    return lifted


def add_counters(frame: Frame, counters: Iterable[tuple[str, Values]]) -> None:
    """Add named counters of one source, those that share a name summed.

    Each goes on with its last value until the last row in which any of them has one: the source's end.
    """
    ready = [(name, continued(values)) for name, values in counters]
    end = max((int(np.flatnonzero(~np.isnan(v))[-1]) for _, v in ready if not np.isnan(v).all()), default=-1)
    for name, values in ready:
        frame.add(name, forward(values, end))


def add_gauges(frame: Frame, answers: Iterable[Answer], name: Callable[[Answer], str]) -> None:
    """Add gauges, those that share a name summed."""
    for answer in answers:
        frame.add(name(answer), frame.values(answer))


def _labels(metric: Mapping[str, str]) -> dict[str, str]:
    return {label: value for label, value in metric.items() if label not in _PLUMBING}


# Of the whole queue, whichever of its workers tells: summed they would count it once for each.
_OF_ALL: Final = frozenset({"target_queue_length", "target_queue_oldest_seconds"})


def add_target(frame: Frame, answers: Iterable[Answer], group: str) -> None:
    """Add the metrics of the target's processes, summed over them, and ``up``, how many of them were scraped.

    ``group`` is ``app``, the workers of the sale, or ``worker``, those of the queue; columns begin with it.
    """
    answers = list(answers)
    counters: list[Answer] = []
    gauges: list[Answer] = []
    workers = set()
    for answer in answers:
        metric = answer["metric"]["__name__"]
        if metric.startswith("target_"):
            workers.add(answer["metric"].get("instance"))
        if metric != "up":
            is_counter = metric.endswith(("_total", "_sum", "_count"))
            (counters if is_counter else gauges).append(answer)

    def name(answer: Answer) -> str:
        return column(target_column(answer["metric"]["__name__"], group), _labels(answer["metric"]))

    add_counters(frame, ((name(answer), frame.values(answer)) for answer in counters))
    one_for_all = [answer for answer in gauges if answer["metric"]["__name__"] in _OF_ALL]
    add_gauges(frame, (answer for answer in gauges if answer not in one_for_all), name)
    for metric in _OF_ALL:
        told = [frame.values(answer) for answer in one_for_all if answer["metric"]["__name__"] == metric]
        if told:
            frame.add(target_column(metric, group), np.fmax.reduce(told))
    ups = [a for a in answers if a["metric"]["__name__"] == "up" and a["metric"].get("instance") in workers]
    add_gauges(frame, ups, lambda _: f"{group}.up")


def add_sampler(frame: Frame, answers: Iterable[Answer], taken: Iterable[Answer], absent: Collection[str] = ()) -> None:
    """Add the sampler's metrics; ``taken`` is the time of its newest sample in each row.

    There is one sampler, so nothing is summed and no gap is filled. Unlike a scrape that fails, a sampler that ends
    leaves no mark behind, and Prometheus repeats its last figures for minutes: rows with such old ones are left empty.
    So are those of PgBouncer and HAProxy, which another variant had, where they were not read. Components that are
    ``absent`` have no series: another variant had them.
    """
    silent = np.ones(frame.rows, dtype=bool)
    for answer in taken:
        for t, at_s in answer.get("values", ()):
            if float(t) - float(at_s) <= _SILENT_S:
                silent[frame.row(float(t))] = False
    answers = list(answers)
    unread = {name: _unread(frame, answers, name) for name in _COMPANIONS}
    for answer in answers:
        metric = answer["metric"]["__name__"]
        if answer["metric"].get("component") in absent:
            continue
        values = frame.values(answer)
        values[silent] = np.nan
        for name in _COMPANIONS:
            of = (answer["metric"].get("component"), answer["metric"].get("what", "").removeprefix("container "))
            if metric.startswith(f"tb_{name}_") or name in of:
                values[unread[name]] = np.nan
        frame.add(column(sampler_column(metric), _labels(answer["metric"])), values)


def _unread(frame: Frame, answers: Iterable[Answer], name: str) -> NDArray[np.bool_]:
    """Return the rows in whose neighbourhood the sampler has not read the figures of a companion."""
    alive = np.zeros(frame.rows, dtype=bool)
    for answer in answers:
        if answer["metric"]["__name__"] == "tb_sampler_ticks_total" and answer["metric"].get("what") == name:
            ticks = frame.values(answer)
            for row in np.flatnonzero(np.diff(ticks) > 0):
                alive[max(0, row + 1 - _NEAR_ROWS) : row + 2 + _NEAR_ROWS] = True
    return ~alive
