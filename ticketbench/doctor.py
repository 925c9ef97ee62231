"""Whether a run can be made here, and believed: from what was seen of the machine to one sentence for each part.

Pure: :func:`examine` judges a :class:`ticketbench.surroundings.Surroundings` and touches nothing. A check is *failing*
where no run can be made, a *warning* where one can and its figures or its clean-up suffer.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ticketbench.binaries import OPTIONAL, Sighting
from ticketbench.leftovers import StackSeen
from ticketbench.others import Sharer
from ticketbench.surroundings import Folder, Surroundings

Status = Literal["ok", "warning", "failing"]

# Measured in the middle of `spike` (1360 virtual users): 840 MB, of which k6 476, the sale and sampler 142, PostgreSQL
# 81, ticketbench 82, Prometheus 53. Without k6's users hardly anything but a smoke test fits; half more never swaps.
LEAST_MEMORY_BYTES: Final = 400_000_000
ROOMY_MEMORY_BYTES: Final = 1_250_000_000
# Measured: a stack's folder holds 81 MB after `spike`; PostgreSQL keeps up to 1 GB of WAL (max_wal_size) when it has to
# write for long.
LEAST_STATE_BYTES: Final = 200_000_000
ROOMY_STATE_BYTES: Final = 1_500_000_000
# What is fetched takes 150 MB unpacked, and as much again while it is being unpacked.
LEAST_CACHE_BYTES: Final = 300_000_000
# Measured: a run of one short trial takes 1 MB, its report included; each purchase adds about 100 bytes.
LEAST_OUTPUT_BYTES: Final = 20_000_000
ROOMY_OUTPUT_BYTES: Final = 200_000_000
LEAST_INODES: Final = 3_000  # measured: a stack's folder holds 1660 files
# The load must not wait for ports: without connection reuse each request leaves one in TIME_WAIT for a minute.
ROOMY_PORTS: Final = 8_000
# From this share of the machine on a trial is marked as a lower bound (analysis.validity.OTHERS_LOWER_BOUND).
OTHERS_SHARE: Final = 0.15
STEAL_SHARE: Final = 0.05  # analysis.validity.STEAL_SHARE
# Reading one of these is a system call that takes a microsecond; every other source costs more or stops in sleep.
GOOD_CLOCKS: Final = ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "xen")

TITLES: Final = {
    "k6": "k6", "postgres": "PostgreSQL", "redis": "Redis", "prometheus": "Prometheus", "pgbouncer": "PgBouncer",
    "haproxy": "HAProxy",
}  # fmt: skip
# What asks for a program that a run can do without.
ASKED_BY: Final = {"pgbouncer": "pooler=pgbouncer", "haproxy": "replicas above 1 and balancer=haproxy"}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. ``remedy`` is what to do, empty where nothing has to be done."""

    name: str
    status: Status
    text: str
    remedy: str = ""


def ready(checks: tuple[Check, ...]) -> bool:
    """Tell whether a run can be made: no check is failing."""
    return all(check.status != "failing" for check in checks)


def examine(seen: Surroundings) -> tuple[Check, ...]:
    """Judge everything that was seen, in the order in which it is shown. Never empty."""
    return (
        *(_part(sighting, seen) for sighting in seen.parts),
        _python(seen),
        _docker(seen),
        _ports(seen),
        _descriptors(seen),
        *(_folder(folder, seen) for folder in seen.folders),
        _memory(seen),
        _cores(seen),
        _governor(seen),
        _load(seen),
        _clock(seen),
        _users(seen),
        _isolation(seen),
        *_stacks(seen),
    )


def _part(part: Sighting, seen: Surroundings) -> Check:
    name = TITLES.get(part.part, part.part)
    passed = f"; passed over: {'; '.join(part.passed_over)}" if part.passed_over else ""
    if part.found is not None:
        what = f"{part.found.version}, {part.found.source}: {part.found.program}"
        if part.part == "postgres":
            what += f"; with contrib{''.join(f', {tool}' for tool in seen.postgres_tools)}"
        return Check(name, "ok", what + passed)
    if part.part in OPTIONAL:
        return _optional(name, part, passed)
    if part.fetchable:
        return Check(
            name,
            "warning",
            f"not here yet; the first run fetches {part.fetchable}{passed}",
            "`ticketbench doctor --provide` fetches it now",
        )
    return Check(name, "failing", f"{part.problem}{passed}", part.remedy)


def _optional(name: str, part: Sighting, passed: str) -> Check:
    """Say what asks for a program that is not here. It is no fault of this machine: most runs do without."""
    asked_by = ASKED_BY[part.part]
    if part.fetchable:
        return Check(name, "ok", f"not here yet; only {asked_by} needs it: such a run fetches {part.fetchable}{passed}")
    text = f"only {asked_by} needs it, on the local stack: {part.problem}{passed}"
    return Check(name, "warning" if part.problem.startswith("TICKETBENCH_") else "ok", text, part.remedy)


def _python(seen: Surroundings) -> Check:
    if seen.package_problems:
        return Check("Python", "failing", "; ".join(seen.package_problems), "install ticketbench again")
    return Check("Python", "ok", f"{seen.python}, ticketbench {seen.ticketbench}, {seen.packages} packages as required")


def _docker(seen: Surroundings) -> Check:
    if seen.docker:
        return Check(
            "Docker", "ok", f"engine {seen.docker}: --stack docker, and auto, use it where it can get the images"
        )
    return Check("Docker", "ok", f"{seen.docker_problem}; --stack auto is the local stack, which needs none")


def _ports(seen: Surroundings) -> Check:
    if seen.ports_problem:
        return Check("ports", "failing", seen.ports_problem, "look at what takes the ports of this machine (ss -tan)")
    text = f"{seen.ports_tried} free at once on 127.0.0.1, about {seen.ports_left} of {seen.ports_range} left in all"
    if seen.ports_left < ROOMY_PORTS:
        remedy = "wait for closed connections to expire, or widen net.ipv4.ip_local_port_range"
        return Check("ports", "warning", f"{text}: a script that opens many connections may run out", remedy)
    return Check("ports", "ok", text)


def _descriptors(seen: Surroundings) -> Check:
    soft, hard = seen.descriptors
    limits = f"{_count(soft)} soft, {_count(hard)} hard"
    if not seen.needed_descriptors:
        return Check("open files", "ok", f"{limits}; what the scenarios need is known once k6 is here")
    most = max(seen.needed_descriptors.values())
    short = [name for name, needed in seen.needed_descriptors.items() if hard != -1 and hard < needed]
    remedy = f"raise the hard limit: ulimit -Hn {most}, or LimitNOFILE= or /etc/security/limits.conf"
    if len(short) == len(seen.needed_descriptors):
        return Check("open files", "failing", f"{limits}: too few for every bundled scenario", remedy)
    if short:
        return Check("open files", "warning", f"{limits}: too few for {', '.join(short)}", remedy)
    return Check("open files", "ok", f"{limits}; the bundled scenarios need {most}")


def _folder(folder: Folder, seen: Surroundings) -> Check:
    name = f"{folder.purpose} folder"
    where = f"{folder.path}"
    other = f"set {folder.variable} to another folder" if folder.variable else "choose another with -o"
    least, roomy = {
        "cache": (LEAST_CACHE_BYTES, LEAST_CACHE_BYTES),
        "state": (LEAST_STATE_BYTES, ROOMY_STATE_BYTES),
        "output": (LEAST_OUTPUT_BYTES, ROOMY_OUTPUT_BYTES),
    }[folder.purpose]
    # with every program at hand nothing has to be written there
    needed = folder.purpose != "cache" or any(
        sighting.found is None for sighting in seen.parts if sighting.part not in OPTIONAL
    )
    if folder.problem:
        text = f"{where} cannot be written: {folder.problem}"
        return Check(name, "failing" if needed else "warning", text, other)
    free = f"{where}: {_bytes(folder.free_bytes)} free"
    if needed and folder.free_bytes < least:
        return Check(name, "failing", f"{free}, and {_bytes(least)} are needed", f"free some space, or {other}")
    if needed and folder.free_inodes is not None and folder.free_inodes < LEAST_INODES:
        text = f"{free}, but only {folder.free_inodes} more files can be made there"
        return Check(name, "failing" if folder.purpose == "state" else "warning", text, f"remove some, or {other}")
    if needed and folder.free_bytes < roomy:
        return Check(name, "warning", f"{free}: a long run may fill it", f"free some space, or {other}")
    if folder.purpose == "state" and folder.in_memory:
        return Check(name, "ok", f"{free}, in memory: no disk is part of what is measured")
    return Check(name, "ok", free)


def _memory(seen: Surroundings) -> Check:
    text = f"{_bytes(seen.memory_available_bytes)} available of {_bytes(seen.memory_bytes)}"
    remedy = "end something else, or measure on a larger machine"
    if seen.memory_available_bytes < LEAST_MEMORY_BYTES:
        return Check("memory", "failing", f"{text}: too little for the servers and the load generator", remedy)
    if seen.memory_available_bytes < ROOMY_MEMORY_BYTES:
        return Check("memory", "warning", f"{text}: swapping would be measured as slowness", remedy)
    return Check("memory", "ok", text)


def _cores(seen: Surroundings) -> Check:
    usable, whole = seen.cores_usable, seen.cores
    text = f"{usable} of {whole}"
    effective = float(usable)
    if seen.cpu_quota_cores is not None and seen.cpu_quota_cores < usable:
        effective = seen.cpu_quota_cores
        text += f", with CPU time for {effective:.3g} (a cgroup's quota)"
    if effective < 2:
        return Check(
            "cores",
            "warning",
            f"{text}: the load generator and the system under test take turns on them",
            "give this machine or container 2 cores or more; until then take ratios, not absolute figures",
        )
    return Check("cores", "ok", text)


def _governor(seen: Surroundings) -> Check:
    if not seen.governors:
        return Check("frequency", "ok", "the machine does not tell its CPU governor (usual for virtual machines)")
    names = ", ".join(sorted(seen.governors))
    if set(seen.governors) <= {"performance"}:
        return Check("frequency", "ok", f"governor {names}")
    return Check(
        "frequency",
        "warning",
        f"governor {names}: the cores change their speed with the load",
        "cpupower frequency-set -g performance, for the time of the measurement",
    )


def _load(seen: Surroundings) -> Check:
    text = f"others take {seen.others_cores:.2f} of {seen.cores} cores now" + _sharers(seen.sharers)
    if seen.steal_share >= STEAL_SHARE:
        text += f"; the hypervisor gives {seen.steal_share:.0%} of the time to others"
    if seen.others_cores / seen.cores >= OTHERS_SHARE or seen.steal_share >= STEAL_SHARE:
        return Check("other load", "warning", text, "wait for it or end it: trials beside it are lower bounds at best")
    return Check("other load", "ok", text)


def _sharers(sharers: tuple[Sharer, ...]) -> str:
    named = ", ".join(f"{sharer.name} {sharer.cores:.2f}" for sharer in sharers)
    return f" ({named})" if named else ""


def _clock(seen: Surroundings) -> Check:
    if not seen.clock_source:
        return Check("clock", "ok", "the machine does not tell its clock source")
    if re.match("|".join(map(re.escape, GOOD_CLOCKS)), seen.clock_source):
        return Check("clock", "ok", seen.clock_source)
    return Check(
        "clock",
        "warning",
        f"{seen.clock_source}: reading the time is slow, which the load generator does for each request",
        "see /sys/devices/system/clocksource/clocksource0/available_clocksource for a better one (tsc)",
    )


def _users(seen: Surroundings) -> Check:
    if seen.is_root and seen.root_way == "none":
        return Check(
            "rights",
            "failing",
            "PostgreSQL does not run as root, and there is no setpriv to change the user with",
            "run ticketbench as an ordinary user, or install util-linux",
        )
    who = "root" if seen.is_root else "an ordinary user"
    how = {
        "namespace": "; PostgreSQL runs in a user namespace",
        "switch": "; PostgreSQL runs as nobody (user namespaces are closed here)",
    }.get(seen.root_way, "")
    if not seen.has_setpriv:
        return Check(
            "rights",
            "warning",
            f"{who}{how}; without setpriv a killed ticketbench leaves its servers running",
            "install util-linux, or call `ticketbench down` after a kill",
        )
    return Check("rights", "ok", f"{who}{how}; servers end with ticketbench, even when it is killed")


def _isolation(seen: Surroundings) -> Check:
    """Say what can be asked for. It is no warning where something cannot: nothing asks for it unless told to."""
    able = seen.isolation
    pinning = f"pinning=split cannot be: {able.no_pinning}" if able.no_pinning else "pinning=split can be asked for"
    limits = f"CPU limits cannot be: {able.no_limits}" if able.no_limits else "CPU limits can be asked for"
    return Check("isolation", "ok", f"{pinning}; {limits}")


def _stacks(seen: Surroundings) -> Iterator[Check]:
    if not seen.stacks and not seen.leftovers:
        yield Check("stacks", "ok", "nothing of ticketbench is up, and nothing was left behind")
    for stack in seen.stacks:
        yield _stack(stack)
    for leftover in seen.leftovers:
        yield Check("leftovers", "warning", leftover.text, leftover.remedy)


def _stack(stack: StackSeen) -> Check:
    """Say what a stack is to its user. Only what was left behind is there to be cleaned up."""
    parts = f" ({', '.join(stack.parts)})" if stack.parts else ""
    where = f" of the state folder {stack.elsewhere}" if stack.elsewhere is not None else ""
    name = f"{stack.stack_id}{where}"
    down = "ticketbench down" if stack.elsewhere is None else _command("down", stack.elsewhere)
    match stack.use:
        case "in use":
            return Check(
                "stacks",
                "warning",
                f"{name}: its run is going on{parts}",
                "let it end first: two runs at a time measure each other",
            )
        case "kept":
            return Check("stacks", "warning", f"{name}: kept{parts}; it takes memory and some CPU", down)
        case "left behind":
            next_run = ", or the next run," if stack.elsewhere is None else ""
            return Check(
                "stacks", "warning", f"{name}: left behind by a killed run{parts}", f"`{down}`{next_run} takes it down"
            )
        case "unknown":
            count = f"{stack.processes} process{'es' * (stack.processes != 1)}"
            return Check(
                "stacks",
                "warning",
                f"{name}: {count} of a stack; whether its run is going on cannot be told from here",
                "leave it to whoever started it; where nobody did, end its processes",
            )


def _command(command: str, state_folder: Path) -> str:
    return f"TICKETBENCH_STATE={shlex.quote(str(state_folder))} ticketbench {command}"


def _count(limit: int) -> str:
    return "unlimited" if limit == -1 else str(limit)


def _bytes(amount: int) -> str:
    return f"{amount / 1e9:.1f} GB" if amount >= 1_000_000_000 else f"{amount / 1e6:.0f} MB"


__all__ = ["Check", "Status", "examine", "ready"]
