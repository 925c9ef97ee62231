"""``ticketbench scenarios list|show|check``."""

import json
from pathlib import Path

from ticketbench import factors, scenario
from ticketbench.binaries import provide
from ticketbench.cli import output
from ticketbench.cli.lines import Lines
from ticketbench.errors import EXIT_INVALID, EXIT_OK
from ticketbench.levels import level_text
from ticketbench.model import Scenario, Schedule


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
    peak = max((max(piece.from_per_s, piece.to_per_s) for piece in schedule.offered), default=None)
    window_s = schedule.window_end_s - schedule.window_start_s
    lines = [
        output.titled(item),
        f"  asks      {item.asks or '-'}",
        f"  shape     {item.shape}; warm-up {schedule.window_start_s:g} s, window {window_s:g} s",
        f"  load      {'open' if schedule.open_model else 'closed'} model"
        + (f", at most {peak:g} journeys/s" if peak is not None else "")
        + f", at most {schedule.max_vus} virtual users",
        f"  goodput   successes of {item.goal or 'any request'}",
        *(
            f"  {'SLOs' if number == 0 else '':10}{slo}"
            for number, slo in enumerate([f"{slo.metric} {slo.expression}" for slo in item.slos] or ["none"])
        ),
        "  levels    " + (", ".join(f"{k}={level_text(v)}" for k, v in item.levels.items()) or "all defaults"),
        "",
        "Factors (--vary FACTOR=A,B or --set FACTOR=A):",
    ]
    for factor in factors.CATALOGUE.values():
        default = item.levels.get(factor.name, factor.default)
        shown_default = "the scenario's" if default is None else level_text(default)
        lines.append(f"  {factor.name:19}{factor.help}: {factor.levels_text()} [{shown_default}]")
    out = output.console()
    for line in lines:
        out.print(Text(output.plain(line)))


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
