"""What a run varied: the factors of its variants, or the scenarios and levels of its rows."""

from ticketbench.levels import level_words
from ticketbench.model import Plan, Scenario
from ticketbench.report import wording
from ticketbench.report.input import ReportInput
from ticketbench.report.table import Cell, Column, Row, Table


def differed(data: ReportInput) -> tuple[Table, str]:
    """Return what differed between the variants, or what each row ran, and a sentence on all other factors."""
    plan = data.run.plan
    rows = tuple(
        Row(
            (
                Cell(wording.clean(factor)),
                Cell(", ".join(level_words(factor, level) for level in levels)),
                Cell(level_words(factor, levels[0])),
            )
        )
        for factor, levels in plan.varied.items()
        if levels
    )
    columns = (
        Column("factor", "Factor", numeric=False),
        Column("levels", "Levels", numeric=False),
        Column("reference", "Reference", numeric=False),
    )
    if plan.rows:
        return _rows_differed(plan)
    held = ", ".join(f"{name}={level_words(name, level)}" for name, level in plan.fixed.items())
    table = Table("What differed between the variants", columns, rows, empty="nothing was varied")
    if plan.external is not None and not held:
        return table, "The system was measured as it stands."
    return table, f"Set by hand for all: {held}." if held else "All other factors had the scenario's own levels."


def _scenario_cell(scenario: Scenario, *, apart: bool) -> Cell:
    """Return what a row ran; what to look at stands here only where the rows differ in it."""
    look_at = f"what to look at: {wording.clean(scenario.look_at)}" if apart and scenario.look_at else ""
    return Cell(wording.clean(scenario.name), look_at)


def _rows_differed(plan: Plan) -> tuple[Table, str]:
    columns = tuple(Column(key, key.capitalize(), numeric=False) for key in ("row", "scenario", "levels"))
    rows = tuple(
        Row(
            (
                Cell(wording.clean(row.name), wording.clean(row.title)),
                _scenario_cell(plan.scenario_of(row.name), apart=plan.apart),
                Cell(", ".join(f"{name}={level_words(name, level)}" for name, level in row.levels.items())),
            )
        )
        for row in plan.rows
    )
    held = ", ".join(f"{name}={level_words(name, level)}" for name, level in plan.fixed.items())
    rest = "All other factors had the scenarios' own levels."
    return Table("What each row ran", columns, rows), f"Set for all rows: {held}." if held else rest
