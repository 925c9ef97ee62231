"""The one place that takes a stored run through judgement to files: analysis.json and the reports asked for."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ticketbench.analysis.analyse import analyse
from ticketbench.analysis.timeline import Timeline, timeline
from ticketbench.conclusions import Analysis
from ticketbench.model import RunRecord
from ticketbench.report import FORMATS, ReportInput
from ticketbench.store import RunDirectory, TrialData


def judge(directory: RunDirectory) -> tuple[RunRecord, Analysis]:
    """Judge a stored run from its files alone. Raises UsageError where ``run.json`` is damaged."""
    run = directory.record()
    return run, analyse(run, directory.load_trials())


def judge_and_draw(directory: RunDirectory) -> ReportInput:
    """Judge a stored run, and keep its trials second by second, those that have series; each is read once.

    Raises UsageError where ``run.json`` is damaged.
    """
    run = directory.record()
    lines: list[Timeline] = []

    def kept(trials: Iterable[TrialData]) -> Iterator[TrialData]:
        for trial in trials:
            variant = trial.record.trial.variant
            line = timeline(trial, run.plan.schedules[variant], run.plan.scenario_of(variant))
            if line is not None:
                lines.append(line)
            yield trial

    analysis = analyse(run, kept(directory.load_trials()))
    return ReportInput(run=run, analysis=analysis, timelines=tuple(lines))


def write(directory: RunDirectory, formats: Sequence[str]) -> tuple[Analysis, tuple[Path, ...]]:
    """Write analysis.json and each of ``formats`` (keys of FORMATS) into the run's folder; return what was written.

    Raises UsageError where ``run.json`` is damaged, EnvironmentFailure where the folder cannot be written.
    """
    data = judge_and_draw(directory)
    directory.save_analysis(data.analysis)
    written = [directory.save_report(FORMATS[name][0], FORMATS[name][1](data)) for name in formats]
    return data.analysis, tuple(written)
