"""Requests that never reached the system, and why: it sent k6 elsewhere, or it stopped answering."""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from ticketbench.analysis.disturbances import Weight
from ticketbench.analysis.signals import K6_LAG_S, error_kind
from ticketbench.analysis.wording import listed
from ticketbench.model import Window

if TYPE_CHECKING:
    from ticketbench.analysis.signals import Measurement
    from ticketbench.store import TrialData
    from ticketbench.storing.histograms import Answer

# What k6 says of an address outside of those that ticketbench lets it reach.
BLOCKED: Final = ("blocked address", "blocked host name")
# A redirect and the request that follows it are counted both: the redirects are no answers of their own.
_MOST: Final = 0.5
# A pause of two whole seconds with ten failures in it is no accident of one connection.
_SILENT_S: Final = 2.0
_FEWEST_FAILURES: Final = 10


def unreached(trial: "TrialData", window: Window, measured: "Measurement") -> Iterator[tuple[Weight, str]]:
    """Yield weight and sentence of each way in which requests missed the system."""
    yield from _sent_elsewhere(measured)
    yield from _stopped_answering(trial, window)


def _sent_elsewhere(measured: "Measurement") -> Iterator[tuple[Weight, str]]:
    """Say where requests were for another host than the target's; most of them spoil the measurement."""
    blocked = sum(measured.signals.errors.by_kind.get(kind, 0) for kind in BLOCKED)
    if not blocked:
        return
    redirects = sum(
        count for route in measured.routes for status, count in route.by_status.items() if status.startswith("3")
    )
    who = "the system redirects" if redirects else "the script goes"
    final = max(1, measured.requests - redirects)
    yield (
        "invalid" if blocked >= _MOST * final else "note",
        f"{who} to another host, which ticketbench does not let k6 reach: {blocked} of {final} requests ended there"
        " (docs/external.md)",
    )


def _stopped_answering(trial: "TrialData", window: Window) -> Iterator[tuple[Weight, str]]:
    """Say when the system gave its last answer, where every request after it failed without one until the window's end.

    One that answers again, even after the window, has not stopped: it was slow.
    """
    rows = trial.histograms
    if rows is None:
        return
    answered = rows.where(_is_answer) & (rows.count > 0)
    last_s = float(rows.t[answered].max()) if answered.any() else -float("inf")
    # k6's figures lag, so those of the window's last second are stamped after it
    silent = ~answered & (rows.count > 0) & (rows.t > max(last_s, window.start_s)) & (rows.t <= window.end_s + K6_LAG_S)
    failures = Counter[str]()
    for at in silent.nonzero()[0].tolist():
        failures[error_kind(rows.answers[rows.answer[at]])] += round(float(rows.count[at]))
    for kind in BLOCKED:
        del failures[kind]
    total = sum(failures.values())
    if total < _FEWEST_FAILURES or window.end_s - max(last_s, window.start_s) < _SILENT_S:
        return
    kinds = listed(f"{count} x {kind}" for kind, count in failures.most_common())
    into_s = last_s - window.start_s
    when = f"about {into_s:.0f} s into the window" if into_s >= 1 else "before the window had begun"
    yield "invalid", f"the target stopped answering {when}: all {total} requests from then on failed ({kinds})"


def _is_answer(answer: "Answer") -> bool:
    return answer.status not in ("", "0")
