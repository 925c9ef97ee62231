"""The series of somebody else's Prometheus, as a mapping names them: samples where they were taken, nothing between.

Its scrapes may be 15 s apart. A value is kept in the first row after each scrape, and all other rows stay empty; the
first row alone repeats the newest scrape before the load, for a counter's growth begins there. Rows reach to the first
scrape after the load, so that what it counted is counted whole.
"""

import math
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ticketbench.collecting.naming import column
from ticketbench.collecting.prometheus import Answer, Prometheus, QueryRefused
from ticketbench.collecting.series import Frame, Values, continued
from ticketbench.errors import EnvironmentFailure, UsageError
from ticketbench.mapping import Query, SeriesSource, column_of

# How far to look back before the load: Prometheus itself takes a sample for the present for 5 min.
_LOOK_BACK_S: Final = 300.0
_PATIENCE_S: Final = 10.0
# A scrape may come late by a part of its interval; one that is longer than this is not waited for.
_LATE: Final = 1.2
_SLACK_S: Final = 3.0
_LONGEST_WAIT_S: Final = 75.0
_POLL_S: Final = 0.25
# A clock that is this far off shifts what is read by a row or more.
CLOCK_APART_S: Final = 1.0
# What is sampled less often than this is worth saying: the rest of a run is sampled each second.
_WORTH_SAYING_S: Final = 1.5


@dataclass(frozen=True)
class OwnSeries:
    """What the system's own Prometheus held of a trial, not yet placed in rows.

    ``scrapes_s`` are the times of its samples and ``offset_s`` how far its clock is ahead of ours; all times are
    its own. ``trouble`` says why nothing can be had, empty where it answers.
    """

    scrapes_s: tuple[float, ...] = ()
    offset_s: float = 0.0
    trouble: str = ""

    @property
    def resolution_s(self) -> float | None:
        """The usual distance between two samples in seconds, None where there are not two."""
        gaps = [later - earlier for earlier, later in zip(self.scrapes_s, self.scrapes_s[1:], strict=False)]
        return statistics.median(gaps) if gaps else None

    @property
    def last_s(self) -> float:
        """The time of the newest sample by our clock; minus infinity without one."""
        return self.scrapes_s[-1] - self.offset_s if self.scrapes_s else -math.inf


def require_answerable(source: SeriesSource) -> str:
    """Ask each query of the mapping once, so that one that cannot be asked is known before any load.

    Returns why that Prometheus cannot tell, empty where it can: a run does not depend on it. A query that gives nothing
    is no fault; that nothing at all was sampled is told. Raises UsageError with every query that it refuses, in its own
    words.
    """
    queries = [(column_of(query.name, query.fixed), query.promql) for query in source.mapping.queries if query.promql]
    problems = []
    known = False
    try:
        with Prometheus(source.url, timeout_s=_PATIENCE_S) as prometheus:
            now_s = time.time() + prometheus.clock_offset_s()
            for signal, promql in (("samples", source.mapping.samples), *queries):
                asked = _times(source) if signal == "samples" else source.expanded(promql)
                try:
                    found = prometheus.range(asked, now_s, now_s, 1.0)
                    known |= signal == "samples" and bool(found)  # without a scrape none of the others is read
                except QueryRefused as error:
                    problems.append(
                        f"mapping {source.mapping.name}: {signal}: Prometheus refuses the query {asked!r}: {error.why}"
                    )
    except EnvironmentFailure as error:
        if not problems:
            return f"the system's own Prometheus does not answer: {_why(error)}; the run goes on without its series"
    if problems:
        raise UsageError(*problems, hint="nothing was sent to the target; docs/external.md, mapping files")
    if not known:
        return (
            f"the system's own Prometheus has no sample now of {_chosen(source)}; where none comes, the run goes on"
            " without its series"
        )
    return ""


def await_own(source: SeriesSource, start_s: float, end_s: float) -> OwnSeries:
    """Wait for the system's first scrape after ``end_s`` (Unix seconds, ours) and return when its scrapes were.

    Waits a scrape interval and some seconds at most. Raises nothing where that Prometheus is dead, slow or not one: a
    run does not depend on it, and ``trouble`` says it.
    """
    try:
        with Prometheus(source.url, timeout_s=_PATIENCE_S) as prometheus:
            offset_s = prometheus.clock_offset_s()
            own = _look(prometheus, source, start_s, end_s, offset_s)
            wait_s = min((own.resolution_s or 0.0) * _LATE, _LONGEST_WAIT_S) + _SLACK_S
            while own.scrapes_s and own.last_s < end_s and time.time() < end_s + wait_s:
                time.sleep(_POLL_S)
                newest = prometheus.latest(f"max({_times(source)})", at_s=time.time() + offset_s)
                if newest and newest[0][1] > own.scrapes_s[-1]:
                    own = _look(prometheus, source, start_s, end_s, offset_s)
            return own
    except EnvironmentFailure as error:
        return OwnSeries(
            trouble=f"the system's own Prometheus did not answer, so its series are missing: {_why(error)}"
        )


def _look(prometheus: Prometheus, source: SeriesSource, start_s: float, end_s: float, offset_s: float) -> OwnSeries:
    first, last = start_s + offset_s - _LOOK_BACK_S, max(end_s, time.time()) + offset_s
    times = {
        float(value) for answer in prometheus.range(_times(source), first, last, 1.0) for _, value in answer["values"]
    }
    return OwnSeries(tuple(sorted(times)), offset_s)


def _chosen(source: SeriesSource) -> str:
    """Return what is looked for, by the name that the user gave it."""
    return f"what {source.selector_said} chooses" if source.selector else source.mapping.samples


def _times(source: SeriesSource) -> str:
    return f"max by (job, instance) (timestamp({source.expanded(source.mapping.samples)}))"


def add_own(frame: Frame, source: SeriesSource, own: OwnSeries, end_s: float) -> tuple[str, ...]:
    """Add the mapped columns to ``frame`` and return what is to be said of them: a sentence for each that is missing.

    A column that the frame has already is left as it is: the sampler looks closer. A query that fails names itself;
    the others are still asked.
    """
    if own.trouble:
        return (own.trouble,)
    if not own.scrapes_s:
        return (
            f"the system's own Prometheus has no sample of {_chosen(source)}: none of its series are known; does it"
            " scrape the system, and is it the mapping for what the system exports?",
        )
    said = list(_about(own, end_s))
    keep = _rows_of_scrapes(frame, own)
    rows = (frame.time(0) + own.offset_s, frame.time(frame.rows - 1) + own.offset_s)
    present = set(frame.columns)
    constants: list[Query] = []
    try:
        with Prometheus(source.url, timeout_s=_PATIENCE_S) as prometheus:
            for query in source.mapping.queries:
                if query.constant is not None:
                    constants.append(query)
                    continue
                if _here(query, source) in present:
                    continue
                said += _ask(prometheus, frame, source, query, rows, keep, own.offset_s)
    except EnvironmentFailure as error:
        said.append(f"the system's own Prometheus stopped answering, so some of its series are missing: {_why(error)}")
    for query in constants:
        values = np.full(frame.rows, np.nan)
        values[keep] = query.constant
        frame.add(_here(query, source), values)
    return tuple(said)


def _ask(
    prometheus: Prometheus,
    frame: Frame,
    source: SeriesSource,
    query: Query,
    rows: tuple[float, float],
    keep: Sequence[int],
    offset_s: float,
) -> list[str]:
    name = column_of(query.name, query.fixed)
    try:
        answers = prometheus.range(source.expanded(query.promql), *rows, 1.0)
    except QueryRefused as error:
        return [f"{name} is missing: the system's own Prometheus refused its query: {error.why}"]
    known = False
    for answer in answers:
        values = np.full(frame.rows, np.nan)
        found = _values(frame, answer, offset_s)
        values[keep] = found[keep]
        if np.isnan(values).all():
            continue
        known = True
        frame.add(_column(query, answer, source), continued(values) if query.kind == "counter" else values)
    return [] if known or query.optional else [f"{name} is missing: its query gave nothing in the trial's time"]


def _values(frame: Frame, answer: Answer, offset_s: float) -> Values:
    values = np.full(frame.rows, np.nan)
    for t, text in answer.get("values", ()):
        row = round(float(t) - offset_s - frame.time(0))
        if 0 <= row < frame.rows and math.isfinite(number := float(text)):
            values[row] = number
    return values


def _rows_of_scrapes(frame: Frame, own: OwnSeries) -> list[int]:
    """Return the first row after each scrape, and the very first one, which knows the newest scrape before it."""
    at = {math.ceil(scrape - own.offset_s - frame.time(0) - 1e-6) for scrape in own.scrapes_s}
    return sorted({0, *(row for row in at if 0 < row < frame.rows)})


def _column(query: Query, answer: Answer, source: SeriesSource) -> str:
    labels = {ours: answer["metric"].get(theirs, "") for ours, theirs in query.labels.items()}
    return column(_here(query, source, bare=True), {**query.fixed, **labels})


def _here(query: Query, source: SeriesSource, *, bare: bool = False) -> str:
    """Return the column's name. CPU and memory of another machine must not be held against this one's."""
    name = query.name if source.components_here or "component" not in query.fixed else f"remote.{query.name}"
    return name if bare else column_of(name, query.fixed)


# --- what is said -----------------------------------------------------------------------------------------------------


def _about(own: OwnSeries, end_s: float) -> Iterable[str]:
    if abs(own.offset_s) > CLOCK_APART_S:
        ahead = "ahead of" if own.offset_s > 0 else "behind"
        yield (
            f"the clock of the system's own Prometheus is {abs(own.offset_s):.1f} s {ahead} this machine's: its series"
            " were moved by that much"
        )
    resolution_s = own.resolution_s
    if resolution_s is not None and resolution_s > _WORTH_SAYING_S:
        yield (
            f"the system's own series have one sample each {resolution_s:.3g} s: nothing is known between two of them"
        )
    if own.last_s < end_s:
        yield "the system's own Prometheus has no sample from after the load: what it counted is not whole"


def _why(error: EnvironmentFailure) -> str:
    """Return the cause without the address, which may name somebody's host."""
    if isinstance(error, QueryRefused):
        return error.why
    text = error.message.partition(" did not answer: ")[2] or error.message
    for words, meaning in (
        ("Connection refused", "the connection was refused"),
        ("timed out", f"no answer within {_PATIENCE_S:g} s"),
        ("Max retries exceeded", "it cannot be reached"),
    ):
        if words in text:
            return meaning
    return text[:200]
