"""A table as data: made once, drawn as HTML, as Markdown, and as JSON."""

from dataclasses import dataclass
from typing import Literal

from ticketbench.report.wording import MISSING

Tone = Literal["", "good", "bad", "warn", "missing"]


@dataclass(frozen=True)
class Cell:
    """One figure: ``text`` with a smaller ``note`` below it. ``share`` (0 to 1) draws a bar behind a figure.

    ``tone`` only colours what the words already say.
    """

    text: str
    note: str = ""
    tone: Tone = ""
    share: float | None = None


@dataclass(frozen=True)
class Column:
    """``key`` names the column in JSON; ``numeric`` aligns its figures to the right; ``unit`` stands in its heading."""

    key: str
    title: str
    numeric: bool = True
    unit: str = ""


@dataclass(frozen=True)
class Row:
    """``cells`` are as many as the table's columns; the first one heads the row.

    ``doubted`` greys figures of an invalid measurement, which its words say as well.
    """

    cells: tuple[Cell, ...]
    marked: bool = False
    doubted: bool = False
    swatch: str = ""


@dataclass(frozen=True)
class Table:
    """``caption`` says what the table shows; ``notes`` are sentences below it. Without rows ``empty`` says why."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    empty: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                raise ValueError(f"{self.caption!r}: {len(row.cells)} cells for {len(self.columns)} columns")


def figure(text: str | None, why: str, note: str = "", tone: Tone = "", share: float | None = None) -> Cell:
    """Return a cell with a figure, or, where ``text`` is None, one that says so and ``why``."""
    if text is None:
        return Cell(MISSING, why, "missing")
    return Cell(text, note, tone, share)
