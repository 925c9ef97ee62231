"""The table of docs/faults.md, from what was seen."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

BEGIN: Final = "<!-- made by python -m tests.faults --table -->"
END: Final = "<!-- end -->"
HEADER: Final = (
    "| Part | Moment | Fault | Exit | Seconds to the end | Message | Kept | Left |\n|---|---|---|---|---|---|---|---|\n"
)


def _cell(text: str) -> str:
    shown = re.sub(r"/\S*/ticketbench-fault-\w+", "FOLDER", text)
    shown = re.sub(r"\d{8}T\d{6}Z", "TIME", shown)
    shown = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", shown)
    return " ".join(shown.replace("|", "\\|").replace("<", "&lt;").split())


def _short(text: str, most: int = 220) -> str:
    return text if len(text) <= most else text[: most - 4].rsplit(" ", 1)[0] + " ..."


def _kept(told: dict[str, Any]) -> str:
    if not told["statuses"]:
        return "nothing had been measured" if not told["kept"] else ", ".join(told["kept"])
    parts = [f"trial ({', '.join(told['statuses'])})", *told["kept"]]
    return ", ".join(parts) + (", report" if told["reports"] else "")


def _row(told: dict[str, Any]) -> str:
    if "skipped" in told:
        cells = ("-", "-", f"not tried: {told['skipped']}", "-", "-")
    else:
        code = "none" if told["code"] is None else str(told["code"])
        message = told["message"] or ("; ".join(told["reasons"][:1]) and f"in the report: {told['reasons'][0]}") or "-"
        left = "; ".join(told["left"]) or "nothing"
        cells = (code, f"{told['seconds']:.0f}", _short(message), _kept(told), left)
    where = (told["part"], told["moment"], told["fault"])
    return f"| {' | '.join(_cell(text) for text in (*where, *cells))} |\n"


def table(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Put the table between the marks of the file. Raises ValueError where it has none."""
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no marks to put a table between")
    path.write_text(f"{before}{BEGIN}\n\n{HEADER}{''.join(map(_row, rows))}\n{END}{after}")
