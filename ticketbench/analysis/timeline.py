"""A trial second by second: what the report's figures draw."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ticketbench.model import Scenario, Schedule

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ticketbench.analysis.series import Array, Labels, Series
    from ticketbench.store import TrialData
    from ticketbench.storing.histograms import Answer, Histograms

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
    finished_per_s: list[float | None]
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

    from ticketbench.analysis.histogram import quantiles_of_each
    from ticketbench.analysis.series import Series
    from ticketbench.storing.histograms import Histograms

    series = Series(trial.series)
    stored = Histograms.of(()) if trial.histograms is None else trial.histograms
    rows = stored.having(lambda answer: answer.scenario not in schedule.warmup_scenarios)
    first = window.start_s - schedule.window_start_s
    ends = _seconds(series.t, rows, first, window.end_s + 1.0)
    if len(ends) < 1:
        return None
    edges = np.concatenate([[ends[0] - 1.0], ends])
    good = rows.having(lambda answer: is_goal(answer, scenario))
    failed = rows.having(lambda answer: not answer.expected)
    second = _seconds_of(good, ends)
    p50, p95, p99 = (_plain(quantiles_of_each(good, second, len(ends), q)) for q in (0.50, 0.95, 0.99))
    usages = _usages(trial, series, edges, schedule)
    measured = trial.histograms is not None
    counts = _counts(rows, ends)
    return Timeline(
        trial=trial.record.trial.id,
        variant=trial.record.trial.variant,
        window_s=window.duration_s,
        t_s=[float(end - window.start_s) for end in ends],
        offered_per_s=_offered(schedule, [float(end - first) for end in ends]),
        finished_per_s=_plain(series.increase("k6.iterations", edges, _counts_for(schedule)) / np.diff(edges)),
        goodput_per_s=[value if measured else None for value in _counts(good, ends)],
        p50_s=p50,
        p95_s=p95,
        p99_s=p99,
        error_ratio=[bad / all_ if all_ > 0 else None for bad, all_ in zip(_counts(failed, ends), counts, strict=True)],
        utilisation={name: _plain(busy) for name, (busy, _) in usages.items() if not np.isnan(busy).all()},
        queue={name: _plain(waiting) for name, (_, waiting) in usages.items() if not np.isnan(waiting).all()},
    )


def is_goal(answer: "Answer", scenario: Scenario) -> bool:
    """Tell whether an answer counts as goodput."""
    return answer.expected and answer.status.startswith("2") and scenario.goal in (None, answer.route)


def _counts_for(schedule: Schedule) -> "Callable[[Labels], bool]":
    def where(labels: "Labels") -> bool:
        return labels.get("scenario", "") not in schedule.warmup_scenarios

    return where


def _seconds(t: "Array", rows: "Histograms", first: float, last: float) -> "Array":
    """Return the ends of the seconds to show: the rows of the series, or where there is none the histograms'."""
    import numpy as np

    ends = t if len(t) else np.unique(rows.t)
    return np.asarray(ends[(ends > first) & (ends <= last)], dtype=np.float64)


def _seconds_of(rows: "Histograms", ends: "Array") -> "NDArray[np.int64]":
    """Return for each row the second that it belongs to, as a number of ``ends``; -1 for one that is not shown."""
    import numpy as np

    after = np.clip(np.searchsorted(ends, rows.t), 0, len(ends) - 1)
    before = np.maximum(after - 1, 0)
    nearest = np.where(np.abs(ends[before] - rows.t) <= np.abs(ends[after] - rows.t), before, after)
    return np.where(np.abs(ends[nearest] - rows.t) <= _SAME_SECOND_S, nearest, -1).astype(np.int64)


def _counts(rows: "Histograms", ends: "Array") -> list[float]:
    import numpy as np

    second = _seconds_of(rows, ends)
    counts: list[float] = np.bincount(
        second[second >= 0], weights=rows.count[second >= 0], minlength=len(ends)
    ).tolist()
    return counts


def _offered(schedule: Schedule, ends: "Iterable[float]") -> list[float | None]:
    from ticketbench.analysis.signals import offered_iterations

    if not schedule.open_model:
        return [None for _ in ends]
    return [offered_iterations(schedule, end - 1.0, end) for end in ends]


def _usages(
    trial: "TrialData", series: "Series", edges: "Array", schedule: Schedule
) -> "dict[str, tuple[Array, Array]]":
    import numpy as np

    from ticketbench.analysis.resources import Machine, limits_of, saturation, workers_of

    # The machine's cores are the seconds of all modes per second: the record of the run is not needed to draw it.
    whole = np.array([edges[0], edges[-1]])
    cores = series.increase("host_cpu_s", whole)[0] / (whole[1] - whole[0])
    known_cores = 1 if np.isnan(cores) else max(1, round(float(cores)))
    machine = Machine(
        cores=known_cores,
        workers=workers_of(trial.record.levels, series, known_cores),
        max_vus=schedule.max_vus,
        limits=limits_of(trial.record.levels),
    )
    return {name: (usage.utilisation, usage.queue) for name, usage in saturation(series, edges, machine).items()}


def _plain(values: "Array") -> list[float | None]:
    return [None if value != value else float(value) for value in values]  # NaN is not itself
