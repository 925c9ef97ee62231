"""What the machine, or the control groups we are in, allow: memory and CPU, and how the cores are clocked."""

from collections.abc import Iterator
from pathlib import Path


def memory() -> tuple[int, int]:
    """Return the memory of the machine or of our cgroup, whichever is less: in all, and available."""
    figures = {}
    for line in _read("/proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        figures[name] = int(value.split()[0]) * 1024
    total = figures.get("MemTotal", 0)
    available = figures.get("MemAvailable", figures.get("MemFree", 0))
    for limit, used in _cgroup_memory():
        total, available = min(total, limit), min(available, max(0, limit - used))
    return total, available


def _cgroup_folders(controller: str) -> Iterator[tuple[int, Path]]:
    """Yield (version, folder) of our cgroup for ``controller`` and of each one above it, as far as they can be seen."""
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            version, root = 2, Path("/sys/fs/cgroup")
        elif controller in controllers.split(","):
            version, root = 1, Path("/sys/fs/cgroup") / controllers
        else:
            continue
        folder = root / name.lstrip("/")
        for place in (folder, *folder.parents):
            if place.is_relative_to(root):
                yield version, place


def _cgroup_memory() -> Iterator[tuple[int, int]]:
    for version, folder in _cgroup_folders("memory"):
        names = ("memory.max", "memory.current", "inactive_file") if version == 2 else (
            "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file",
        )  # fmt: skip
        limit, used = _read(folder / names[0]), _read(folder / names[1])
        if not limit.isdigit() or not used.isdigit():
            continue  # "max", or not there
        stat = dict(line.split(maxsplit=1) for line in _read(folder / "memory.stat").splitlines() if " " in line)
        # files that nobody uses are given back before anything fails
        yield int(limit), max(0, int(used) - int(stat.get(names[2], 0)))


def cpu_quota() -> float | None:
    """Return the cores' worth of CPU time that our cgroups allow; None without a limit."""
    quotas = []
    for version, folder in _cgroup_folders("cpu"):
        if version == 2:
            words = _read(folder / "cpu.max").split()
        else:
            words = [_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")]
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]):
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def governors() -> tuple[str, ...]:
    """Return what decides the cores' clock, each kind once; empty where the machine does not tell."""
    folder = Path("/sys/devices/system/cpu")
    return tuple(sorted({_read(path) for path in folder.glob("cpu[0-9]*/cpufreq/scaling_governor")} - {""}))


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""  # absent in some containers, or not for us to read


def turbo() -> str:
    """Return whether cores may run faster than their nominal clock: ``on``, ``off``, empty where nothing tells."""
    folder = Path("/sys/devices/system/cpu")
    if (no_turbo := _read(folder / "intel_pstate" / "no_turbo")) in ("0", "1"):
        return "off" if no_turbo == "1" else "on"
    if (boost := _read(folder / "cpufreq" / "boost")) in ("0", "1"):
        return "on" if boost == "1" else "off"
    return ""


def frequency_hz() -> float | None:
    """Return the highest clock that a core runs at now, None where nothing tells."""
    found = [float(line.partition(":")[2]) * 1e6 for line in _read("/proc/cpuinfo").splitlines() if "cpu MHz" in line]
    return max(found, default=None)


def memory_limit() -> int | None:
    """Return the bytes that our control groups allow, None without a limit below the machine's memory."""
    total = next((int(line.split()[1]) for line in _read("/proc/meminfo").splitlines() if "MemTotal" in line), 0) * 1024
    least = min((limit for limit, _ in _cgroup_memory()), default=total)
    return least if least < total else None
