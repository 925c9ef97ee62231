"""Processes that are known by pid and start time, so that a signal never reaches a stranger that got the pid."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from ticketbench.record import Record

# The environment variable that labels every process of a stack with the stack's id.
LABEL: Final = "TICKETBENCH_STACK"
POLL_S: Final = 0.01
# What programs write where the disk, or a quota on it, is used up, and where they may open no more files.
DISK_FULL: Final = ("no space left on device", "disk quota exceeded")
FILES_SHORT: Final = ("insufficient file descriptors", "too many open files")

# How each component is ended: a signal, and the seconds until what is left of it is killed. Nothing that they could
# still write is of use: their logs are kept before, their data are removed after. PostgreSQL alone gets to clean up,
# without a checkpoint, because it would leave shared memory behind.
ENDING: Final[dict[str, tuple[signal.Signals, float]]] = {
    "app": (signal.SIGKILL, 4.0),
    "prometheus": (signal.SIGKILL, 4.0),
    "redis": (signal.SIGKILL, 4.0),
    "postgres": (signal.SIGQUIT, 8.0),
    "pgbouncer": (signal.SIGKILL, 4.0),
    "haproxy": (signal.SIGKILL, 4.0),
    "payment": (signal.SIGKILL, 4.0),
    "worker": (signal.SIGKILL, 4.0),
    **{f"app-{number}": (signal.SIGKILL, 4.0) for number in range(2, 9)},  # further replicas
}


class Process(Record):
    """A process: ``started_ticks`` is its start in clock ticks since the boot (field 22 of /proc/PID/stat)."""

    pid: int
    started_ticks: int

    def alive(self) -> bool:
        """Tell whether this very process runs; a zombie does not."""
        stat = _stat(self.pid)
        return stat is not None and stat[0] not in "ZX" and stat[1] == self.started_ticks

    def stopped(self) -> bool:
        """Tell whether this very process is stopped, by a signal or by who traces it."""
        stat = _stat(self.pid)
        return stat is not None and stat[0] in "Tt" and stat[1] == self.started_ticks

    def name(self) -> str:
        """Return the command's name as the system shows it, its pid where that cannot be read any more."""
        try:
            return Path(f"/proc/{self.pid}/comm").read_text(errors="replace").strip()
        except OSError:
            return str(self.pid)

    def signal(self, signum: int) -> None:
        """Send a signal to this process, if it still is the same one."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signum)

    def signal_group(self, signum: int) -> None:
        """Send a signal to the process group that this process leads, if it still does."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self.alive() and os.getpgid(self.pid) == self.pid:
                os.killpg(self.pid, signum)


def identify(pid: int) -> Process | None:
    """Return the process that has this pid now, None where there is none or only a zombie."""
    stat = _stat(pid)
    return Process(pid=pid, started_ticks=stat[1]) if stat is not None and stat[0] not in "ZX" else None


def _stat(pid: int) -> tuple[str, int, int] | None:
    """Return a process's state letter, start time and parent."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY)  # a third of what Path.read_text costs
    except OSError:
        return None
    try:
        text = os.read(fd, 4096).decode(errors="replace")
    except ProcessLookupError:  # it ended between the two
        return None
    finally:
        os.close(fd)
    fields = text.rpartition(")")[2].split()  # the name before it may hold spaces and parentheses
    return fields[0], int(fields[19]), int(fields[1])


def boot_id() -> str:
    """Return what tells this boot of the machine from others: start times count from it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _pids() -> Iterator[int]:
    for entry in os.listdir("/proc"):  # noqa: PTH208 - names only: a Path for each process costs more than the rest
        if entry.isdigit():
            yield int(entry)


def labelled(stack_id: str) -> tuple[Process, ...]:
    """Return the living processes that carry this stack's label, never ourselves or one of our ancestors.

    Other users' processes cannot be read and are left out.
    """
    wanted = f"{LABEL}={stack_id}".encode()
    spared = _ancestors()
    found = []
    for pid in _pids():
        if pid in spared:
            continue
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if wanted in environment.split(b"\0") and (process := identify(pid)) is not None:
            found.append(process)
    return tuple(found)


def _ancestors() -> set[int]:
    spared = {os.getpid()}
    pid = os.getppid()
    while pid > 0 and pid not in spared:
        spared.add(pid)
        stat = _stat(pid)
        pid = stat[2] if stat is not None else 0
    return spared


def descendants(roots: Iterable[Process]) -> tuple[Process, ...]:
    """Return all living processes below ``roots``, whatever session or group they made for themselves."""
    children: dict[int, list[tuple[int, int]]] = {}
    for pid in _pids():
        stat = _stat(pid)
        if stat is not None and stat[0] not in "ZX":
            children.setdefault(stat[2], []).append((pid, stat[1]))
    found: dict[int, Process] = {}
    below = [root.pid for root in roots if root.alive()]
    while below:
        for pid, started in children.get(below.pop(), ()):
            if pid not in found:
                found[pid] = Process(pid=pid, started_ticks=started)
                below.append(pid)
    return tuple(found.values())


def go_on(processes: Iterable[Process]) -> None:
    """Let those of ``processes`` that are stopped go on, so that they hear what they are told next."""
    for process in processes:
        if process.stopped():
            process.signal(signal.SIGCONT)


def await_end(processes: Sequence[Process], timeout_s: float) -> bool:
    """Wait until none of ``processes`` is alive; False after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while any(process.alive() for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def exit_text(process: subprocess.Popen[bytes]) -> str:
    """Return how a process ended: ``exit status 1``, ``killed by SIGKILL``; ``running`` if it has not."""
    status = process.poll()
    if status is None:
        return "running"
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def is_disk_full(said: str) -> bool:
    """Tell whether these words of a program are about a full disk."""
    words = said.lower()
    return any(cause in words for cause in DISK_FULL)


def remedy(said: str) -> str:
    """Return what to do about a process that ended with these words."""
    words = said.lower()
    if is_disk_full(said):
        return "the disk of the state folder is full: free some space, or point TICKETBENCH_STATE at another"
    if any(cause in words for cause in FILES_SHORT):
        return "too few open files are allowed: raise the limit (ulimit -n)"
    return "a missing right or a damaged program are the usual causes; the log says which"


def last_lines(log: Path, count: int = 5) -> str:
    """Return the last lines of a log on one line, for a message."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return "no log"
    kept = [line.strip() for line in lines if line.strip()][-count:]
    return " / ".join(kept)[-1500:] or "the log is empty"
