"""Servers that only some variants have beside PostgreSQL and Redis: made anew with the sale for each trial.

A companion is a :class:`ticketbench.stack.servers.Server` and nothing more: whoever adds one starts it here, and what
looks for the dead, for components and for logs finds it. On the Docker stack a companion is a service of compose.yaml
with a profile of its own, which the stack starts among its containers.
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from ticketbench import factors
from ticketbench.model import Level
from ticketbench.stack import haproxy, payment, pgbouncer, worker
from ticketbench.stack.servers import Server

# Part of the system under test, like the sale and its stores.
OF_THE_SYSTEM: Final = (pgbouncer.NAME, haproxy.NAME, worker.NAME)
# The provider stands for somebody else's service: it is measured, and belongs to the world that the system is in.
NAMES: Final = (*OF_THE_SYSTEM, payment.NAME)
# What they run is ours, and not a program of somebody else's.
OURS: Final = (worker.NAME, payment.NAME)


def wanted(levels: Mapping[str, Level]) -> tuple[str, ...]:
    """Return the companions that a variant has."""
    asked = {
        pgbouncer.NAME: pgbouncer.asked(levels),
        haproxy.NAME: factors.balanced(levels),
        payment.NAME: payment.asked(levels),
        worker.NAME: factors.queued(levels),
    }
    return tuple(name for name in NAMES if asked[name])


def all_wanted(variants: Sequence[Mapping[str, Level]]) -> tuple[str, ...]:
    """Return the companions that any of these variants has."""
    found = {name for levels in variants for name in wanted(levels)}
    return tuple(name for name in NAMES if name in found)


class Companions:
    """Those of the local stack that are up."""

    def __init__(self) -> None:
        self._up: dict[str, Server] = {}

    def start(self, server: Server) -> None:
        """Start it and return when it answers. Raises EnvironmentFailure; it is one of those up all the same."""
        self._up[server.name] = server
        server.launch()
        server.await_ready()

    def stop(self) -> None:
        """End all of them. Idempotent."""
        with contextlib.ExitStack() as ending:
            for server in self._up.values():
                ending.callback(server.stop)
            self._up = {}

    def forget(self) -> None:
        """Take none of them for dead: they were ended by somebody else, on purpose."""
        self._up = {}

    def each(self) -> tuple[Server, ...]:
        """Return those that are up."""
        return tuple(self._up.values())

    def logs(self) -> dict[str, Path]:
        """Return the log of each that is up."""
        return {name: server.log for name, server in self._up.items()}
