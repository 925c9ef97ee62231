"""Reading /proc cheaply: files stay open and are read again from their start.

An open file of a process stays bound to that process: after its death reading fails (ESRCH) even where the pid lives
on in another process, so figures of two processes are never mixed up.
"""

import os
from dataclasses import dataclass
from typing import Final

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_STAT_BYTES: Final = 2048  # a stat line has some 350 bytes


class File:
    """A file of /proc that is read again and again. Raises OSError where it, or its process, is gone."""

    __slots__ = ("_fd",)

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, size: int = _STAT_BYTES) -> bytes:
        """Return the content as it is now."""
        return os.pread(self._fd, size, 0)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)


@dataclass(frozen=True, slots=True)
class Stat:
    """What /proc/<pid>/stat says of a process.

    ``own_s`` is the CPU time of its threads, ``reaped_s`` that of the children it waited for, which includes what they
    had waited for. ``started_s`` counts from the machine's boot.
    """

    ppid: int
    own_s: float
    reaped_s: float
    threads: int
    started_s: float


def parse_stat(line: bytes) -> Stat:
    """Read a line of /proc/<pid>/stat; the command's name in it may hold spaces and parentheses."""
    field = line[line.rindex(b")") + 2 :].split(None, 20)
    return Stat(
        ppid=int(field[1]),
        own_s=(int(field[11]) + int(field[12])) / TICKS_PER_S,
        reaped_s=(int(field[13]) + int(field[14])) / TICKS_PER_S,
        threads=int(field[17]),
        started_s=int(field[19]) / TICKS_PER_S,
    )


def run_delay_s(schedstat: bytes) -> float:
    """Return from a schedstat line how long the thread was runnable without a core, in seconds."""
    return int(schedstat.split(None, 2)[1]) / 1e9


def process_ids() -> list[int]:
    """Return the ids of all processes, ascending: parents mostly come before their children."""
    return sorted(int(name) for name in os.listdir("/proc") if name[0] in "123456789")  # noqa: PTH208 a hot path
