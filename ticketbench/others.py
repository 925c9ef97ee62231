"""How much of the machine's CPU others take while a run is coming up: whoever is no process of ours."""

import os
import time
from pathlib import Path
from typing import Final

# Kernel's columns of /proc/stat that are work done here: user, nice, system, irq, softirq. Idle, iowait and what a
# hypervisor stole are not; a guest's time is in user already.
_WORK: Final = (0, 1, 2, 5, 6)
# Ticks are hundredths of a second: below this the share is mostly rounding.
SHORTEST_S: Final = 0.2


class OthersWatch:
    """Counts from its making on. A process of ours is one below this one, ended or not."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._machine_s = _machine_s()
        self._ours_s = _ours_s()

    def share(self) -> float | None:
        """Return the share (0 to 1) of all cores' time that others used until now, None where it was too short."""
        elapsed_s = time.monotonic() - self._began_s
        if elapsed_s < SHORTEST_S:
            return None
        others_s = (_machine_s() - self._machine_s) - (_ours_s() - self._ours_s)
        return min(1.0, max(0.0, others_s / (elapsed_s * (os.cpu_count() or 1))))


def _machine_s() -> float:
    fields = Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    return sum(int(fields[column]) for column in _WORK) / os.sysconf("SC_CLK_TCK")


def _ours_s() -> float:
    """Return the CPU of this process, of all below it, and of those that they have waited for."""
    children: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - names only
        if not entry.isdigit():
            continue
        try:
            fields = Path(f"/proc/{entry}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        children.setdefault(int(fields[1]), []).append(int(entry))
        ticks[int(entry)] = sum(map(int, fields[11:15]))  # user and system, its own and its waited-for children's
    total, below = 0, [os.getpid()]
    while below:
        pid = below.pop()
        total += ticks.get(pid, 0)
        below += children.get(pid, ())
    return total / os.sysconf("SC_CLK_TCK")
