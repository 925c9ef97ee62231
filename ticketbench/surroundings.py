"""Looks at the machine for ``ticketbench doctor``: it changes nothing, starts nothing that stays, and judges nothing.

Takes one to two seconds, half of one to watch what others do with the CPU; some more where a program hangs.
"""

import errno
import os
import platform
import resource
import shutil
import socket
import stat
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement

from ticketbench import __version__, docker_socket, factors, limits, machine, scenario
from ticketbench.binaries import OPTIONAL, PARTS, Sighting, look
from ticketbench.descriptors import OTHER_FILES
from ticketbench.errors import EnvironmentFailure, TicketbenchError
from ticketbench.leftovers import Leftover, StackSeen, look_around
from ticketbench.model import Isolation
from ticketbench.others import Sharer, watched
from ticketbench.paths import cache_dir, state_dir
from ticketbench.stack.launch import can_unshare

# Long enough to see a busy neighbour, short enough to wait for.
WATCHED_S: Final = 0.5
DOCKER_PATIENCE_S: Final = 1.0
# Servers, the sale, k6's API and each worker's metrics.
PORTS_OF_A_RUN: Final = 6 + int(factors.CATALOGUE["workers"].high)
# Not needed by a run: for people, and for measuring what PostgreSQL alone can do.
CLIENTS: Final = ("psql", "pgbench")


@dataclass(frozen=True)
class Folder:
    """A folder that a run writes to: ``problem`` is why it cannot, empty where it can.

    ``variable`` moves it. ``free_inodes`` is None where the file system does not count them.
    """

    purpose: str
    path: Path
    variable: str
    problem: str
    free_bytes: int
    free_inodes: int | None
    in_memory: bool


@dataclass(frozen=True)
class Surroundings:
    """What was seen. Limits are -1 where there is none; what the machine does not tell is empty or None."""

    parts: tuple[Sighting, ...]
    postgres_tools: tuple[str, ...]
    python: str
    ticketbench: str
    packages: int
    package_problems: tuple[str, ...]
    docker: str
    docker_problem: str
    ports_problem: str
    ports_tried: int
    ports_left: int
    ports_range: int
    descriptors: tuple[int, int]
    needed_descriptors: Mapping[str, int]
    folders: tuple[Folder, ...]
    memory_available_bytes: int
    memory_bytes: int
    cores: int
    cores_usable: int
    cpu_quota_cores: float | None
    governors: tuple[str, ...]
    others_cores: float
    sharers: tuple[Sharer, ...]
    steal_share: float
    clock_source: str
    is_root: bool
    root_way: str
    has_setpriv: bool
    isolation: Isolation
    stacks: tuple[StackSeen, ...]
    leftovers: tuple[Leftover, ...]


def survey(output: Path) -> Surroundings:
    """Look at everything; ``output`` is the folder that runs would be written to. Raises EnvironmentFailure.

    It raises only where no home folder is known and nothing names another one.
    """
    looked_for = (*PARTS, *OPTIONAL)
    with ThreadPoolExecutor(len(looked_for)) as pool:  # a program that hangs is waited for once, not once for each
        parts = tuple(pool.map(look, looked_for))
    packages, package_problems = _packages()
    docker, docker_problem = _docker()
    ports_problem, tried = _try_ports()
    ports_range, ports_left = _ports_left()
    busy = watched(WATCHED_S)
    total, available = limits.memory()
    stacks, leftovers = look_around(output)
    return Surroundings(
        parts=parts,
        postgres_tools=tuple(tool for part in parts if part.part == "postgres" for tool in part.beside(*CLIENTS)),
        python=platform.python_version(),
        ticketbench=__version__,
        packages=packages,
        package_problems=package_problems,
        docker=docker,
        docker_problem=docker_problem,
        ports_problem=ports_problem,
        ports_tried=tried,
        ports_left=ports_left,
        ports_range=ports_range,
        descriptors=resource.getrlimit(resource.RLIMIT_NOFILE),
        needed_descriptors=_needed_descriptors(parts),
        folders=(
            _folder("cache", cache_dir(), "TICKETBENCH_CACHE"),
            _folder("state", state_dir(), "TICKETBENCH_STATE"),
            _folder("output", output, ""),
        ),
        memory_available_bytes=available,
        memory_bytes=total,
        cores=os.cpu_count() or 1,
        cores_usable=len(os.sched_getaffinity(0)),
        cpu_quota_cores=limits.cpu_quota(),
        governors=limits.governors(),
        others_cores=busy.cores,
        sharers=busy.sharers,
        steal_share=busy.steal_share,
        clock_source=_read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        is_root=os.geteuid() == 0,
        root_way=_root_way(),
        has_setpriv=shutil.which("setpriv") is not None,
        isolation=machine.isolation(),
        stacks=stacks,
        leftovers=leftovers,
    )


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""  # absent in some containers, or not for us to read


# --- Python -----------------------------------------------------------------------------------------------------------


def _packages() -> tuple[int, tuple[str, ...]]:
    """Return how many packages ticketbench asks for, and what is wrong with them."""
    try:
        asked = metadata.requires("ticketbench") or []
    except metadata.PackageNotFoundError:
        return 0, ("ticketbench itself is not installed, only imported from a folder",)
    problems = []
    count = 0
    for text in asked:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            problems.append(f"ticketbench asks for {text!r}, which is no requirement")
            continue
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        count += 1
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            problems.append(f"the package {requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            problems.append(f"the package {requirement.name} is {version}, and {requirement.specifier} is needed")
    return count, tuple(problems)


# --- Docker -----------------------------------------------------------------------------------------------------------


def _docker() -> tuple[str, str]:
    """Return the version of the Docker engine that can be used here, and why there is none; one of them is empty."""
    try:
        return docker_socket.reach(docker_socket.find(), DOCKER_PATIENCE_S).engine, ""
    except EnvironmentFailure as error:
        return "", error.message


# --- ports, descriptors -----------------------------------------------------------------------------------------------


def _try_ports() -> tuple[str, int]:
    """Bind as many ports at once as a run may need; return why that failed (empty) and how many were had."""
    with ExitStack() as held:
        for count in range(PORTS_OF_A_RUN):
            try:
                listening = held.enter_context(socket.socket())
                listening.bind(("127.0.0.1", 0))
            except OSError as error:
                return f"after {count} of {PORTS_OF_A_RUN} ports: {error.strerror}", count
    return "", PORTS_OF_A_RUN


def _ports_left() -> tuple[int, int]:
    """Return how many ports the system gives out, and about how many are left."""
    bounds = _read("/proc/sys/net/ipv4/ip_local_port_range").split()
    width = int(bounds[1]) - int(bounds[0]) + 1 if len(bounds) == 2 else 28_232  # Linux's default: 32768 to 60999
    words = next((line.split() for line in _read("/proc/net/sockstat").splitlines() if line.startswith("TCP:")), [])
    figures = dict(zip(words[1::2], words[2::2], strict=False))
    taken = int(figures.get("inuse", 0)) + int(figures.get("tw", 0))
    return width, max(0, width - taken)


def _needed_descriptors(parts: tuple[Sighting, ...]) -> dict[str, int]:
    """Return the open files that each bundled scenario needs; empty without a k6 to read them with."""
    found = next((sighting.found for sighting in parts if sighting.part == "k6"), None)
    if found is None:
        return {}
    needed = {}
    for name in scenario.bundled():
        try:
            _, schedule = scenario.inspect((str(found.program),), scenario.find(name), scenario.load_env({}))
        except TicketbenchError:
            continue  # `scenarios check` tells what is wrong with a script
        needed[name] = schedule.max_vus + OTHER_FILES
    return needed


# --- folders, memory --------------------------------------------------------------------------------------------------


def _folder(purpose: str, path: Path, variable: str) -> Folder:
    problem = ""
    free_bytes, free_inodes, in_memory = 0, None, False
    try:
        there = _nearest(path)
        system = os.statvfs(there)
        free_bytes = system.f_bavail * system.f_frsize
        free_inodes = system.f_favail if system.f_files else None
        in_memory = _file_system(there) == "tmpfs"
        with tempfile.TemporaryFile(dir=there) as probe:
            probe.write(b"x")
    except NotADirectoryError as error:
        problem = f"{error.filename} is not a folder"
    except OSError as error:
        problem = error.strerror or str(error)
    return Folder(purpose, path, variable, problem, free_bytes, free_inodes, in_memory=in_memory)


def _nearest(path: Path) -> Path:
    """Return the folder that is there of ``path`` and those above it. Raises OSError where it cannot be used."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if path == path.parent:
            raise  # the current folder was removed
        if not path.is_symlink():
            return _nearest(path.parent)
        mode = 0  # a link that leads nowhere: no folder can be made in its place
    if not stat.S_ISDIR(mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    return path


def _file_system(path: Path) -> str:
    """Return the type of the file system that ``path`` lies on, from the mount table."""
    best, kind = "", ""
    resolved = f"{path.resolve()}/"
    for line in _read("/proc/self/mounts").splitlines():
        fields = line.split()
        if len(fields) > 2 and resolved.startswith(fields[1].rstrip("/") + "/") and len(fields[1]) >= len(best):
            best, kind = fields[1], fields[2]
    return kind


# --- rights ----------------------------------------------------------------------------------------------------------


def _root_way() -> str:
    """Return how root would run PostgreSQL: ``namespace``, ``switch`` or ``none``; empty for an ordinary user."""
    if os.geteuid() != 0:
        return ""
    if can_unshare():
        return "namespace"
    return "switch" if shutil.which("setpriv") is not None else "none"
