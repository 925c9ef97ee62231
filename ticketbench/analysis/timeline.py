"""A trial second by second: what the report's figures draw."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ticketbench.model import Scenario, Schedule

if TYPE_CHECKING:
    from ticketbench.analysis.series import Array, Labels, Series
    from ticketbench.store import HistogramRow, TrialData

# A row of the histograms belongs to the second of the series whose end is nearest, and their clocks are the same.
_SAME_SECOND_S: Final = 0.5


@dataclass(frozen=True)
class Timeline:
    """Per-second figures of one trial; all lists have the length of ``t_s``, None where nothing was measured.

    ``t_s`` counts from the window's start (warm-up is negative). Latencies are of successful answers in seconds,
    quantiles of each second's own histogram. Rates are per second, ratios 0 to 1. ``utilisation`` and ``queue`` are
    keyed like ``Signals.saturation``.
    """

    trial: str
    variant: str
    window_s: float
    t_s: list[float]
    offered_per_s: list[float | None]
    achieved_per_s: list[float | None]
    goodput_per_s: list[float | None]
    p50_s: list[float | None]
    p95_s: list[float | None]
    p99_s: list[float | None]
    error_ratio: list[float | None]
    utilisation: dict[str, list[float | None]] = field(default_factory=dict)
    queue: dict[str, list[float | None]] = field(default_factory=dict)


def timeline(trial: "TrialData", schedule: Schedule, scenario: Scenario) -> Timeline | None:
    """Return the trial second by second, or None where it has no window or nothing was stored of it.

    Starts with k6's execution. Requests of the schedule's warm-up scenarios never count, so before the window only a
    warm-up by time (a steady shape) shows traffic; utilisation is shown all along. A second without a request has rate
    0 and no latency where k6 was measured at all. Rates follow k6's series, which lag the app's by about a second.
    """
    window = trial.record.window
    if window is None or (trial.series is None and trial.histograms is None):
        return None
    import numpy as np  # heavy, and the record above is wanted without it

    from ticketbench.analysis.series import Series

    series = Series(trial.series)
    rows = [row for row in trial.histograms or () if row.scenario not in schedule.warmup_scenarios]
    first = window.start_s - schedule.window_start_s
    ends = _seconds(series.t, rows, first, window.end_s + 1.0)
    if len(ends) < 1:
        return None
    edges = np.concatenate([[ends[0] - 1.0], ends])
    good = [row for row in rows if _is_goal(row, scenario)]
    failed = [row for row in rows if not row.expected]
    quantiles = _quantiles(good, ends)
    usages = _usages(trial, series, edges, schedule)
    measured = trial.histograms is not None
    counts = _counts(rows, ends)
    return Timeline(
        trial=trial.record.trial.id,
        variant=trial.record.trial.variant,
        window_s=window.duration_s,
        t_s=[float(end - window.start_s) for end in ends],
        offered_per_s=_offered(schedule, [float(end - first) for end in ends]),
        achieved_per_s=_plain(series.increase("k6.iterations", edges, _counts_for(schedule)) / np.diff(edges)),
        goodput_per_s=[value if measured else None for value in _counts(good, ends)],
        p50_s=[of[0] for of in quantiles],
        p95_s=[of[1] for of in quantiles],
        p99_s=[of[2] for of in quantiles],
        error_ratio=[bad / all_ if all_ > 0 else None for bad, all_ in zip(_counts(failed, ends), counts, strict=True)],
        utilisation={name: _plain(busy) for name, (busy, _) in usages.items() if not np.isnan(busy).all()},
        queue={name: _plain(waiting) for name, (_, waiting) in usages.items() if not np.isnan(waiting).all()},
    )


def _is_goal(row: "HistogramRow", scenario: Scenario) -> bool:
    return row.expected and row.status.startswith("2") and scenario.goal in (None, row.route)


def _counts_for(schedule: Schedule) -> "Callable[[Labels], bool]":
    def where(labels: "Labels") -> bool:
        return labels.get("scenario", "") not in schedule.warmup_scenarios

    return where


def _seconds(t: "Array", rows: "Iterable[HistogramRow]", first: float, last: float) -> "Array":
    """Return the ends of the seconds to show: the rows of the series, or where there is none the histograms'."""
    import numpy as np

    ends = t if len(t) else np.unique(np.array([row.t for row in rows], dtype=float))
    return np.asarray(ends[(ends > first) & (ends <= last)], dtype=np.float64)


def _at(row: "HistogramRow", ends: "Array") -> int | None:
    import numpy as np

    index = int(np.argmin(np.abs(ends - row.t)))
    return index if abs(float(ends[index]) - row.t) <= _SAME_SECOND_S else None


def _counts(rows: "Iterable[HistogramRow]", ends: "Array") -> list[float]:
    counts = [0.0] * len(ends)
    for row in rows:
        index = _at(row, ends)
        if index is not None:
            counts[index] += row.count
    return counts


def _quantiles(rows: "Iterable[HistogramRow]", ends: "Array") -> list[tuple[float | None, float | None, float | None]]:
    from ticketbench.analysis.histogram import merge_rows

    by_second: list[list[HistogramRow]] = [[] for _ in ends]
    for row in rows:
        index = _at(row, ends)
        if index is not None:
            by_second[index].append(row)
    histograms = [merge_rows(of) for of in by_second]
    return [(h.quantile(0.50), h.quantile(0.95), h.quantile(0.99)) for h in histograms]


def _offered(schedule: Schedule, ends: "Iterable[float]") -> list[float | None]:
    from ticketbench.analysis.signals import offered_iterations

    if not schedule.open_model:
        return [None for _ in ends]
    return [offered_iterations(schedule, end - 1.0, end) for end in ends]


def _usages(
    trial: "TrialData", series: "Series", edges: "Array", schedule: Schedule
) -> "dict[str, tuple[Array, Array]]":
    import numpy as np

    from ticketbench.analysis.resources import Machine, saturation

    # The machine's cores are the seconds of all modes per second: the record of the run is not needed to draw it.
    whole = np.array([edges[0], edges[-1]])
    cores = series.increase("host_cpu_s", whole)[0] / (whole[1] - whole[0])
    workers = trial.record.levels.get("workers", 1)
    machine = Machine(
        cores=1 if np.isnan(cores) else max(1, round(float(cores))),
        workers=int(workers) if isinstance(workers, int | float) else 1,
        max_vus=schedule.max_vus,
    )
    return {name: (usage.utilisation, usage.queue) for name, usage in saturation(series, edges, machine).items()}


def _plain(values: "Array") -> list[float | None]:
    return [None if value != value else float(value) for value in values]  # NaN is not itself
