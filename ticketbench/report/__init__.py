"""Reports: each is a function from a judged run to bytes. Only the caller writes them."""

from collections.abc import Callable
from typing import Final

from ticketbench.report.comparison import comparison_json, comparison_markdown, comparison_table
from ticketbench.report.export import json_, junit
from ticketbench.report.html_page import html, render
from ticketbench.report.input import ReportInput
from ticketbench.report.markdown_page import markdown

# What `ticketbench report --format` takes, with the name of the file that it makes. The JSON has the content of
# analysis.json and a name of its own, so that writing a report never replaces what the store wrote.
FORMATS: Final[dict[str, tuple[str, Callable[[ReportInput], bytes]]]] = {
    "html": ("report.html", html),
    "md": ("report.md", markdown),
    "json": ("report.json", json_),
    "junit": ("report.xml", junit),
}

__all__ = [
    "FORMATS", "ReportInput", "comparison_json", "comparison_markdown", "comparison_table", "html", "json_", "junit",
    "markdown", "render",
]  # fmt: skip
