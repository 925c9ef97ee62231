"""What somebody else's system says of itself: its own Prometheus's series over the window, and what they give away."""

from typing import TYPE_CHECKING

import numpy as np

from ticketbench.analysis.resources import label
from ticketbench.analysis.series import Labels, Series, Where, known, parse_column
from ticketbench.analysis.wording import number
from ticketbench.conclusions import OwnSignal
from ticketbench.model import ExternalSystem, MappedSignal, Window

if TYPE_CHECKING:
    from ticketbench.store import TrialData


def own_signals(trial: "TrialData", system: ExternalSystem | None) -> tuple[OwnSignal, ...]:
    """Return each mapped column's figure in the trial's window; a column without samples has none, and no zero."""
    window = trial.record.window
    if system is None or window is None:
        return ()
    series = Series(trial.series)
    return tuple(own for mapped in system.signals for own in _figures(series, mapped, window))


def _figures(series: Series, mapped: MappedSignal, window: Window) -> list[OwnSignal]:
    name, fixed = parse_column(mapped.column)
    if "component" in fixed and series.has("run_delay_s", label(**fixed)):
        return []  # the sampler saw that process, each second: it is not the system's own figure
    edges = np.array([window.start_s, window.end_s])
    found = []
    for labels in series.labels(name):
        if any(labels.get(key) != value for key, value in fixed.items()):
            continue
        mine = _exactly(labels)
        if mapped.kind == "counter":
            value, most = known(series.increase(name, edges, mine)[0] / window.duration_s), None
        else:
            value, most = known(series.gauge(name, edges, mine)[0]), series.highest(name, edges, mine)
        found.append(OwnSignal(column=_text(name, labels), kind=mapped.kind, unit=mapped.unit, value=value, most=most))
    return found


def _text(name: str, labels: Labels) -> str:
    return name + ("{" + ",".join(f"{key}={labels[key]}" for key in sorted(labels)) + "}" if labels else "")


def beyond_capacity(trial: "TrialData") -> tuple[str, ...]:
    """Return a sentence for each resource of which more was used than there is: a stock that was sold twice, say.

    It is what the system's own series say, at the sample where the surplus is largest.
    """
    series = Series(trial.series)
    said = []
    for labels in series.labels("resource.used"):
        name = labels.get("resource", "")
        pair = series.pairs("resource.used", "resource.capacity", label(resource=name))
        used, capacity = max(pair, key=lambda one: one[0] - one[1], default=(0.0, 0.0))
        if used > capacity:
            said.append(
                f"{name}: {number(used)} used of a capacity of {number(capacity)}, {number(used - capacity)} more than"
                " there are, by the system's own series"
            )
    return tuple(said)


def merged(trials: list[tuple[OwnSignal, ...]]) -> tuple[OwnSignal, ...]:
    """Return a variant's figures over its trials: the mean of the values, the highest of the highest."""
    by_column: dict[str, list[OwnSignal]] = {}
    for signals in trials:
        for signal in signals:
            by_column.setdefault(signal.column, []).append(signal)
    return tuple(
        signals[0].model_copy(
            update={
                "value": float(np.mean(values))
                if (values := [s.value for s in signals if s.value is not None])
                else None,
                "most": max((s.most for s in signals if s.most is not None), default=None),
            }
        )
        for signals in by_column.values()
    )


def _exactly(wanted: Labels) -> Where:
    return lambda labels: labels == wanted
