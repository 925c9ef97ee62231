"""CPU, run delay and memory of each component: the process trees below the roots that the runner named.

A process belongs to the nearest root above it, and stays there when its parent dies. CPU is counted for each process as
it grows. What a process burnt between its last reading and its death turns up in the time that its parent reports for
the children it waited for; that remainder goes to the dead child's component, so that a backend, a worker or k6 itself
is counted to its last moment, and the CPU of k6 never counts for the command line program that waited for it.
"""

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ticketbench.sampling.counters import Counters
from ticketbench.sampling.proc import PAGE_BYTES, TICKS_PER_S, File, parse_stat, process_ids, run_delay_s
from ticketbench.stack.replicas import component_of

# Processes that are none of ours are looked at again after so many ticks, in case their pid was given to another one.
_FOREIGN_TICKS: Final = 10
# Threads are listed again after so many ticks even if their number did not change.
_THREADS_TICKS: Final = 5
# A child is reaped within a tick of its end, and what is reaped is counted one tick later.
_HEIR_TICKS: Final = 3


@dataclass(slots=True)
class _Process:
    pid: int
    ppid: int
    component: str
    stat: File
    statm: File
    own_s: float
    reaped_s: float
    reaped_before_s: float  # what it had reaped before we began to count
    fresh: bool  # born while we were counting, so all it used counts
    threads: int = 0
    delays: dict[int, tuple[File, float]] = field(default_factory=dict)
    private_pages: int = 0
    shared_pages: int = 0
    vanished_s: float = 0.0  # last known CPU of children of ours that have ended since
    remainder_s: float = 0.0  # reaped and not seen before, as of the last tick
    remainder_done_s: float = 0.0  # the part of it that is already counted
    heir: str = ""  # component of the child that ended last
    heir_ticks: int = 0  # how long what turns up is still taken for that child's

    def close(self) -> None:
        self.stat.close()
        self.statm.close()
        for file, _ in self.delays.values():
            file.close()


class ProcessTrees:
    """Figures of all components, updated by :meth:`tick`. Use from one thread."""

    def __init__(self) -> None:
        self.cpu_s: Counters[str] = Counters()
        self.delay_s: Counters[str] = Counters()
        self._roots: dict[int, str] = {}
        self._root_names: dict[int, str] = {}  # as they were given: each replica of the sale has its own
        self._names: list[str] = []
        self._ours: dict[int, _Process] = {}
        self._foreign: set[int] = set()
        self._ticks = 0
        # cut to whole ticks, as the kernel cuts a process's time of birth
        self._begun_s = math.floor(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS_PER_S) / TICKS_PER_S

    @property
    def roots(self) -> Mapping[int, str]:
        """The component of each root process."""
        return self._roots

    def add_root(self, name: str, pid: int) -> None:
        """Count the tree of ``pid`` as ``name``, besides the roots that it has already.

        The replicas of the sale, ``app`` and ``app-2``, are one component.
        """
        self._root_names[pid] = name
        name = component_of(name)
        self._roots[pid] = name
        if name not in self._names:
            self._names.append(name)
            self.cpu_s.add(name, 0.0)
            self.delay_s.add(name, 0.0)
        self._foreign.clear()
        if pid in self._ours:
            self._move(pid, name)

    def watch(self, name: str, pid: int) -> None:
        """Make ``pid`` the only root of ``name``. What the former root still burns counts until it has ended."""
        self.unwatch(name)
        self.add_root(name, pid)

    def unwatch(self, name: str) -> None:
        """Expect no further root of ``name``; its counters stay where they are."""
        for pid in [pid for pid, owner in self._root_names.items() if owner == name]:
            del self._roots[pid], self._root_names[pid]

    def memory_bytes(self) -> dict[str, int]:
        """Return resident memory by component: private pages of all its processes, and the largest shared part once.

        Shared pages (PostgreSQL's buffers, libraries) are in each process's figure; their sum would count them again
        and again.
        """
        private = dict.fromkeys(self._names, 0)
        shared = dict.fromkeys(self._names, 0)
        for process in self._ours.values():
            private[process.component] += process.private_pages
            shared[process.component] = max(shared[process.component], process.shared_pages)
        return {name: (private[name] + shared[name]) * PAGE_BYTES for name in self._names}

    def tick(self) -> None:
        """Read every process of ours and find new ones."""
        self._ticks += 1
        if self._ticks % _FOREIGN_TICKS == 0:
            self._foreign.clear()
        alive = process_ids()
        self._adopt(alive)
        ended = []
        for pid in sorted(self._ours):  # parents first: a child reaped in between is found dead, never counted twice
            process = self._ours[pid]
            try:
                self._read(process)
            except (OSError, ValueError, IndexError):  # ended: ESRCH, or an empty line
                ended.append(process)
        for process in reversed(ended):  # children first: a parent that ended too hands on what they were counted for
            self._bury(process)
        for process in self._ours.values():
            self._settle(process)

    def _adopt(self, alive: list[int]) -> None:
        """Find the processes that are new, and which of them are ours."""
        unplaced: dict[int, int] = {}
        for pid in alive:
            if pid in self._ours or pid in self._foreign:
                continue
            try:
                file = File(f"/proc/{pid}/stat")
            except OSError:
                continue
            try:
                unplaced[pid] = parse_stat(file.read()).ppid
            except (OSError, ValueError, IndexError):
                continue
            finally:
                file.close()
        placed = True
        while placed:  # a child may have a lower pid than its parent
            placed = False
            for pid, ppid in list(unplaced.items()):
                parent = self._ours.get(ppid)
                component = self._roots.get(pid) or (parent.component if parent else "")
                if component:
                    del unplaced[pid]
                    placed = True
                    self._open(pid, component)
        self._foreign.update(unplaced)

    def _open(self, pid: int, component: str) -> None:
        opened: list[File] = []
        try:
            opened.append(File(f"/proc/{pid}/stat"))
            opened.append(File(f"/proc/{pid}/statm"))
            stat = parse_stat(opened[0].read())
        except (OSError, ValueError, IndexError):
            for file in opened:
                file.close()
            return
        fresh = stat.started_s >= self._begun_s
        self._ours[pid] = _Process(
            pid=pid,
            ppid=stat.ppid,
            component=component,
            stat=opened[0],
            statm=opened[1],
            own_s=0.0 if fresh else stat.own_s,
            reaped_s=0.0 if fresh else stat.reaped_s,
            reaped_before_s=0.0 if fresh else stat.reaped_s,
            fresh=fresh,
        )

    def _read(self, process: _Process) -> None:
        stat = parse_stat(process.stat.read())
        if stat.own_s > process.own_s:
            self.cpu_s.add(process.component, stat.own_s - process.own_s)
            process.own_s = stat.own_s
        process.reaped_s = stat.reaped_s
        process.ppid = stat.ppid
        pages = process.statm.read().split(None, 3)
        process.shared_pages = int(pages[2])
        process.private_pages = int(pages[1]) - process.shared_pages
        self._read_threads(process, stat.threads)

    def _read_threads(self, process: _Process, threads: int) -> None:
        if threads != process.threads or (threads > 1 and self._ticks % _THREADS_TICKS == 0):
            process.threads = threads
            self._list_threads(process)
        for tid, (file, last_s) in list(process.delays.items()):
            try:
                now_s = run_delay_s(file.read())
            except (OSError, ValueError, IndexError):
                file.close()
                del process.delays[tid]
                continue
            if now_s > last_s:
                self.delay_s.add(process.component, now_s - last_s)
                process.delays[tid] = (file, now_s)

    @staticmethod
    def _list_threads(process: _Process) -> None:
        try:
            tids = [int(name) for name in os.listdir(f"/proc/{process.pid}/task")]  # noqa: PTH208 a hot path
        except OSError:
            return
        first = not process.delays
        for tid in tids:
            if tid in process.delays:
                continue
            try:
                file = File(f"/proc/{process.pid}/task/{tid}/schedstat")
                before_s = run_delay_s(file.read()) if first and not process.fresh else 0.0
            except (OSError, ValueError, IndexError):
                continue
            process.delays[tid] = (file, before_s)

    def _bury(self, process: _Process) -> None:
        process.close()
        del self._ours[process.pid]
        parent = self._ours.get(process.ppid)
        if parent is not None:
            # all that is counted of it and of what it waited for; the parent's figure will hold that, and what is not
            parent.vanished_s += process.own_s + process.reaped_before_s + process.vanished_s + process.remainder_done_s
            parent.heir = process.component
            parent.heir_ticks = _HEIR_TICKS

    def _settle(self, process: _Process) -> None:
        """Count what ended children used after their last reading, and children that lived between two ticks.

        Only what holds for two ticks is counted: a child that is reaped just between the readings of both would
        otherwise be counted twice for a moment, and a counter cannot take that back.
        """
        remainder = process.reaped_s - process.reaped_before_s - process.vanished_s
        sure = min(remainder, process.remainder_s)
        process.remainder_s = remainder
        if sure > process.remainder_done_s:
            self.cpu_s.add(process.heir or process.component, sure - process.remainder_done_s)
            process.remainder_done_s = sure
        if process.heir_ticks:
            process.heir_ticks -= 1
        else:
            process.heir = ""

    def _move(self, pid: int, name: str) -> None:
        """Give a process and what is below it to ``name``, other roots excepted."""
        self._ours[pid].component = name
        for child in [p for p in self._ours.values() if p.ppid == pid and p.pid not in self._roots]:
            self._move(child.pid, name)
