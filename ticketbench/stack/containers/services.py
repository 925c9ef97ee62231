"""What a Docker stack makes of compose.yaml: which services, on which ports, and what its variables stand for."""

import secrets
from collections.abc import Mapping
from typing import Final

import httpx

from ticketbench import factors
from ticketbench.model import BinaryVersion, Level
from ticketbench.stack import companions, worker
from ticketbench.stack.clients import ANSWER_TIMEOUT_S
from ticketbench.stack.containers.engine import inside_advice
from ticketbench.stack.containers.images import Image
from ticketbench.stack.replicas import replica
from ticketbench.stack.target import ready

LOOPBACK: Final = "127.0.0.1"
SERVERS: Final = ("postgres", "redis", "prometheus")
# All that a run needs; what else the file describes is for playing with by hand.
SERVICES: Final = (*SERVERS, "app", "seed", "k6")
APP_PORT: Final = 8000
FIRST_METRICS_PORT: Final = 9101
POSTGRES_PORT: Final = 5432
REDIS_PORT: Final = 6379
PROMETHEUS_PORT: Final = 9090


def versions(images: Mapping[str, Image]) -> tuple[BinaryVersion, ...]:
    """Return what a run's record says of its images."""
    programs = (name for name in companions.NAMES if name not in companions.OURS)  # what is ours is the app's image
    names = ("k6", *SERVERS, *programs, "app")
    return tuple(images[name].version() for name in names if name in images)


def variables(
    environ: Mapping[str, str], workers: int, stack_id: str, most_replicas: int = 1, queue_workers: int = 0
) -> dict[str, str]:
    """Return what compose.yaml's variables stand for in a stack: those of ``environ``, and passwords of its own."""
    names = [replica(number) for number in range(1, most_replicas + 1)]
    targets = ",".join(f"{name}:{FIRST_METRICS_PORT + number}" for name in names for number in range(workers))
    queue = ",".join(f"{worker.NAME}:{FIRST_METRICS_PORT + number}" for number in range(queue_workers))
    return {
        **environ,
        "TICKETBENCH_PASSWORD_POSTGRES": secrets.token_urlsafe(24),
        "TICKETBENCH_PASSWORD_REDIS": secrets.token_urlsafe(24),
        "TICKETBENCH_PASSWORD_SALE": secrets.token_urlsafe(24),
        "TICKETBENCH_PASSWORD_PGBOUNCER": secrets.token_urlsafe(24),
        "TICKETBENCH_PASSWORD_HAPROXY": secrets.token_urlsafe(24),
        "TICKETBENCH_METRICS_TARGETS": targets,
        "TICKETBENCH_WORKER_TARGETS": queue,
        "TICKETBENCH_STACK_LABEL": stack_id,
    }


def environment(levels: Mapping[str, Level], database_url: str) -> dict[str, str]:
    """Return what a container of the target is told."""
    return {
        "TARGET_DATABASE_URL": database_url,
        **{f"TARGET_{name.upper()}": str(level) for name, level in levels.items()},
    }


def sells(base_url: str) -> bool:
    """Tell whether the sale at ``base_url`` can be measured."""
    with httpx.Client(base_url=base_url, timeout=ANSWER_TIMEOUT_S, trust_env=False) as client:
        return ready(client)


def remedy(name: str, why: str, said: str, image: str) -> str:
    """Return what to do about a service's container that ended so; what it ``said`` may be lines before its last."""
    if "for want of memory" not in why:
        variable = f"TICKETBENCH_IMAGE_{'APP' if name in companions.OURS else name.upper()}"
        return inside_advice(said) or f"is {image} an image of {name}? {variable} names it"
    if f"{name}_memory_mb" in factors.CATALOGUE:
        return f"give it more, with {name}_memory_mb"
    return "give it more memory"
