"""Iterations that an exception of the script ended: k6 counts them as any other, and says so in its log only."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from ticketbench.analysis.disturbances import Weight
from ticketbench.analysis.series import Labels, Series, Where
from ticketbench.analysis.wording import percent
from ticketbench.model import RunRecord

if TYPE_CHECKING:
    from ticketbench.store import TrialData

# An iteration that threw left out what comes after it in the script, so a load of which so many threw is another than
# the one asked for: the same share as of iterations that never started.
MOST_THROWN: Final = 0.05


def thrown(trial: "TrialData", run: RunRecord, series: Series) -> Iterator[tuple[Weight, str]]:
    """Yield weight and sentence; those of a warm-up are told apart, as they change no figure of the window."""
    for counted in (True, False):
        found = _found(trial, run, series, counted=counted)
        if found is None:
            continue
        threw, of, first = found
        where = "" if counted else " of the warm-up"
        many = f"{f'all {of}' if threw == of else f'{threw} of {of}'} {'iteration' if of == 1 else 'iterations'}{where}"
        share = "" if threw == of else f" ({percent(threw / of)})"
        yield (
            "invalid" if counted and threw > MOST_THROWN * of else "note",
            f"{many}{share} ended with an exception: {first}",
        )


def thrown_ratio(trial: "TrialData", run: RunRecord) -> float:
    """Return the share (0 to 1) of the iterations that count which an exception ended."""
    found = _found(trial, run, Series(trial.series), counted=True)
    return 0.0 if found is None else found[0] / found[1]


def _found(trial: "TrialData", run: RunRecord, series: Series, *, counted: bool) -> tuple[int, int, str] | None:
    """Return how many iterations threw, of how many, and the most frequent k6 scenario's first exception."""
    load, schedule = trial.record.load, run.plan.schedules.get(trial.record.trial.variant)
    warmup = schedule.warmup_scenarios if schedule is not None else ()
    every = load.thrown if load is not None else ()
    kinds = [kind for kind in every if (kind.scenario not in warmup) is counted]
    if not kinds:
        return None
    threw = sum(kind.iterations for kind in kinds)
    finished = series.total("k6.iterations", _of(warmup, counted=counted))
    of = max(threw, round(finished or 0))  # k6's last push may lack the last iterations
    return threw, of, max(kinds, key=lambda kind: kind.iterations).first


def _of(warmup: Sequence[str], *, counted: bool) -> Where:
    def where(labels: Labels) -> bool:
        return (labels.get("scenario", "") not in warmup) is counted

    return where
