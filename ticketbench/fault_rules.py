"""Which planned faults a plan can hold: what its variants have, what its stack can do, what its window has room for."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Final

from ticketbench import factors
from ticketbench.fault_plan import SALES, PlannedFault
from ticketbench.model import Level, Schedule, Variant

SALE: Final = SALES[0]


def impossible(
    faults: Sequence[PlannedFault], stack: str, variants: Sequence[Variant], schedules: Mapping[str, Schedule]
) -> list[str]:
    """Return why these faults cannot be done to these variants, a sentence each."""
    if faults and stack == "external":
        return ["planned faults (--fault, [[fault]]) are for a stack of our own: this system is somebody else's"]
    problems = [problem for fault in faults for problem in _one(fault, stack, variants, schedules)]
    problems += [
        f"{_named(one)} and {_named(other)} overlap: a component has one fault at a time"
        for one, other in combinations(sorted(faults, key=lambda fault: fault.at_s), 2)
        if one.component == other.component and other.at_s <= one.end_s
    ]
    return problems


def _named(fault: PlannedFault) -> str:
    return f"fault {fault.text!r}"


def _one(
    fault: PlannedFault, stack: str, variants: Sequence[Variant], schedules: Mapping[str, Schedule]
) -> Iterator[str]:
    lacking = [variant.name for variant in variants if fault.component not in components(variant.levels)]
    if lacking:
        yield f"{_named(fault)}: variant {lacking[0]!r} has no {fault.component}{_how(fault.component)}"
    if fault.action == "disconnect" and stack == "local":
        yield f"{_named(fault)}: processes of this machine cannot be unplugged; the docker stack can do that"
    queued = [variant.name for variant in variants if factors.queued(variant.levels)]
    if stack == "docker" and fault.component == "redis" and fault.action in ("kill", "restart") and queued:
        yield (
            f"{_named(fault)}: on the docker stack Redis is started again without the log that holds the queue of"
            f" variant {queued[0]!r}; the local stack can do that"
        )
    entered = [variant.name for variant in variants if fault.component == entry(variant.levels)]
    if stack == "docker" and entered and fault.action in ("kill", "restart", "disconnect"):
        yield (
            f"{_named(fault)}: on the docker stack k6 calls from within the network of {fault.component}, which would"
            f" go with it{'; with --set balancer=haproxy it can be done' if fault.component == SALE else ''}"
        )
    for variant in variants:
        schedule = schedules.get(variant.name)
        window_s = schedule.window_end_s - schedule.window_start_s if schedule else 0.0
        if schedule is not None and fault.end_s >= window_s:
            yield (
                f"{_named(fault)} ends after {fault.end_s:g} s, and the window of variant {variant.name!r} has"
                f" {window_s:g} s: a fault is over before the window is"
            )
            return  # the others have the same load, or a fault of their own to tell of


def _how(component: str) -> str:
    ways = {
        "pgbouncer": "pooler=pgbouncer",
        "haproxy": "balancer=haproxy",
        "worker": "checkout=queue",
        "payment": "payment_ms above 0",
    }
    if component.startswith(f"{SALE}-"):
        return f": set replicas={component.removeprefix(f'{SALE}-')} or more"
    return f": set {ways[component]}" if component in ways else ""


def components(levels: Mapping[str, Level]) -> tuple[str, ...]:
    """Return the components of a variant that a fault can be done to."""
    sales = SALES[: int(levels.get("replicas", 1))]
    pooler = ("pgbouncer",) if levels.get("pooler") == "pgbouncer" else ()
    balancer = ("haproxy",) if factors.balanced(levels) else ()
    workers = ("worker",) if factors.queued(levels) else ()
    provider = ("payment",) if factors.paid(levels) else ()
    return (*sales, "postgres", "redis", *pooler, *balancer, *workers, *provider)


def entry(levels: Mapping[str, Level]) -> str:
    """Return the component that k6 calls."""
    return "haproxy" if factors.balanced(levels) else SALE
