"""What somebody else's system says of itself, beside what k6 saw of it: routes as it counts them, and all else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ticketbench.conclusions import OwnSignal, VariantAnalysis
from ticketbench.report import wording
from ticketbench.report.input import ReportInput
from ticketbench.report.table import Cell, Column, Row, Table, figure

_REQUESTS = "app.requests"
_SECONDS = "app.duration_s"
_NOTHING = "fewer than two samples in the window"


@dataclass
class _Route:
    """One method and route as the system counts it: requests per second by status, and busy seconds per second."""

    by_status: dict[str, float | None] = field(default_factory=dict)
    busy: float | None = None

    @property
    def per_s(self) -> float | None:
        known = [value for value in self.by_status.values() if value is not None]
        return sum(known) if known else None

    @property
    def mean_s(self) -> float | None:
        return self.busy / self.per_s if self.busy is not None and self.per_s else None


def _split(column: str) -> tuple[str, dict[str, str]]:
    name, _, rest = column.partition("{")
    pairs = (pair.partition("=") for pair in rest.rstrip("}").split(",") if pair)
    return name, {key: value for key, _, value in pairs}


def _routes(signals: Sequence[OwnSignal]) -> Mapping[str, _Route]:
    found: dict[str, _Route] = {}
    for signal in signals:
        name, labels = _split(signal.column)
        if name not in (_REQUESTS, _SECONDS):
            continue
        route = found.setdefault(f"{labels.get('method', '')} {labels.get('route', '')}".strip() or "all", _Route())
        if name == _SECONDS:
            route.busy = signal.value
        else:
            route.by_status[labels.get("status", "") or "any"] = signal.value
    return {name: route for name, route in found.items() if route.per_s != 0}


def own_tables(data: ReportInput) -> tuple[Table, ...]:
    """Return the tables of the system's own series; none where no Prometheus of its own was read."""
    if data.run.plan.external is None or not data.run.plan.external.signals:
        return ()
    variants = data.analysis.variants
    return (_routes_table(variants), _signals_table(variants))


def _routes_table(variants: Sequence[VariantAnalysis]) -> Table:
    rows = []
    for v in variants:
        busy = _routes(v.own)
        for name in sorted(busy, key=lambda name: -(busy[name].busy or 0.0)):
            route = busy[name]
            statuses = ", ".join(
                f"{status}: {wording.number(value) or wording.MISSING}"
                for status, value in sorted(route.by_status.items())
                if value != 0
            )
            rows.append(
                Row(
                    (
                        Cell(wording.variant(v.variant)),
                        Cell(wording.clean(name)),
                        figure(wording.number(route.per_s), _NOTHING),
                        figure(wording.latency(route.mean_s), "no series of its time" if route.per_s else _NOTHING),
                        figure(wording.number(route.busy), "no series of its time"),
                        figure(statuses or None, "no series of its answers"),
                    )
                )
            )
    columns = (
        Column("variant", "Variant", numeric=False),
        Column("route", "Route", numeric=False),
        Column("requests", "Requests", unit="/s"),
        Column("mean", "Mean time in the system"),
        Column("busy", "Requests at a time"),
        Column("statuses", "Answers per second", numeric=False),
    )
    notes = (
        "Counted by the system itself. A client that sees a longer time than this waits before the system's own clock "
        "starts: in its queue, or for a thread. Requests at a time are its seconds of work per second.",
    )
    return Table("Routes, as the system counts them", columns, tuple(rows), notes, empty="the system counts no request")


def _signals_table(variants: Sequence[VariantAnalysis]) -> Table:
    rows = [
        Row(
            (
                Cell(wording.variant(v.variant)),
                Cell(wording.clean(signal.column)),
                figure(wording.number(signal.value), _NOTHING),
                Cell(wording.number(signal.most) or "", "", "")
                if signal.kind == "gauge"
                else Cell("does not apply", "", "missing"),
                Cell(f"{signal.unit} per second".strip() if signal.kind == "counter" else signal.unit),
            )
        )
        for v in variants
        for signal in v.own
        if _split(signal.column)[0] not in (_REQUESTS, _SECONDS)
    ]
    columns = (
        Column("variant", "Variant", numeric=False),
        Column("signal", "Signal", numeric=False),
        Column("value", "Mean of the window"),
        Column("most", "Highest sample"),
        Column("unit", "Unit", numeric=False),
    )
    return Table("Its other series", columns, tuple(rows), empty="the mapping names no others that were there")
