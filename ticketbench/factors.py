"""What may vary: each factor's type, levels, default, scope, and the stacks that can do it.

The catalogue is held against the settings schema that target_app prints by a contract test, so a factor of scope
``app`` is one setting of the target with the same name and default.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from ticketbench.errors import UsageError
from ticketbench.model import Level

Kind = Literal["int", "float", "choice"]
# app: a setting of the target's processes. data: what the database is seeded with. load: what k6 is told. stack: what
# its processes are given of the machine. servers: which servers stand around the target, and how they are set.
Scope = Literal["app", "data", "load", "stack", "servers"]


OUR_STACKS: Final = ("local", "docker")


@dataclass(frozen=True)
class Factor:
    """Something that may vary. ``low`` and ``high`` bound numbers (inclusive); ``choices`` are the levels of a choice.

    ``default`` None: the scenario's own value holds. ``or_zero``: 0, for without, is possible beside the bounds.
    """

    name: str
    kind: Kind
    scope: Scope
    default: Level | None
    help: str
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = 0
    or_zero: bool = False
    stacks: tuple[str, ...] = OUR_STACKS

    def levels_text(self) -> str:
        """Return the possible levels for a message: ``on, off`` or ``a whole number from 1 to 200``."""
        if self.kind == "choice":
            return ", ".join(self.choices)
        word = "a whole number" if self.kind == "int" else "a number"
        return f"{'0 or ' * self.or_zero}{word} from {self.low:.12g} to {self.high:.12g}"

    def parse(self, text: str) -> Level:
        """Return the level that ``text`` stands for. Raises ValueError with the known levels."""
        text = text.strip()
        if self.kind == "choice":
            if text in self.choices:
                return text
        elif text.isascii() and "_" not in text:  # Python would read digits of any script, and 1_0 as 10
            try:
                value: int | float = int(text) if self.kind == "int" else float(text)
            except ValueError:
                value = math.nan
            if self.low <= value <= self.high or (self.or_zero and value == 0):  # false for NaN
                return value
        raise ValueError(f"{self.name}={text!r} is not possible: {self.name} takes {self.levels_text()}")


# What only k6 has to know can be varied on whatever system it is sent to.
ANY_STACK: Final = (*OUR_STACKS, "external")


def _switch(name: str, default: str, text: str, scope: Scope = "app") -> Factor:
    return Factor(name, "choice", scope, default, text, choices=("on", "off"))


def _limit(name: str, text: str) -> Factor:
    return Factor(name, "float", "stack", 0.0, text, low=0.05, high=256, or_zero=True)


def _memory(name: str, text: str) -> Factor:
    # below 6 MB Docker makes no container
    return Factor(name, "float", "stack", 0.0, text, low=6, high=1_048_576, or_zero=True, stacks=("docker",))


# What the payment provider does. With all of it at 0 there is none: tickets cost nothing, and nothing is paid.
_PROVIDER: Final = (
    Factor("payment_ms", "float", "servers", 0.0, "how long a payment takes, on average", low=0, high=10000),
    Factor(
        "payment_spread",
        "float",
        "servers",
        0.0,
        "standard deviation of payment_ms as a share of it, lognormal; 0: every payment takes as long",
        low=0,
        high=5,
    ),
    Factor("payment_limit", "int", "servers", 0, "payments served at a time; 0: no limit", low=0, high=10000),
    Factor("payment_failure_ratio", "float", "servers", 0.0, "share of the payments that are declined", low=0, high=1),
    Factor("payment_timeout_s", "float", "app", 5.0, "wait for the provider, three times at most", low=0.05, high=8),
)

CATALOGUE: Final[dict[str, Factor]] = {
    factor.name: factor
    for factor in (
        Factor("pool_size", "int", "app", 10, "connections a worker keeps to PostgreSQL", low=1, high=200),
        Factor("max_overflow", "int", "app", 0, "connections a worker may open beyond pool_size", low=0, high=200),
        Factor("pool_timeout_s", "float", "app", 2.0, "wait for a connection before answering 503", low=0.05, high=60),
        _switch("cache", "on", "matches are read through a cache in Redis"),
        _switch("single_flight", "off", "requests of a worker that miss the cache together ask PostgreSQL once"),
        Factor("cache_ttl_s", "float", "app", 1.0, "how long a cached match lives", low=0.05, high=3600),
        Factor(
            "locking",
            "choice",
            "app",
            "atomic",
            "how a purchase guards the stock; none is the course project's race, kept on purpose",
            choices=("none", "pessimistic", "optimistic", "atomic", "redis"),
        ),
        Factor("workers", "int", "app", 1, "processes that serve the sale, in each replica", low=1, high=16),
        Factor("replicas", "int", "servers", 1, "sales side by side; more than one are behind HAProxy", low=1, high=8),
        Factor(
            "balancer",
            "choice",
            "servers",
            "auto",
            "what k6 calls; auto: HAProxy in front of several replicas; haproxy: in front of a single one too",
            choices=("auto", "haproxy"),
        ),
        Factor(
            "pooler",
            "choice",
            "app",
            "none",
            "what stands between the sale and PostgreSQL; pgbouncer pools transactions",
            choices=("none", "pgbouncer"),
        ),
        Factor(
            "pooler_size", "int", "servers", 20, "connections PgBouncer keeps to PostgreSQL at most", low=1, high=200
        ),
        Factor(
            "db_max_connections",
            "int",
            "servers",
            300,
            "PostgreSQL's max_connections; 10 of them are reserved for its superuser",
            low=15,
            high=1000,
        ),
        Factor(
            "data_layer",
            "choice",
            "app",
            "sqlalchemy",
            "what brings statements to PostgreSQL: SQLAlchemy and its pool, or asyncpg alone and a fair pool",
            choices=("sqlalchemy", "asyncpg"),
        ),
        Factor(
            "round_trips",
            "choice",
            "app",
            "plain",
            "statements of a purchase; fewest sends as little as locking and payment allow, with atomic a single one",
            choices=("plain", "fewest"),
        ),
        Factor(
            "purchase_route",
            "choice",
            "app",
            "fastapi",
            "what a purchase goes through before it begins; lean is a route without the framework",
            choices=("fastapi", "lean"),
        ),
        Factor(
            "payment",
            "choice",
            "app",
            "outside",
            "where the payment is waited for: before the transaction, in it, or in it with the match's row locked",
            choices=("outside", "in_transaction", "holding_lock"),
        ),
        *_PROVIDER,
        Factor(
            "checkout",
            "choice",
            "app",
            "sync",
            "queue: a purchase is put on a stream in Redis and answered 202; worker processes do it, the buyer polls",
            choices=("sync", "queue"),
        ),
        Factor("queue_limit", "int", "app", 0, "most purchases that wait in the queue; 0: no limit", high=1_000_000),
        Factor("queue_workers", "int", "app", 1, "processes that do queued purchases", low=1, high=16),
        Factor("queue_concurrency", "int", "app", 10, "queued purchases each of them does at a time", low=1, high=200),
        _switch("synchronous_commit", "on", "PostgreSQL waits for its log to reach the disk"),
        Factor(
            "validate_cost", "int", "app", 20000, "rounds of hashing for a ticket's validation", low=1, high=5000000
        ),
        Factor("hold_ttl_s", "float", "app", 600.0, "how long a ticket stays in a cart unpaid", low=1, high=3600),
        Factor("password_cost", "int", "app", 2, "passes of argon2id over 19 MiB for a password", low=1, high=50),
        _switch("validate_in_loop", "on", "a validation hashes on the event loop; off: in threads beside it"),
        _switch("index", "on", "the index behind a buyer's tickets of a match", scope="data"),
        Factor(
            "pinning",
            "choice",
            "stack",
            "none",
            "split: the load generator and the observers on cores of their own, the system on the rest",
            choices=("none", "split"),
        ),
        _limit("app_cpus", "cores' time each replica of the sale may use; 0: no limit"),
        _limit("postgres_cpus", "cores' time PostgreSQL may use; 0: no limit"),
        _limit("redis_cpus", "cores' time Redis may use; 0: no limit"),
        _memory("app_memory_mb", "MiB of memory each replica of the sale may use, without swap; 0: no limit"),
        _memory("postgres_memory_mb", "MiB of memory PostgreSQL may use, without swap; 0: no limit"),
        _memory("redis_memory_mb", "MiB of memory Redis may use, without swap; 0: no limit"),
        Factor("stock", "int", "data", 1000, "tickets of the hot match", low=0, high=5000000),
        Factor(
            "rate",
            "float",
            "load",
            None,
            "journeys offered per second at the peak",
            low=0.1,
            high=20000,
            stacks=ANY_STACK,
        ),
        Factor("duration", "float", "load", None, "seconds of the window", low=1, high=7200, stacks=ANY_STACK),
        Factor("vus", "int", "load", None, "most virtual users at a time", low=1, high=20000, stacks=ANY_STACK),
        Factor(
            "hot_share",
            "float",
            "load",
            None,
            "share of the purchases that want the hot match",
            low=0,
            high=1,
            stacks=ANY_STACK,
        ),
    )
}


def get(name: str, stack: str | None = None) -> Factor:
    """Return the factor called ``name``. Raises UsageError naming the known ones, or the stacks that can do it."""
    factor = CATALOGUE.get(name)
    if factor is None:
        raise UsageError(f"there is no factor {name!r}: known are {', '.join(CATALOGUE)}")
    if stack is not None and stack not in factor.stacks:
        raise UsageError(f"factor {name!r} cannot be had on the {stack} stack: only on {', '.join(factor.stacks)}")
    return factor


def defaults() -> dict[str, Level]:
    """Return the default level of each factor that has one."""
    return {name: factor.default for name, factor in CATALOGUE.items() if factor.default is not None}


def of_scope(levels: Mapping[str, Level], scope: Scope) -> dict[str, Level]:
    """Return the part of ``levels`` whose factors have this scope."""
    return {name: level for name, level in levels.items() if CATALOGUE[name].scope == scope}


def processes(levels: Mapping[str, Level]) -> int:
    """Return how many workers all replicas of a variant have together."""
    return int(levels.get("workers", 1)) * int(levels.get("replicas", 1))


def queued(levels: Mapping[str, Level]) -> bool:
    """Tell whether a variant's purchases go through the queue."""
    return levels.get("checkout") == "queue"


def queue_workers(levels: Mapping[str, Level]) -> int:
    """Return how many processes do a variant's queued purchases; 0 where there is no queue."""
    return int(levels.get("queue_workers", 1)) if queued(levels) else 0


def balanced(levels: Mapping[str, Level]) -> bool:
    """Tell whether a variant has a balancer in front of the sale."""
    return int(levels.get("replicas", 1)) > 1 or levels.get("balancer") == "haproxy"


def paid(levels: Mapping[str, Level]) -> bool:
    """Tell whether a variant has a payment provider: without one a payment takes no time and never fails."""
    return any(float(levels.get(name, 0)) > 0 for name in ("payment_ms", "payment_limit", "payment_failure_ratio"))
