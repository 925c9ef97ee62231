"""How busy each resource was and how much work queued for it, over any intervals (USE method: Gregg)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from ticketbench.analysis.series import Array, Labels, Series, Where, quotient
from ticketbench.model import Level

IDLE_MODES: Final = frozenset({"idle", "iowait"})


@dataclass(frozen=True)
class Machine:
    """What utilisation is measured against: the machine's cores, the app's workers and k6's virtual users at most.

    ``limits`` are the cores' time that a component may use, of those that have a limit. The queue has
    ``queue_workers``, which do ``queue_slots`` purchases at a time together.
    """

    cores: int
    workers: int
    max_vus: int
    limits: Mapping[str, float] = field(default_factory=dict)
    queue_workers: int = 1
    queue_slots: int = 1


@dataclass(frozen=True)
class Usage:
    """One resource over intervals: busy fraction, mean queued work and its unit; NaN where nothing was measured.

    ``limit_cores`` and ``throttled`` are those of :class:`ticketbench.conclusions.Saturation`.
    """

    utilisation: Array
    queue: Array
    unit: str
    limit_cores: float | None = None
    throttled: Array | None = None


def workers_of(levels: Mapping[str, Level], series: Series, cores: int) -> int:
    """Return how many processes serve the system. Of one that is not ours nobody knows: as many as there are cores."""
    workers = levels.get("workers", 1 if series.has("app.up") else cores)
    replicas = levels.get("replicas", 1)
    if not isinstance(workers, int | float) or not isinstance(replicas, int | float):
        return 1
    return int(workers) * int(replicas)


def queue_of(levels: Mapping[str, Level]) -> tuple[int, int]:
    """Return how many workers a variant's queue has, and how many purchases they do at a time together."""
    workers, each = levels.get("queue_workers", 1), levels.get("queue_concurrency", 1)
    if not isinstance(workers, int | float) or not isinstance(each, int | float):
        return 1, 1
    return max(1, int(workers)), max(1, int(workers) * int(each))


def limits_of(levels: Mapping[str, Level]) -> dict[str, float]:
    """Return the CPU limits, in cores' time, of the components that have one: the factors ``<component>_cpus``.

    The sale's is that of each of its replicas.
    """
    levels_of = {name: levels.get(f"{name}_cpus", 0) for name in ("app", "postgres", "redis")}
    replicas = levels.get("replicas", 1)
    times = {"app": int(replicas) if isinstance(replicas, int | float) else 1}
    return {
        name: float(level) * times.get(name, 1)
        for name, level in levels_of.items()
        if isinstance(level, int | float) and level > 0
    }


def saturation(series: Series, edges: Array, machine: Machine) -> dict[str, Usage]:
    """Return every resource's usage in each interval between ``edges`` (Unix seconds).

    What utilisation is a fraction of: ``db_pool`` the connections that the pools may hold; ``event_loop`` and
    ``app_cpu`` one core for each worker (never more than the machine has); ``redis_cpu`` the one core that Redis can
    use; ``postgres_cpu``, ``host_cpu`` and ``other_cpu`` all cores; ``load_generator`` the virtual users that k6 may
    have. A component with a CPU limit below that has the limit for a capacity. ``row_lock`` is no resource with a
    capacity: only its queue is known.
    """
    length = np.diff(edges)
    worker_cores = max(1, min(machine.workers, machine.cores))
    waiting = "threads waiting for a core"

    def rate(name: str, where: Where | None = None) -> Array:
        return np.asarray(series.increase(name, edges, where) / length, dtype=np.float64)

    def cpu(component: str, cores: int) -> Usage:
        mine = label(component=component)
        limit = machine.limits.get(component)
        capacity = cores if limit is None else min(cores, limit)
        throttled = None if limit is None else rate("cpu_throttled_s", mine)
        return Usage(rate("cpu_s", mine) / capacity, rate("run_delay_s", mine), waiting, limit, throttled)

    nothing = np.full(len(length), np.nan)
    return {
        "db_pool": _pool(series, edges, rate("app.pool_hold_s"), rate("app.pool_wait_s")),
        "event_loop": Usage(
            rate("app.loop_cpu_s") / worker_cores, loop_lag_s(series, edges), "seconds that a timer fires late"
        ),
        "app_cpu": cpu("app", worker_cores),
        "postgres_cpu": cpu("postgres", machine.cores),
        "redis_cpu": cpu("redis", 1),
        "host_cpu": Usage(host_busy_cores(series, edges) / machine.cores, rate("run_delay_s"), waiting),
        "load_generator": Usage(
            series.gauge("k6.vus", edges) / max(1, machine.max_vus),
            _dropped_per_s(series, edges, length),
            "iterations dropped per second",
        ),
        "other_cpu": Usage(rate("cpu_s", label(component="other")) / machine.cores, nothing, ""),
        "row_lock": Usage(nothing, _lock_waits(series, edges, length), "sessions waiting for a row"),
        **_companions(series, edges, cpu),
        **_queue(series, edges, cpu, machine),
        **_own(series, edges),
    }


def _companions(series: Series, edges: Array, cpu: Callable[[str, int], Usage]) -> dict[str, Usage]:
    """Return the usage of PgBouncer, HAProxy and the payment provider, of a variant that has them.

    ``pgbouncer`` is a fraction of the connections that it may have to PostgreSQL, from its counters of seconds as for
    ``db_pool``. ``payment`` is one of the payments that the provider serves at a time; without a limit it is never
    full. All three programs use one core at most. HAProxy itself queues nothing as long as a replica is up.
    """
    found: dict[str, Usage] = {}
    length = np.diff(edges)
    if series.has("pgbouncer.pool_size"):
        used = series.increase("pgbouncer.xact_s", edges) / length
        busy = np.minimum(1.0, quotient(used, series.gauge("pgbouncer.pool_size", edges)))
        waiting = np.asarray(series.increase("pgbouncer.wait_s", edges) / length, dtype=np.float64)
        found["pgbouncer"] = Usage(busy, waiting, "transactions waiting for a connection")
        found["pgbouncer_cpu"] = cpu("pgbouncer", 1)
    if series.has("haproxy.queue"):
        nothing = np.full(len(length), np.nan)
        found["haproxy"] = Usage(nothing, series.gauge("haproxy.queue", edges), "requests waiting for a replica")
        found["haproxy_cpu"] = cpu("haproxy", 1)
    if series.has("payment.busy"):
        limit = series.gauge("payment.limit", edges)
        served = np.asarray(series.increase("payment.served_s", edges) / length, dtype=np.float64)
        busy = np.minimum(1.0, quotient(served, np.where(limit > 0, limit, np.nan)))
        waiting = np.asarray(series.increase("payment.waited_s", edges) / length, dtype=np.float64)
        found["payment"] = Usage(busy, waiting, "payments waiting for their turn")
        found["payment_cpu"] = cpu("payment", 1)
    return found


def _queue(series: Series, edges: Array, cpu: Callable[[str, int], Usage], machine: Machine) -> dict[str, Usage]:
    """Return the usage of the queue's workers, of a variant that has them: what they do at a time, and what waits."""
    if not series.has("worker.queue_length"):
        return {}
    busy = series.gauge("worker.queue_busy", edges)
    waiting = np.maximum(0.0, series.gauge("worker.queue_length", edges) - busy)
    return {
        "queue_worker": Usage(np.minimum(1.0, busy / machine.queue_slots), waiting, "purchases waiting for a worker"),
        "worker_cpu": cpu("worker", min(machine.cores, machine.queue_workers)),
    }


def _own(series: Series, edges: Array) -> dict[str, Usage]:
    """Return the resources that somebody else's system tells of (docs/external.md); more may be used than there is."""
    found: dict[str, Usage] = {}
    for labels in (*series.labels("resource.used"), *series.labels("resource.queue")):
        name = labels.get("resource", "")
        mine = label(resource=name)
        used, capacity = series.gauge("resource.used", edges, mine), series.gauge("resource.capacity", edges, mine)
        found[name] = Usage(quotient(used, capacity), series.gauge("resource.queue", edges, mine), "waiting")
    return found


def _pool(series: Series, edges: Array, held: Array, waiting: Array) -> Usage:
    """Return the pool's usage from its counters of seconds: connection-seconds a second is how many are in use.

    That is exact over a window; a gauge that is read once a second sees one instant of it. Both counters grow when a
    hold or a wait ends, so in a single second they may exceed what there is, and trail by the length of a wait. The
    gauges stand in where a target has no such counters.
    """
    used = np.minimum(1.0, quotient(held, series.gauge("app.pool_max", edges)))
    return Usage(
        np.where(np.isnan(used), series.ratio("app.pool_checked_out", "app.pool_max", edges), used),
        np.where(np.isnan(waiting), series.gauge("app.pool_waiters", edges), waiting),
        "requests waiting for a connection",
    )


def label(**wanted: str) -> Where:
    """Return a filter for columns that carry these labels."""

    def where(labels: Labels) -> bool:
        return all(labels.get(name) == value for name, value in wanted.items())

    return where


def host_busy_cores(series: Series, edges: Array) -> Array:
    """Return the cores of the machine that did anything, by anyone, steal included; NaN where unknown."""
    busy = series.increase("host_cpu_s", edges, lambda labels: labels.get("mode") not in IDLE_MODES)
    return np.asarray(busy / np.diff(edges), dtype=np.float64)


def loop_lag_s(series: Series, edges: Array) -> Array:
    """Return how late a timer fired on average, in seconds."""
    late, samples = series.increase("app.loop_lag_s", edges), series.increase("app.loop_lag_samples", edges)
    return quotient(late, samples)


def _dropped_per_s(series: Series, edges: Array, length: Array) -> Array:
    return _events_per_s(series, edges, length, "k6.dropped", None, if_any="k6.iterations")


def _lock_waits(series: Series, edges: Array, length: Array) -> Array:
    def is_lock(labels: Labels) -> bool:
        return labels.get("wait", "").startswith("Lock:")

    return _events_per_s(series, edges, length, "pg.wait_s", is_lock, if_any="pg.wait_s")


def _events_per_s(
    series: Series, edges: Array, length: Array, name: str, where: Callable[[Labels], bool] | None, *, if_any: str
) -> Array:
    """Return a rate that is zero, not unknown, where its counter never came up although its source was seen."""
    if series.has(name, where):
        return np.asarray(series.increase(name, edges, where) / length, dtype=np.float64)
    return np.full(len(length), 0.0 if series.has(if_any) else np.nan)
