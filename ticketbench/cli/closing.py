"""What to do next, said when a run has ended: the commands that its outcome calls for, the most urgent one first."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ticketbench import store
from ticketbench.analysis.compare import differences
from ticketbench.cli.remedies import longer, remedies, too_little
from ticketbench.conclusions import Analysis
from ticketbench.errors import ScriptFailure, TicketbenchError, UsageError
from ticketbench.model import PLACEHOLDER, Plan

MOST_STEPS: Final = 3  # more are no advice but a manual
LOOKED_BACK: Final = 20  # runs; reading one takes some 5 ms
# With five trials a t interval is 2.8 standard errors wide; with two it is 12.7.
_TRIALS_FOR_AN_INTERVAL: Final = "5"


@dataclass(frozen=True)
class Ended:
    """A run that has ended. ``script`` is the user's own, None for a bundled one; ``earlier`` a run to compare with.

    ``again`` are the words that measure the same anew, ``system`` the options that name somebody else's system;
    ``failure`` is what ended it early.
    """

    plan: Plan
    analysis: Analysis
    run: Path
    script: str | None
    again: tuple[str, ...]
    system: tuple[str, ...]
    unfinished: bool
    failure: TicketbenchError | None
    kept: bool
    earlier: Path | None


def next_steps(ended: Ended) -> tuple[str, ...]:
    """Return up to three steps: commands, each with what it is for, and what has to be corrected by hand."""
    steps = [*_after_trouble(ended), *_after_measuring(ended)][:MOST_STEPS]
    if ended.kept:
        steps.append("the stack is still up: `ticketbench status` tells where, `ticketbench down` ends it")
    return tuple(steps)


def earlier_run(directory: store.RunDirectory, analysis: Analysis) -> Path | None:
    """Return the last run before this one in the same folder that ``compare`` would take as its baseline, if any.

    That is one that can be believed, of the same system, scenario and load, made on such a machine.
    """
    run, scenario = directory.path, directory.path.name.partition("-")[2]
    try:
        before = sorted(
            path for path in run.parent.iterdir() if path.name.partition("-")[2] == scenario and path.name < run.name
        )
    except OSError:
        return None  # a folder that may be written to and not listed
    ours = directory.record()
    for path in reversed(before[-LOOKED_BACK:]):
        try:
            theirs = store.open_run(path).record()
            judged = store.parse_record(Analysis, (path / store.ANALYSIS_FILE).read_bytes(), str(path))
        except (UsageError, OSError):
            continue  # no run, or one that is damaged or was never judged
        if judged.outcome.status == "invalid":
            continue
        sides = [next((v for v in one.variants if v.variant == one.reference), None) for one in (judged, analysis)]
        if sides[0] is None or sides[1] is None or any(differences(theirs, ours, sides[0], sides[1])):
            continue
        return path
    return None


def _after_trouble(ended: Ended) -> list[str]:
    steps = []
    status = ended.analysis.outcome.status
    if ended.unfinished:
        script = [] if ended.script is None else [ended.script]
        steps.append(_step("finishes the run, and keeps what is done", "run", *script, "--resume", str(ended.run),
                           *ended.system))  # fmt: skip
    if status == "integrity_violated":
        steps.append(_step("counts what each trial oversold, lost or sold twice", "audit", str(ended.run)))
    if status == "invalid" and not ended.unfinished:
        steps += _after_doubt(ended)
    return steps


def _after_doubt(ended: Ended) -> list[str]:
    """Return what to do about what cannot be believed: the machine is suspected only where nothing else is at fault."""
    plan, analysis = ended.plan, ended.analysis
    if isinstance(ended.failure, ScriptFailure):
        return [f"correct {_scripts(plan)}: what k6 said of it is in {_logs(ended)}"]
    steps = [f"the servers' logs are in {_logs(ended)}"] if ended.failure is not None else []
    steps += remedies(plan, analysis, ended.run)
    if words := longer(plan, analysis, ended.again):
        steps.append(_step("measures for long enough", *words))
    elif too_little(plan, analysis):
        steps.append(f"let {_scripts(plan)} offer more: a longer window, or a higher rate")
    if ended.failure is not None or not steps:
        steps.append(_step("says whether this machine can measure now, and what to do", "doctor"))
    return steps


def _scripts(plan: Plan) -> str:
    return " or ".join(dict.fromkeys(plan.scenario_of(variant.name).script for variant in plan.variants))


def _logs(ended: Ended) -> str:
    return f"{shlex.quote(str(ended.run / 'trials'))}, in each trial's logs/"


def _after_measuring(ended: Ended) -> list[str]:
    plan, analysis, run = ended.plan, ended.analysis, str(ended.run)
    if ended.unfinished or analysis.outcome.status == "invalid" or plan.apart:  # such rows are compared with nothing
        return []
    steps = []
    if analysis.shape == "functional":
        if ended.script is None:
            steps.append(_step("measures it under load", "run", "spike"))
        return steps
    other = next((variant.name for variant in plan.variants if variant.name != plan.reference), None)
    if other is not None:
        steps.append(_step("says what the variant changes, with a verdict", "compare", run, run,
                           "--candidate-variant", other))  # fmt: skip
    elif ended.earlier is not None:
        steps.append(_step("says what changed since the run before", "compare", str(ended.earlier), run))
    if plan.repetitions == 1:
        steps.append(_step("gives differences an interval", *ended.again, "--trials", _TRIALS_FOR_AN_INTERVAL))
    return steps


def _step(purpose: str, *words: str) -> str:
    """Return a command and what it is for; where a header's value has to be put in, that is said."""
    names = [word.removesuffix(f": {PLACEHOLDER}") for word in words if word.endswith(f": {PLACEHOLDER}")]
    put_in = f"; put in the value of {', '.join(names)}" if names else ""
    return f"{shlex.join(['ticketbench', *words])}  ({purpose}{put_in})"
