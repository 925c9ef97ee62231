"""Notices components that were stopped (SIGSTOP, a debugger) and not ended: they answer nothing and look alive."""

import time
from collections.abc import Callable, Mapping
from typing import Final

from ticketbench.errors import EnvironmentFailure
from ticketbench.stack.process import Process, descendants, go_on, identify

# A profiler stops a process for some milliseconds at a time, a terminal's job control for longer: whoever is found
# stopped at every look for this long is.
STOPPED_S: Final = 0.5
# States are looked at each time; who belongs to a tree, which means reading all of /proc, only this often.
FAMILY_S: Final = 2.0
STOPPED_HINT: Final = "something sent it SIGSTOP (a debugger, kill -STOP, a suspended terminal): measure again without"

Roots = Mapping[str, int]


class StoppedWatch:
    """Looks at the process trees of components. ``roots`` gives, at each look, their names and root processes.

    A look costs 20 us for each process of the trees, and every 2 s 20 us for each of the machine.
    """

    def __init__(self, roots: Callable[[], Roots], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._roots = roots
        self._clock = clock
        self._families: dict[int, tuple[Process, ...]] = {}
        self._family_of: Roots = {}
        self._counted_at = -FAMILY_S
        self._since: dict[Process, float] = {}

    def look(self) -> dict[str, str]:
        """Return the components that have been stopped, each with a sentence, and let those processes go on.

        They are let go on because what is left of the trial is to salvage it and to end them in good order, which
        nobody can who is stopped. So each stop is told once.
        """
        now = self._clock()
        self._count(now)
        stopped: dict[Process, float] = {}
        found: dict[str, str] = {}
        for name, pid in self._family_of.items():
            for process in self._families[pid]:
                if not process.stopped():
                    continue
                stopped[process] = since = self._since.get(process, now)
                if now - since >= STOPPED_S and name not in found:
                    part = "" if process.pid == pid else f": one of its processes, {process.name()}"
                    found[name] = f"{name} was stopped (SIGSTOP){part}"
        self._since = stopped
        if found:
            self.resume()
        return found

    def resume(self) -> None:
        """Let every stopped process of the trees go on."""
        self._counted_at = -FAMILY_S
        self._count(self._clock())
        go_on(process for family in self._families.values() for process in family)
        self._since = {}

    def _count(self, now: float) -> None:
        roots = dict(self._roots())
        if roots == self._family_of and now - self._counted_at < FAMILY_S:
            return
        self._family_of = roots
        self._counted_at = now
        self._families = {}
        for pid in roots.values():
            root = identify(pid)
            self._families[pid] = () if root is None else (root, *descendants((root,)))


def failure(watch: StoppedWatch) -> Callable[[], EnvironmentFailure | None]:
    """Return the look of ``watch`` that :func:`ticketbench.interrupts.watching` takes."""

    def look() -> EnvironmentFailure | None:
        found = watch.look()
        return EnvironmentFailure("; ".join(found.values()), STOPPED_HINT) if found else None

    return look
