"""Markdown that outside text cannot break: GitHub's flavour, for pull-request comments."""

import re
from typing import Final

from ticketbench.report.table import Cell, Table
from ticketbench.report.wording import clean

_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]()#+!|~>-])")
_ZERO_WIDTH_SPACE: Final = "\u200b"


def paragraph(text: str) -> str:
    """Return outside text as it will be read: no markup, no HTML, no link, no mention, on one line."""
    line = " ".join(clean(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;")
    line = _SPECIAL.sub(_escape, line)
    # Addresses and mentions are linked by GitHub even in escaped text: a mark without width keeps them plain.
    line = line.replace("://", f":{_ZERO_WIDTH_SPACE}//").replace("@", f"@{_ZERO_WIDTH_SPACE}")
    return re.sub(r"(?i)\bwww\.", f"www{_ZERO_WIDTH_SPACE}.", line)


def _escape(match: re.Match[str]) -> str:
    character = match.group(1)
    # These matter only where a line starts with them or in pairs; escaping them everywhere would make the source
    # unreadable, so they are let through inside words and numbers.
    before = match.string[match.start() - 1 : match.start()]
    after = match.string[match.end() : match.end() + 1]
    if character in "-+()" and match.start() > 0 and not (character == "-" and "-" in (before, after)):
        return character
    if character == "_" and before.isalnum() and after.isalnum():
        return character
    return "&gt;" if character == ">" else f"\\{character}"


def code(text: str) -> str:
    """Return text as a code block whose fence is longer than any run of backticks in it."""
    body = clean(text)
    longest = max((len(run) for run in re.findall(r"`+", body)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sh\n{body}\n{fence}"


def _cell(cell: Cell) -> str:
    text = paragraph(cell.text)
    return f"{text}<br><sub>{paragraph(cell.note)}</sub>" if cell.note else text


def block(table: Table) -> str:
    """Return the table in Markdown, its notes below it; without rows the sentence that says why."""
    if not table.rows:
        return paragraph(table.empty or "nothing was measured")
    heads = [paragraph(f"{c.title} ({c.unit})" if c.unit else c.title) for c in table.columns]
    rules = ["---:" if column.numeric else "---" for column in table.columns]
    lines = [heads, rules, *([_cell(cell) for cell in row.cells] for row in table.rows)]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = "".join(f"\n\n{paragraph(note)}" for note in table.notes)
    return text + notes
