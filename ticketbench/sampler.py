"""The sampler: a process of its own that measures every component and pushes what it sees to Prometheus.

    python -m ticketbench.sampler

The first line of stdin is its configuration as JSON: ``{"prometheus_url", "postgres_dsn", "redis_url", "components":
[[name, pid], ...], "containers"}``; a DSN or URL that is empty leaves that source out, and ``containers`` is null or
``{"socket", "api", "names": {component: container}}``: components whose figures the Docker engine gives. Passwords come
in this way only, so no process list shows them. Further lines are commands: ``{"watch": {"component": "k6", "pid":
123}}`` gives a component a new root process, ``{"unwatch": "k6"}`` takes it away, ``{"phase": ...}`` says what the load
is at (``sampling/phases.py``), and ``{"variant": {"parts": [...], "postgres_dsn": ..., "consoles": {...}}}`` what a new
variant consists of and where its figures are. The end of stdin ends the sampler, so it cannot outlive who started it.

stdout gets one line, ``{"ready": true}``, once PostgreSQL and Redis answer and a first push was taken. stderr gets one
JSON line for each trouble: ``{"error": ..., "source": ...}`` when a source stops answering, ``{"recovered": ...}`` when
it does again. Exit code 0 after the end of stdin, 4 where the start failed, 2 for a configuration that makes no sense.

docs/signals.md lists every series. All counters are cumulative from the sampler's start.
"""

import contextlib
import gc
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Final

import psycopg
import redis

from ticketbench.errors import EXIT_ENVIRONMENT, EXIT_OK, EXIT_USAGE
from ticketbench.sampling.clock import Time, every
from ticketbench.sampling.companions import Companions, ConsoleError
from ticketbench.sampling.containers import Containers, Told
from ticketbench.sampling.health import Health, tell
from ticketbench.sampling.host import Host
from ticketbench.sampling.phases import Phases
from ticketbench.sampling.postgres import Postgres
from ticketbench.sampling.push import Outbox, Rejected, Sample
from ticketbench.sampling.redis_info import RedisInfo
from ticketbench.sampling.throttling import Throttling
from ticketbench.sampling.tree import ProcessTrees
from ticketbench.stack.companions import NAMES as COMPANIONS
from ticketbench.stack.replicas import MOST, replica

_WAITS_PERIOD_S: Final = 0.1
_PERIOD_S: Final = 1.0
_TICKS_PER_FIGURES: Final = round(_PERIOD_S / _WAITS_PERIOD_S)
# All sources are read shortly before a second's end and pushed right after, so that a query at the full second sees
# figures that are at most two tenths of a second old, and no jitter moves a sample across the full second.
_PROC_PHASE_S: Final = 0.85
_REDIS_PHASE_S: Final = 0.82
_COMPANIONS_PHASE_S: Final = 0.79
_WAITS_PHASE_S: Final = 0.05
_PUSH_PHASE_S: Final = 0.88
# How long the end waits for threads that are in the middle of something.
_END_S: Final = 2.0

# Parts that one variant has and another has not: their processes are expected no more when they are gone.
OPTIONAL_PARTS: Final = (*COMPANIONS, *(replica(number) for number in range(2, MOST + 1)))

Command = tuple[str, int | None]  # component, and its new root or None


@dataclass(frozen=True)
class Configuration:
    """The first line of stdin."""

    prometheus_url: str
    postgres_dsn: str
    redis_url: str
    components: tuple[tuple[str, int], ...]
    containers: Containers | None = None

    @classmethod
    def parse(cls, line: str) -> "Configuration":
        """Read the line. Raises ValueError, which names no value: there are passwords among them."""
        try:
            raw = json.loads(line)
            named = raw.get("containers")
            return cls(
                prometheus_url=str(raw["prometheus_url"]),
                postgres_dsn=str(raw["postgres_dsn"]),
                redis_url=str(raw["redis_url"]),
                components=tuple((str(name), int(pid)) for name, pid in raw["components"]),
                containers=Containers(str(named["socket"]), str(named["api"]), named["names"]) if named else None,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"the configuration is not what it should be ({type(error).__name__})") from None


@dataclass(frozen=True)
class Variant:
    """What a variant consists of: its parts, where PostgreSQL is now, and the consoles of PgBouncer and HAProxy.

    ``parts`` None: those that there are, as far as they are not about to be ended.
    """

    parts: tuple[str, ...] | None
    postgres_dsn: str
    consoles: Mapping[str, str]

    @classmethod
    def parse(cls, line: str) -> "Variant | None":
        """Read the command, None where it is another one. Raises ValueError, which names no value."""
        try:
            raw = json.loads(line).get("variant")
            if raw is None:
                return None
            consoles = {str(name): str(url) for name, url in raw["consoles"].items()}
            parts = None if raw["parts"] is None else tuple(map(str, raw["parts"]))
            return cls(parts, str(raw["postgres_dsn"]), consoles)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a variant ({type(error).__name__})") from None


def parse_command(line: str) -> Command:
    """Read a command. Raises ValueError."""
    try:
        raw = json.loads(line)
        if "unwatch" in raw:
            return str(raw["unwatch"]), None
        return str(raw["watch"]["component"]), int(raw["watch"]["pid"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"not a command: {line.strip()[:200]}") from error


class Sampler:
    """All sources and the threads that read them. :meth:`start` raises psycopg.Error, redis.RedisError, OSError."""

    def __init__(self, configuration: Configuration) -> None:
        self._commands: SimpleQueue[Command] = SimpleQueue()
        self._variants: SimpleQueue[Variant] = SimpleQueue()
        self._companions = Companions()
        self._stop = threading.Event()
        self._health = Health()
        self._outbox = Outbox(configuration.prometheus_url)
        self._postgres = Postgres(configuration.postgres_dsn) if configuration.postgres_dsn else None
        self._redis = RedisInfo(configuration.redis_url) if configuration.redis_url else None
        self._containers = configuration.containers
        self._contained = frozenset(self._containers.names) if self._containers is not None else frozenset()
        self._trees = ProcessTrees()
        for name, pid in configuration.components:
            if name not in self._contained:
                self._trees.add_root(name, pid)
        self._host = Host()
        self._throttling = Throttling()
        self._time = Time(_PERIOD_S)
        self.phases = Phases()
        self._waits_done = 0
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Connect to PostgreSQL first, take one sample of everything, push it, then go on by the clock."""
        if self._postgres is not None:
            self._postgres.connect()
            self._postgres.waits()
            self._postgres.figures()
            if not self._postgres.has_statements:
                tell(error="pg_stat_statements is not loaded: no figures of statements", source="postgres")
        if self._redis is not None:
            self._redis.tick()
        self._proc()
        self._outbox.put(self._health.samples(0, self._time))
        self._outbox.push()
        self._spawn(self._proc, _PERIOD_S, _PROC_PHASE_S)
        self._spawn(self._push, _PERIOD_S, _PUSH_PHASE_S)
        self._spawn(self._companion_figures, _PERIOD_S, _COMPANIONS_PHASE_S)
        if self._postgres is not None:
            self._spawn(self._waits, _WAITS_PERIOD_S, _WAITS_PHASE_S)
        if self._redis is not None:
            self._spawn(self._redis_info, _PERIOD_S, _REDIS_PHASE_S)
        if self._containers is not None:
            self._containers.start(Told(self._figures, self._process, self._no_figures))

    def command(self, command: Command) -> None:
        """Take a command from stdin; it holds from the next tick on. What is a container is found by its name."""
        if command[0] not in self._contained:
            self._commands.put(command)

    def variant(self, variant: Variant) -> None:
        """Take what a variant consists of; it holds from the next tick on."""
        if self._postgres is not None and variant.postgres_dsn:
            self._postgres.moved(variant.postgres_dsn)
        self._variants.put(variant)
        if variant.parts is None:
            return
        if self._containers is not None:
            self._containers.expect(("k6", *variant.parts))
        for name in OPTIONAL_PARTS:
            if name not in variant.parts:
                self._commands.put((name, None))

    def stop(self) -> None:
        """Stop the threads, push what is left, and close the connections that nobody uses. Takes at most some seconds.

        A thread that hangs in a server's answer is left to the end of the process, and what the others saw is pushed.
        """
        self._stop.set()
        if self._containers is not None:
            self._containers.stop()
        deadline = time.monotonic() + _END_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        hanging = {thread.name for thread in self._threads if thread.is_alive()}
        if self._push.__name__ not in hanging:
            self._outbox.put(self.phases.end())
            self._push()
            self._outbox.close()
        if self._postgres is not None and self._waits.__name__ not in hanging:
            self._postgres.close()
        if self._redis is not None and self._redis_info.__name__ not in hanging:
            self._redis.close()
        if self._companion_figures.__name__ not in hanging:
            self._companions.close()

    def _spawn(self, tick: Callable[[], None], period_s: float, phase_s: float) -> None:
        thread = threading.Thread(
            target=every, args=(period_s, phase_s, tick, self._stop, self._health.late), name=tick.__name__, daemon=True
        )
        thread.start()
        self._threads.append(thread)

    # ticks, each in a thread of its own

    def _proc(self) -> None:
        self._time.look()
        self._health.tell_silent()
        with contextlib.suppress(Empty):
            while True:
                name, pid = self._commands.get_nowait()
                if pid is None:
                    self._trees.unwatch(name)
                else:
                    self._trees.watch(name, pid)
        self._trees.tick()
        self._throttling.tick({pid: name for pid, name in self._trees.roots.items() if name not in self._contained})
        unseen_s = self._containers.unseen_s if self._containers is not None else 0.0
        self._host.tick(self._trees.cpu_s.sum() + unseen_s)
        self._health.ticked("proc")
        self._outbox.put([*self._proc_samples(), *self.phases.samples()])

    def _proc_samples(self) -> Iterator[Sample]:
        for name, cpu_s in self._trees.cpu_s.items():
            if name not in self._contained:
                yield "tb_cpu_seconds_total", (("component", name),), cpu_s
            yield "tb_run_delay_seconds_total", (("component", name),), self._trees.delay_s[name]
        yield "tb_cpu_seconds_total", (("component", "other"),), self._host.other_s
        for name, throttled_s in self._throttling.seconds().items():
            yield "tb_cpu_throttled_seconds_total", (("component", name),), throttled_s
        for name, size in self._trees.memory_bytes().items():
            if name not in self._contained:
                yield "tb_memory_bytes", (("component", name),), size
        for mode, cpu_s in self._host.cpu_s.items():
            yield "tb_host_cpu_seconds_total", (("mode", mode),), cpu_s
        for (where, kind), stalled_s in self._host.pressure_s.items():
            yield "tb_pressure_seconds_total", (("kind", kind), ("resource", where)), stalled_s

    # what the Docker engine tells, each container from a thread of its own

    def _figures(self, component: str, samples: list[Sample]) -> None:
        self._health.ticked(f"container {component}")
        self._outbox.put(samples)

    def _process(self, component: str, pid: int | None) -> None:
        self._commands.put((component, pid))  # for what only /proc tells: how long it waited for a core

    def _no_figures(self, component: str, error: Exception) -> None:
        self._health.trouble(f"container {component}", error)

    def _waits(self) -> None:
        postgres = self._postgres
        if postgres is None:
            return
        self._waits_done += 1
        what = "waits"
        self._health.asked(what)
        try:
            postgres.waits()
            self._health.ticked(what)
            if self._waits_done % _TICKS_PER_FIGURES == 0:
                what = "postgres"
                self._health.asked(what)
                self._outbox.put(postgres.wait_samples())
                postgres.figures()
                self._health.ticked(what)
                self._outbox.put(postgres.figure_samples())
        except psycopg.Error as error:
            self._health.trouble(what, error)

    def _redis_info(self) -> None:
        if self._redis is None:
            return
        try:
            self._redis.tick()
        except redis.RedisError as error:
            self._health.trouble("redis", error)
        else:
            self._health.ticked("redis")
            self._outbox.put(self._redis.samples())

    def _companion_figures(self) -> None:
        with contextlib.suppress(Empty):
            while True:
                self._companions.are(self._variants.get_nowait().consoles)
        for name, console in self._companions.each():
            try:
                console.tick()
            except ConsoleError as error:
                self._health.trouble(name, error)
            else:
                self._health.ticked(name)
                self._outbox.put(console.samples())

    def _push(self) -> None:
        self._outbox.put(self._health.samples(self._outbox.failures, self._time))
        try:
            self._outbox.push()
        except (ConnectionError, Rejected) as error:
            self._health.trouble("push", error)
        else:
            self._health.ticked("push")


def _listen(sampler: Sampler) -> None:
    for line in sys.stdin:
        try:
            if sampler.phases.take(line):
                continue
            if (variant := Variant.parse(line)) is not None:
                sampler.variant(variant)
            else:
                sampler.command(parse_command(line))
        except ValueError as error:
            tell(error=str(error), source="stdin")


def main() -> int:
    """Run until the end of stdin; returns the exit code."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:  # two files for each process of ours, one for each thread
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if not (line := sys.stdin.readline()):
        return EXIT_OK  # the stack never came up
    try:
        sampler = Sampler(Configuration.parse(line))
    except psycopg.ProgrammingError:  # its text would quote the connection string, password and all
        tell(error="the PostgreSQL connection string cannot be read", source="stdin")
        return EXIT_USAGE
    except ValueError as error:
        tell(error=str(error), source="stdin")
        return EXIT_USAGE
    try:
        sampler.start()
    except (psycopg.Error, redis.RedisError, OSError, Rejected) as error:
        tell(error=" ".join(str(error).split()), source="start")
        return EXIT_ENVIRONMENT
    gc.collect()
    gc.freeze()  # what is loaded now stays; the collector need not look at it again
    sys.stdout.write(json.dumps({"ready": True}) + "\n")
    sys.stdout.flush()
    _listen(sampler)
    sampler.stop()
    return EXIT_OK


def _exit(code: int) -> Any:
    """Leave without waiting for a thread that hangs in a server's answer."""
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _exit(main())
