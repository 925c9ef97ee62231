"""The report as Markdown, short enough for a pull-request comment: the first screen, and what may be asked next."""

from ticketbench.report import tables
from ticketbench.report.about import environment_table
from ticketbench.report.faults import faults_table
from ticketbench.report.input import ReportInput
from ticketbench.report.limits import limits_table
from ticketbench.report.markup import block, code, paragraph
from ticketbench.report.view import Stamp, run_view

MAX_REASONS = 8


def _stamp(stamp: Stamp) -> list[str]:
    lines = [f"**{stamp.label}: {stamp.symbol} {stamp.word}** — {paragraph(stamp.says)}", ""]
    for whose, reason in stamp.reasons[:MAX_REASONS]:
        lines.append(f"- {paragraph(f'{whose}: {reason}' if whose else reason)}")
    if len(stamp.reasons) > MAX_REASONS:
        lines.append(f"- and {len(stamp.reasons) - MAX_REASONS} more, in the HTML report")
    return [*lines, ""] if stamp.reasons else lines


def markdown(data: ReportInput) -> bytes:
    """Return the run's first screen in Markdown, in the same order as the page."""
    view = run_view(data, draw=False)
    outcome = view.outcome
    parts = [f"## {outcome.symbol} {outcome.word}: {paragraph(outcome.says)}", ""]
    parts += [f"{paragraph(view.title)}. {paragraph(view.asks)}".rstrip(), "", paragraph("; ".join(view.facts)), ""]
    parts += [*_stamp(view.validity), *_stamp(view.integrity)]
    if view.expected.rows:
        parts += [f"**{view.expected.caption}**", "", block(view.expected), ""]
    parts += [block(view.variants), ""]
    parts += [f"{paragraph(note)}\n" for note in view.reading]
    for found in view.bottlenecks:
        evidence = "; ".join(found.evidence)
        parts += [paragraph(f"Bottleneck of {found.variant}: {found.cause} ({found.confidence} sure). {evidence}"), ""]
    parts += [f"**{view.differed.caption}**", "", block(view.differed), "", paragraph(view.held), ""]
    parts += ["Reproduce:", "", code(view.command), "", *(f"{paragraph(note)}\n" for note in view.command_notes)]
    limits, faults = limits_table(data), faults_table(data)
    for table in (
        tables.slo_table(data),
        tables.errors_table(data),
        *((faults,) if faults.rows else ()),
        *((limits,) if limits.rows else ()),
        environment_table(data),
    ):
        parts += [f"**{paragraph(table.caption)}**", "", block(table), ""]
    return "\n".join(parts).encode()
