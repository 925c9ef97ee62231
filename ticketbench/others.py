"""How much of the machine's CPU others take: while a run is coming up, or for a moment."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# Kernel's columns of /proc/stat that are work done here: user, nice, system, irq, softirq. Idle, iowait and what a
# hypervisor stole are not; a guest's time is in user already.
_WORK: Final = (0, 1, 2, 5, 6)
# Ticks are hundredths of a second: below this the share is mostly rounding.
SHORTEST_S: Final = 0.2
# From this share of a core on a process is named as one that shares the machine.
NAMED_CORES: Final = 0.05
MOST_NAMED: Final = 3


class OthersWatch:
    """Counts from its making on. A process of ours is one below this one, ended or not; all else is others."""

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


@dataclass(frozen=True)
class Sharer:
    """A program of somebody else's and the cores that it took."""

    name: str
    cores: float


@dataclass(frozen=True)
class Busy:
    """What a moment showed: the cores that others took, who took most, and the share (0 to 1) of time stolen."""

    cores: float
    sharers: tuple[Sharer, ...]
    steal_share: float


def watched(seconds: float) -> Busy:
    """Watch the machine for ``seconds``. Whoever is not this very process is another here."""
    before_host, before = _host_ticks(), _process_ticks()
    began_s = time.monotonic()
    time.sleep(seconds)
    after_host, after = _host_ticks(), _process_ticks()
    per_core = os.sysconf("SC_CLK_TCK") * (time.monotonic() - began_s)
    busy = sum(after_host[name] - before_host[name] for name in ("user", "nice", "system", "irq", "softirq", "steal"))
    whole = sum(after_host.values()) - sum(before_host.values())
    taken: dict[str, float] = {}
    ours = 0.0
    for key, (name, ticks) in after.items():
        cores = (ticks - before.get(key, (name, 0))[1]) / per_core
        if key[0] == os.getpid():
            ours = cores
        else:
            taken[name] = taken.get(name, 0.0) + cores
    most = sorted(taken.items(), key=lambda item: -item[1])[:MOST_NAMED]
    sharers = tuple(Sharer(name, cores) for name, cores in most if cores >= NAMED_CORES)
    steal_share = (after_host["steal"] - before_host["steal"]) / whole if whole > 0 else 0.0
    return Busy(max(0.0, busy / per_core - ours), sharers, steal_share)


def _host_ticks() -> dict[str, int]:
    names = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
    values = Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]
    return dict(zip(names, (*map(int, values), *[0] * (8 - len(values))), strict=True))


def _process_ticks() -> dict[tuple[int, str], tuple[str, int]]:
    """Return name and CPU ticks of each process, by pid and start time."""
    found = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - names only: a Path for each process costs more than the rest
        if not entry.isdigit():
            continue
        try:
            text = Path(f"/proc/{entry}/stat").read_text(errors="replace")
        except OSError:  # it has ended
            continue
        head, _, tail = text.rpartition(")")
        fields = tail.split()
        found[int(entry), fields[19]] = (head.partition("(")[2], int(fields[11]) + int(fields[12]))
    return found
