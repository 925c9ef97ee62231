"""Asking Prometheus, with times in UTC, a short patience, and long ranges in pieces.

Series are evaluated at the rows' times (:meth:`Prometheus.range`). k6's own are read sample by sample
(:meth:`Prometheus.samples`): it ends with stale markers, and these hide its last push, up to a second of requests, from
every evaluation; ``last_over_time`` would find it but drops native histograms in Prometheus 2.42 (measured).
"""

import math
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Self

import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from urllib3.util.retry import Retry

from ticketbench.errors import EnvironmentFailure

# Prometheus refuses more than 11 000 points a series in one answer.
_MOST_POINTS: Final = 10_000
_TIMEOUT_S: Final = 20
# A refused connection is tried once more, not for the client's default of 6 s.
_RETRY: Final = Retry(total=1, backoff_factor=0.2, status_forcelist=[502, 503, 504])

Answer = dict[str, Any]  # {"metric": labels, "values": [[t, "x"], ...], "histograms": [[t, {...}], ...]}


class Prometheus:
    """A connection to one server. Every method raises EnvironmentFailure where it does not answer."""

    def __init__(self, url: str, *, timeout_s: float = _TIMEOUT_S) -> None:
        self.url = url.rstrip("/")
        session = requests.Session()
        session.trust_env = False  # a proxy of the environment is not the way to a server of our own
        self._client = PrometheusConnect(url=self.url, session=session, retry=_RETRY, timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def range(self, query: str, start_s: float, end_s: float, step_s: float) -> list[Answer]:
        """Evaluate ``query`` from ``start_s`` to ``end_s`` (Unix seconds, inclusive), each ``step_s``."""
        pieces: dict[tuple[tuple[str, str], ...], Answer] = {}
        points = math.floor((end_s - start_s) / step_s + 1e-6) + 1
        for first in range(0, points, _MOST_POINTS):
            last = min(first + _MOST_POINTS, points) - 1
            for answer in self._ask(query, start_s + first * step_s, start_s + last * step_s, step_s):
                known = pieces.setdefault(_labels(answer["metric"]), {"metric": answer["metric"]})
                for kind in ("values", "histograms"):
                    if kind in answer:
                        known.setdefault(kind, []).extend(answer[kind])
        return list(pieces.values())

    def samples(self, selector: str, start_s: float, end_s: float) -> list[Answer]:
        """Return every sample of the series of ``selector`` in (``start_s``, ``end_s``], at the time it was taken."""
        span_ms = round((end_s - start_s) * 1000)
        try:
            answers: list[Answer] = self._client.custom_query(
                f"{selector}[{span_ms}ms]", params={"time": f"{end_s:.3f}"}
            )
        except (requests.RequestException, PrometheusApiClientException, ValueError) as error:
            raise self._failure(error) from error
        return answers

    def clock_offset_s(self) -> float:
        """Return how far the server's clock is ahead of ours in seconds, exact to half of a round trip."""
        asked_s = time.time()
        try:
            # the client promises dictionaries; a scalar is [time, text]
            answer: Any = self._client.custom_query("time()")
            server_s = float(answer[1])
        except (requests.RequestException, PrometheusApiClientException, ValueError, KeyError, IndexError) as error:
            raise self._failure(error) from error
        return server_s - (asked_s + time.time()) / 2

    def latest(self, query: str, *, at_s: float | None = None) -> list[tuple[Mapping[str, str], float]]:
        """Return the labels and value of each series that ``query`` gives now, or at a time of the server's clock."""
        now_s = time.time() if at_s is None else at_s
        return [(answer["metric"], float(answer["values"][-1][1])) for answer in self._ask(query, now_s, now_s, 1.0)]

    def _ask(self, query: str, start_s: float, end_s: float, step_s: float) -> Sequence[Answer]:
        try:
            answers: Sequence[Answer] = self._client.custom_query_range(
                query,
                start_time=datetime.fromtimestamp(start_s, UTC),
                end_time=datetime.fromtimestamp(end_s, UTC),
                step=f"{step_s:g}",
                # The client rounds its times to whole seconds; these are what the server gets in the end.
                params={"start": f"{start_s:.3f}", "end": f"{end_s:.3f}"},
            )
        except (requests.RequestException, PrometheusApiClientException, ValueError) as error:
            raise self._failure(error) from error
        return answers

    def _failure(self, error: Exception) -> EnvironmentFailure:
        text = " ".join(str(error).split())
        return EnvironmentFailure(
            f"Prometheus at {self.url} did not answer: {text[:300]}",
            "is it still running? its log is among the run's logs",
        )


def _labels(metric: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(metric.items()))


def quoted(text: str) -> str:
    """Return ``text`` as a PromQL string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
