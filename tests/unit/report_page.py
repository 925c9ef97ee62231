"""What the tests of the report read a page with, and how they change what it is made of."""

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

from ticketbench.report import ReportInput

VOID = {"meta", "br", "hr", "img", "input", "link", "path", "use", "rect"}


class Page(HTMLParser):
    """The parsed page: every tag balanced, or the test fails; tables as rows of cell texts."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text: list[str] = []
        self._rows: list[list[str]] = []
        self._caption = ""
        self.feed(page.decode())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        inside_drawing = "svg" in self.open
        if not inside_drawing:
            self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag
        if tag == "table":
            self.tables.setdefault(self._caption, self._rows)

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)
        if "caption" in self.open:
            self._caption += data
        elif "td" in self.open or "th" in self.open:
            # A note stands below its figure: a line of its own.
            self._rows[-1][-1] += data

    def values(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]


def measured(text: str) -> float:
    """Return in base units what a reader takes from the page: the first figure of a cell."""
    found = re.match(r"([\d,.]+)\s*(ms|s\b|%)?", text.strip())
    assert found, text
    value = float(found[1].replace(",", ""))
    return value * {"ms": 1e-3, "s": 1.0, "%": 0.01, None: 1.0}[found[2]]


def changed(data: ReportInput, **of_first: Any) -> ReportInput:
    """Return the input with the first variant changed."""
    first, *rest = data.analysis.variants
    variants = (first.model_copy(update=of_first), *rest)
    return replace(data, analysis=data.analysis.model_copy(update={"variants": variants}))
