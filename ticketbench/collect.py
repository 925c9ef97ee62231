"""Pulls a trial's series and k6's per-second histograms out of Prometheus: the signal catalogue of docs/signals.md."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ticketbench.collecting.naming import column, routes_of
from ticketbench.collecting.native import Histogram
from ticketbench.collecting.own import OwnSeries, add_own, await_own
from ticketbench.collecting.prometheus import Answer, Prometheus, quoted
from ticketbench.collecting.series import Frame, add_counters, add_sampler, add_target
from ticketbench.errors import EnvironmentFailure
from ticketbench.mapping import SeriesSource
from ticketbench.storing.histograms import HistogramRow, Histograms

if TYPE_CHECKING:
    import pandas as pd

# Rows before k6's start: the state before the load. After its end: what the last scrape and push told, which come
# within a second of it.
_BEFORE_S: Final = 2
_AFTER_S: Final = 1
# The last scrape and push come within a second of the end; the rest is for a machine that is still busy.
_FRESH_S: Final = 6.0
_POLL_S: Final = 0.1
# A sample that lies this close to a row's time may fall on either side of it from second to second.
_JITTER_S: Final = 0.1
_APP_JOB: Final = "app"
_WORKER_JOB: Final = "worker"
_SAMPLER_JOB: Final = "sampler"
# All that a process of the target tells but its histograms: k6 has the durations.
_TARGET: Final = (
    '{{job="{job}",__name__=~"target_.+|process_cpu_seconds_total|process_resident_memory_bytes|up",'
    '__name__!~".+_bucket|.+_created"}}'
)
_APP_ALIVE: Final = f'target_inflight{{job="{_APP_JOB}"}}'
_SAMPLER_ALIVE: Final = f'tb_sampler_ticks_total{{job="{_SAMPLER_JOB}",what="proc"}}'

_COUNTERS: Final = {
    "k6_http_reqs_total": "k6.requests",
    "k6_iterations_total": "k6.iterations",
    "k6_dropped_iterations_total": "k6.dropped",
}
_GAUGES: Final = {"k6_vus": "k6.vus", "k6_vus_max": "k6.vus_max"}
# k6 counts its virtual users once a second, so a shorter execution may end without having done so.
_FIRST_GAUGES_S: Final = 3.0
_TRENDS: Final = ("blocked", "connecting", "waiting")

# What a trial on a stack of ours always has. Events that need not happen (drops, lock waits) are not among them.
EXPECTED: Final = (
    "k6.requests", "k6.iterations", "k6.vus", "k6.duration_s", "app.up", "app.requests", "app.inflight",
    "app.pool_max", "app.pool_wait_s", "app.loop_lag_s", "cpu_s{component=k6}", "cpu_s{component=app}",
    "cpu_s{component=postgres}", "cpu_s{component=redis}", "cpu_s{component=other}", "host_cpu_s", "pg.wait_s",
    "pg.exec_s", "redis.commands",
)  # fmt: skip

EXPECTED_OF_QUEUE: Final = ("worker.up", "worker.queue_length", "cpu_s{component=worker}")

# Nothing of somebody else's system is certain to be there; k6, the machine and what else takes CPU is.
EXPECTED_OF_EXTERNAL: Final = (
    "k6.requests", "k6.iterations", "k6.vus", "k6.duration_s", "cpu_s{component=k6}", "cpu_s{component=other}",
    "host_cpu_s",
)  # fmt: skip


@dataclass(frozen=True)
class Collected:
    """What Prometheus held of a trial.

    ``series`` has one row a second (index ``t``, Unix seconds) from two seconds before k6's start to a second after its
    end. A row holds what was known up to a fixed fraction of a second after ``t``, chosen so that the samples of
    all sources lie clear of it. ``histograms`` are increments, in order of time. ``missing`` names what should be there
    and is not: columns, ``histograms``, or ``app after the end`` for a source that fell silent before k6 ended. ``own``
    are sentences on the series of the system's own Prometheus: those that are missing, and how coarse they are.
    """

    series: "pd.DataFrame"
    histograms: Histograms
    missing: tuple[str, ...]
    own: tuple[str, ...] = ()


def collect(
    prometheus_url: str,
    trial_id: str,
    base_url: str,
    start_s: float,
    end_s: float,
    *,
    step_s: float = 1.0,
    external: bool = False,
    queue: bool = False,
    source: SeriesSource | None = None,
    most_values: int | None = None,
) -> Collected:
    """Collect the trial whose k6 ran from ``start_s`` to ``end_s`` (Unix seconds) and tagged all with ``trial_id``.

    Waits, for some seconds at most, until app and sampler have samples from after the end. Raises EnvironmentFailure
    where Prometheus does not answer; data that is not there is no error but stands in ``missing``. With ``external``
    the system is somebody else's: no app is waited for, and ``source``, where there is one, holds its own series. Rows
    go on to the first sample after the end that it has. ``queue``: the variant has workers of a queue; what those of
    another have left in Prometheus is not its own. ``most_values`` bounds one answer of Prometheus: memory does not
    depend on the trial's length but for the result itself.
    """
    first_s = math.floor(start_s) - _BEFORE_S
    last_s = math.ceil(end_s) + _AFTER_S
    theirs = await_own(source, start_s, end_s) if source is not None else OwnSeries()
    if math.isfinite(theirs.last_s):
        last_s = max(last_s, math.ceil(theirs.last_s))
    bound = {} if most_values is None else {"most_values": most_values}
    with Prometheus(prometheus_url, **bound) as prometheus:
        silent = _await_samples(prometheus, end_s, ("sampler",) if external else ("app", "sampler"))
        shift_s = _shift(prometheus, trial_id, start_s, end_s)
        rows = math.floor((last_s - first_s) / step_s) + 1
        frame = Frame(first_s, rows, step_s, shift_s)
        span = (first_s + shift_s, first_s + (rows - 1) * step_s + shift_s, step_s)
        of_trial = f"trial={quoted(trial_id)}"

        last_row_s = span[1]
        counters = prometheus.samples(f"{{{_any(_COUNTERS)},{of_trial}}}", first_s, last_row_s, step_s)
        routes = routes_of(_requests_by_name(counters), base_url)
        native = _Native(frame, routes)
        for answers in prometheus.sample_slices(
            f"k6_http_req_duration_seconds{{{of_trial}}}", first_s, last_row_s, step_s
        ):
            native.add(answers)
        histograms = native.histograms()
        _add_k6(frame, counters, native.sums(), routes)
        add_counters(
            frame,
            (
                (f"k6.{answer['metric']['trend']}_s", frame.values(answer))
                for answer in prometheus.range(_trend_sums(of_trial), *span)
            ),
        )
        for answer in prometheus.samples(f"{{{_any(_GAUGES)},{of_trial}}}", first_s, last_row_s, step_s):
            frame.add(_GAUGES[answer["metric"]["__name__"]], frame.samples(_numbers(answer)))
        for job in (_APP_JOB, _WORKER_JOB) if queue else (_APP_JOB,):
            add_target(frame, prometheus.range(_TARGET.format(job=job), *span), job)
        add_sampler(
            frame,
            # phases are for people who look: the trial's record has them
            prometheus.range(f'{{job="{_SAMPLER_JOB}",__name__=~"tb_.+",__name__!~"tb_trial_.+"}}', *span),
            prometheus.range(f"max(timestamp({_SAMPLER_ALIVE}))", *span),
            absent=() if queue else (_WORKER_JOB,),
        )
    said = add_own(frame, source, theirs, end_s) if source is not None else ()
    expected = EXPECTED_OF_EXTERNAL if external else (*EXPECTED, *(EXPECTED_OF_QUEUE if queue else ()))
    missing = (*_missing(frame, histograms, end_s - start_s, expected), *silent)
    return Collected(frame.pandas(), histograms, missing, said)


# --- when to look -----------------------------------------------------------------------------------------------------


def _await_samples(prometheus: Prometheus, end_s: float, sources: Sequence[str]) -> tuple[str, ...]:
    """Wait until each of ``sources``, every worker too, has samples from after k6's end; return what still has none."""
    query = " or ".join(
        f'label_replace(min(timestamp({metric})), "source", "{source}", "", "")'
        for source, metric in (
            ("app", _APP_ALIVE),
            ("sampler", _SAMPLER_ALIVE),
        )
    )
    deadline = time.monotonic() + _FRESH_S
    while True:
        newest = {metric["source"]: at_s for metric, at_s in prometheus.latest(query)}
        ages = {source: newest.get(source, 0.0) for source in sources}
        if min(ages.values()) >= end_s or time.monotonic() > deadline:
            return tuple(f"{source} after the end" for source, at_s in ages.items() if at_s < end_s)
        time.sleep(_POLL_S)


def _shift(prometheus: Prometheus, trial_id: str, start_s: float, end_s: float) -> float:
    """Return how long after each full second to look, in seconds from 0 to 0.95.

    Each source's samples come once a second, each at a fraction of its own. A row that is taken just where a source's
    samples arrive would see none of them in one second and two in the next, by jitter alone. The earliest fraction
    with the fewest samples close to it is free of that.
    """
    query = " or ".join(
        f'label_replace(max by (instance) (timestamp({metric})), "source", "{source}", "", "")'
        for source, metric in (
            ("k6", f"k6_http_reqs_total{{trial={quoted(trial_id)}}}"),
            ("app", _APP_ALIVE),
            ("sampler", _SAMPLER_ALIVE),
        )
    )
    step_s = max(1.0, round((end_s - start_s) / 60))
    answers = prometheus.range(query, math.ceil(start_s), math.floor(end_s), step_s) if end_s > start_s + 1 else []
    times = np.array([float(at_s) for answer in answers for _, at_s in answer["values"]])
    if not len(times):
        return 0.0
    candidates = np.arange(0.0, 1.0, 0.05)
    apart = np.abs((times[:, None] - candidates[None, :] + 0.5) % 1.0 - 0.5)
    return float(candidates[int(np.argmin((apart < _JITTER_S).sum(axis=0)))])


# --- k6 ---------------------------------------------------------------------------------------------------------------


def _any(names: Iterable[str]) -> str:
    return f'__name__=~"{"|".join(names)}"'


def _trend_sums(of_trial: str) -> str:
    return " or ".join(
        f'label_replace(histogram_sum(k6_http_req_{trend}_seconds{{{of_trial}}}), "trend", "{trend}", "", "")'
        for trend in _TRENDS
    )


def _numbers(answer: Answer) -> Iterable[tuple[float, float]]:
    return ((float(t), float(value)) for t, value in answer["values"])


def _requests_by_name(counters: Iterable[Answer]) -> Iterable[tuple[str, float]]:
    for answer in counters:
        if answer["metric"]["__name__"] == "k6_http_reqs_total":
            yield answer["metric"].get("name", ""), float(answer["values"][-1][1])


def _request_labels(metric: Mapping[str, str], routes: Mapping[str, str]) -> dict[str, str]:
    """Return the labels that tell requests apart; k6 leaves out what is empty."""
    name = metric.get("name", "")
    return {
        "error": metric.get("error_code", ""),
        "expected": metric.get("expected_response", "true"),
        "method": metric.get("method", ""),
        "route": routes.get(name, name),
        "scenario": metric.get("scenario", ""),
        "status": metric.get("status", "0"),
    }


def _add_k6(
    frame: Frame, counters: Iterable[Answer], sums: Iterable[Iterable[tuple[float, float]]], routes: Mapping[str, str]
) -> None:
    def name(metric: Mapping[str, str]) -> str:
        of = _COUNTERS[metric["__name__"]]
        labels = _request_labels(metric, routes) if of == "k6.requests" else {"scenario": metric.get("scenario", "")}
        return column(of, labels)

    add_counters(
        frame,
        ((name(answer["metric"]), frame.samples(_numbers(answer))) for answer in counters),
    )
    add_counters(frame, (("k6.duration_s", frame.samples(of)) for of in sums))


class _Native:
    """k6's native histograms, taken in slice by slice: what they grew by in each second, and their sums."""

    def __init__(self, frame: Frame, routes: Mapping[str, str]) -> None:
        self._frame = frame
        self._routes = routes
        self._before: dict[tuple[tuple[str, str], ...], Histogram] = {}  # of each series, where the last slice ended
        self._sums: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
        self._parts: list[Histograms] = []

    def add(self, answers: Iterable[Answer]) -> None:
        """Take in a slice, whole seconds. Raises EnvironmentFailure for what is no histogram."""
        found: dict[tuple[int, tuple[tuple[str, str], ...]], Histogram] = {}
        for answer in answers:
            labels = tuple(_request_labels(answer["metric"], self._routes).items())
            series = tuple(sorted(answer["metric"].items()))
            sums = self._sums.setdefault(series, [])
            for t, now in _parsed(answer):
                sums.append((t, now.sum_s))
                increment = now.since(self._before.get(series, Histogram()))
                self._before[series] = now
                if increment.count > 0:
                    # Label sets that differ in nothing that is kept are summed.
                    key = (self._frame.row_after(t), labels)
                    found[key] = found[key].plus(increment) if key in found else increment
        self._parts.append(
            Histograms.of(
                _histogram_row(self._frame.time(row), dict(labels), histogram)
                for (row, labels), histogram in sorted(found.items(), key=lambda item: item[0])
            )
        )

    def histograms(self) -> Histograms:
        """Return the increments in order of time."""
        return Histograms.joined(self._parts)

    def sums(self) -> Iterable[Iterable[tuple[float, float]]]:
        """Return each series' (time, seconds of all its requests)."""
        return self._sums.values()


def _parsed(answer: Answer) -> Iterable[tuple[float, Histogram]]:
    for t, raw in answer.get("histograms", ()):
        try:
            yield float(t), Histogram.parse(raw)
        except (KeyError, ValueError, TypeError) as error:
            raise EnvironmentFailure(f"Prometheus answered with a histogram that cannot be read: {error}") from error


def _histogram_row(t: float, labels: Mapping[str, str], histogram: Histogram) -> HistogramRow:
    return HistogramRow(
        t=t,
        scenario=labels["scenario"],
        route=labels["route"],
        method=labels["method"],
        status=labels["status"],
        expected=labels["expected"] == "true",
        error=labels["error"],
        count=histogram.count,
        sum_s=histogram.sum_s,
        buckets=histogram.buckets,
    )


def _missing(frame: Frame, histograms: Histograms, ran_s: float, expected: Sequence[str]) -> tuple[str, ...]:
    present = set(frame.columns) | {name.partition("{")[0] for name in frame.columns}
    if ran_s < _FIRST_GAUGES_S:
        present |= set(_GAUGES.values())
    missing = [name for name in expected if name not in present]
    return (*missing, *(() if len(histograms) else ("histograms",)))
