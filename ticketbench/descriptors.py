"""How many open files the processes of a run need, looked at before anything is started.

Linux refuses a connection beyond the limit, and a third of the requests failed with it (measured). Every part of a run
raises its own soft limit, so the hard one counts.
"""

import resource
from collections.abc import Mapping
from typing import Final

from ticketbench import factors
from ticketbench.errors import EnvironmentFailure
from ticketbench.model import Level, Plan

# Of a process beside its connections: libraries, logs, sockets of its own.
OTHER_FILES: Final = 100
# PostgreSQL starts from 58 on and closes tables' files when it runs short, which costs time; Redis keeps 32.
LEAST_OF_A_SERVER: Final = 256
# The sampler holds two files of each process that it watches; what there is beside PostgreSQL's connections.
OTHER_PROCESSES: Final = 60


def require(plan: Plan) -> None:
    """Raise EnvironmentFailure, naming the parts and what to do, where a part needs more open files than allowed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = needs(plan)
    short = {part: files for part, files in needed.items() if files > hard}
    if hard == resource.RLIM_INFINITY or not short:
        return
    most = max(short.values())
    raise EnvironmentFailure(
        f"this machine allows a process {hard} open files, and this run needs more: "
        + ", ".join(f"{part} {files}" for part, files in short.items()),
        f"raise the hard limit as root (ulimit -Hn {most}, or LimitNOFILE={most} of the service), or lower vus or rate",
    )


def needs(plan: Plan) -> dict[str, int]:
    """Return the open files that each part needs in the variant that asks most of it."""
    users = max(schedule.max_vus for schedule in plan.schedules.values())
    needed = {"k6": users + OTHER_FILES}
    if plan.external is not None:
        return needed
    if plan.stack == "docker":
        return {}  # containers have limits of their own, see compose.yaml
    pools = max(_connections(variant.levels) for variant in plan.variants)
    workers = max(factors.processes(variant.levels) for variant in plan.variants)
    balanced = any(factors.balanced(variant.levels) for variant in plan.variants)
    return {
        **needed,
        **({"HAProxy": 2 * users + OTHER_FILES} if balanced else {}),
        # keep-alive spreads unevenly over workers: one may get nearly all
        "the sale": users + pools // workers + OTHER_FILES,
        "PostgreSQL": LEAST_OF_A_SERVER,
        "Redis": LEAST_OF_A_SERVER,
        "the sampler": 2 * (pools + workers + OTHER_PROCESSES),
    }


def _connections(levels: Mapping[str, Level]) -> int:
    """Return how many connections to PostgreSQL the sale's workers, and those of its queue, may open together."""
    each = int(levels.get("pool_size", 0)) + int(levels.get("max_overflow", 0))
    return each * (factors.processes(levels) + factors.queue_workers(levels))
