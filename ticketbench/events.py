"""What the lower layers tell about their progress. Only the CLI draws it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class PlannedTrial:
    """A trial that is still to come: its 1-based ``position`` in the plan, and how long it is expected to take."""

    position: int
    variant: str
    expected_s: float


@dataclass(frozen=True)
class Planned:
    """What this invocation is about to measure, told once, before its first phase.

    ``trials`` are those that are still to be measured, in their order. ``expected_s`` is for all of it, from the start
    of the stack to the report; ``at_most`` says that it is a bound, because a script ends when its work is done.
    """

    scenario: str
    trials: tuple[PlannedTrial, ...]
    expected_s: float
    at_most: bool = False


@dataclass(frozen=True)
class Phase:
    """A phase of the run began: ``name`` is one of start, reset, warm-up, window, drain, collect, audit, stop.

    ``trial`` is the 1-based position of the trial and ``of`` their number (0 outside of trials); ``expected_s`` is how
    long it is planned to take, in seconds, or None where nobody can know.
    """

    name: str
    detail: str = ""
    trial: int = 0
    of: int = 0
    expected_s: float | None = None


@dataclass(frozen=True)
class Provide:
    """A server program is being fetched: which ``part``, what is done, bytes so far and in all where known."""

    part: str
    detail: str
    done_bytes: int = 0
    total_bytes: int = 0


@dataclass(frozen=True)
class Notice:
    """Something the user should read although the run goes on."""

    text: str


@dataclass(frozen=True)
class TrialStored:
    """A trial ended and is on disk: its status and a line of its figures."""

    trial: int
    of: int
    variant: str
    status: str
    summary: str


@dataclass(frozen=True)
class Figures:
    """What a load does just now: rates over the last seconds, warm-up included. None is "not known", never 0.

    ``p95_s`` is of the successful requests of the scenario's goal, ``error_ratio`` the failed among all requests,
    ``dropped`` the dropped iterations of the trial so far. For the eye only: nothing is concluded from them.
    """

    finished_per_s: float | None = None
    goodput_per_s: float | None = None
    p95_s: float | None = None
    error_ratio: float | None = None
    dropped: int | None = None


@dataclass(frozen=True)
class Progress:
    """How a load goes on, told about once a second while it runs.

    ``elapsed_s`` and ``left_s`` are of the phase; ``left_s`` is None where nobody can know. ``offered_per_s`` is the
    schedule's rate of this moment, None where it has none (a closed model, a warm-up).
    """

    phase: str
    variant: str
    trial: int
    of: int
    elapsed_s: float
    left_s: float | None
    offered_per_s: float | None
    figures: Figures


Event = Planned | Phase | Progress | Provide | Notice | TrialStored
Emit = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Drop an event: for callers that show nothing."""
