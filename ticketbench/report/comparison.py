"""``ticketbench compare`` in words: the findings as a table, as Markdown and as JSON."""

import json

from ticketbench.conclusions import Comparison, Finding
from ticketbench.report import wording
from ticketbench.report.markup import block, paragraph
from ticketbench.report.table import Cell, Column, Row, Table, Tone, figure

_VERDICTS: dict[str, tuple[str, str, Tone]] = {
    "improved": ("▲", "better", "good"),
    "regressed": ("▼", "worse", "bad"),
    "unchanged": ("=", "about the same", ""),
    "inconclusive": ("?", "not settled", "warn"),
}


def verdict_words(verdict: str) -> str:
    """Return the verdict as a symbol and a word, neither of which needs colour."""
    symbol, word, _ = _VERDICTS[verdict]
    return f"{symbol} {word}"


def interval(finding: Finding) -> str:
    """Return the interval as text, empty where there is none."""
    if finding.interval is None:
        return ""
    low, high = finding.interval
    if finding.ratio is None:
        low_text, high_text = wording.percent(low), wording.percent(high)
    else:
        low_text, high_text = wording.times(low), wording.times(high)
    return f"interval {low_text} to {high_text}" if low_text and high_text else ""


def effect(finding: Finding) -> Cell:
    """Return the effect with its interval, where it has one, and the verdict in symbol and word."""
    symbol, word, tone = _VERDICTS[finding.verdict]
    size = wording.times(finding.ratio)
    if size is None and finding.difference is not None:
        size = _difference(finding.signal, finding.difference)
    if size is None:
        return Cell(wording.MISSING, finding.reason or f"{symbol} {word}", "missing")
    return Cell(f"{symbol} {size}, {word}", interval(finding), tone)


def _difference(signal: str, value: float) -> str | None:
    sign = "+" if value > 0 else ""
    if "ratio" in signal or "error" in signal:
        # A difference of two ratios is in points: "+2.00%" would read as a relative change.
        points = wording.number(value * 100)
        return None if points is None else f"{sign}{points} points"
    text = wording.number(value)
    return None if text is None else f"{sign}{text}"


def value(signal: str, amount: float | None) -> str | None:
    """Return a compared signal's own figure, in the unit that its name says."""
    if "ratio" in signal or "error" in signal:
        return wording.percent(amount)
    seconds = ("latency", "p50", "p95", "p99", "cpu", "db_s")
    if signal.endswith("_s") and not signal.endswith("_per_s"):
        return wording.latency(amount)
    if not signal.endswith("_per_s") and any(part in signal for part in seconds):
        return wording.latency(amount)
    return wording.number(amount)


def comparison_table(comparison: Comparison) -> Table:
    """Return the findings as a table: baseline, candidate, effect, whether it gates, and the reason."""
    pairs = {(f.baseline_variant, f.candidate_variant) for f in comparison.findings}
    rows = []
    for finding in comparison.findings:
        name = wording.signal(finding.signal)
        pair = f"{wording.variant(finding.baseline_variant)} → {wording.variant(finding.candidate_variant)}"
        gates = Cell("decides", "") if finding.gates else Cell("informs", "")
        rows.append(
            Row(
                (
                    Cell(name, pair if len(pairs) > 1 else ""),
                    figure(value(finding.signal, finding.baseline), "no figure in the baseline"),
                    figure(value(finding.signal, finding.candidate), "no figure in the candidate"),
                    effect(finding),
                    gates,
                    Cell(finding.reason),
                )
            )
        )
    columns = (
        Column("signal", "Signal", numeric=False),
        Column("baseline", "Baseline"),
        Column("candidate", "Candidate"),
        Column("effect", "Effect (candidate / baseline)", numeric=False),
        Column("gates", "Exit code", numeric=False),
        Column("reason", "Why", numeric=False),
    )
    return Table(
        f"{comparison.candidate_run} compared with {comparison.baseline_run}",
        columns,
        tuple(rows),
        empty="nothing could be compared",
    )


def comparison_markdown(comparison: Comparison) -> bytes:
    """Return the comparison as Markdown that fits a pull-request comment."""
    words = verdict_words(comparison.verdict)
    parts = [f"### {words}: {paragraph(comparison.sentence)}", ""]
    if comparison.environment_differences:
        parts += ["**The environments differ**, so nothing here decides an exit code:", ""]
        parts += [f"- {paragraph(text)}" for text in comparison.environment_differences]
        parts.append("")
    parts.append(block(comparison_table(comparison)))
    parts += [
        "",
        f"Baseline {paragraph(comparison.baseline_run)}, candidate {paragraph(comparison.candidate_run)}; "
        f"exit code {comparison.exit_code}. *Decides*: this verdict may set the exit code; *informs*: it cannot.",
        "",
    ]
    return "\n".join(parts).encode()


def comparison_json(comparison: Comparison) -> bytes:
    """Return the comparison record as JSON, figures unrounded."""
    dump = comparison.model_dump(mode="json")
    return (json.dumps(dump, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
