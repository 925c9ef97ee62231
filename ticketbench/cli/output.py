"""What the commands print as results, on standard output, and how figures are written for people."""

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Final

from ticketbench.analysis.wording import latency

if TYPE_CHECKING:
    from rich.console import Console

    from ticketbench.conclusions import Analysis, Comparison, Finding, VariantAnalysis
    from ticketbench.model import Plan, Scenario


def plain(text: str) -> str:
    """Return text from outside without control characters, which a terminal would obey."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def titled(scenario: "Scenario", title: str = "") -> str:
    """Return a scenario's name with its title, where it has one of its own; a plan's ``title`` comes before both."""
    named = scenario.name if scenario.title in ("", scenario.name) else f"{scenario.name}: {scenario.title}"
    return f"{title} ({named})" if title else named


def closed_model_text(plan: "Plan") -> str:
    """Return a line that names a closed model and what it means; nothing for an open one."""
    schedules = plan.schedules.values()
    if all(schedule.open_model for schedule in schedules):
        return ""
    users = max(schedule.max_vus for schedule in schedules)
    return (
        f"closed model, at most {users} virtual user{'s' * (users != 1)}: "
        "a target that is slower is offered less, so no rate is held against it"
    )


def tell(text: str) -> None:
    """Print a line on standard error. A terminal or reader that went away must not change what the command comes to."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def duration_text(seconds: float) -> str:
    """Return a duration for people: ``45 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


_NO_LATENCY_S: Final = 100_000.0  # something is broken, and its figure must not break the table as well


def time_text(seconds: float | None) -> str:
    """Return a latency with its unit in at most nine characters; a dash where there is none."""
    if seconds is None:
        return "-"
    return latency(seconds) if seconds < _NO_LATENCY_S else f"{seconds:.3g} s"


def number_text(value: float | None, digits: int = 1) -> str:
    """Return a number, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def rate_text(per_s: float | None) -> str:
    """Return a rate in at most nine characters; a dash where there is none."""
    if per_s is None:
        return "-"
    if abs(per_s) < 1000:
        return f"{per_s:.1f}/s"
    return f"{per_s:,.0f}/s" if abs(per_s) < 999_999.5 else f"{per_s:.2g}/s"


def count_text(count: int | None) -> str:
    """Return a count in at most nine characters; a dash where there is none."""
    if count is None:
        return "-"
    return f"{count:,}" if abs(count) < 10_000_000 else f"{count:.3g}"


def percent_text(ratio: float | None) -> str:
    """Return a ratio as a percentage; a tiny one is not rounded to nothing."""
    if ratio is None:
        return "-"
    if 0 < ratio < 0.001:
        return "<0.1 %"
    return f"{ratio * 100:.1f} %"


# Standard output that is no terminal: as wide as a line of a log may be before it is a nuisance.
_WIDTH_OF_A_FILE: Final = 120
# Below this the quantiles beside p95 are left out: the report has them, and a cut-off name helps nobody.
_WIDE: Final = 100


def console() -> "Console":
    """Return a console on standard output; ``NO_COLOR`` and ``COLUMNS`` are honoured by rich."""
    from rich.console import Console

    fixed = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else _WIDTH_OF_A_FILE
    return Console(highlight=False, soft_wrap=False, width=fixed)


def print_analysis(analysis: "Analysis", plan: "Plan") -> None:
    """Print the outcome, the table of variants, and whatever a reader must know before believing it."""
    from rich.table import Table
    from rich.text import Text

    out = console()
    word = {
        "pass": "PASS",
        "slo_missed": "SLO MISSED",
        "invalid": "INVALID",
        "integrity_violated": "INTEGRITY VIOLATED",
    }
    style = {"pass": "bold green", "slo_missed": "bold yellow"}.get(analysis.outcome.status, "bold red")
    out.print()
    sentence = Text(f"  {plain(analysis.outcome.sentence)}", style="default")
    out.print(Text(word[analysis.outcome.status], style=style) + sentence)
    out.print()
    columns = ("variant", "goodput/s", "p50", "p95", "p99", "errors", "validity", "integrity")
    shown = columns if out.width >= _WIDE else tuple(name for name in columns if name not in ("p50", "p99"))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in shown:
        left = name in ("variant", "validity", "integrity")
        table.add_column(name, justify="left" if left else "right", no_wrap=name != "variant", overflow="fold")
    for variant in analysis.variants:
        cells = dict(zip(columns, _row(variant), strict=True))
        table.add_row(*(Text(plain(cells[name])) for name in shown))
    out.print(table)
    out.print()
    for line in _rows(analysis, plan):
        out.print(Text(plain(line)))
    for names, reason in _told(analysis):
        several = len(analysis.variants) > 1
        every = "both variants" if len(names) == 2 else f"all {len(names)} variants"
        whose = every if len(names) == len(analysis.variants) else "; ".join(names)
        out.print(Text(plain(f"{whose}: {reason}" if several else reason)))
    for line in _faults(analysis):
        out.print(Text(plain(line)))
    if analysis.shape != "functional" and closed_model_text(plan):
        out.print(Text(closed_model_text(plan).capitalize()))
    if (
        analysis.shape != "functional"
        and analysis.trials
        and not plan.apart
        and max(v.trials for v in analysis.variants) <= 1
    ):
        out.print(
            Text("One trial a variant: differences have no interval and may be noise; --trials 5 gives them one."),
        )


def _rows(analysis: "Analysis", plan: "Plan") -> list[str]:
    """Return what was expected of each row, and whether it is so; and where rows are not compared."""
    from ticketbench.analysis.expectations import row_lines

    apart = ["Rows run scenarios of their own: they are not compared."] if plan.apart else []
    return [*row_lines(analysis.rows), *apart]


def _faults(analysis: "Analysis") -> list[str]:
    """Return what became of each planned fault, by trial where there are several."""
    from ticketbench.analysis.sentences import fault_sentence
    from ticketbench.levels import variant_words

    lines = []
    for trial in analysis.trials:
        several = len(analysis.variants) > 1 or len(analysis.trials) > 1
        whose = f"{variant_words(trial.variant)}, trial {trial.trial}: " if several else ""
        lines += [f"{whose}{fault_sentence(effect)}" for effect in trial.faults]
    return lines


def _told(analysis: "Analysis") -> "list[tuple[tuple[str, ...], str]]":
    """Return what is to be known beside the sentence of the outcome, each once, with the variants that it holds for."""
    from ticketbench.analysis.audit import NOT_OURS
    from ticketbench.analysis.reasons import said_once
    from ticketbench.analysis.sentences import NAMED_SLOS
    from ticketbench.analysis.slos import slo_text
    from ticketbench.levels import variant_words

    parts = []
    for variant in analysis.variants:
        audited = [
            r for r in variant.integrity.reasons if r != NOT_OURS or "not audited" not in analysis.outcome.sentence
        ]
        missed = [f"SLO missed: {slo_text(slo)}" for slo in variant.slos if not slo.ok]
        if analysis.outcome.status == "slo_missed" and (not analysis.rows and variant.variant == analysis.reference):
            missed = missed[NAMED_SLOS:]  # the sentence has the others
        parts.append((variant_words(variant.variant), [*variant.validity.reasons, *audited, *missed]))
    told = said_once(parts)
    if len(parts) == 1:
        return [(names, reason) for names, reason in told if reason not in analysis.outcome.sentence]
    return sorted(told, key=lambda one: len(one[0]) < len(parts))  # first what holds for all


def _row(variant: "VariantAnalysis") -> tuple[str, ...]:
    from ticketbench.levels import variant_words  # here: `--help` does without factors and records

    signals = variant.signals
    return (
        variant_words(variant.variant),
        number_text(signals.traffic.goodput_per_s),
        time_text(signals.latency_s.p50),
        time_text(signals.latency_s.p95),
        time_text(signals.latency_s.p99),
        percent_text(signals.errors.ratio),
        variant.validity.status.replace("_", " "),
        variant.integrity.status.replace("_", " "),
    )


def print_comparison(comparison: "Comparison") -> None:
    """Print the verdict, then each finding with its effect, whether it may gate, and the reason."""
    from rich.table import Table
    from rich.text import Text

    out = console()
    style = {"regressed": "bold red", "improved": "bold green", "unchanged": "bold green"}
    out.print(
        Text(comparison.verdict.upper(), style=style.get(comparison.verdict, "bold yellow"))
        + Text(f"  {comparison.sentence}", style="default"),
        soft_wrap=True,
    )
    for difference in comparison.environment_differences:
        out.print(Text(f"unlike: {difference}"))
    out.print()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("signal", "baseline", "candidate", "effect", "verdict", "decides"):
        table.add_column(name, justify="right" if name in ("baseline", "candidate", "effect") else "left")
    for finding in comparison.findings:
        cells = (
            finding.signal,
            _signal_text(finding.signal, finding.baseline),
            _signal_text(finding.signal, finding.candidate),
            _effect_text(finding),
            finding.verdict,
            "yes" if finding.gates else "informs",
        )
        table.add_row(*(Text(cell) for cell in cells))
    out.print(table)
    out.print()
    for finding in comparison.findings:
        if finding.verdict != "unchanged":
            out.print(Text(f"{finding.signal}: {finding.reason}"))


def _signal_text(signal: str, value: float | None) -> str:
    if value is None:
        return "-"
    if signal.startswith("latency") or (signal.endswith("_s") and not signal.endswith("per_s")):
        return time_text(value)
    if signal.startswith("errors") or signal.endswith("ratio"):
        return percent_text(value)
    return f"{value:.4g}"


def _effect_text(finding: "Finding") -> str:
    if finding.ratio is not None:
        text = f"x{finding.ratio:.3f}"
        if finding.interval is not None:
            text += f" [{finding.interval[0]:.3f}, {finding.interval[1]:.3f}]"
        return text
    if finding.difference is not None:
        return f"{finding.difference:+.4g}"
    return "-"
