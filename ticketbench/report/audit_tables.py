"""The tables of the ledger audit: the tickets, and the money where there was a payment provider."""

from collections.abc import Sequence
from typing import Final

from ticketbench.conclusions import VariantAnalysis
from ticketbench.report import wording
from ticketbench.report.cells import INTEGRITY
from ticketbench.report.input import ReportInput
from ticketbench.report.table import Cell, Column, Row, Table, figure

_TICKETS: Final = ("capacity", "sold", "oversold", "acknowledged", "lost", "duplicated", "stranded")
_MONEY: Final = ("charged", "refunded", "double_charged", "unpaid", "unrefunded")
_MUST_BE_ZERO: Final = frozenset(
    {"oversold", "lost", "duplicated", "stranded", "double_charged", "unpaid", "unrefunded"}
)  # fmt: skip
_WITHOUT: Final = {"stranded": "does not apply"}  # what a variant need not have


def audit_tables(data: ReportInput) -> tuple[Table, ...]:
    """Return the audit of each variant, every count to the ticket and to the payment."""
    return (_tickets(data.analysis.variants), *_money(data.analysis.variants))


def _tickets(variants: Sequence[VariantAnalysis]) -> Table:
    rows = []
    for v in variants:
        symbol, word, tone = INTEGRITY[v.integrity.status]
        verdict = Cell(f"{symbol} {word}", "; ".join(v.integrity.reasons), tone)
        rows.append(Row((Cell(wording.variant(v.variant)), verdict, *_counts(v, _TICKETS))))
    columns = (
        Column("variant", "Variant", numeric=False),
        Column("status", "Integrity", numeric=False),
        *_columns(_TICKETS),
    )
    notes = (
        "Counted after the load had stopped, from the database itself: oversold is tickets beyond the capacity of a "
        "match; lost is acknowledged to a buyer and not in the database; duplicated is one purchase with several "
        "tickets; stranded is taken in Redis without a ticket. A request without an answer is unknown, not lost.",
    )
    return Table("Ledger audit", columns, tuple(rows), notes, empty="no variant was audited")


def _money(variants: Sequence[VariantAnalysis]) -> tuple[Table, ...]:
    """Return the table of the money, for the variants that had somebody to pay."""
    paid = [v for v in variants if v.integrity.charged is not None]
    if not paid:
        return ()
    rows = tuple(Row((Cell(wording.variant(v.variant)), *_counts(v, _MONEY))) for v in paid)
    notes = (
        "Payments, from the provider's own books, once the sale had given back what it owed: double charged is beyond "
        "the first for one purchase; unpaid is a purchase with a ticket and no charge that stands; unrefunded is a "
        "charge that bought no ticket and was not given back.",
    )
    columns = (Column("variant", "Variant", numeric=False), *_columns(_MONEY))
    return (Table("Money", columns, rows, notes),)


def _columns(names: Sequence[str]) -> tuple[Column, ...]:
    return tuple(Column(name, name.replace("_", " ").capitalize()) for name in names)


def _counts(v: VariantAnalysis, names: Sequence[str]) -> list[Cell]:
    integrity = v.integrity
    why = integrity.reasons[0] if integrity.reasons else "the ledger does not say"
    cells = []
    for name in names:
        n: int | None = getattr(integrity, name)
        if n is None and name in _WITHOUT:
            audited = integrity.status not in ("unknown", "not_audited")
            cells.append(Cell(_WITHOUT[name] if audited else wording.MISSING, "", "missing"))
        else:
            cells.append(figure(wording.count(n), why, tone="bad" if n and name in _MUST_BE_ZERO else ""))
    return cells
