"""Pushing samples to Prometheus by remote write, once a second, without ever holding up who takes them."""

import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

import requests
from prometheus_remote_writer import RemoteWriter

Sample = tuple[str, tuple[tuple[str, str], ...], float]  # metric, labels, value
_Batch = tuple[int, list[Sample]]  # Unix milliseconds, and what was measured then

JOB: Final = "sampler"
_TIMEOUT_S: Final = (1.0, 4.0)  # connect, read
# Batches (one for each source and second) that wait for a Prometheus that does not answer: about two minutes of four
# sources. Older ones are dropped, so that the sampler's memory stays bounded.
_WAITING_BATCHES: Final = 480


class Rejected(Exception):
    """Prometheus took the request and refused its content: sending it again would not help."""


class Outbox:
    """Samples on their way. ``put`` from any thread, ``push`` from one."""

    def __init__(self, prometheus_url: str, job: str = JOB) -> None:
        session = requests.Session()
        session.trust_env = False  # a proxy of the environment is not the way to a server of our own
        self._writer = RemoteWriter(
            f"{prometheus_url.rstrip('/')}/api/v1/write",
            session=session,
            timeout=_TIMEOUT_S,
            max_series_per_request=5000,  # all of ours at once; other ways of cutting cost more
        )
        self._session = session
        self._job = job
        self._lock = threading.Lock()
        self._waiting: deque[_Batch] = deque()
        self._labels: dict[tuple[str, tuple[tuple[str, str], ...]], dict[str, str]] = {}
        self.failures = 0
        self.dropped_batches = 0

    def put(self, samples: Iterable[Sample]) -> None:
        """Take samples, all of them measured now."""
        batch = list(samples)
        at_ms = time.time_ns() // 1_000_000
        with self._lock:
            self._waiting.append((at_ms, batch))
            while len(self._waiting) > _WAITING_BATCHES:
                self._waiting.popleft()
                self.dropped_batches += 1

    def push(self) -> None:
        """Send all that waits.

        Raises ConnectionError where it could not be sent and waits for the next push, Rejected where it is lost.
        """
        with self._lock:
            batches = list(self._waiting)
            self._waiting.clear()
        if not batches:
            return
        try:
            self._send(batches)
        except Rejected:
            if len(batches) == 1:
                raise
            self._send_apart(batches)

    def _send(self, batches: list[_Batch]) -> None:
        """Send ``batches`` in one request. Raises as :meth:`push` does."""
        try:
            self._writer.send(self._items(batches))
        except RuntimeError as error:  # what the writer makes of every failure
            self.failures += 1
            cause = error.__cause__
            response = cause.response if isinstance(cause, requests.HTTPError) else None
            if response is not None and response.status_code < 500 and response.status_code != 429:
                raise Rejected(str(error)) from error
            with self._lock:
                self._waiting.extendleft(reversed(batches))
            raise ConnectionError(str(error)) from error

    def _send_apart(self, batches: list[_Batch]) -> None:
        """Send each batch by itself, so that a refused one does not take the others along.

        A Prometheus that stood still answers none of our requests and takes them all when it goes on: what was sent
        again then begins with samples that it has, and it refuses a request as a whole.
        """
        refused: Rejected | None = None
        count = 0
        for done, batch in enumerate(batches):
            try:
                self._send([batch])
            except Rejected as error:
                refused = error
                count += 1
            except ConnectionError:
                with self._lock:  # the one that failed is back already
                    failed = self._waiting.popleft()
                    self._waiting.extendleft(reversed([failed, *batches[done + 1 :]]))
                raise
        if refused is not None:
            raise Rejected(f"{count} of {len(batches)} batches were refused, as known already or too old: {refused}")

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def _items(self, batches: list[_Batch]) -> list[Any]:
        """Join the batches into one series each, its samples in order of time."""
        items: dict[tuple[str, tuple[tuple[str, str], ...]], dict[str, Any]] = {}
        for at_ms, batch in batches:
            for name, labels, value in batch:
                key = (name, labels)
                item = items.get(key)
                if item is None:
                    item = items[key] = {"metric": self._label_set(key), "values": [], "timestamps": []}
                item["values"].append(value)
                item["timestamps"].append(at_ms)
        return list(items.values())

    def _label_set(self, key: tuple[str, tuple[tuple[str, str], ...]]) -> dict[str, str]:
        """Return the labels in the order that remote write demands."""
        known = self._labels.get(key)
        if known is None:
            name, labels = key
            known = self._labels[key] = dict(sorted((("__name__", name), ("job", self._job), *labels)))
        return known
