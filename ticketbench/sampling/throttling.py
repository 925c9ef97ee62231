"""How long a component had work and was not let run, because its control group had used up its share of CPU.

Whoever limits a component puts its root process into a control group of its own. That is seen in /proc/<pid>/cgroup, in
version 1 and 2, so nobody has to tell. A component that is in the sampler's own group has no limit of its own.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ticketbench.sampling.counters import Counters

# A component is put into its group before it gets any load, and stays there.
_LOOK_TICKS: Final = 5
# The line of cpu.stat that tells, and its unit in seconds: version 1, version 2.
_UNITS: Final = {b"throttled_time": 1e-9, b"throttled_usec": 1e-6}


class Throttling:
    """Throttled seconds by component since its first look; :meth:`tick` raises nothing. Use from one thread."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._mounts = _mounts(proc / "self" / "mountinfo")
        self._own = self._groups("self")
        self._files: dict[int, tuple[str, Path]] = {}
        self._roots: Mapping[int, str] = {}
        self._ticks = 0
        self._throttled_s: Counters[tuple[str, str]] = Counters()  # component, folder of the group

    def tick(self, roots: Mapping[int, str]) -> None:
        """Read the group of each root process that has one of its own."""
        if self._ticks % _LOOK_TICKS == 0 or roots != self._roots:
            self._roots = dict(roots)
            self._files = dict(self._found(roots))
        first = self._ticks == 0
        self._ticks += 1
        for component, file in self._files.values():
            with contextlib.suppress(OSError):  # the group has gone with its component
                throttled_s = _throttled_s(file.read_bytes())
                if throttled_s is not None:
                    self._throttled_s.read((component, str(file.parent)), throttled_s, baseline=first)

    def seconds(self) -> dict[str, float]:
        """Return the seconds so far, of the components that were seen in a group of their own."""
        total: dict[str, float] = {}
        for (component, _), throttled_s in self._throttled_s.items():
            total[component] = total.get(component, 0.0) + throttled_s
        return total

    def _found(self, roots: Mapping[int, str]) -> dict[int, tuple[str, Path]]:
        found: dict[int, tuple[str, Path]] = {}
        for pid, component in roots.items():
            groups = self._groups(str(pid))
            for controller, folder in self._mounts.items():
                group = groups.get(controller)
                if group is not None and group != self._own.get(controller):
                    file = folder / group.lstrip("/") / "cpu.stat"
                    if file.is_file():
                        found[pid] = (component, file)
        return found

    def _groups(self, process: str) -> dict[str, str]:
        """Return the group of a process by hierarchy: ``cpu`` in version 1, empty for version 2."""
        groups: dict[str, str] = {}
        try:
            lines = (self._proc / process / "cgroup").read_text().splitlines()
        except OSError:  # it has ended
            return groups
        for line in lines:
            _, controllers, group = line.split(":", 2)
            for controller in controllers.split(","):
                groups[controller] = group
        return {controller: groups[controller] for controller in ("", "cpu") if controller in groups}


def _mounts(mountinfo: Path) -> dict[str, Path]:
    """Return where the hierarchies that may limit CPU are mounted: version 2 (empty) first, ``cpu`` of version 1."""
    found: dict[str, Path] = {}
    try:
        lines = mountinfo.read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        folder = Path(before.split(" ")[4])
        if kind == "cgroup2":
            found[""] = folder
        elif kind == "cgroup" and "cpu" in options.split(","):
            found["cpu"] = folder
    return dict(sorted(found.items()))


def _throttled_s(stat: bytes) -> float | None:
    """Return the throttled time that a cpu.stat tells; None where the group has no limit switched on."""
    for line in stat.splitlines():
        name, _, value = line.partition(b" ")
        if name in _UNITS:
            return int(value) * _UNITS[name]
    return None
