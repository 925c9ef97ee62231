"""One trial as far as it came, and what is written down of it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ticketbench import load
from ticketbench.errors import Interrupted, TicketbenchError
from ticketbench.logs import redact
from ticketbench.model import Disturbance, Plan, Trial, TrialRecord, TrialStatus, Window
from ticketbench.planned_faults import PlannedFaults
from ticketbench.stack import Endpoints
from ticketbench.watch import TrialWatch

if TYPE_CHECKING:
    from ticketbench.collect import Collected


@dataclass
class Measured:
    """A trial as far as it came. ``failure`` is what ends the run after the trial is stored."""

    trial: Trial
    started_s: float
    reasons: list[str] = field(default_factory=list)
    endpoints: Endpoints | None = None
    watch: TrialWatch | None = None
    faults: PlannedFaults | None = None
    outcome: load.LoadOutcome | None = None
    collected: "Collected | None" = None
    ledger_read: bool = False
    failure: TicketbenchError | None = None

    def record(self, plan: Plan, session: int) -> TrialRecord:
        """Return what is written down of the trial; ``session`` counts the invocations of its run."""
        trial, outcome, collected = self.trial, self.outcome, self.collected
        # A functional scenario may be over before the first scrape, and nothing is claimed from its series.
        performance = plan.scenario_of(trial.variant).shape != "functional"
        missing = collected.missing if collected is not None and performance else ()
        own = collected.own if collected is not None else ()
        return TrialRecord(
            trial=trial,
            levels=plan.variant(trial.variant).levels,
            status=_status(self.failure),
            reasons=self._told((*(f"no data for {name}" for name in missing), *own)),
            started_s=self.started_s,
            ended_s=time.time(),
            window=self._window(plan),
            load=outcome.result if outcome is not None else None,
            session=session,
            disturbances=self._disturbances(),
            faults=self.faults.carried_out() if self.faults is not None else (),
        )

    def _told(self, missing: Sequence[str]) -> tuple[str, ...]:
        """Return the reasons of a trial: of a broken one the cause, and in one more sentence what followed."""
        reasons = [*map(redact, self.reasons), *missing]
        if self.failure is None or len(reasons) < 2:
            return tuple(reasons)
        # their details say once more what the cause has said; the logs are kept beside
        followed = dict.fromkeys(text.partition(": ")[0] for text in reasons[1:])
        return (reasons[0], f"what followed: {'; '.join(followed)}")

    def _disturbances(self) -> tuple[Disturbance, ...]:
        outcome = self.outcome
        if self.watch is None or outcome is None or outcome.started_s is None:
            return ()
        end_s = outcome.result.ended_s if outcome.result is not None else time.time()
        return self.watch.disturbances(outcome.started_s, end_s)

    def _window(self, plan: Plan) -> Window | None:
        """Return the measured time; None where k6 never came to it.

        A steady window ends as scheduled, in the middle of the load. A transient's is the whole event, so it ends with
        its last answer.
        """
        outcome = self.outcome
        if outcome is None or outcome.started_s is None:
            return None
        schedule = plan.schedules[self.trial.variant]
        start_s = outcome.started_s + schedule.window_start_s
        end_s = outcome.result.ended_s if outcome.result is not None else time.time()
        if plan.scenario_of(self.trial.variant).shape == "steady":
            end_s = min(end_s, outcome.started_s + schedule.window_end_s)
        return Window(start_s=start_s, end_s=end_s) if end_s > start_s else None


def _status(failure: TicketbenchError | None) -> TrialStatus:
    if failure is None:
        return "done"
    return "interrupted" if isinstance(failure, Interrupted) else "failed"


def figures(record: TrialRecord) -> str:
    """Return a stored trial in a few words."""
    if record.load is None:
        return "; ".join(record.reasons) or "no load"
    load_result = record.load
    dropped = load_result.dropped_iterations
    text = f"{load_result.requests} requests, {dropped} dropped iteration{'s' * (dropped != 1)}"
    missed = sum(not threshold.ok for threshold in load_result.thresholds)
    return text + (f", {missed} SLO{'s' * (missed != 1)} missed" if missed else "")
