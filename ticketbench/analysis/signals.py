"""The golden signals of one trial within its window: latency, traffic, errors, saturation.

Which requests count: those of all k6 scenarios but the schedule's warm-up ones. They are told apart by name, so nothing
is cut by time and the slowest answers, which come in after the last arrival, are never lost. Only a steady script whose
warm-up is a time of the same k6 scenario is cut to the window.

What a rate is taken over: a transient's is the whole event up to its last answer. A steady one's is the time in which
the flow is even, whole seconds from :data:`EDGE_S` after the window's start to its end: the first journeys wait for
their jitter, and k6's series lag, so the first seconds show too little and those after the end too much. Where those
seconds show more than all requests over the scheduled window, they cleared work that had piled up before, as after a
warm-up that was too much for the system: then it is the latter, so that goodput never exceeds what was offered.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ticketbench.analysis.histogram import EMPTY, Histogram, merge_rows
from ticketbench.analysis.resources import Machine, label, limits_of, queue_of, saturation, workers_of
from ticketbench.analysis.series import Array, Labels, Series, Where, known
from ticketbench.conclusions import Errors, Saturation, Signals, Traffic
from ticketbench.model import RunRecord, Scenario, Schedule, Window

if TYPE_CHECKING:
    from ticketbench.store import TrialData
    from ticketbench.storing.histograms import Answer, Histograms

# k6's series lag by about a second: a push brings what was seen since the one before, stamped with its end.
K6_LAG_S: Final = 1.0

# Seconds after the start of a steady window until k6's series show the even flow: a second of jitter before each
# journey, and the lag.
EDGE_S: Final = 2.0

# k6's error codes (documented by k6 under "error codes"), in the words that a report uses. Codes that only repeat the
# HTTP status (1400 to 1599) are told by the status itself.
_TRANSPORT_ERRORS: Final = {
    "1010": "network error",
    "1020": "invalid URL",
    "1050": "time-out",
    "1100": "DNS error",
    "1101": "no such host",
    "1110": "blocked address",
    "1111": "blocked host name",
    "1200": "TCP error",
    "1201": "broken pipe",
    "1210": "dial error",
    "1211": "dial time-out",
    "1212": "connection refused",
    "1213": "dial error",
    "1220": "connection reset",
    "1300": "TLS error",
    "1310": "certificate not trusted",
    "1311": "certificate of another host",
}


@dataclass(frozen=True)
class RouteData:
    """One method and route: how its requests ended, and the durations of the good and the failed ones apart.

    A right answer that did nothing (409) is in neither of the two: it is fast, and would flatter the good ones.
    """

    method: str
    name: str
    by_status: dict[str, int]
    failed: int
    unexpected_404: int
    good: Histogram
    bad: Histogram

    @property
    def requests(self) -> int:
        """All requests of the route."""
        return sum(self.by_status.values())


@dataclass(frozen=True)
class Measurement:
    """What one trial comes to, before it is judged. ``latency`` is of the successful goal requests.

    ``goal_ended`` counts the goal requests by what they came to, the most frequent first: a status, or what went wrong.
    ``offered`` and ``started`` are iterations of the window (None: a closed model, or not measured).
    """

    signals: Signals
    routes: tuple[RouteData, ...]
    latency: Histogram
    everything: Histogram
    per_request: dict[str, float]
    sold_out_after_s: float | None
    window_s: float
    requests: int
    failed: int
    goal_requests: int
    goal_ended: dict[str, int]
    offered: float | None
    started: float | None


def machine_of(run: RunRecord, schedule: Schedule, levels: dict[str, int | float | str], series: Series) -> Machine:
    """Return what utilisation is measured against in this trial."""
    cores = max(1, run.environment.cores)
    workers = workers_of(levels, series, cores)
    queue_workers, queue_slots = queue_of(levels)
    return Machine(cores, workers, schedule.max_vus, limits_of(levels), queue_workers, queue_slots)


def measure(trial: "TrialData", run: RunRecord) -> Measurement | None:
    """Return what the trial measured, or None for one that did not come as far as its window."""
    window = trial.record.window
    schedule = run.plan.schedules.get(trial.record.trial.variant)
    if window is None or schedule is None or window.duration_s <= 0:
        return None
    scenario = run.plan.scenario_of(trial.record.trial.variant)
    series = Series(trial.series)
    everything = _histograms(trial)
    rows = counted_rows(everything, scenario, schedule, window)
    even = even_flow(window, schedule) if scenario.shape == "steady" else None
    goal = rows if scenario.goal is None else rows.having(lambda answer: answer.route == scenario.goal)
    good = goal.having(is_success)
    latency = merge_rows(good)
    traffic = _Traffic(series, scenario, schedule, window, even)
    measured = trial.histograms is not None
    errors = _errors(rows, measured=measured)
    return Measurement(
        signals=Signals(
            latency_s=latency.latency(),
            traffic=traffic.signals(rows, good, measured=measured),
            errors=errors,
            saturation=_saturation(series, window, machine_of(run, schedule, trial.record.levels, series)),
        ),
        routes=tuple(_routes(rows)),
        latency=latency,
        everything=merge_rows(everything),
        per_request=_per_request(series, window, rows.having(lambda answer: answer.status != "0"), even),
        sold_out_after_s=_sold_out_after_s(rows, window),
        window_s=window.duration_s,
        requests=_total(rows),
        failed=sum(errors.by_kind.values()),
        goal_requests=_total(goal),
        goal_ended=_ended(goal),
        offered=traffic.offered,
        started=traffic.started,
    )


# --- which requests count ---------------------------------------------------------------------------------------------


def scheduled_s(schedule: Schedule) -> float:
    """Return the length of the window as planned, in seconds."""
    return schedule.window_end_s - schedule.window_start_s


def even_flow(window: Window, schedule: Schedule) -> tuple[float, float] | None:
    """Return the (start, end) between whole seconds in which a steady trial's flow is even; None if there is none."""
    end = math.floor(min(window.end_s, window.start_s + scheduled_s(schedule)))
    start = math.ceil(window.start_s + EDGE_S)
    return (float(start), float(end)) if end > start else None


def _histograms(trial: "TrialData") -> "Histograms":
    from ticketbench.storing.histograms import Histograms

    return Histograms.of(()) if trial.histograms is None else trial.histograms


def _total(rows: "Histograms") -> int:
    return round(float(rows.count.sum()))


def counted_rows(rows: "Histograms", scenario: Scenario, schedule: Schedule, window: Window) -> "Histograms":
    """Return the rows whose requests count; see the module's docstring."""
    counts = rows.where(lambda answer: answer.scenario not in schedule.warmup_scenarios)
    if _warms_up_by_time(scenario, schedule):
        counts &= (rows.t > window.start_s + K6_LAG_S) & (rows.t <= window.end_s + K6_LAG_S)
    return rows.only(counts)


def _warms_up_by_time(scenario: Scenario, schedule: Schedule) -> bool:
    return scenario.shape == "steady" and not schedule.warmup_scenarios and schedule.window_start_s > 0


def is_success(answer: "Answer") -> bool:
    """Return whether such an answer did what was asked: 2xx, and expected by the script."""
    return answer.expected and answer.status.startswith("2")


def error_kind(answer: "Answer") -> str:
    """Return the word for a failed request: its HTTP status, or what went wrong on the way."""
    if answer.status not in ("", "0"):
        return answer.status
    if answer.error in _TRANSPORT_ERRORS:
        return _TRANSPORT_ERRORS[answer.error]
    return f"k6 error {answer.error}" if answer.error else "no answer"


# --- traffic ----------------------------------------------------------------------------------------------------------


def offered_iterations(schedule: Schedule, start_s: float, end_s: float) -> float:
    """Return how many iterations the slopes offer between two times (seconds from the start of k6's execution)."""
    total = 0.0
    for slope in schedule.offered:
        low, high = max(start_s, slope.start_s), min(end_s, slope.end_s)
        length = slope.end_s - slope.start_s
        if high > low and length > 0:
            middle = ((low + high) / 2 - slope.start_s) / length
            total += (high - low) * (slope.from_per_s + middle * (slope.to_per_s - slope.from_per_s))
    return total


class _Traffic:
    """Iterations and requests of one trial as rates. ``even``: the time in which a steady trial's flow is even."""

    def __init__(
        self,
        series: Series,
        scenario: Scenario,
        schedule: Schedule,
        window: Window,
        even: tuple[float, float] | None,
    ) -> None:
        self._window = window
        self._even = even
        # An interrupted trial ends before its scheduled window does: only what was due by then was offered.
        self._load_s = min(window.duration_s, scheduled_s(schedule))
        first = schedule.window_start_s
        self.offered = offered_iterations(schedule, first, first + self._load_s) if schedule.open_model else None
        where = _not_warmup(schedule)
        by_time = even if _warms_up_by_time(scenario, schedule) else None
        self.started = self._count(series, "k6.iterations", where, by_time)
        self._dropped = round(self._count(series, "k6.dropped", where, by_time) or 0)

    def _count(self, series: Series, name: str, where: Where, by_time: tuple[float, float] | None) -> float | None:
        """Return a counter's growth over the execution; where only time tells warm-up apart, from its even rate."""
        if by_time is None:
            return series.total(name, where)
        count = known(series.increase(name, np.array(by_time), where)[0])
        return None if count is None else count * self._load_s / (by_time[1] - by_time[0])

    def signals(self, rows: "Histograms", good: "Histograms", *, measured: bool) -> Traffic:
        """Return the rates; None where ``measured`` says that there are no histograms to count requests by."""
        return Traffic(
            offered_per_s=None if self.offered is None else self.offered / self._load_s,
            achieved_per_s=None if self.started is None else self.started / self._load_s,
            goodput_per_s=self._rate(good) if measured else None,
            requests_per_s=self._rate(rows) if measured else None,
            dropped=self._dropped,
            good=_total(good),
        )

    def _rate(self, rows: "Histograms") -> float:
        per_s = _per_s(rows, self._window, self._even)
        # No request that counts lies outside of ``rows``: more a second than this was never asked for.
        return per_s if self._even is None else min(per_s, float(rows.count.sum()) / self._load_s)


def _per_s(rows: "Histograms", window: Window, even: tuple[float, float] | None) -> float:
    """Return requests per second: of the whole event, or in the time of even flow."""
    if even is None:
        return float(rows.count.sum()) / window.duration_s
    inside = (rows.t > even[0]) & (rows.t <= even[1])
    return float(rows.count[inside].sum()) / (even[1] - even[0])


def _not_warmup(schedule: Schedule) -> Where:
    def where(labels: Labels) -> bool:
        return labels.get("scenario", "") not in schedule.warmup_scenarios

    return where


# --- errors, routes, saturation, costs --------------------------------------------------------------------------------


def _by_answer(rows: "Histograms") -> "Iterable[tuple[Answer, int]]":
    """Return each kind of answer that came, with how many requests got it."""
    counts = np.bincount(rows.answer, weights=np.rint(rows.count), minlength=len(rows.answers))
    return ((answer, round(count)) for answer, count in zip(rows.answers, counts.tolist(), strict=True) if count > 0)


def _errors(rows: "Histograms", *, measured: bool) -> Errors:
    by_kind: Counter[str] = Counter()
    answered: Counter[str] = Counter()
    total = float(rows.count.sum())
    for answer, count in _by_answer(rows):
        if not answer.expected:
            by_kind[error_kind(answer)] += count
        elif answer.status[:1] not in ("2", "3"):
            answered[answer.status] += count
    ratio = min(1.0, sum(by_kind.values()) / total) if measured and total > 0 else None
    return Errors(ratio=ratio, by_kind=dict(by_kind.most_common()), answered=dict(answered.most_common()))


def _ended(rows: "Histograms") -> dict[str, int]:
    ended: Counter[str] = Counter()
    for answer, count in _by_answer(rows):
        ended[error_kind(answer)] += count
    return dict(ended.most_common())


def _routes(rows: "Histograms") -> Iterable[RouteData]:
    for route, method in sorted({(answer.route, answer.method) for answer, _ in _by_answer(rows)}):
        of = rows.having(lambda answer, name=(route, method): (answer.route, answer.method) == name)  # type: ignore[misc]
        by_status: Counter[str] = Counter()
        for answer, count in _by_answer(of):
            by_status[answer.status] += count
        failed = of.having(lambda answer: not answer.expected)
        yield RouteData(
            method=method,
            name=route,
            by_status=dict(by_status.most_common()),
            failed=_total(failed),
            unexpected_404=_total(failed.having(lambda answer: answer.status == "404")),
            good=merge_rows(of.having(lambda answer: answer.expected and answer.status[:1] in ("2", "3"))),
            bad=merge_rows(failed) if len(failed) else EMPTY,
        )


def _saturation(series: Series, window: Window, machine: Machine) -> dict[str, Saturation]:
    usages = saturation(series, _edges(window), machine)
    return {
        name: Saturation(
            utilisation=known(usage.utilisation[0]),
            queue=known(usage.queue[0]),
            unit=usage.unit,
            limit_cores=usage.limit_cores,
            throttled=None if usage.throttled is None else known(usage.throttled[0]),
        )
        for name, usage in usages.items()
    }


def _per_request(
    series: Series, window: Window, answered: "Histograms", even: tuple[float, float] | None
) -> dict[str, float]:
    """Return seconds of CPU and of statements per answered request; what was not measured has no key.

    Both are rates, so that a steady window may be a part of the load: CPU per second over answers per second.
    """
    per_s = _per_s(answered, window, even)
    if per_s <= 0:
        return {}
    edges = _edges(window) if even is None else np.array(even)
    length = edges[1] - edges[0]
    spent = {
        f"cpu_{component}_s": known(series.increase("cpu_s", edges, label(component=component))[0] / length)
        for component in ("app", "postgres", "redis", "pgbouncer", "haproxy", "worker", "payment", "k6")
    }
    spent["db_s"] = known(series.increase("pg.exec_s", edges)[0] / length)
    return {name: used / per_s for name, used in spent.items() if used is not None}


def _sold_out_after_s(rows: "Histograms", window: Window) -> float | None:
    ends = rows.t[rows.where(lambda answer: answer.status == "409") & (rows.count > 0)]
    return max(0.0, float(ends.min()) - K6_LAG_S - window.start_s) if len(ends) else None


def _edges(window: Window) -> Array:
    return np.array([window.start_s, window.end_s])
