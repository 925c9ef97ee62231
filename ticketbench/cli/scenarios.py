"""``ticketbench scenarios list|show|check``."""

import json
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from ticketbench import factors, scenario
from ticketbench.binaries import provide
from ticketbench.cli import output
from ticketbench.cli.lines import Lines
from ticketbench.errors import EXIT_INVALID, EXIT_OK
from ticketbench.levels import level_text
from ticketbench.model import Scenario, Schedule

# A text beside a name is not made narrower than this, however narrow the terminal.
_NARROWEST: Final = 20


def _inspect(script: Path) -> tuple[Scenario, Schedule]:
    binaries = provide(Lines(), parts=("k6",))
    return scenario.inspect((str(binaries.k6),), script, scenario.load_env({}))


def list_scenarios(*, as_json: bool) -> None:
    """Print each bundled scenario with its question."""
    from rich.table import Table
    from rich.text import Text

    found = [_inspect(scenario.find(name)) for name in scenario.bundled()]
    if as_json:
        print(json.dumps([item.model_dump(mode="json") for item, _ in found], indent=1, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("scenario", "shape", "takes", "asks"):
        table.add_column(column)
    for item, schedule in found:
        table.add_row(item.name, item.shape, output.duration_text(schedule.total_s), Text(output.plain(item.asks)))
    output.console().print(table)


def show_scenario(text: str, *, as_json: bool) -> None:
    """Print all that a scenario says of itself, and the factors."""
    from rich.text import Text

    item, schedule = _inspect(scenario.find(text))
    if as_json:
        shown = {"scenario": item.model_dump(mode="json"), "schedule": schedule.model_dump(mode="json")}
        print(json.dumps(shown, indent=1, ensure_ascii=False))
        return
    out = output.console()
    out.print(Text(output.plain(output.titled(item))))
    for line in _lines(_about(item, schedule), out.width):
        out.print(Text(line))
    out.print()
    out.print(Text("Factors (--vary FACTOR=A,B or --set FACTOR=A):"))
    for line in _lines(_factors(item), out.width):
        out.print(Text(line))


def _about(item: Scenario, schedule: Schedule) -> list[tuple[str, str]]:
    peak = max((max(piece.from_per_s, piece.to_per_s) for piece in schedule.offered), default=None)
    window_s = schedule.window_end_s - schedule.window_start_s
    load = [
        f"{'open' if schedule.open_model else 'closed'} model",
        *([] if peak is None else [f"at most {peak:g} journeys/s"]),
        f"at most {schedule.max_vus} virtual users",
    ]
    slos = [f"{slo.metric} {slo.expression}" for slo in item.slos] or ["none"]
    return [
        ("asks", item.asks or "-"),
        *([("look at", item.look_at)] if item.look_at else []),
        ("shape", f"{item.shape}; warm-up {schedule.window_start_s:g} s, window {window_s:g} s"),
        ("load", ", ".join(load)),
        ("goodput", f"successes of {item.goal or 'any request'}"),
        *(("" if number else "SLOs", slo) for number, slo in enumerate(slos)),
        ("levels", ", ".join(f"{k}={level_text(v)}" for k, v in item.levels.items()) or "all defaults"),
    ]


def _factors(item: Scenario) -> list[tuple[str, str]]:
    told = []
    for factor in factors.CATALOGUE.values():
        default = item.levels.get(factor.name, factor.default)
        shown = "the scenario's" if default is None else level_text(default)
        told.append((factor.name, f"{factor.help}: {factor.levels_text()} [{shown}]"))
    return told


def _lines(pairs: Sequence[tuple[str, str]], width: int) -> Iterator[str]:
    """Yield each name with its text beside it; what is too long for a line goes on below the text, not the name."""
    indent = 4 + max(len(name) for name, _ in pairs)
    for name, text in pairs:
        yield from textwrap.wrap(
            output.plain(text),
            max(width, indent + _NARROWEST),
            initial_indent=f"  {name:{indent - 2}}",
            subsequent_indent=" " * indent,
            break_on_hyphens=False,
        )


def check_scenario(text: str, *, as_json: bool) -> int:
    """Check a script; exit 0 when it can be run and nothing weakens it, 3 with warnings, 2 when it cannot be run."""
    from rich.text import Text

    script = scenario.find(text)
    binaries = provide(Lines(), parts=("k6",))
    warnings = scenario.check((str(binaries.k6),), script)
    if as_json:
        print(json.dumps({"scenario": text, "warnings": list(warnings)}, indent=1, ensure_ascii=False))
    else:
        out = output.console()
        for warning in warnings:
            out.print(Text(output.plain(f"{text}: {warning}")))
        if not warnings:
            out.print(Text(f"{text}: fit for use"))
    return EXIT_INVALID if warnings else EXIT_OK
