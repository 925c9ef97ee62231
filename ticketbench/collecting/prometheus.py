"""Asking Prometheus, with times in UTC, a short patience, and long ranges in pieces.

Series are evaluated at the rows' times (:meth:`Prometheus.range`). k6's own are read sample by sample
(:meth:`Prometheus.samples`): it ends with stale markers, and these hide its last push, up to a second of requests, from
every evaluation; ``last_over_time`` would find it but drops native histograms in Prometheus 2.42 (measured).
"""

import ast
import json
import math
import re
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Self

import numpy as np
import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from urllib3.util.retry import Retry

from ticketbench.errors import EnvironmentFailure

# Prometheus refuses more than 11 000 points a series in one answer.
_MOST_POINTS: Final = 10_000
# In one answer, by default: a megabyte or two of JSON. A hundred and fifty series of an hour would be sixteen, k6's
# histograms of an hour more than a hundred, all of it in memory at once, here and there.
_MOST_VALUES: Final = 40_000
_FIRST_STEPS: Final = 16
_GROWTH: Final = 8  # of a slice from one answer to the next: series may come into being meanwhile
# 400: the query cannot be parsed or has no values to give; 422: it cannot be evaluated.
_REFUSED: Final = re.compile(r"HTTP Status Code (?:400|422) \((b.*)\)", re.DOTALL)
_SAME_INSTANT_S: Final = 0.0005  # Prometheus counts milliseconds
_TIMEOUT_S: Final = 20
# A refused connection is tried once more, not for the client's default of 6 s.
_RETRY: Final = Retry(total=1, backoff_factor=0.2, status_forcelist=[502, 503, 504])

# {"metric": labels, "values": [(t, x), ...], "histograms": [[t, {...}], ...]}; times and values are numbers or texts.
Answer = dict[str, Any]


class QueryRefused(EnvironmentFailure):
    """The server answered, and cannot evaluate the query; ``why`` are its own words."""

    def __init__(self, message: str, why: str) -> None:
        super().__init__(message, "the query is at fault, not the server")
        self.why = why


class Prometheus:
    """A connection to one server. Every method raises EnvironmentFailure where it does not answer.

    Where it answers and refuses the query, that is a :class:`QueryRefused`.

    ``most_values`` bounds one answer: longer ranges are asked for in slices.
    """

    def __init__(self, url: str, *, timeout_s: float = _TIMEOUT_S, most_values: int = _MOST_VALUES) -> None:
        self._most_values = most_values
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
        points = math.floor((end_s - start_s) / step_s + 1e-6) + 1

        def ask(first: int, count: int) -> Sequence[Answer]:
            return self._ask(query, start_s + first * step_s, start_s + (first + count - 1) * step_s, step_s)

        return _joined(self._sliced(points, ask))

    def samples(self, selector: str, start_s: float, end_s: float, step_s: float = 1.0) -> list[Answer]:
        """Return every sample of the series of ``selector`` in (``start_s``, ``end_s``], at the time it was taken."""
        return _joined(self.sample_slices(selector, start_s, end_s, step_s))

    def sample_slices(
        self, selector: str, start_s: float, end_s: float, step_s: float = 1.0
    ) -> Iterator[Sequence[Answer]]:
        """Yield the samples of :meth:`samples` slice by slice, in order of time; histograms as Prometheus writes them.

        Slices end a whole number of ``step_s`` before ``end_s``, so what belongs to one step comes in one slice.
        """
        steps = max(1, math.ceil((end_s - start_s) / step_s - 1e-6))

        def ask(first: int, count: int) -> Sequence[Answer]:
            low_s = max(start_s, end_s - (steps - first) * step_s)
            high_s = end_s - (steps - first - count) * step_s
            return [_after(answer, low_s) for answer in self._ask_samples(selector, low_s, high_s)]

        yield from self._sliced(steps, ask)

    def _sliced(self, steps: int, ask: Callable[[int, int], Sequence[Answer]]) -> Iterator[Sequence[Answer]]:
        """Yield what ``ask`` (first step, how many) returns for all steps, as many at once as an answer may hold.

        How much a step weighs is seen from the answer before, so the first one asks for little.
        """
        first, count = 0, min(_FIRST_STEPS, self._most_values)
        while first < steps:
            count = min(count, steps - first)
            answers = ask(first, count)
            yield answers
            first += count
            per_step = max(1.0, sum(map(_weight, answers)) / count)
            count = max(1, min(_MOST_POINTS, count * _GROWTH, int(self._most_values / per_step)))

    def _ask_samples(self, selector: str, start_s: float, end_s: float) -> list[Answer]:
        span_ms = max(1, round((end_s - start_s) * 1000))
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
        if (why := _refusal(str(error))) is not None:
            return QueryRefused(f"Prometheus at {self.url} refused a query: {why}", why)
        return EnvironmentFailure(
            f"Prometheus at {self.url} did not answer: {text[:300]}",
            "is it still running? its log is among the run's logs",
        )


def _refusal(text: str) -> str | None:
    """Return why Prometheus refuses a query in its own words, None for any other failure.

    The client leaves nothing of the answer but a text with its status and content.
    """
    found = _REFUSED.fullmatch(text)
    try:
        answer: Any = json.loads(ast.literal_eval(found[1])) if found else None
    except (ValueError, SyntaxError):
        return None
    if not isinstance(answer, dict) or answer.get("status") != "error":
        return None
    return " ".join(str(answer.get("error", "")).split())


def _weight(answer: Answer) -> int:
    """Return how many values an answer holds, the bounds and counts of its histograms included."""
    inside = sum(2 + 3 * len(raw.get("buckets") or ()) for _, raw in answer.get("histograms", ()))
    return len(answer.get("values", ())) + inside


def _after(answer: Answer, start_s: float) -> Answer:
    """Return a series without what lies at its start itself: Prometheus 2 has it in the range, Prometheus 3 has not."""
    kept: Answer = {"metric": answer["metric"]}
    for kind in ("values", "histograms"):
        if inside := [item for item in answer.get(kind, ()) if float(item[0]) > start_s + _SAME_INSTANT_S]:
            kept[kind] = inside
    return kept


def _joined(slices: Iterable[Sequence[Answer]]) -> list[Answer]:
    """Return the series of all slices, each with its values as an array (time, value): 16 bytes for each."""
    metrics: dict[tuple[tuple[str, str], ...], Mapping[str, str]] = {}
    values: dict[tuple[tuple[str, str], ...], array[float]] = {}
    for answers in slices:
        for answer in answers:
            if "values" in answer:
                labels = _labels(answer["metric"])
                metrics.setdefault(labels, answer["metric"])
                flat = values.setdefault(labels, array("d"))
                flat.extend(float(number) for pair in answer["values"] for number in pair)
    return [
        {"metric": metric, "values": np.frombuffer(values[labels], dtype=np.float64).reshape(-1, 2)}
        for labels, metric in metrics.items()
    ]


def _labels(metric: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(metric.items()))


def quoted(text: str) -> str:
    """Return ``text`` as a PromQL string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
