"""The Stack protocol: what the runner knows of a stack, and nothing more."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ticketbench.fault_plan import PlannedFault
from ticketbench.mapping import SeriesSource
from ticketbench.model import BinaryVersion, Level


@dataclass(frozen=True)
class Component:
    """A part of the stack as the sampler sees it: the root process whose whole tree counts as ``name``.

    One that is a container is here as well where its processes can be seen from this machine (:class:`Containers`).
    One that is not ``ours`` (somebody else's system) is measured, and otherwise left alone.
    """

    name: str
    pid: int
    ours: bool = True


@dataclass(frozen=True)
class Containers:
    """Components that are containers: the engine's socket and API version, and each one's container by name.

    A container need not be there yet: k6's and the target's come and go. The sampler has their figures from the engine.
    """

    socket: str
    api: str
    names: Mapping[str, str]


@dataclass(frozen=True)
class DatabaseAccess:
    """How to reach PostgreSQL and Redis with a superuser's rights. Never printed, never stored: it holds passwords."""

    postgres_dsn: str = field(repr=False)
    redis_url: str = field(repr=False)


@dataclass(frozen=True)
class Servers:
    """What outlives a trial: the servers around the target. The sampler connects to them before the target does.

    ``access`` None: the system is somebody else's, and its databases are not ours to look into.
    """

    prometheus_url: str
    access: DatabaseAccess | None
    components: tuple[Component, ...]
    containers: Containers | None = None


class Faults(Protocol):
    """What a stack can do to its components on purpose. Each method returns at once, and raises EnvironmentFailure."""

    def begin(self, fault: PlannedFault) -> None:
        """Do it: stop, kill, unplug or limit the component, or ask it to end."""

    def end(self, fault: PlannedFault) -> None:
        """Undo it: what it takes (a start, say) may go on for a while."""

    def answers(self, fault: PlannedFault) -> Component | None:
        """Return the component once it is undone and gives a real answer again, None until then."""


@dataclass(frozen=True)
class Endpoints:
    """A stack in a variant's state, answering requests.

    ``k6_command`` is the prefix that k6's arguments are appended to. ``app_metrics`` are the host:port of each worker's
    metrics. ``unscraped()`` returns what keeps Prometheus from having scraped each of them, and nobody else, with
    success since its start, empty when all is well; it raises EnvironmentFailure. ``dead()`` returns, at any time, the
    components that should run and do not, each with why (exit status and last log lines). ``logs`` maps a component to
    its log file.
    ``access`` None: there is no ledger to read. ``addresses``, ``headers`` and ``source`` are those of a system that is
    somebody else's: where k6 may go, what it sends along, and the Prometheus that holds the system's own series.
    ``base_url`` is the target as k6 reaches it. ``packages`` are the versions that the target runs on, None where they
    are the ones installed here. ``consoles`` maps pgbouncer and haproxy, where a variant has them, to the addresses of
    their figures, secrets included. ``faults`` does planned faults to the components, None where the stack does none.
    """

    base_url: str
    prometheus_url: str
    access: DatabaseAccess | None
    components: tuple[Component, ...]
    app_metrics: tuple[str, ...]
    k6_command: tuple[str, ...]
    binaries: tuple[BinaryVersion, ...]
    settings: Mapping[str, str]
    logs: Mapping[str, Path]
    dead: Callable[[], dict[str, str]]
    unscraped: Callable[[], str] = str
    addresses: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    source: SeriesSource | None = None
    packages: Mapping[str, str] | None = None
    consoles: Mapping[str, str] = field(default_factory=dict, repr=False)
    faults: Faults | None = None

    @property
    def own_access(self) -> DatabaseAccess:
        """``access``, for whoever has started a stack of our own. Its absence is a bug."""
        if self.access is None:
            raise RuntimeError("somebody else's system gives no access to its databases")
        return self.access


class Stack(Protocol):
    """What brings the system up, puts it into a variant's state, and takes it away."""

    def start(self) -> Servers:
        """Bring up the servers that outlive a trial. Raises EnvironmentFailure, with everything stopped again."""

    def apply(self, levels: Mapping[str, Level]) -> Endpoints:
        """Reset all data to the seeded state and put the target into ``levels``; return when it answers requests.

        Only what the levels touch is started anew. Raises EnvironmentFailure.
        """

    def stop(self) -> None:
        """Stop everything and remove its data. Idempotent; safe in any state, also half-started."""
