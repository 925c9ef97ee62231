"""Commands that work on stored runs: report, show, audit, compare."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ticketbench import store
from ticketbench.analysis.analyse import exit_code
from ticketbench.cli import output, verdict
from ticketbench.conclusions import Analysis, TrialAnalysis
from ticketbench.errors import EXIT_INTEGRITY, EXIT_INVALID, EXIT_OK, UsageError, worst
from ticketbench.levels import variant_words
from ticketbench.record import Record
from ticketbench.report import FORMATS
from ticketbench.report.write import judge, write

if TYPE_CHECKING:
    from rich.table import Table

DEFAULT_FORMATS = ("html", "md")
_OF_TICKETS: Final = ("capacity", "sold", "oversold", "acknowledged", "lost", "duplicated", "stranded")
_OF_MONEY: Final = ("charged", "refunded", "double_charged", "unpaid", "unrefunded")


def print_json(record: Record) -> None:
    """Print a record as JSON on standard output."""
    print(json.dumps(record.model_dump(mode="json"), indent=1, ensure_ascii=False))


def report(runs: tuple[Path, ...], formats: tuple[str, ...], *, as_json: bool = False) -> int:
    """Judge each run anew and write its reports; print their paths.

    A report carries no verdict, but one of a run that can no longer be read whole is told apart: exit code 3.
    """
    problems = [
        f"--format {name!r} is not known: known are {', '.join(FORMATS)}" for name in formats if name not in FORMATS
    ]
    if problems:
        raise UsageError(*problems)
    code = EXIT_OK
    told = []
    for directory in [store.open_run(path) for path in runs]:
        analysis, written = write(directory, formats or DEFAULT_FORMATS)
        told.append({"run_id": analysis.run_id, "reports": [str(path) for path in written]})
        for path in () if as_json else written:
            print(path)
        for trial in (each for each in analysis.trials if each.status == "damaged"):
            print(f"ticketbench: {directory.path}: {output.plain(trial.validity.reasons[0])}", file=sys.stderr)
            code = verdict.decided(EXIT_INVALID)
    if as_json:
        print(json.dumps(told, indent=1, ensure_ascii=False))
    return code


def show(path: Path, *, as_json: bool) -> int:
    """Print what a run says; the exit code is the one that the run itself had."""
    run, analysis = judge(store.open_run(path))
    code = verdict.decided(exit_code(analysis))
    if as_json:
        print_json(analysis)
    else:
        output.print_analysis(analysis, run.plan)
    return code


def audit(path: Path, *, as_json: bool) -> int:
    """Print the ledger audit of each trial and its reasons."""
    run, analysis = judge(store.open_run(path))
    missing = [trial.id for trial in run.plan.trials if trial.id not in {known.trial for known in analysis.trials}]
    codes = {"pass": EXIT_OK, "unknown": EXIT_INVALID, "not_audited": EXIT_INVALID, "violated": EXIT_INTEGRITY}
    code = worst(*(codes[trial.integrity.status] for trial in analysis.trials), *(EXIT_INVALID for _ in missing))
    verdict.decided(code)
    if as_json:
        trials = [
            {"trial": t.trial, "variant": t.variant, "integrity": t.integrity.model_dump(mode="json")}
            for t in analysis.trials
        ]
        told = {"run_id": analysis.run_id, "trials": trials, "missing": missing}
        print(json.dumps(told, indent=1, ensure_ascii=False))
    else:
        _print_audit(analysis)
        for trial_id in missing:
            print(f"{trial_id}: planned and not stored, so nothing is known of it")
    return code


def _print_audit(analysis: Analysis) -> None:
    from rich.text import Text

    out = output.console()
    out.print(_counts(analysis.trials, _OF_TICKETS))
    if paid := [trial for trial in analysis.trials if trial.integrity.charged is not None]:
        out.print(_counts(paid, _OF_MONEY))
    for trial in analysis.trials:
        for reason in trial.integrity.reasons:
            out.print(Text(f"{trial.trial} {variant_words(trial.variant)}: {reason}"), soft_wrap=True)


def _counts(trials: Sequence[TrialAnalysis], columns: Sequence[str]) -> "Table":
    """Return the integrity of trials, with these counts of it."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("trial", "variant", "integrity"):
        table.add_column(name)
    for name in columns:
        table.add_column(name.replace("_", " "), justify="right")
    for trial in trials:
        integrity = trial.integrity
        counts = ("?" if (value := getattr(integrity, name)) is None else str(value) for name in columns)
        words = (trial.trial, variant_words(trial.variant), integrity.status.replace("_", " "), *counts)
        table.add_row(*(Text(cell) for cell in words))
    return table


@dataclass(frozen=True)
class CompareOptions:
    """The options of ``ticketbench compare``."""

    baseline: Path
    candidate: Path
    baseline_variant: str | None
    candidate_variant: str | None
    form: str
    force: bool


def compare(options: CompareOptions) -> int:
    """Compare two stored runs or variants; print it in the form asked for and return the documented code."""
    from ticketbench.analysis.compare import compare as compare_runs
    from ticketbench.report.comparison import comparison_markdown

    if options.form not in ("table", "md", "json"):
        raise UsageError(f"--format {options.form!r} is not known: known are table, md, json")
    baseline, candidate = store.open_run(options.baseline), store.open_run(options.candidate)
    comparison = compare_runs(
        judge(baseline),
        judge(candidate),
        options.baseline_variant,
        options.candidate_variant,
        force=options.force,
    )
    verdict.decided(comparison.exit_code)
    markdown = comparison_markdown(comparison)
    _append_to_job_summary(markdown)
    if options.form == "json":
        print_json(comparison)
    elif options.form == "md":
        sys.stdout.write(markdown.decode())
    else:
        output.print_comparison(comparison)
    return comparison.exit_code


def _append_to_job_summary(markdown: bytes) -> None:
    """Append to the page that GitHub shows of a job, where there is one; a verdict does not depend on it."""
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with Path(summary).open("ab") as file:
                file.write(markdown)
        except OSError as error:
            print(f"ticketbench: GITHUB_STEP_SUMMARY cannot be written: {error.strerror}", file=sys.stderr)
