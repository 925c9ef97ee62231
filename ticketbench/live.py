"""Live figures of a load that is under way, for people who watch: about one question a second to the run's Prometheus.

They must not touch what is measured. So the asking is done by a thread of its own with a short patience, a question
without an answer is "not known" and never 0, and the same questions are asked whether or not anybody is watching.
"""

import contextlib
import http.client
import json
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import urlencode, urlsplit

from ticketbench.analysis import histogram as quantiles
from ticketbench.collecting.native import Histogram
from ticketbench.collecting.prometheus import quoted
from ticketbench.events import Emit, Figures, Phase, Progress
from ticketbench.model import Scenario, Schedule, Trial
from ticketbench.sampling.phases import Slope, offered_at

ASK_EVERY_S: Final = 1.0
PATIENCE_S: Final = 0.3  # an answer takes 2 to 5 ms; whoever needs longer now is busy with what is measured
# k6 pushes once a second. Over four seconds the figures are calm enough to be read, and still move.
LOOK_BACK_S: Final = 4.0
# Figures are shown until they are this old: a single answer that fails to come makes nobody blink.
FRESH_S: Final = 2.5
TELL_EVERY_S: Final = 1.0

NOTHING_KNOWN: Final = Figures()


class LiveLoad:
    """Follows one trial's load and emits its phases and, about once a second, its :class:`Progress`.

    Use it as a context manager around the load: its thread asks from entry to exit. ``on_phase`` and ``on_tick`` are
    for :func:`ticketbench.load.run_load`; neither waits for an answer.
    """

    def __init__(
        self,
        prometheus_url: str,
        trial_label: str,
        scenario: Scenario,
        schedule: Schedule,
        trial: Trial,
        of: int,
        emit: Emit,
    ) -> None:
        self._schedule = schedule
        self._trial = trial
        self._of = of
        self._emit = emit
        self._questions = Questions(prometheus_url, trial_label, scenario.goal)
        self._phase: Phase | None = None
        self._phase_began_s = 0.0  # since the load's start
        self._tell_at_s = 0.0

    def __enter__(self) -> Self:
        self._questions.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._questions.end()

    def on_phase(self, name: str, expected_s: float | None) -> None:
        """Tell that a phase began."""
        begins = {"warm-up": 0.0, "window": self._schedule.window_start_s, "drain": self._schedule.window_end_s}
        self._phase_began_s = begins.get(name, 0.0)
        self._phase = Phase(name, self._trial.variant, self._trial.position, self._of, expected_s)
        self._emit(self._phase)

    def on_tick(self, elapsed_s: float) -> None:
        """Tell how the load goes on, unless that was told less than a second ago."""
        if self._phase is None or elapsed_s < self._tell_at_s:
            return
        self._tell_at_s = elapsed_s + TELL_EVERY_S
        in_phase_s = max(0.0, elapsed_s - self._phase_began_s)
        expected_s = self._phase.expected_s
        self._emit(
            Progress(
                phase=self._phase.name,
                variant=self._trial.variant,
                trial=self._trial.position,
                of=self._of,
                elapsed_s=in_phase_s,
                left_s=None if expected_s is None else max(0.0, expected_s - in_phase_s),
                offered_per_s=offered_per_s(self._schedule, elapsed_s),
                figures=self._questions.figures(),
            )
        )


def offered_per_s(schedule: Schedule, at_s: float) -> float | None:
    """Return the iterations offered per second at a time since the load's start.

    None for a closed model, and before the window: the slopes say nothing of a warm-up.
    """
    if not schedule.open_model or at_s < schedule.window_start_s:
        return None
    return offered_at(slopes(schedule, 0.0), at_s)


def slopes(schedule: Schedule, since_s: float) -> tuple[Slope, ...]:
    """Return the slopes of the offered rate, their times counted from ``since_s`` after the load's start."""
    return tuple(
        (slope.start_s - since_s, slope.end_s - since_s, slope.from_per_s, slope.to_per_s) for slope in schedule.offered
    )


def promql(trial_label: str, goal: str | None) -> str:
    """Return the one query for all totals of a trial so far.

    Each result's label ``total`` says which it is; the one without is the durations of the goal's successes.

    They are not rates: a counter of k6's begins with its first events, not at 0, and a rate would not see them. What
    counts as success is what the analysis counts: a 2xx that the script expected, of the goal's requests.
    """
    trial = f"trial={quoted(trial_label)}"
    good = f'{trial},expected_response="true",status=~"2.."' + (f",name={quoted(goal)}" if goal else "")
    totals = {
        "pushed_s": f'max(timestamp({{__name__=~"k6_vus|k6_iterations_total|k6_http_reqs_total",{trial}}}))',
        "iterations": f"sum(k6_iterations_total{{{trial}}})",
        "dropped": f"sum(k6_dropped_iterations_total{{{trial}}})",
        "requests": f"sum(k6_http_reqs_total{{{trial}}})",
        "failed": f'sum(k6_http_reqs_total{{{trial},expected_response="false"}})',
    }
    named = [f'label_replace({query}, "total", "{name}", "", "")' for name, query in totals.items()]
    # label_replace makes nothing of a native histogram (Prometheus 2.42), so this one goes without a name
    return " or ".join([*named, f"sum(k6_http_req_duration_seconds{{{good}}})"])


@dataclass(frozen=True)
class Totals:
    """What a trial's load came to until k6's push at ``pushed_s`` (Unix seconds); ``good`` are the goal's successes."""

    pushed_s: float
    iterations: float
    dropped: float
    requests: float
    failed: float
    good: Histogram


def read_answer(answer: Mapping[str, Any]) -> Totals | None:
    """Return the totals in Prometheus's answer; None before k6's first push, after which a missing one is 0.

    Raises AttributeError, LookupError, TypeError or ValueError for an answer of another form.
    """
    results = {each["metric"].get("total", "good"): each for each in answer["data"]["result"]}
    if "pushed_s" not in results:
        return None
    raw = {name: float(each["value"][1]) for name, each in results.items() if "value" in each}
    return Totals(
        pushed_s=raw["pushed_s"],
        iterations=raw.get("iterations", 0.0),
        dropped=raw.get("dropped", 0.0),
        requests=raw.get("requests", 0.0),
        failed=raw.get("failed", 0.0),
        good=Histogram.parse(results["good"]["histogram"][1]) if "good" in results else Histogram(),
    )


def between(earlier: Totals, now: Totals) -> Figures:
    """Return the figures of the time between two pushes."""
    length_s = now.pushed_s - earlier.pushed_s
    if length_s <= 0:
        return Figures(dropped=round(now.dropped))
    requests = now.requests - earlier.requests
    good = now.good.since(earlier.good)
    return Figures(
        finished_per_s=(now.iterations - earlier.iterations) / length_s,
        goodput_per_s=good.count / length_s,
        p95_s=quantiles.Histogram(good.buckets, good.count, good.sum_s).quantile(0.95),
        error_ratio=(now.failed - earlier.failed) / requests if requests > 0 else None,
        dropped=round(now.dropped),
    )


class Questions:
    """Asks a Prometheus about one trial again and again, in a thread, and keeps the figures of the last seconds."""

    def __init__(self, prometheus_url: str, trial_label: str, goal: str | None) -> None:
        self._address = urlsplit(prometheus_url)
        self._path = f"{self._address.path.rstrip('/')}/api/v1/query?" + urlencode(
            {"query": promql(trial_label, goal), "timeout": f"{PATIENCE_S * 1000:.0f}ms"}
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask_again, name="live figures", daemon=True)
        self._latest: tuple[float, Figures] | None = None  # swapped as a whole: readers need no lock
        self._connection: http.client.HTTPConnection | None = None

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def end(self) -> None:
        """Stop asking; return when the thread has ended, which a question under way delays by its patience."""
        self._ended.set()
        self._thread.join()

    def figures(self) -> Figures:
        """Return the last figures at once; nothing is known where they are older than FRESH_S."""
        latest = self._latest
        if latest is None or time.monotonic() - latest[0] > FRESH_S:
            return NOTHING_KNOWN
        return latest[1]

    def _ask_again(self) -> None:
        seen: deque[Totals] = deque()
        try:
            while not self._ended.wait(ASK_EVERY_S):
                totals = self.ask()
                if totals is None or (seen and totals.pushed_s <= seen[-1].pushed_s):
                    continue  # nothing new: what is shown grows old
                seen.append(totals)
                while len(seen) > 2 and seen[1].pushed_s <= totals.pushed_s - LOOK_BACK_S:
                    seen.popleft()
                self._latest = (time.monotonic(), between(seen[0], totals))
        finally:
            self._hang_up()

    def ask(self) -> Totals | None:
        """Ask once; None where no answer came in time, none that can be read, or k6 has pushed nothing yet."""
        connection = self._connection or self._connect()
        self._connection = connection
        try:
            connection.request("GET", self._path)
            response = connection.getresponse()
            body = response.read()
            return read_answer(json.loads(body)) if response.status == http.client.OK else None
        except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, AttributeError):
            self._hang_up()
            return None  # the collection afterwards will say what is wrong; a look is not worth a word

    def _connect(self) -> http.client.HTTPConnection:
        secure = self._address.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        return kind(self._address.hostname or "", self._address.port, timeout=PATIENCE_S)

    def _hang_up(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.close()
            self._connection = None
