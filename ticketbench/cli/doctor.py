"""``ticketbench doctor``: what a run needs, looked at and drawn."""

import json
import re
import sys
from pathlib import Path
from typing import Final

from ticketbench import doctor as judging
from ticketbench import interrupts, paths
from ticketbench.binaries import provide as provide_binaries
from ticketbench.cli import output as drawing
from ticketbench.cli.lines import Lines
from ticketbench.errors import EXIT_ENVIRONMENT, EXIT_OK, UsageError
from ticketbench.surroundings import survey

SCHEMA_VERSION: Final = 1
_STYLES: Final = {"ok": "green", "warning": "yellow", "failing": "bold red"}


def doctor(*, output: str | None, provide: bool, as_json: bool) -> int:
    """Look at the machine, print what was found; return 0 where a run can be made and 4 where not.

    Nothing is fetched unless ``provide``, and then a fetch that fails ends the command with its own message.
    """
    if output is not None and not output.strip():
        raise UsageError(f"-o {output!r} names no folder")
    with interrupts.raised():
        if provide:
            provide_binaries(Lines())
        checks = judging.examine(survey(Path(output) if output else paths.default_reports_dir()))
    ready = judging.ready(checks)
    if as_json:
        told = [
            {"name": check.name, "status": check.status, "text": check.text, "remedy": check.remedy} for check in checks
        ]
        print(json.dumps({"schema_version": SCHEMA_VERSION, "ready": ready, "checks": told}, indent=1))
    else:
        _draw(checks)
        print(_summary(checks), file=sys.stdout)
    return EXIT_OK if ready else EXIT_ENVIRONMENT


def _draw(checks: tuple[judging.Check, ...]) -> None:
    """Print a line for each check, wrapped under its own column; what to do stands below it."""
    from rich.table import Table
    from rich.text import Text

    out = drawing.console()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        said = Text(_short(drawing.plain(check.text)))
        if check.remedy:
            said.append(f"\n-> {drawing.plain(check.remedy)}", style="bold" if check.status == "failing" else "default")
        table.add_row(check.name, Text(check.status, style=_STYLES[check.status]), said)
    out.print(table)


def _short(text: str) -> str:
    """Return text with the user's home written as people write it: paths are what makes lines wrap."""
    try:
        home = str(Path.home())
    except RuntimeError:
        return text
    return re.sub(rf"(?<![\w/]){re.escape(home)}(?=/)", "~", text) if len(home) > 1 else text


def _summary(checks: tuple[judging.Check, ...]) -> str:
    failing = [check.name for check in checks if check.status == "failing"]
    warnings = [check.name for check in checks if check.status == "warning"]
    if failing:
        return f"\nno run can be made here: {', '.join(failing)}"
    if warnings:
        names = ", ".join(dict.fromkeys(warnings))
        return f"\na run can be made; {len(warnings)} warning{'s' * (len(warnings) != 1)}: {names}"
    return "\na run can be made"
