"""The one place that takes a stored run through judgement to files: analysis.json and the reports asked for."""

from collections.abc import Sequence
from pathlib import Path

from ticketbench.analysis.analyse import analyse
from ticketbench.analysis.timeline import Timeline, timeline
from ticketbench.conclusions import Analysis
from ticketbench.model import RunRecord
from ticketbench.report import FORMATS, ReportInput
from ticketbench.store import RunDirectory


def judge(directory: RunDirectory) -> tuple[RunRecord, Analysis]:
    """Judge a stored run from its files alone. Raises UsageError for a damaged one."""
    run = directory.record()
    return run, analyse(run, directory.load_trials())


def timelines(directory: RunDirectory, run: RunRecord) -> tuple[Timeline, ...]:
    """Return the stored trials second by second, those that have series."""
    plan = run.plan
    drawn = (
        timeline(trial, plan.schedules[trial.record.trial.variant], plan.scenario) for trial in directory.load_trials()
    )
    return tuple(line for line in drawn if line is not None)


def write(directory: RunDirectory, formats: Sequence[str]) -> tuple[Analysis, tuple[Path, ...]]:
    """Write analysis.json and each of ``formats`` (keys of FORMATS) into the run's folder; return what was written.

    Raises UsageError for a damaged run, EnvironmentFailure where the folder cannot be written.
    """
    run, analysis = judge(directory)
    directory.save_analysis(analysis)
    data = ReportInput(run=run, analysis=analysis, timelines=timelines(directory, run))
    written = [directory.save_report(FORMATS[name][0], FORMATS[name][1](data)) for name in formats]
    return analysis, tuple(written)
