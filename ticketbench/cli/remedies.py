"""What to do about a run that cannot be believed: by what is at fault, the script, the load, the system or the machine.

What is known of it before the load is said before the load.
Everything is read from the plan and the figures, never from a sentence.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ticketbench.analysis.signals import offered_iterations
from ticketbench.analysis.thrown import MOST_THROWN
from ticketbench.analysis.validity import (
    FEWEST_GOAL_REQUESTS,
    MOST_FAILING,
    ROUTE_MISSING_REQUESTS,
    ROUTE_MISSING_SHARE,
    SHORTEST_STEADY_S,
)
from ticketbench.analysis.wording import listed, number
from ticketbench.conclusions import Analysis, TrialAnalysis
from ticketbench.levels import level_text, variant_words
from ticketbench.model import OTHER_ROUTE, Level, Plan
from ticketbench.stack.external import TRUST

# In the words of analysis.signals: nobody is at the target's address, or the way there is closed.
_NOBODY_THERE: Final = frozenset({"connection refused", "no such host", "dial error", "dial time-out", "DNS error"})
_NOT_TRUSTED: Final = frozenset({"certificate not trusted", "certificate of another host", "TLS error"})
_ELSEWHERE: Final = frozenset({"blocked address", "blocked host name"})
_NOT_LET_IN: Final = frozenset({"401", "403"})
# Arrivals are drawn, so a window that is just long enough in the mean is too short every other time.
_SPARE: Final = 1.2
# Longer than this nobody waits for a hundred requests: then it is the rate that is to be raised.
_LONGEST_ADVISED_S: Final = 600.0


def foreseen(plan: Plan) -> tuple[str, ...]:
    """Return why the run will not be believed, as far as its schedules tell: a sentence for each fault.

    Of a closed model nobody knows beforehand how many requests it will send.
    """
    several = len(plan.variants) > 1
    short, few = [], []
    for variant in plan.variants:
        schedule, shape = plan.schedules[variant.name], plan.scenario_of(variant.name).shape
        if shape == "functional":
            continue
        window_s = schedule.window_end_s - schedule.window_start_s
        of = f" of {variant_words(variant.name)}" if several else ""
        if shape == "steady" and window_s < SHORTEST_STEADY_S:
            short.append(f"the window{of} is {number(window_s)} s")
        offered = round(offered_iterations(schedule, schedule.window_start_s, schedule.window_end_s))
        if schedule.open_model and offered < FEWEST_GOAL_REQUESTS:
            few.append(f"the window{of} offers {offered} journeys")
    told = []
    if short:
        told.append(
            f"{listed(short, most=3)}: too short for a steady scenario, which needs {number(SHORTEST_STEADY_S)} s,"
            " so the run will be invalid"
        )
    if few:
        told.append(
            f"{listed(few, most=3)}: a p95 needs {FEWEST_GOAL_REQUESTS} requests towards the goal, so the run will be"
            " invalid unless each journey sends several"
        )
    return tuple(told)


def remedies(plan: Plan, analysis: Analysis, run: Path) -> list[str]:
    """Return what to do about script, load and system; none where none of the three is seen to be at fault.

    Only the reference variant's trials are looked at, and those of each row: they decide that a run is invalid.
    """
    told: list[str] = []
    for trial in analysis.trials:
        if not _decides(plan, trial) or trial.validity.status != "invalid":
            continue
        told += [advice for advice in _of_answers(plan, trial, run) if advice not in told]
    return told


def longer(plan: Plan, analysis: Analysis, again: Sequence[str]) -> tuple[str, ...]:
    """Return the words that measure for long enough; none where length is no fault or cannot be said by an option.

    A factor can be said where the plan sets it: that the script uses it is known then.
    """
    factor = max((_lacking(plan, trial) for trial in analysis.trials if _decides(plan, trial)), default=0.0)
    if factor <= 1 or plan.rows:
        return ()
    duration, rate = plan.fixed.get("duration"), plan.fixed.get("rate")
    if isinstance(duration, int | float) and duration * factor <= _LONGEST_ADVISED_S:
        return _with_level(again, "duration", math.ceil(duration * factor))
    if isinstance(rate, int | float) and not _short(plan, plan.reference):
        return _with_level(again, "rate", math.ceil(rate * factor))
    return ()


def too_little(plan: Plan, analysis: Analysis) -> bool:
    """Tell whether the window was too short, or brought too few requests, for what is concluded from it."""
    return any(_lacking(plan, trial) > 1 for trial in analysis.trials if _decides(plan, trial))


def _decides(plan: Plan, trial: TrialAnalysis) -> bool:
    return bool(plan.rows) or trial.variant == plan.reference


def _window_s(plan: Plan, variant: str) -> float:
    schedule = plan.schedules[variant]
    return schedule.window_end_s - schedule.window_start_s


def _short(plan: Plan, variant: str) -> bool:
    return plan.scenario_of(variant).shape == "steady" and _window_s(plan, variant) < SHORTEST_STEADY_S


def _lacking(plan: Plan, trial: TrialAnalysis) -> float:
    """Return by which factor the window has to grow; at most 1 where it need not."""
    scenario = plan.scenario_of(trial.variant)
    if scenario.shape == "functional" or trial.status != "done":
        return 0.0
    by_length = SHORTEST_STEADY_S / _window_s(plan, trial.variant) if _short(plan, trial.variant) else 0.0
    goal = scenario.goal
    # a route's name begins with its method
    requests = sum(route.requests for route in trial.routes if goal is None or route.name.partition(" ")[2] == goal)
    few = 0 < requests < FEWEST_GOAL_REQUESTS
    return max(by_length, FEWEST_GOAL_REQUESTS / requests * _SPARE if few else 0.0)


def _of_answers(plan: Plan, trial: TrialAnalysis, run: Path) -> list[str]:
    by_kind = trial.signals.errors.by_kind
    requests = sum(route.requests for route in trial.routes)
    failed = sum(by_kind.values())
    script = plan.scenario_of(trial.variant).script
    told = [
        f"give the requests in {script} whose address varies a name tag: too many were answered with 404 to name them"
        if route.name.endswith(OTHER_ROUTE)
        else f"correct the address of {route.name} in {script}: the system answers it with 404"
        for route in trial.routes
        if plan.scenario_of(trial.variant).shape != "functional"
        and route.requests >= ROUTE_MISSING_REQUESTS
        and route.by_status.get("404", 0) >= ROUTE_MISSING_SHARE * route.requests
    ]
    if by_kind.keys() & _ELSEWHERE:
        told.append(f"have {script} ask the target's own host only, or give --target the host that it redirects to")
    if failed <= MOST_FAILING * requests or told:
        if not told and trial.thrown_ratio > MOST_THROWN:  # where most failed, that is why it threw
            told.append(f"correct {script}: where it threw is in {run / 'trials' / trial.trial / 'logs' / 'k6.log'}")
        return told
    kind = max(by_kind, key=lambda each: by_kind[each])
    if kind in _NOT_TRUSTED:
        return [TRUST]
    if kind in _NOBODY_THERE and plan.external is not None:
        return ["start the system, look in its own log why it ended, and run the same again"]
    if kind in _NOT_LET_IN and plan.external is not None:
        return [f"let {script} in: give --header what the system asks for, and send it (docs/external.md, headers)"]
    where = "its own log" if plan.external is not None else f"the logs below {run / 'trials'}"
    return [f"look in the report which requests failed with {kind}, and in {where} why"]


def _with_level(words: Sequence[str], factor: str, level: Level) -> tuple[str, ...]:
    """Return a command's words with one more ``--set``, in the place of the one that there is."""
    kept: list[str] = []
    for word in words:
        if kept and kept[-1] == "--set" and word.partition("=")[0].strip() == factor:
            kept.pop()
        else:
            kept.append(word)
    return (*kept, "--set", f"{factor}={level_text(level)}")
