"""The figures as Prometheus metrics (docs/signals.md), read when they are scraped."""

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from target_app.figures import BUCKETS, STAGES, Figures
from target_app.pool import Pool
from target_app.runtime import GcWatch, LoopWatch

_BOUNDS: Final = (*map(floatToGoString, BUCKETS), "+Inf")


class SaleCollector(Collector):
    """Turns a worker's figures into metrics; runs on the metrics thread, while the loop goes on counting.

    ``serves`` False: nobody calls it, and its routes have nothing to tell but the stages of what it does.
    """

    def __init__(
        self, figures: Figures, pool: Pool, loop: LoopWatch, collections: GcWatch, *, serves: bool = True
    ) -> None:
        self._serves = serves
        self._figures = figures
        self._pool = pool
        self._loop = loop
        self._gc = collections

    def describe(self) -> Iterable[Metric]:
        """Return nothing: registering must not need a running loop."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield every metric of the target."""
        yield from self._of_routes()
        yield from self._of_pool()
        yield from self._of_sale()
        yield from self._of_runtime()

    def _of_routes(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("target_requests", "Answers.", labels=("route", "method", "status"))
        seconds = HistogramMetricFamily("target_request_seconds", "Time in the server.", labels=("route",))
        stages = CounterMetricFamily("target_stage_seconds", "Seconds of the stages.", labels=("route", "stage"))
        for path, route in self._figures.routes.items():
            for (method, status), count in list(route.answers.items()):
                requests.add_metric((path, method, str(status)), count)
            # Copied first, so that the counts add up whatever the loop adds meanwhile.
            counts = list(accumulate(list(route.buckets)))
            seconds.add_metric((path,), list(zip(_BOUNDS, counts, strict=True)), route.seconds)
            for stage in STAGES:
                stages.add_metric((path, stage), getattr(route.stages, stage))
        if self._serves:
            yield requests
            yield seconds
        yield stages

    def _of_pool(self) -> Iterator[Metric]:
        pool, figures = self._pool, self._pool.figures
        yield GaugeMetricFamily("target_pool_size", "Connections kept.", pool.size())
        yield GaugeMetricFamily("target_pool_max", "Connections with overflow.", pool.limit)
        yield GaugeMetricFamily("target_pool_checked_out", "Connections in use.", pool.checkedout())
        yield GaugeMetricFamily("target_pool_waiters", "Requests waiting for a connection.", figures.waiters)
        yield CounterMetricFamily("target_pool_wait_seconds", "Seconds waited for connections.", figures.wait_s)
        yield CounterMetricFamily("target_pool_checkouts", "Connections given out.", figures.checkouts)
        yield CounterMetricFamily("target_pool_hold_seconds", "Seconds from checkout to return.", figures.hold_s)
        yield CounterMetricFamily("target_pool_timeouts", "Waits given up.", figures.timeouts)

    def _of_sale(self) -> Iterator[Metric]:
        figures = self._figures
        yield GaugeMetricFamily("target_inflight", "Requests being served.", figures.inflight)
        purchases = CounterMetricFamily("target_purchases", "Ends of purchases.", labels=("outcome",))
        for outcome, count in figures.purchases.items():
            purchases.add_metric((outcome,), count)
        yield purchases
        yield CounterMetricFamily("target_conflicts", "Optimistic attempts repeated.", figures.conflicts)
        cache = CounterMetricFamily("target_cache", "Reads of the cache.", labels=("result",))
        cache.add_metric(("hit",), figures.cache_hits)
        cache.add_metric(("miss",), figures.cache_misses)
        cache.add_metric(("shared",), figures.cache_shared)
        yield cache

    def _of_runtime(self) -> Iterator[Metric]:
        loop = self._loop
        yield CounterMetricFamily("target_loop_lag_seconds", "Seconds that timers fired late.", loop.lag_s)
        yield CounterMetricFamily("target_loop_lag_samples", "Timers fired.", loop.samples)
        yield GaugeMetricFamily("target_loop_lag_max_seconds", "Largest lag of the last second.", loop.max_lag_s())
        yield CounterMetricFamily("target_loop_cpu_seconds", "CPU of the loop's thread.", loop.cpu_s())
        if (delay := loop.run_delay_s()) is not None:
            yield CounterMetricFamily("target_loop_run_delay_seconds", "Runnable without a core.", delay)
        yield CounterMetricFamily("target_gc_seconds", "Garbage collection.", self._gc.seconds)
        yield CounterMetricFamily("target_gc_collections", "Garbage collections.", self._gc.collections)


def registry_of(collector: SaleCollector) -> CollectorRegistry:
    """Return a registry of one worker: the collector, and CPU and memory of the process."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a line for each histogram and counter that nobody reads
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    return registry
