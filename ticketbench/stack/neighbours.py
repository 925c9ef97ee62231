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
        """Return the runs that overlapped with the time from ``start_s`` to ``end_s`` (Unix seconds)."""
        found = []
        for state, seen_s in self._seen.values():
            began_s = max(start_s, _created_s(state, start_s))
            seconds = min(end_s, seen_s) - began_s
            if seconds > 0:
                text = (
                    f"the run {state.run_id or state.stack_id} was using this machine for {seconds:.0f} s of this"
                    f" trial's {end_s - start_s:.0f} s of load: the system can do at least this"
                )
                found.append(Disturbance(kind="shared_machine", at_s=began_s, seconds=seconds, text=text))
        return tuple(found)


def _created_s(state: StackState, otherwise_s: float) -> float:
    try:
        return datetime.fromisoformat(state.created).timestamp()
    except ValueError:
        return otherwise_s
