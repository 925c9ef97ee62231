"""Keeps components apart: how the cores are split, control groups that limit CPU, and what can be had here.

Everything here is plain Linux: affinities need no right, a control group needs a folder of the ``cpu`` controller that
we may write to (root, or a user session that systemd has delegated it to).
"""

import contextlib
import functools
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from ticketbench.errors import EnvironmentFailure
from ticketbench.model import Isolation, Split

# The kernel hands a group's share out anew this often: what has used its own up waits for the rest of it.
PERIOD_US: Final = 100_000
PREFIX: Final = "ticketbench-"
REMOVE_TIMEOUT_S: Final = 2.0
# What the machine let us use when we began: a pinned ticketbench may use less, and is not to be asked.
CORES: Final = tuple(sorted(os.sched_getaffinity(0)))


def split(cores: Sequence[int] = CORES) -> Split:
    """Return which cores go to whom: a quarter of them, at least one, to the load generator and to who observes.

    Measured: k6 needs 0.4 of a core for 600 requests/s and the system three times that. The two threads of a core stay
    together where there is more than one core. Raises EnvironmentFailure where there is only one.
    """
    if len(cores) < 2:
        raise EnvironmentFailure(
            f"pinning=split needs two cores, and this machine lets us use {len(cores)}",
            "use pinning=none, or give ticketbench more cores (taskset, the container's limits)",
        )
    groups = sorted(set(map(_siblings, cores)))
    groups = [tuple(core for core in group if core in cores) for group in groups]
    if len(groups) < 2:
        groups = [(core,) for core in cores]
    generator: list[int] = []
    while len(generator) < max(1, len(cores) // 4) and len(groups) > 1:
        generator += groups.pop()
    return Split(generator=tuple(sorted(generator)), system=tuple(sorted(core for group in groups for core in group)))


def _siblings(core: int) -> tuple[int, ...]:
    """Return the threads of the core that ``core`` is one of; itself alone where the system does not tell."""
    text = _read(Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list"))
    try:
        return tuple(cores_of(text)) or (core,)
    except ValueError:
        return (core,)


def cores_of(text: str) -> list[int]:
    """Return the numbers that a list as ``0-2,5`` names, in order. Raises ValueError."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        low, _, high = part.partition("-")
        found.update(range(int(low), int(high or low) + 1))
    return sorted(found)


def pin(pids: Iterable[int], cores: Sequence[int]) -> None:
    """Have every thread of these processes run on ``cores`` only; what has ended meanwhile is left out."""
    for pid in pids:
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - names only
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(int(thread), cores)


# --- control groups ---------------------------------------------------------------------------------------------------


class CpuGroup:
    """A control group of one component, in version 1 or 2. ``folder`` is where it is, made or not."""

    def __init__(self, folder: Path) -> None:
        if not folder.name.startswith(PREFIX):
            raise ValueError(f"{folder} is no group of ours")
        self.folder = folder

    def make(self) -> None:
        """Make it, without a limit. Raises OSError."""
        self.folder.mkdir(exist_ok=True)

    def limit(self, cpus: float) -> None:
        """Let its processes use ``cpus`` cores' time together; 0 takes the limit away. Raises OSError."""
        quota = round(cpus * PERIOD_US)
        if (self.folder / "cpu.max").exists():
            (self.folder / "cpu.max").write_text(f"{quota or 'max'} {PERIOD_US}")
        else:
            (self.folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (self.folder / "cpu.cfs_quota_us").write_text(str(quota or -1))

    def limited_to(self) -> float:
        """Return the cores' time that its processes may use together, 0 without a limit. Raises OSError."""
        if (self.folder / "cpu.max").exists():
            quota, period = (self.folder / "cpu.max").read_text().split()
        else:
            quota = (self.folder / "cpu.cfs_quota_us").read_text().strip()
            period = (self.folder / "cpu.cfs_period_us").read_text()
        return 0.0 if quota in ("max", "-1") else int(quota) / int(period)

    def add(self, pids: Iterable[int]) -> None:
        """Move these processes into it; what has ended meanwhile is left out. Raises OSError."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                (self.folder / "cgroup.procs").write_text(str(pid))

    def pids(self) -> tuple[int, ...]:
        """Return the processes in it; empty where there is no such group."""
        return tuple(map(int, _read(self.folder / "cgroup.procs").split()))

    def remove(self) -> bool:
        """Remove it, as soon as the kernel has let go of its last process; False where that is not so after 2 s."""
        deadline = time.monotonic() + REMOVE_TIMEOUT_S
        while True:
            try:
                self.folder.rmdir()
            except FileNotFoundError:
                return True
            except OSError:
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.01)
            else:
                return True


@functools.cache
def parent() -> Path:
    """Return the folder below which groups of ours can be made, tried with a process. Raises EnvironmentFailure."""
    faults: list[str] = []
    for folder in _candidates():
        fault = _try(folder)
        if not fault:
            return folder
        faults.append(fault)
    why = faults[0] if faults else "there is no control group with the cpu controller"
    raise EnvironmentFailure(
        f"the CPU of a component cannot be limited here: {why}",
        "run as root, or in a session that systemd delegates the cpu controller to"
        " (systemd-run --user --scope -p Delegate=yes ticketbench ...); pinning needs no right",
    )


def _candidates() -> Iterator[Path]:
    """Yield folders that groups may be made below, the likeliest first."""
    own = {}
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path))
    unified = None
    for line in _read(Path("/proc/self/mountinfo")).splitlines():
        before, _, after = line.partition(" - ")
        root, mount = before.split(" ")[3:5]
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup" and "cpu" in options.split(",") and "cpu" in own:
            yield _below(Path(mount), root, own["cpu"])
        elif kind == "cgroup2" and "" in own:
            unified = Path(mount), _below(Path(mount), root, own[""])
    if unified is None:
        return
    top, folder = unified
    for above in (folder, *folder.parents):
        # a group with processes in it cannot have limited children, so it is one further up that is split
        if "cpu" in _read(above / "cgroup.subtree_control").split():
            yield above
        if above == top:
            return


def _below(mount: Path, root: str, path: str) -> Path:
    """Return where a group is seen whose hierarchy is mounted from ``root`` on."""
    inner = path.removeprefix(root) if root != "/" else path
    return mount / inner.lstrip("/")


def _try(folder: Path) -> str:
    """Make a group below ``folder``, limit it, put a process into it. Return why that fails, empty where it works."""
    group = CpuGroup(folder / f"{PREFIX}probe-{os.getpid()}-{secrets.token_hex(3)}")
    try:
        group.make()
        group.limit(0.5)
        with subprocess.Popen(["/bin/sleep", "10"], stdin=subprocess.DEVNULL) as process:
            try:
                group.add([process.pid])
                if process.pid not in group.pids() or group.limited_to() != 0.5:
                    return f"{folder} takes a limit and does not hold it"
            finally:
                process.send_signal(signal.SIGKILL)
    except OSError as error:
        return f"{error.filename or folder}: {error.strerror}"
    else:
        return ""
    finally:
        group.remove()


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


# --- what can be had --------------------------------------------------------------------------------------------------


def probe() -> Isolation:
    """Return what this machine can do, tried: nothing of it stays. Takes some milliseconds."""
    pinned: Split | None = None
    no_pinning = no_limits = ""
    try:
        pinned = split()
    except EnvironmentFailure as error:
        no_pinning = error.message
    try:
        parent()
    except EnvironmentFailure as error:
        no_limits = error.message
    return Isolation(split=pinned, no_pinning=no_pinning, no_limits=no_limits)
