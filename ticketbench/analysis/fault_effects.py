"""What a planned fault did to the load: goodput before and at worst, what failed, and how soon it was as before."""

from typing import TYPE_CHECKING, Final

import numpy as np

from ticketbench.analysis.histogram import quantiles_of_each
from ticketbench.analysis.signals import offered_iterations
from ticketbench.analysis.timeline import is_goal
from ticketbench.conclusions import FaultEffect
from ticketbench.fault_plan import CarriedFault
from ticketbench.storing.histograms import Histograms, Mask

if TYPE_CHECKING:
    from ticketbench.analysis.series import Array
    from ticketbench.model import RunRecord
    from ticketbench.store import TrialData

# Goodput before a fault is that of so many seconds; less than three are no rate.
BEFORE_S: Final = 10
LEAST_BEFORE_S: Final = 3
# The second in which a window begins has answers of a part of it only, and k6 tells of the last one a second late.
SETTLED_S: Final = 1.0
# As before: two seconds in a row, each with this share of what was sold before of what was offered. Even arrivals of
# 100/s sell 80 to 120 in a second (two standard deviations of a Poisson count).
RECOVERED_SHARE: Final = 0.8
RECOVERED_S: Final = 2


def fault_effects(trial: "TrialData", run: "RunRecord") -> tuple[FaultEffect, ...]:
    """Return the effect of each planned fault of a trial; figures that the stored data do not give are None.

    Seconds count from the window's begin. With an open model goodput is held against what was offered in the same
    second, so that a rate that climbs meanwhile looks like no recovery.
    """
    record = trial.record
    if record.window is None:
        return ()
    seconds = _Seconds(trial, run)
    effects = []
    for fault in record.faults:
        effect = _effect(fault, record.window.start_s, record.window.end_s, seconds)
        effects.append(effect)
        if fault.began_s is not None:  # what comes of it is nothing that the next one is held against
            until_s = effect.recovered_at_s if effect.recovered_at_s is not None else effect.answered_at_s
            seconds.spoil(fault.began_s, record.window.start_s + (until_s or record.window.duration_s) + SETTLED_S)
    return tuple(effects)


class _Seconds:
    """Goodput, failures and offered iterations by the ends of the trial's seconds; those without an answer have 0."""

    def __init__(self, trial: "TrialData", run: "RunRecord") -> None:
        schedule, rows = run.plan.schedules[trial.record.trial.variant], trial.histograms
        window = trial.record.window
        self.ends: Array = np.array([])
        self.good = self.failed = self.offered = self.ends
        self._goal, self._first = Histograms.of(()), 0.0
        self._spoilt: Mask = np.array([], dtype=bool)
        if rows is None or not len(rows.t) or window is None:
            return
        counted = rows.having(lambda answer: answer.scenario not in schedule.warmup_scenarios)
        first = rows.t.min()
        self.ends = np.arange(first, max(rows.t.max(), window.end_s) + 0.5)
        self._goal = counted.having(lambda answer: is_goal(answer, run.plan.scenario_of(trial.record.trial.variant)))
        self._first = first
        self.good = self._counts(self._goal, first)
        self.failed = self._counts(counted.having(lambda answer: not answer.expected), first)
        self._spoilt = np.zeros(len(self.ends), dtype=bool)
        begin_s = window.start_s - schedule.window_start_s
        self.offered = np.array(
            [
                offered_iterations(schedule, end - 1.0 - begin_s, end - begin_s) if schedule.open_model else 1.0
                for end in self.ends
            ]
        )

    def _counts(self, rows: Histograms, first: float) -> "Array":
        at = np.rint(rows.t - first).astype(np.int64)
        return np.bincount(at, weights=rows.count, minlength=len(self.ends)).astype(np.float64)

    def slowest_s(self, chosen: Mask) -> float | None:
        """Return the highest p95 of the chosen seconds' own successful requests, None where there was none."""
        at = np.rint(self._goal.t - self._first).astype(np.int64)
        each = quantiles_of_each(self._goal, at, len(self.ends), 0.95)[chosen]
        return None if np.isnan(each).all() else float(np.nanmax(each))

    def spoil(self, start_s: float, end_s: float) -> None:
        """Count no second between two times as one of before."""
        self._spoilt |= self.touching(start_s, end_s)

    def before(self, start_s: float, began_s: float) -> Mask:
        """Return the last :data:`BEFORE_S` unspoilt seconds wholly between the window's start and a fault."""
        there = (self.ends - 1.0 >= start_s + SETTLED_S - 0.05) & (self.ends <= began_s + 0.05) & ~self._spoilt
        return np.asarray(there & (np.cumsum(there) > there.sum() - BEFORE_S))

    def touching(self, start_s: float, end_s: float) -> Mask:
        """Return which seconds have a part between two times."""
        return np.asarray((self.ends > start_s) & (self.ends - 1.0 < end_s))


def _effect(fault: CarriedFault, start_s: float, end_s: float, seconds: _Seconds) -> FaultEffect:
    began_s, ended_s, answered_s = fault.began_s, fault.ended_s, fault.answered_s
    before = worst = slowest = failed = back_s = None
    if began_s is not None and len(seconds.ends):
        earlier = seconds.before(start_s, began_s)
        before = float(seconds.good[earlier].mean()) if earlier.sum() >= LEAST_BEFORE_S else None
        back_s = _recovered_s(seconds, earlier, answered_s, end_s) if before else None
        # what happened in a second k6 tells a second later at most
        under = seconds.touching(began_s, min(end_s, max(back_s or end_s, (answered_s or end_s) + 1.0)))
        worst = float(seconds.good[under].min()) if under.any() else None
        slowest = seconds.slowest_s(under)
        failed = round(float(seconds.failed[under].sum()))
    return FaultEffect(
        fault=fault.fault.text,
        at_s=None if began_s is None else began_s - start_s,
        undone_at_s=None if ended_s is None else ended_s - start_s,
        answered_at_s=None if answered_s is None else answered_s - start_s,
        goodput_before_per_s=before,
        goodput_worst_per_s=worst,
        p95_worst_s=slowest,
        failed=failed,
        recovered_at_s=None if back_s is None else max(back_s, answered_s or back_s) - start_s,
        problem=fault.problem,
    )


def _recovered_s(seconds: _Seconds, earlier: Mask, answered_s: float | None, end_s: float) -> float | None:
    """Return the begin (Unix seconds) of the first seconds after the answer in which goodput was as before."""
    offered = seconds.offered[earlier].sum()
    if answered_s is None or not offered:
        return None
    share = seconds.good[earlier].sum() / offered
    later = np.flatnonzero((seconds.ends >= answered_s) & (seconds.ends <= end_s + 0.05))
    row = 0
    for index in later:
        enough = seconds.good[index] >= RECOVERED_SHARE * share * seconds.offered[index]
        row = row + 1 if enough else 0
        if row == RECOVERED_S:
            return float(seconds.ends[index]) - RECOVERED_S
    return None
