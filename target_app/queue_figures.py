"""What a worker of the queue counts, and how Prometheus is told (docs/signals.md)."""

import time
from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

# left: nobody could decide, and it is tried again later.
ENDS: Final = ("sold", "refused", "left", "given_up")


class QueueFigures:
    """Plain numbers, added to by the event loop's thread only."""

    def __init__(self) -> None:
        self.ends = dict.fromkeys(ENDS, 0)
        self.busy = 0
        self.claimed = 0
        self.taken = 0
        self.wait_s = 0.0  # from the 202 until a worker began, of all that were taken
        self.length = 0
        self.oldest_s = 0.0  # when the oldest entry came, Unix seconds; 0: none


class QueueCollector(Collector):
    """Turns them into metrics; runs on the metrics thread."""

    def __init__(self, figures: QueueFigures) -> None:
        self._figures = figures

    def describe(self) -> Iterable[Metric]:
        """Return nothing: registering must not need a running loop."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield every metric of the queue. Length and age are the whole queue's, whichever worker tells them."""
        figures = self._figures
        age_s = max(0.0, time.time() - figures.oldest_s) if figures.oldest_s else 0.0
        yield GaugeMetricFamily("target_queue_length", "Purchases that wait or are being done.", figures.length)
        yield GaugeMetricFamily("target_queue_oldest_seconds", "Age of the oldest of them.", age_s)
        yield GaugeMetricFamily("target_queue_busy", "Purchases that this worker is doing.", figures.busy)
        ends = CounterMetricFamily("target_queue_tasks", "Ends of queued purchases.", labels=("outcome",))
        for outcome, count in figures.ends.items():
            ends.add_metric((outcome,), count)
        yield ends
        yield CounterMetricFamily("target_queue_taken", "Entries taken from the stream.", figures.taken)
        yield CounterMetricFamily("target_queue_claimed", "Entries that another worker had had.", figures.claimed)
        yield CounterMetricFamily("target_queue_wait_seconds", "Seconds between 202 and begin.", figures.wait_s)
