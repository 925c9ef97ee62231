"""Two witnesses of one fact: k6's own totals, Prometheus's, and the app's. Where they differ one of them is wrong."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from ticketbench.analysis.resources import label
from ticketbench.analysis.series import Labels, Series
from ticketbench.analysis.wording import duration, percent
from ticketbench.fault_plan import SALES
from ticketbench.model import LoadResult, Threshold

if TYPE_CHECKING:
    from ticketbench.analysis.signals import Measurement
    from ticketbench.store import TrialData

# A push that was lost is a second of the run; 1 % is less than that for any run under 100 s, and more than rounding.
TOTALS_APART: Final = 0.01
# A smoke test of 20 requests has no percent: one or two requests of an interval that ended between two pushes.
TOTALS_SLACK: Final = 2
# Health checks and readiness probes reach the app, and not through k6.
APP_SLACK: Final = 10
# More than a bucket's width (9 %) and more than a clock of a millisecond.
P95_APART: Final = 0.10
P95_APART_S: Final = 0.002
# k6 takes its p95 between two neighbouring requests: where the density has a gap there, anything in the gap is right.
P95_RANKS: Final = (0.94, 0.96)

_FILTERED: Final = re.compile(r"^(?P<base>[^{]+)\{(?P<filter>.*)\}$")
# k6's tags as labels of the stored series; a filter on any other tag cannot be checked.
_LABEL_OF_TAG: Final = {
    "name": "route",
    "scenario": "scenario",
    "status": "status",
    "method": "method",
    "expected_response": "expected",
    "error_code": "error",
}


def contradictions(
    trial: "TrialData", series: Series, measured: "Measurement", *, quantiles: bool, own_app: bool = True
) -> Iterator[str]:
    """Yield a sentence for each pair of totals that should be equal and is not.

    A trial that did not end by itself is left alone: k6's summary and its last push need not belong together. The
    counts of an app that is not ours (``own_app`` False) are somebody else's idea of a request.
    """
    load = trial.record.load
    if load is None or trial.record.status != "done":
        return
    stored = series.total("k6.requests")
    yield from _apart("requests", load.requests, stored)
    yield from _apart("iterations", load.iterations, series.total("k6.iterations"))
    if trial.histograms is not None and _differ(load.requests, measured.everything.count):
        yield (
            f"k6 counted {load.requests} requests and its stored histograms hold {round(measured.everything.count)}:"
            " the latencies are not those of all requests"
        )
    if own_app and not app_was_ended(trial):
        yield from app_saw_fewer(series)
    if quantiles:
        yield from _p95(load, measured)


def app_was_ended(trial: "TrialData") -> bool:
    """Tell whether the app was killed or started again on purpose: what it counted since its last scrape is gone."""
    return any(
        fault.fault.action in ("kill", "restart") and fault.fault.component in SALES for fault in trial.record.faults
    )


def strangers(trial: "TrialData", series: Series, *, own_app: bool = True) -> Iterator[str]:
    """Yield a sentence where the app answered more than k6 asked for, whoever asked.

    Nobody else knows the address of an app of ours (``own_app``), so there nobody is accused. k6 does not count the
    requests of iterations that it interrupts at a scenario's end: at most one for each virtual user, which is allowed.
    """
    # HAProxy asks each replica for its health once a second, which is nobody's load
    own = (lambda labels: labels.get("route") != "/health") if series.has("haproxy.up") else None
    answered, app = _answered(series), series.total("app.requests", own)
    sent = trial.record.load.requests - round(series.total("k6.requests", _queued) or 0) if trial.record.load else None
    if answered is None or app is None or sent is None:
        return
    surplus = app - max(answered, sent)  # a request that k6 gave up may be answered all the same
    if surplus <= max(APP_SLACK, TOTALS_APART * sent) + _interrupted_at_most(trial, series):
        return
    both = f"the app answered {round(app)} requests and k6 counted {sent}"
    if own_app:
        yield (
            f"{both}, more apart than interrupted iterations can be: k6's figures lack requests, or somebody looked at"
            " the app meanwhile; the system can do at least this"
        )
    else:
        yield f"{both}: somebody else used the system, which can do at least this"


def _interrupted_at_most(trial: "TrialData", series: Series) -> int:
    """Return the most requests that k6 may have interrupted: each of its scenarios ends once, for all virtual users."""
    load = trial.record.load
    scenarios = {
        labels["scenario"]
        for name in ("k6.requests", "k6.iterations")
        for labels in series.labels(name)
        if labels.get("scenario")
    }
    return 0 if load is None else load.vus_max * max(1, len(scenarios))


def thresholds_without_data(trial: "TrialData") -> Iterator[str]:
    """Yield a sentence for each threshold that k6 evaluated over nothing: no data is never a pass."""
    for threshold in trial.record.load.thresholds if trial.record.load else ():
        if not has_data(threshold, trial):
            yield (
                f"the threshold {threshold.metric} {threshold.expression} saw no sample, and no data is never a pass:"
                " does its filter name what the script sends?"
            )


def has_data(threshold: Threshold, trial: "TrialData") -> bool:
    """Return whether a threshold's metric had a sample.

    For k6's HTTP metrics the stored series tell: k6 itself reports a threshold over an empty sub-metric as 0, and as
    passed. A trend without a sample is all zeros; any other metric has data when k6's summary has a value for it.
    """
    matched = _FILTERED.match(threshold.metric)
    base, filter_text = (matched["base"], matched["filter"]) if matched else (threshold.metric, "")
    series = Series(trial.series)
    if base.startswith("http_req") and series.has("k6.requests"):
        wanted = _labels(filter_text)
        return wanted is None or (series.total("k6.requests", label(**wanted)) or 0) > 0
    if base == "dropped_iterations":  # k6 counts none where it dropped none: that is the good case, and not a gap
        return series.has("k6.iterations")
    trend = trial.record.load.trends_ms.get(threshold.metric) if trial.record.load else None
    return any(trend.values()) if trend is not None else threshold.value is not None


def _labels(filter_text: str) -> dict[str, str] | None:
    """Return a k6 tag filter as labels of the stored series; None where they cannot tell."""
    labels: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in filter_text.split(","))):
        tag, colon, value = part.partition(":")
        name = _LABEL_OF_TAG.get(tag.strip())
        # A name that is a URL was shortened to a route when it was stored.
        if not colon or name is None or (name == "route" and "/" in value):
            return None
        labels[name] = value.strip().strip("\"'")
    return labels


def _differ(one: float, other: float) -> bool:
    return abs(one - other) > max(TOTALS_SLACK, TOTALS_APART * max(one, other))


def _apart(what: str, own: int, stored: float | None) -> Iterator[str]:
    if stored is None or not _differ(own, stored):
        return
    yield (
        f"k6 counted {own} {what} and Prometheus holds {round(stored)}"
        f" ({percent(abs(own - stored) / max(own, stored))} apart): part of the series was lost"
    )


def _queued(labels: Labels) -> bool:
    """Return whether it is a whole purchase that was waited for (scenarios/lib/queued.js), and no request."""
    return labels.get("method") == "QUEUED"


def _answered(series: Series) -> float | None:
    def got_answer(labels: Labels) -> bool:
        return labels.get("status", "0") not in ("", "0") and not _queued(labels)

    return series.total("k6.requests", got_answer)


def app_saw_fewer(series: Series) -> Iterator[str]:
    """Yield a sentence where the app counted fewer requests than k6 got answers."""
    answered, app = _answered(series), series.total("app.requests")
    if answered is None or app is None:
        return
    if answered - app > max(TOTALS_SLACK, TOTALS_APART * answered):
        yield (
            f"k6 got {round(answered)} answers and the app counted {round(app)}"
            f" ({percent((answered - app) / answered)} fewer): its scrapes were lost, or somebody else answered"
        )


def _p95(load: LoadResult, measured: "Measurement") -> Iterator[str]:
    own_ms = load.trends_ms.get("http_req_duration", {}).get("p(95)")
    ours = measured.everything.quantile(0.95)
    below, above = (measured.everything.quantile(rank) for rank in P95_RANKS)
    if own_ms is None or ours is None or below is None or above is None:
        return
    own = own_ms / 1000
    low = min(below / (1 + P95_APART), below - P95_APART_S)
    high = max(above * (1 + P95_APART), above + P95_APART_S)
    if not low <= own <= high:
        yield (
            f"k6's own p95 of all requests is {duration(own)} and the stored histograms say {duration(ours)}: they are"
            " not of the same requests"
        )
