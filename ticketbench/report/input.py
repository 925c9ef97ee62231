"""What a report is made from: one judged run."""

from dataclasses import dataclass

from ticketbench.analysis.timeline import Timeline
from ticketbench.conclusions import Analysis
from ticketbench.model import RunRecord


@dataclass(frozen=True)
class ReportInput:
    """A run, what was concluded from it, and its trials second by second.

    ``timelines`` may miss trials (a damaged file, a trial that never began): figures then say what they do not show.
    """

    run: RunRecord
    analysis: Analysis
    timelines: tuple[Timeline, ...] = ()
