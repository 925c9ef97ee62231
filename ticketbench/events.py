"""What the lower layers tell about their progress. Only the CLI draws it."""

from collections.abc import Callable
from dataclasses import dataclass


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


Event = Phase | Provide | Notice | TrialStored
Emit = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Drop an event: for callers that show nothing."""
