"""The rows of a plan beside what was measured: what was expected of each, and whether it is so."""

from typing import Final

from ticketbench.analysis.expectations import STATUS_WORDS, signal_words, value_text
from ticketbench.conclusions import CheckResult, ExpectationResult, ExpectationStatus, RowAnalysis
from ticketbench.report import wording
from ticketbench.report.input import ReportInput
from ticketbench.report.table import Cell, Column, Row, Table, Tone

_SYMBOLS: Final[dict[ExpectationStatus, tuple[str, Tone]]] = {
    "met": ("✓", "good"),
    "not_met": ("▼", "bad"),
    "unknown": ("?", "warn"),
}
_SIGNS: Final = {"<=": "≤", ">=": "≥"}
_NOTE: Final = (
    "The words are those of whoever expected it; below them is what they are held to. An expectation is met where all"
    " of its checks hold, and cannot be told where a figure is missing or the measurement is invalid. “about” leaves a"
    " tenth to either side. Expectations decide no exit code: SLOs do."
)
_COLUMNS: Final = (
    Column("row", "Row", numeric=False),
    Column("expected", "Expected", numeric=False),
    Column("measured", "Measured", numeric=False),
    Column("met", "As expected?", numeric=False),
)


def expected_table(data: ReportInput) -> Table:
    """Return a row for each expectation, with what its row ran at the first one; none where nothing was expected."""
    rows = []
    something = any(row.expectations for row in data.analysis.rows)
    for row in data.analysis.rows:
        for at, one in enumerate(row.expectations):
            rows.append(Row((_named(row) if at == 0 else Cell(wording.clean(row.row)), *_cells(one))))
        if something and not row.expectations:
            rows.append(Row((_named(row), Cell("nothing"), Cell(""), Cell(""))))
    caption = "What was expected, and what was measured"
    return Table(caption, _COLUMNS, tuple(rows), (_NOTE,), empty="nothing was expected")


def _named(row: RowAnalysis) -> Cell:
    title = f"{wording.clean(row.title)}; " if row.title else ""
    return Cell(wording.clean(row.row), f"{title}scenario {wording.clean(row.scenario)}")


def _cells(one: ExpectationResult) -> tuple[Cell, Cell, Cell]:
    symbol, tone = _SYMBOLS[one.status]
    return (
        Cell(wording.clean(one.text), ", ".join(_check_words(check) for check in one.checks)),
        Cell(", ".join(f"{_named_signal(c.signal)} {value_text(c.signal, c.measured)}" for c in one.checks)),
        Cell(f"{symbol} {STATUS_WORDS[one.status]}", wording.clean(one.reason), tone),
    )


def _named_signal(signal: str) -> str:
    kind, _, resource = signal.partition(".")
    return f"{wording.resource(resource)} {kind}" if resource else signal_words(signal)


def _check_words(check: CheckResult) -> str:
    """Return a check for people: ``p95 < 0.1 s``."""
    *names, comparison, value = check.check.replace(" | ", " ").split()
    wanted = f"{_SIGNS.get(comparison, comparison)} {value_text(names[0], float(value))}"
    return f"{' or '.join(map(_named_signal, names))} {wanted}"
