"""The components that had a CPU limit: how much of it they used, and for how long it held them back."""

from ticketbench.report import wording
from ticketbench.report.cells import held_back, is_held_back, reason_for
from ticketbench.report.input import ReportInput
from ticketbench.report.table import Cell, Column, Row, Table, figure

_NOTE = (
    "A component with a CPU limit may run for its share of each tenth of a second. What has used that up waits for the "
    "next tenth, even while a core is idle. Held back is this wait: for how many seconds of each second the component "
    "had work and its limit did not let it run; waits on several cores are added up. Whoever asks it for something "
    "meanwhile waits as well, so it is a part of their latency."
)


def limits_table(data: ReportInput) -> Table:
    """Return a row for each limited component of each variant; none where no component had a limit."""
    rows = []
    for v in data.analysis.variants:
        for name, saturation in v.signals.saturation.items():
            if saturation.limit_cores is None:
                continue
            why = reason_for(v, "no series of its control group")
            rows.append(
                Row(
                    (
                        Cell(wording.variant(v.variant)),
                        Cell(wording.resource(name)),
                        Cell(_cores(saturation.limit_cores)),
                        figure(wording.busy(saturation.utilisation), reason_for(v, "no series of its CPU")),
                        figure(held_back(saturation), why, tone="warn" if is_held_back(saturation) else ""),
                    )
                )
            )
    columns = (
        Column("variant", "Variant", numeric=False),
        Column("component", "Component", numeric=False),
        Column("limit_cores", "Limit"),
        Column("utilisation", "Used of its limit"),
        Column("throttled", "Held back by it"),
    )
    return Table("CPU limits", columns, tuple(rows), (_NOTE,), empty="no component had a CPU limit")


def _cores(limit: float) -> str:
    return f"{limit:g} core{'s' * (limit != 1)}"
