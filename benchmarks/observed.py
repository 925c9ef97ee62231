"""A system under a steady load that can be watched or left alone: what benchmarks.observer measures on.

It is built from ticketbench's own parts, and watching is switched off from outside: a stopped Prometheus scrapes
nothing, a stopped sampler reads nothing, and k6 pushes nothing where it is given no Prometheus. So the product needs no
switch for it, and both arms meet the same processes.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import httpx
import psycopg
import redis

from benchmarks.go_profile import Share, share_below
from ticketbench import factors, load, scenario
from ticketbench.binaries import Binaries
from ticketbench.errors import EnvironmentFailure
from ticketbench.live import Questions
from ticketbench.model import Scenario, Schedule
from ticketbench.sampler_process import SamplerProcess
from ticketbench.sampling.postgres import APPLICATION_NAME
from ticketbench.stack.local import LocalStack
from ticketbench.stack.process import descendants, identify

SCRIPT: Final = Path(__file__).with_name("purchases.js")
P95: Final = "http_req_duration{scenario:main,name:purchase,expected_response:true}"
# The package of k6's remote-write output, and how much earlier than the window a profile ends.
OUTPUT_PACKAGE: Final = "/output/prometheusrw/"
PROFILE_SHORTER_S: Final = 1.0
PROFILE_PATIENCE_S: Final = 5.0
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Watching:
    """What observes during an arm. Without ``scraping`` Prometheus is stopped, so nothing else can be on either."""

    name: str
    scraping: bool = False
    sampling: bool = False
    remote_write: bool = False
    live_figures: bool = False


# What every run does.
EVERYTHING: Final = Watching("everything", scraping=True, sampling=True, remote_write=True, live_figures=True)
NOTHING: Final = Watching("nothing")


@dataclass(frozen=True)
class Arm:
    """One stretch of load and what it cost. CPU in seconds within ``span_s``, by part.

    ``k6_profile`` tells of k6's CPU samples in that time how many were in its remote-write output.
    """

    watching: str
    offered_per_s: float
    span_s: float
    requests: int
    p50_s: float
    p95_s: float
    cpu_s: dict[str, float]
    k6_profile: Share

    def share(self, part: str) -> float:
        """Return the CPU of ``part`` as a share of one core."""
        return self.cpu_s[part] / self.span_s

    def per_request_s(self, *parts: str) -> float:
        """Return the CPU of ``parts`` for each request that was answered."""
        return sum(self.cpu_s[part] for part in parts) / self.requests


class Bed:
    """A running stack with a sampler; :meth:`arm` loads it once. A context manager, from the main thread."""

    def __init__(self, binaries: Binaries, folder: Path) -> None:
        self._binaries = binaries
        self._folder = folder
        self._stack = LocalStack(f"benchmark-{os.getpid()}", binaries, most_workers=1)
        self._arms = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            undo.callback(self._stack.stop)
            servers = self._stack.start()
            self._sampler = SamplerProcess.start(
                servers.prometheus_url, servers.access, servers.components, self._folder / "sampler.log"
            )
            undo.callback(self._sampler.stop)
            found, _ = self._inspect({})
            self._endpoints = self._stack.apply({**factors.defaults(), **found.levels})
            self._roots = {component.name: component.pid for component in self._endpoints.components}
            for name, pid in self._roots.items():
                self._sampler.watch(name, pid)
            self._workers = _below(self._roots["app"])
            self._backend = self._sampler_backend()
            undo.callback(self._continue)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def arm(self, watching: Watching, rate_per_s: float, window_s: float) -> Arm:
        """Load the system for ``window_s`` and return the costs. Raises EnvironmentFailure."""
        self._arms += 1
        env = {"RATE": f"{rate_per_s:g}", "DURATION": f"{window_s:g}"}
        _, schedule = self._inspect(env)
        edges: dict[str, _Edge] = {}
        children: list[int] = []
        profile = _Profile(window_s - PROFILE_SHORTER_S)

        def on_start(pid: int) -> None:
            children.append(pid)
            if watching.sampling:
                self._sampler.watch("k6", pid)

        def on_phase(name: str, _: float | None) -> None:
            if name in {"window", "drain"}:
                edges[name] = self._edge(children[-1], first=name == "window")
            if name == "window":
                profile.start(children[-1])

        folder = self._folder / f"{self._arms:03d}"
        folder.mkdir()
        execution = load.Execution(
            k6_command=(*self._endpoints.k6_command, "--profiling-enabled"),
            script=SCRIPT,
            env=env,
            base_url=self._endpoints.base_url,
            prometheus_url=self._endpoints.prometheus_url if watching.remote_write else None,
            trial_id=f"{self._stack.stack_id}-{self._arms}",
            seed=self._arms,
            folder=folder,
            schedule=schedule,
        )
        with self._watched(watching, execution.trial_id):
            outcome = load.run_load(execution, on_start=on_start, on_phase=on_phase, should_stop=self._why_stop)
        if outcome.aborted or outcome.result is None:
            raise EnvironmentFailure(f"the load of arm {self._arms} was not carried through: {outcome.aborted}")
        figures = outcome.result.trends_ms[P95]
        first, last = edges["window"], edges["drain"]
        return Arm(
            watching=watching.name,
            offered_per_s=rate_per_s,
            span_s=last.at_s - first.at_s,
            requests=last.requests - first.requests,
            p50_s=figures["med"] / 1000,
            p95_s=figures["p(95)"] / 1000,
            cpu_s={part: last.cpu_s[part] - first.cpu_s[part] for part in first.cpu_s},
            k6_profile=profile.result(),
        )

    def _inspect(self, env: dict[str, str]) -> tuple[Scenario, Schedule]:
        return scenario.inspect((str(self._binaries.k6),), SCRIPT, env)

    def _why_stop(self) -> str | None:
        # a stopped Prometheus is not dead, and neither is a stopped sampler
        return "; ".join(f"{name}: {why}" for name, why in self._endpoints.dead().items()) or None

    # --- what watches ---

    @contextlib.contextmanager
    def _watched(self, watching: Watching, trial_label: str) -> Iterator[None]:
        self._signal(self._sampler.pid, stopped=not watching.sampling)
        self._signal(self._roots["prometheus"], stopped=not watching.scraping)
        questions = Questions(self._endpoints.prometheus_url, trial_label, goal="purchase")
        if watching.live_figures:
            questions.start()
        try:
            yield
        finally:
            if watching.live_figures:
                questions.end()
            self._continue()

    def _continue(self) -> None:
        for pid in (self._roots["prometheus"], self._sampler.pid):
            with contextlib.suppress(ProcessLookupError):
                self._signal(pid, stopped=False)

    @staticmethod
    def _signal(pid: int, *, stopped: bool) -> None:
        os.kill(pid, signal.SIGSTOP if stopped else signal.SIGCONT)

    # --- what it costs ---

    def _sampler_backend(self) -> int:
        with psycopg.connect(self._endpoints.own_access.postgres_dsn, autocommit=True) as connection:
            row = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = %s", (APPLICATION_NAME,)
            ).fetchone()
        if row is None:
            raise RuntimeError("the sampler has no connection to PostgreSQL")
        return int(row[0])

    def _edge(self, k6: int, *, first: bool) -> "_Edge":
        """Read all clocks; the target's own count of answers is asked for outside of the measured span."""
        requests = self._answers() if first else 0
        info_s = self._info_s() if first else 0.0
        workers_s = sum(map(clock_s, self._workers))
        edge = _Edge(
            at_s=time.monotonic(),
            requests=0,
            cpu_s={
                "sampler": clock_s(self._sampler.pid),
                "sampler's backend": clock_s(self._backend),
                "app": clock_s(self._roots["app"]) + workers_s,
                # a scrape is answered by a thread of its own, and nothing else but the loop runs in a worker
                "app: metrics": workers_s - sum(map(_main_thread_s, self._workers)),
                "postgres": tree_s(self._roots["postgres"]),
                "redis": clock_s(self._roots["redis"]),
                "redis: INFO": 0.0,
                "prometheus": clock_s(self._roots["prometheus"]),
                "k6": clock_s(k6),
                "ticketbench": time.process_time(),
            },
        )
        if not first:
            requests, info_s = self._answers(), self._info_s()
        return _Edge(edge.at_s, requests, {**edge.cpu_s, "redis: INFO": info_s})

    def _answers(self) -> int:
        """Return how many requests the target has answered, from its own metrics."""
        total = 0.0
        for address in self._endpoints.app_metrics:
            for line in httpx.get(f"http://{address}/metrics").text.splitlines():
                if line.startswith("target_requests_total{"):
                    total += float(line.rpartition(" ")[2])
        return round(total)

    def _info_s(self) -> float:
        """Return the seconds that Redis has spent on INFO."""
        with redis.Redis.from_url(self._endpoints.own_access.redis_url) as client:
            return float(client.info("commandstats").get("cmdstat_info", {"usec": 0})["usec"]) / 1e6


class _Profile:
    """Has k6 profile itself for ``seconds``, in a thread. It costs the same in every arm."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._content = b""
        self._thread: threading.Thread | None = None

    def start(self, k6: int) -> None:
        """Begin with the k6 of this process id."""
        words = Path(f"/proc/{k6}/cmdline").read_text().split("\0")
        address = words[words.index("--address") + 1]
        self._thread = threading.Thread(target=self._fetch, args=(address,), daemon=True)
        self._thread.start()

    def _fetch(self, address: str) -> None:
        with contextlib.suppress(httpx.HTTPError):  # k6 has ended: the load tells why
            answer = httpx.get(
                f"http://{address}/debug/pprof/profile",
                params={"seconds": f"{self._seconds:.0f}"},
                timeout=self._seconds + PROFILE_PATIENCE_S,
            )
            self._content = answer.raise_for_status().content

    def result(self) -> Share:
        """Return the shares of the profile. Raises EnvironmentFailure where there is none."""
        if self._thread is not None:
            self._thread.join()
        try:
            return share_below(self._content, OUTPUT_PACKAGE)
        except (ValueError, OSError, EOFError) as error:
            raise EnvironmentFailure(f"k6 gave no profile of itself: {error}") from error


@dataclass(frozen=True)
class _Edge:
    at_s: float
    requests: int
    cpu_s: dict[str, float]


def clock_s(pid: int) -> float:
    """Return the CPU time of a process, its ended threads included and its children not. Raises OSError.

    The number is the kernel's clock id of another process's CPU time (linux/posix-timers.h), exact to the nanosecond.
    """
    return time.clock_gettime_ns((~pid << 3) | 2) / 1e9


def tree_s(pid: int) -> float:
    """Return the CPU time of a process and all below it, and of the children that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    reaped_s = (int(fields[13]) + int(fields[14])) / _TICKS_PER_S
    total_s = clock_s(pid) + reaped_s
    for child in _below(pid):
        with contextlib.suppress(OSError):  # it has just ended
            total_s += clock_s(child)
    return total_s


def _below(pid: int) -> tuple[int, ...]:
    root = identify(pid)
    return tuple(process.pid for process in descendants([root])) if root is not None else ()


def _main_thread_s(pid: int) -> float:
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9
