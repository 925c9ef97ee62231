"""The machine as a whole: CPU by mode, pressure, and what everybody else burns."""

import contextlib
from typing import Final

from ticketbench.sampling.counters import Counters
from ticketbench.sampling.proc import TICKS_PER_S, File

# The first fields of /proc/stat; guest time is part of user and nice.
_MODES: Final = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
_BUSY: Final = ("user", "nice", "system", "irq", "softirq", "steal")
_RESOURCES: Final = ("cpu", "io", "memory")

# Where the kernel counts the machine's time by its timer tick (100 Hz) and a process's to the nanosecond, both differ
# by some percent from second to second, either way. `other` may therefore run ahead of what the sums say by this much
# before it is taken for its true value: without the bound, a long stretch of too little would hide real CPU of others.
_AHEAD_S: Final = 0.25


class Host:
    """Cumulative seconds since the first :meth:`tick`."""

    def __init__(self) -> None:
        self.cpu_s: Counters[str] = Counters()
        self.pressure_s: Counters[tuple[str, str]] = Counters()
        self.other_s = 0.0
        self._shift_s = 0.0
        self._stat = File("/proc/stat")
        self._pressure: dict[str, File] = {}
        for resource in _RESOURCES:
            with contextlib.suppress(OSError):  # a kernel without PSI has no such series
                self._pressure[resource] = File(f"/proc/pressure/{resource}")

    def tick(self, ours_s: float) -> None:
        """Read the machine's figures; ``ours_s`` is the CPU of all components since the start."""
        line = self._stat.read().split(b"\n", 1)[0].split()
        for mode, ticks in zip(_MODES, line[1:], strict=False):
            self.cpu_s.read(mode, int(ticks) / TICKS_PER_S, baseline=True)
        self._count_other(sum(self.cpu_s[mode] for mode in _BUSY) - ours_s)
        for resource, file in list(self._pressure.items()):
            try:
                lines = file.read().splitlines()
            except OSError:  # switched off at boot (psi=0): the file exists and cannot be read
                del self._pressure[resource]
                continue
            for text in lines:
                kind = text.split(None, 1)[0].decode()
                self.pressure_s.read((resource, kind), int(text.rsplit(b"total=", 1)[1]) / 1e6, baseline=True)

    def _count_other(self, raw_s: float) -> None:
        value_s = raw_s + self._shift_s
        if value_s > self.other_s:
            self.other_s = value_s
        elif self.other_s - value_s > _AHEAD_S:
            self._shift_s = self.other_s - _AHEAD_S - raw_s
