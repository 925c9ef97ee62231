"""The planned faults of a run: what was done when, and what became of the load."""

from ticketbench.conclusions import FaultEffect
from ticketbench.report import wording
from ticketbench.report.input import ReportInput
from ticketbench.report.table import Cell, Column, Row, Table, figure

_NOTE = (
    "Seconds of the window. Goodput before: the mean of up to 10 s. As before: the first two seconds in a row with "
    "80 % of what was sold before, of what was offered in the same second. Worst second, p95 (of a second's successful "
    "requests) and failed requests: from the fault's begin until goodput was as before."
)
_COLUMNS = (
    Column("trial", "Trial", numeric=False),
    Column("fault", "Fault", numeric=False),
    Column("done_s", "Done / undone", unit="s"),
    Column("answered_s", "Answers again", unit="s"),
    Column("before_per_s", "Goodput before", unit="/s"),
    Column("worst_per_s", "Worst second", unit="/s"),
    Column("p95_worst", "p95 up to"),
    Column("failed", "Failed"),
    Column("recovered_s", "As before", unit="s"),
)


def faults_table(data: ReportInput) -> Table:
    """Return a row for each planned fault of each trial; none where none was planned."""
    rows = []
    for trial in data.analysis.trials:
        rows += [
            Row((Cell(trial.trial, wording.variant(trial.variant)), Cell(effect.fault), *_figures(effect)))
            for effect in trial.faults
        ]
    return Table("Planned faults", _COLUMNS, tuple(rows), (_NOTE,), empty="no fault was planned")


def _figures(effect: FaultEffect) -> tuple[Cell, ...]:
    why = wording.clean(effect.problem) or "the load ended before"
    none = "no second of it was stored"
    at, undone = _seconds(effect.at_s), _seconds(effect.undone_at_s)
    after = "" if effect.answered_at_s is None else _after(effect.answered_at_s, effect.undone_at_s)
    back = "" if effect.recovered_at_s is None else _after(effect.recovered_at_s, effect.undone_at_s)
    never = "not before the window's end" if effect.goodput_before_per_s else "goodput before is not known"
    return (
        figure(at and f"{at} / {undone or wording.MISSING}", why),
        figure(_seconds(effect.answered_at_s), why, after),
        figure(wording.number(effect.goodput_before_per_s), "the fault came in the window's first seconds"),
        figure(wording.number(effect.goodput_worst_per_s), none),
        figure(wording.latency(effect.p95_worst_s), "no request succeeded"),
        figure(wording.count(effect.failed), none, tone="warn" if effect.failed else ""),
        figure(_seconds(effect.recovered_at_s), never, back),
    )


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f}"


def _after(value: float, undone: float | None) -> str:
    return "" if undone is None else f"{max(0.0, value - undone):.1f} s after it was undone"


def fault_spans(data: ReportInput, trial: str) -> tuple[tuple[float, float], ...]:
    """Return when the faults of a trial were under way, in seconds of its window."""
    effects = next((t.faults for t in data.analysis.trials if t.trial == trial), ())
    return tuple(
        (effect.at_s, effect.at_s if effect.answered_at_s is None else effect.answered_at_s)
        for effect in effects
        if effect.at_s is not None
    )
