"""Other runs on this machine: seen by the state files of their stacks, and how long they overlapped with a trial."""

import os
from collections.abc import Callable
from datetime import datetime

from ticketbench.errors import EnvironmentFailure
from ticketbench.model import Disturbance
from ticketbench.stack.process import identify
from ticketbench.stack.state import StackState, running


class Neighbours:
    """Other users of this machine's state folder. :meth:`look` now and then; what comes and goes between is missed.

    Only a stack whose ticketbench is alive counts: one that was kept or left behind offers no load.
    """

    def __init__(self, stacks: Callable[[], tuple[StackState, ...]] = running) -> None:
        self._stacks = stacks
        self._ours = identify(os.getpid())
        self._seen: dict[str, tuple[StackState, float]] = {}

    def look(self, now_s: float) -> None:
        """Note who else is running at ``now_s`` (Unix seconds)."""
        try:
            stacks = self._stacks()
        except EnvironmentFailure:
            return  # a folder that cannot be read now is no reason to end a trial
        for state in stacks:
            # run ids are unique within a folder of runs only: who owns it tells other runs from this one
            if state.in_use and state.owner != self._ours:
                self._seen[state.stack_id] = (state, now_s)

    def between(self, start_s: float, end_s: float) -> tuple[Disturbance, ...]:
        """Return the runs that overlapped with the time from ``start_s`` to ``end_s`` (Unix seconds), each once.

        A run that was interrupted and resumed meanwhile had a stack of its own each time, and is one run all the same.
        """
        spans: dict[str, list[tuple[float, float]]] = {}
        for state, seen_s in self._seen.values():
            began_s, ended_s = max(start_s, _created_s(state, start_s)), min(end_s, seen_s)
            if ended_s > began_s:
                spans.setdefault(state.run_id or state.stack_id, []).append((began_s, ended_s))
        return tuple(
            Disturbance(
                kind="shared_machine",
                at_s=min(began_s for began_s, _ in found),
                seconds=(seconds := _together_s(found)),
                text=f"the run {name} was using this machine for {seconds:.0f} s of this trial's"
                f" {end_s - start_s:.0f} s of load: the system can do at least this",
            )
            for name, found in spans.items()
        )


def _together_s(spans: list[tuple[float, float]]) -> float:
    """Return the seconds that the spans cover, those that two of them share counted once."""
    total_s, until_s = 0.0, float("-inf")
    for began_s, ended_s in sorted(spans):
        total_s += max(0.0, ended_s - max(began_s, until_s))
        until_s = max(until_s, ended_s)
    return total_s


def _created_s(state: StackState, otherwise_s: float) -> float:
    try:
        return datetime.fromisoformat(state.created).timestamp()
    except ValueError:
        return otherwise_s
