"""Planned faults on the local stack: processes that are stopped, killed, started again, or short of CPU."""

import signal
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from ticketbench.errors import EnvironmentFailure
from ticketbench.fault_plan import PlannedFault
from ticketbench.model import Level
from ticketbench.stack.launch import Launched
from ticketbench.stack.process import Process, await_end, descendants, go_on
from ticketbench.stack.protocol import Component
from ticketbench.stack.replicas import component_of

# How a component is asked to end: by SIGTERM, which has it finish what it is at, but for these. PostgreSQL would wait
# for its clients to leave, newer PgBouncers too; SIGINT has both cut them off in good order.
_ASKING: Final = {"postgres": signal.SIGINT, "pgbouncer": signal.SIGINT}
# Beyond it one that was asked to end is killed; what the sale has under way takes a second or two.
ENDING_S: Final = 10.0
_ASK_S: Final = 0.05


class Part(Protocol):
    """A component's process, as a server and a replica of the sale both are."""

    launched: Launched | None

    def relaunch(self) -> None:
        """Start it again where it was, without waiting."""

    def answers(self) -> bool:
        """Tell whether it gives a real answer now."""

    def dead(self) -> str | None:
        """Return how it ended, None while it runs."""


class LocalFaults:
    """Does planned faults to processes; implements :class:`ticketbench.stack.protocol.Faults`.

    ``limit`` holds a component to so many cores (0: to none), ``settle`` gives one that was started again the limits of
    the variant, whose ``levels`` these are. Call it from the main thread: a process ends with the one that starts it.
    """

    def __init__(
        self,
        parts: Mapping[str, Part],
        levels: Mapping[str, Level],
        limit: Callable[[str, float, int], None],
        settle: Callable[[], None],
    ) -> None:
        self._parts = parts
        self._levels = levels
        self._limit = limit
        self._settle = settle
        self._ending: dict[PlannedFault, tuple[Process, ...]] = {}
        self._kill_at_s: dict[PlannedFault, float] = {}
        self._asking: dict[PlannedFault, _Asking] = {}

    def begin(self, fault: PlannedFault) -> None:
        """Do it; raises EnvironmentFailure."""
        root = self._launched(fault).process
        family = (root, *descendants((root,)))
        if fault.action == "pause":
            for process in (*family, *descendants((root,))):  # one that was born meanwhile as well
                process.signal(signal.SIGSTOP)
        elif fault.action == "cpu":
            self._limit(fault.component, fault.cores or 0.0, root.pid)
        else:
            self._ending[fault] = family
            self._kill_at_s[fault] = time.monotonic()
            if fault.action == "kill":
                self._kill(fault)
            else:
                root.signal(_ASKING.get(fault.component, signal.SIGTERM))
                self._kill_at_s[fault] += ENDING_S

    def end(self, fault: PlannedFault) -> None:
        """Undo it; raises EnvironmentFailure."""
        root = self._launched(fault).process
        if fault.action == "pause":
            go_on((root, *descendants((root,))))
        elif fault.action == "cpu":
            self._limit(fault.component, float(self._levels.get(f"{component_of(fault.component)}_cpus", 0)), root.pid)

    def answers(self, fault: PlannedFault) -> Component | None:
        """Return the component once it answers, None until then; raises EnvironmentFailure where it ends instead."""
        part = self._parts[fault.component]
        if fault in self._ending:
            if not self._ended(fault):
                return None
            del self._ending[fault]
            part.relaunch()
        if (why := part.dead()) is not None:
            raise EnvironmentFailure(f"{fault.component} ended: {why}")
        if fault not in self._asking:
            self._asking[fault] = _Asking(part.answers)
        if not self._asking[fault].answered:
            return None
        launched = self._launched(fault)
        if fault in self._kill_at_s:
            self._settle()
        return Component(fault.component, launched.process.pid)

    def _ended(self, fault: PlannedFault) -> bool:
        """Tell whether nothing is left of what is to be started again; what takes too long is killed."""
        if time.monotonic() >= self._kill_at_s[fault]:
            self._kill(fault)
        return self._launched(fault).popen.poll() is not None and await_end(self._ending[fault], 0.0)

    def _kill(self, fault: PlannedFault) -> None:
        root = self._ending[fault][0]
        for process in (*self._ending[fault], *descendants((root,))):
            process.signal(signal.SIGKILL)

    def _launched(self, fault: PlannedFault) -> Launched:
        launched = self._parts[fault.component].launched
        if launched is None:
            raise EnvironmentFailure(f"{fault.component} is not running")
        return launched


class _Asking:
    """Asks a component until it answers, in a thread of its own: the load's loop must not wait for a connection."""

    def __init__(self, answers: Callable[[], bool]) -> None:
        self.answered = False
        self._answers = answers
        # it ends with the answer; whoever has waited long enough goes, and the thread with the process
        threading.Thread(target=self._ask, name="fault", daemon=True).start()

    def _ask(self) -> None:
        while not self._answers():
            time.sleep(_ASK_S)
        self.answered = True
