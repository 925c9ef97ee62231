"""Which figures a run gets, and the numbers behind each in a table."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from ticketbench.analysis.timeline import Timeline
from ticketbench.model import OfferedSlope, Slo
from ticketbench.report import wording
from ticketbench.report.cells import ranked
from ticketbench.report.charts import Drawing, Line, Values, has_values
from ticketbench.report.faults import fault_spans
from ticketbench.report.input import ReportInput
from ticketbench.report.table import Cell, Column, Row, Table

MAX_UTILISATIONS: Final = 4
MAX_QUEUES: Final = 2
MAX_SLICES: Final = 24  # rows of the table behind a figure
FAINT_UP_TO: Final = 4  # beyond this many variants the other trials' lines would only be noise
MAX_MARKS: Final = 10

_P95: Final = re.compile(r"\s*p\(95\)\s*<=?\s*(\d+(?:\.\d+)?)\s*$")


@dataclass(frozen=True)
class Figure:
    """A figure of the page: the drawing, what it says in words, its numbers; ``missing`` says why nothing is drawn."""

    key: str
    title: str
    reads: str
    drawing: Drawing
    table: Table
    alt: str
    missing: str = ""


def main_trials(data: ReportInput) -> dict[str, str]:
    """Return for each variant the trial that stands for it: the one whose goodput is the middle of its trials."""
    chosen = {}
    drawn = {line.trial for line in data.timelines}
    for v in data.analysis.variants:
        trials = [t for t in data.analysis.trials if t.variant == v.variant and t.trial in drawn]
        trials.sort(key=lambda t: (t.signals.traffic.goodput_per_s or 0, t.position))
        if trials:
            chosen[v.variant] = trials[(len(trials) - 1) // 2].trial
    return chosen


def styles(data: ReportInput) -> dict[str, int]:
    """Return each variant's style: the reference has the first."""
    names = [v.variant for v in data.analysis.variants]
    names.sort(key=lambda name: name != data.analysis.reference)
    return {name: n for n, name in enumerate(names)}


class _Builder:
    def __init__(self, data: ReportInput, prefix: str) -> None:
        self.data = data
        self.prefix = prefix
        self.style = styles(data)
        main = main_trials(data)
        self.main = sorted(
            (t for t in data.timelines if main.get(t.variant) == t.trial), key=lambda t: self.style[t.variant]
        )
        faint = len(self.main) <= FAINT_UP_TO
        self.others = [t for t in data.timelines if t.variant in main and main[t.variant] != t.trial] if faint else []
        everyone = [t for t in self.main if t.t_s]
        self.window_s = max((t.window_s for t in everyone), default=1.0)
        start = min((t.t_s[0] for t in everyone), default=0.0)
        end = max((t.t_s[-1] for t in everyone), default=1.0)
        self.span_s = (start, max(end, start + 1))
        # those of the first line: they are planned for the same seconds of all trials
        self.faults = fault_spans(data, everyone[0].trial) if everyone else ()

    def figure(
        self,
        key: str,
        title: str,
        unit: str,
        pick: Callable[[Timeline], Values],
        *,
        reads: str,
        why: str,
        limits: tuple[float, ...] = (),
        offered: bool = False,
        marks: tuple[float, ...] = (),
    ) -> Figure:
        lines = [Line(self.style[t.variant], t.t_s, pick(t)) for t in self.main]
        lines += [Line(self.style[t.variant], t.t_s, pick(t), faint=True) for t in self.others]
        if offered:
            seen: list[tuple[list[float], Values]] = []
            for t in self.main:
                # Variants that differ in nothing the load knows share one offered rate: draw it once.
                if any(v is not None for v in t.offered_per_s) and (t.t_s, t.offered_per_s) not in seen:
                    seen.append((t.t_s, t.offered_per_s))
                    lines.append(Line(self.style[t.variant], t.t_s, t.offered_per_s, offered=True))
        name = f"{self.prefix}{key}"
        drawing = Drawing(name, title, unit, tuple(lines), self.window_s, self.span_s, marks, limits, self.faults)
        return Figure(
            key=name,
            title=title,
            reads=reads,
            drawing=drawing,
            table=self._table(title, unit, pick, offered=offered),
            alt=self._alt(title, unit, pick),
            missing="" if has_values(drawing) else why,
        )

    def _alt(self, title: str, unit: str, pick: Callable[[Timeline], Values]) -> str:
        parts = []
        for t in self.main:
            known = [v for at, v in zip(t.t_s, pick(t), strict=True) if v is not None and 0 <= at <= t.window_s]
            parts.append(f"{wording.variant(t.variant)}: {_span(known, unit).text}")
        return f"Line chart over time. {title}, lowest to highest second of the window. {'; '.join(parts)}."

    def _table(self, title: str, unit: str, pick: Callable[[Timeline], Values], *, offered: bool) -> Table:
        start, end = self.span_s
        step = next(s for s in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600) if (end - start) / s <= MAX_SLICES)
        edges = range(int(start // step) * step, int(end) + 1, step)
        series = [(wording.variant(t.variant), t.t_s, pick(t)) for t in self.main]
        if offered and self.main:
            first = self.main[0]
            series.insert(0, ("offered", first.t_s, first.offered_per_s))
        sliced = [_slices(t_s, values, edges[0], step) for _, t_s, values in series]
        rows = []
        for edge in edges:
            head = f"{edge}" if step == 1 else f"{edge} to {edge + step}"
            cells = [_span(part.get(edge, []), unit) for part in sliced]
            rows.append(Row((Cell(head), *cells)))
        columns = (Column("t_s", "Seconds"), *(Column(name, name) for name, _, _ in series))
        note = "" if step == 1 else f"Lowest to highest second within each {step} s; "
        notes = (f"{note}every second is in series.csv.gz and histograms.csv.gz. Below 0 is warm-up.".capitalize(),)
        return Table(f"{title}: the figures", columns, tuple(rows), notes, empty="nothing was measured")


def _slices(t_s: list[float], values: Values, first: int, step: int) -> dict[int, list[float]]:
    parts: dict[int, list[float]] = {}
    for at, value in zip(t_s, values, strict=True):
        if value is not None:
            parts.setdefault(int((at - first) // step) * step + first, []).append(value)
    return parts


def _text(unit: str, value: float) -> str:
    """Return the figure of one second: a hundred requests or so bear whole percents."""
    say = {"seconds": wording.latency, "ratio": wording.busy, "share": wording.busy}.get(unit, wording.rough)
    return say(value) or wording.MISSING


def _span(values: list[float], unit: str) -> Cell:
    if not values:
        return Cell(wording.MISSING, "", "missing")
    low, high = _text(unit, min(values)), _text(unit, max(values))
    return Cell(low if low == high else f"{low} to {high}")


def slo_limits(slos: Iterable[Slo], goal: str | None) -> tuple[float, ...]:
    """Return in seconds the p(95) targets of the goal's duration: those that the latency figure can be held against."""
    limits = set()
    for slo in slos:
        name, _, tags = slo.metric.partition("{")
        matched = _P95.match(slo.expression)
        if name.strip() != "http_req_duration" or not matched:
            continue
        pairs = [tag.partition(":")[::2] for tag in tags.rstrip("} ").split(",") if tag.strip()]
        named = {key.strip(): value.strip().strip("\"'") for key, value in pairs}
        if set(named) <= {"name", "expected_response", "scenario"} and named.get("name", goal) == goal:
            limits.add(float(matched[1]) / 1000)
    return tuple(sorted(limits))


def phase_marks(offered: Iterable[OfferedSlope], window_start_s: float, window_end_s: float) -> tuple[float, ...]:
    """Return when the offered rate changes its course, in seconds of the window; nothing where that is all the time."""
    times = {at for slope in offered for at in (slope.start_s, slope.end_s)}
    inside = sorted(t - window_start_s for t in times if window_start_s < t < window_end_s)
    return tuple(inside) if len(inside) <= MAX_MARKS else ()


def golden_signals(data: ReportInput, prefix: str) -> tuple[Figure, ...]:
    """Return the figures in reading order: latency, traffic, errors, then the resources from the busiest on."""
    if not data.timelines:
        return ()
    build = _Builder(data, prefix)
    scenario, plan = data.run.plan.scenario, data.run.plan
    schedule = None if plan.apart else plan.schedules.get(data.analysis.reference)
    marks = phase_marks(schedule.offered, schedule.window_start_s, schedule.window_end_s) if schedule else ()
    named = scenario.goal and not plan.apart  # such rows have goals of their own, and SLOs
    what = f"successful “{wording.clean(scenario.goal or '')}” requests" if named else "successful requests"
    limits = () if plan.apart else slo_limits(scenario.slos, scenario.goal)
    slo = " The dashed level line is the SLO." if limits else ""
    latency = build.figure(
        "latency",
        "Latency, p95",
        "seconds",
        lambda t: t.p95_s,
        reads=f"p95 of each second's {what}, seen by the client.{slo}",
        why="no second had a successful answer with a histogram",
        limits=limits,
        marks=marks,
    )
    if latency.drawing.unit == "seconds" and _spans_decades(latency.drawing):
        latency = replace(latency, reads=f"{latency.reads} The axis is logarithmic.")
    traffic = build.figure(
        "traffic",
        "Traffic, goodput per second",
        "plain",
        lambda t: t.goodput_per_s,
        reads=f"{what.capitalize()} per second; the dashed grey line is what was offered.",
        why="no successful goal request was counted",
        offered=True,
        marks=marks,
    )
    finished = build.figure(
        "finished",
        "Traffic, iterations finished per second",
        "plain",
        lambda t: t.finished_per_s,
        reads="Iterations that came to their end per second; what is missing to the dashed grey line still waits for "
        "the system, or was dropped, and what comes later lies above it.",
        why="no iterations were counted",
        offered=True,
        marks=marks,
    )
    errors = build.figure(
        "errors",
        "Errors, share of requests",
        "ratio",
        lambda t: t.error_ratio,
        reads="Failed requests among all requests of each second.",
        why="no request was counted",
        marks=marks,
    )
    return (latency, traffic, finished, errors, *_saturation(data, build, marks))


def _spans_decades(drawing: Drawing) -> bool:
    from ticketbench.report.charts import LOG_FROM_RATIO, bounds

    low, high = bounds(drawing)
    return low > 0 and high / low > LOG_FROM_RATIO


def _saturation(data: ReportInput, build: _Builder, marks: tuple[float, ...]) -> list[Figure]:
    order: dict[str, int] = {}
    for v in data.analysis.variants:
        for place, (name, _) in enumerate(ranked(v.signals.saturation)):
            order[name] = min(place, order.get(name, place))
    drawable = [name for name in order if any(name in t.utilisation for t in build.main)]
    busiest = sorted(drawable, key=lambda name: (order[name], name))[:MAX_UTILISATIONS]
    signals = data.run.plan.external.signals if data.run.plan.external is not None else ()
    own = {name for name in busiest if any(signal.column == f"resource.used{{resource={name}}}" for signal in signals)}
    figures = [
        build.figure(
            f"util{n}",
            f"Saturation, {wording.resource(name)} utilisation",
            "share",
            _utilisation_of(name),
            reads=(
                "Busy fraction of each second: near 100 % whatever comes next has to wait."
                if name not in own
                else "Used share of its capacity, by the system's own series; above 100 % more is used than there is."
            ),
            why="no series of this resource",
            marks=marks,
        )
        for n, name in enumerate(busiest)
    ]
    if not figures:
        figures = [
            build.figure(
                "util0", "Saturation", "share", lambda t: [None] * len(t.t_s), reads="", why="no series of any resource"
            )
        ]
    queues: dict[str, tuple[float, str]] = {}
    for v in data.analysis.variants:
        for name, s in v.signals.saturation.items():
            if s.queue and any(name in t.queue for t in build.main):
                queues[name] = max(queues.get(name, (0.0, "")), (s.queue, s.unit))
    waited_for = sorted((n for n in queues if not queues[n][1].startswith("seconds")), key=lambda n: -queues[n][0])
    figures += [
        build.figure(
            f"queue{n}",
            f"Saturation, {wording.resource(name)} queue",
            "plain",
            _queue_of(name),
            reads=f"{_waiting(queues[name][1])}, in each second.",
            why="no series of this queue",
            marks=marks,
        )
        for n, name in enumerate(waited_for[:MAX_QUEUES])
    ]
    return figures


def _waiting(unit: str) -> str:
    text = wording.clean(unit) or "queued work"
    return text[:1].upper() + text[1:]


def _utilisation_of(name: str) -> Callable[[Timeline], Values]:
    return lambda t: t.utilisation.get(name, [None] * len(t.t_s))


def _queue_of(name: str) -> Callable[[Timeline], Values]:
    return lambda t: t.queue.get(name, [None] * len(t.t_s))
