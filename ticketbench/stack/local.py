"""The local stack: PostgreSQL, Redis, Prometheus and the sale as child processes on loopback ports, without Docker."""

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ticketbench import factors, interrupts
from ticketbench.binaries import Binaries
from ticketbench.errors import EnvironmentFailure
from ticketbench.events import Emit, ignore
from ticketbench.model import Level
from ticketbench.stack.confinement import Confinement
from ticketbench.stack.launch import Launcher, not_root
from ticketbench.stack.local_companions import LocalCompanions
from ticketbench.stack.local_faults import LocalFaults, Part
from ticketbench.stack.postgres import POSTGRES_SETTINGS, PostgresServer
from ticketbench.stack.process import remedy
from ticketbench.stack.protocol import Component, DatabaseAccess, Endpoints, Servers
from ticketbench.stack.replicas import SALE, Replicas, replicas
from ticketbench.stack.reset import Data
from ticketbench.stack.servers import (
    LOOPBACK,
    PORT_ATTEMPTS,
    PrometheusServer,
    RedisServer,
    distinct_ports,
)
from ticketbench.stack.state import Access, StateFile, remove, take_down_leftovers
from ticketbench.stack.stopped import StoppedWatch, failure
from ticketbench.stack.target import MetricsPortBusyError, environment, init_database

SERVERS: Final = ("postgres", "redis", "prometheus")
# Prometheus acts on a new target list only every 5 s (measured: 4.6 to 6.1 s), so it is told the metrics ports of all
# workers that there can be before it starts, and every target uses the first ones. Each closed port among them costs
# 0.04 % of a core (measured), 16 of them four times as much as the scrape of a worker: whoever knows how many workers
# there will be says so.
MOST_WORKERS: Final = int(factors.CATALOGUE["workers"].high)
MOST_QUEUE_WORKERS: Final = int(factors.CATALOGUE["queue_workers"].high)


class LocalStack:
    """A stack of child processes; implements :class:`ticketbench.stack.Stack`.

    Everything lies in one folder below the state folder and ends with this process, unless ``keep``. Use it from the
    main thread: the servers are tied to the thread that starts them. ``dead()`` of the endpoints may be called from
    anywhere. ``most_workers`` is how many workers all replicas of a variant that :meth:`apply` will be given have at
    most, ``most_queue_workers`` how many its queue has.
    """

    def __init__(
        self,
        run_id: str,
        binaries: Binaries,
        emit: Emit = ignore,
        *,
        keep: bool = False,
        most_workers: int = MOST_WORKERS,
        most_queue_workers: int = MOST_QUEUE_WORKERS,
    ) -> None:
        self._binaries = binaries
        self._emit = emit
        self._keep = keep
        self._most_workers = most_workers
        self._most_queue_workers = most_queue_workers
        self._file = StateFile(run_id, keep=keep)
        self._launcher = Launcher(self._file.state.stack_id, self._file, ends_with_us=not keep)
        self._confinement = Confinement(self._file)
        self._folder = self._file.folder
        self._logs = self._folder / "logs"
        self._metrics_ports: list[int] = []
        self._queue_ports: list[int] = []
        # made by start(), in this order
        self._redis: RedisServer | None = None
        self._prometheus: PrometheusServer | None = None
        self._postgres: PostgresServer | None = None
        self._data: Data | None = None
        self._target: Replicas | None = None
        self._companions = LocalCompanions(binaries, self._launcher, self._logs, self._rootless_folder)
        self._max_connections = int(POSTGRES_SETTINGS["max_connections"])

    @property
    def stack_id(self) -> str:
        """The id that labels all processes of this stack and names its folder."""
        return self._file.state.stack_id

    def start(self) -> Servers:
        """Bring up the servers, 1 s. What earlier runs left behind is taken down first.

        Raises EnvironmentFailure, with everything stopped again, as after any other exception.
        """
        try:
            take_down_leftovers(self._emit)
            with self._watching(), _writing():
                self._file.create()
                self._logs.mkdir()
                self._start_servers()
            return self._servers()
        except BaseException:
            self.stop()
            raise

    def _watching(self) -> contextlib.AbstractContextManager[None]:
        """Raise EnvironmentFailure where one of our processes is stopped, whatever is being waited for."""
        return interrupts.watching(failure(StoppedWatch(self._launcher.running)))

    def _start_servers(self) -> None:
        self._choose_ports()
        # the slow part, initdb, runs while the other two are coming up
        store = self._redis = RedisServer(
            self._binaries.redis, self._make_folder("redis"), self._launcher, log=self._logs / "redis.log"
        )
        store.launch()
        prometheus = self._prometheus = PrometheusServer(
            self._binaries.prometheus,
            self._make_folder("prometheus"),
            self._launcher,
            log=self._logs / "prometheus.log",
        )
        self._scrape(prometheus)
        prometheus.launch()
        postgres = self._postgres = PostgresServer(
            self._binaries.postgres, self._rootless_folder("postgres"), self._launcher, log=self._logs / "postgres.log"
        )
        postgres.prepare()
        postgres.launch()
        for server in (store, prometheus, postgres):
            server.await_ready()
        self._file.listens({server.name: server.port for server in (store, prometheus, postgres)})
        self._data = Data(postgres.at, store.at)
        self._data.prepare()
        self._target = Replicas(self._make_folder(SALE), self._launcher, self._logs)

    def _make_folder(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir(mode=0o700)
        return folder

    def _rootless_folder(self, name: str) -> Path:
        if not not_root().owns_files:
            return self._make_folder(name)
        # it will really run as another user, who cannot pass through the state folder
        folder = Path(tempfile.mkdtemp(prefix="ticketbench-"))
        self._file.add_folder(folder)
        return folder

    def _choose_ports(self) -> None:
        ports = distinct_ports(self._most_workers + self._most_queue_workers)
        self._metrics_ports, self._queue_ports = ports[: self._most_workers], ports[self._most_workers :]

    def _scrape(self, prometheus: PrometheusServer) -> None:
        prometheus.scrape(_addresses(self._metrics_ports), _addresses(self._queue_ports))

    def _servers(self) -> Servers:
        _, prometheus, _, data, _ = self._started()
        return Servers(
            prometheus_url=prometheus.url, access=self._access(data), components=self._components(with_target=False)
        )

    def _started(self) -> tuple[RedisServer, PrometheusServer, PostgresServer, Data, Replicas]:
        if (
            self._redis is None
            or self._prometheus is None
            or self._postgres is None
            or self._data is None
            or self._target is None
        ):
            raise RuntimeError("the stack is not started")
        return self._redis, self._prometheus, self._postgres, self._data, self._target

    def _access(self, data: Data) -> DatabaseAccess:
        store = self._started()[0]
        return DatabaseAccess(postgres_dsn=data.superuser_dsn, redis_url=store.url)

    def _components(self, *, with_target: bool) -> tuple[Component, ...]:
        store, prometheus, postgres, _, target = self._started()
        parts = {"postgres": postgres.launched, "redis": store.launched, "prometheus": prometheus.launched}
        if with_target:
            parts |= {each.component: each.launched for each in target.each()}
            parts |= {each.name: each.launched for each in self._companions.each()}
        return tuple(Component(name, part.process.pid) for name, part in parts.items() if part is not None)

    def apply(self, levels: Mapping[str, Level]) -> Endpoints:
        """Reset all data and start a fresh target with ``levels``, 2 s; return when it can sell.

        Prometheus has found it at most a second later, on the first call up to 5. Raises EnvironmentFailure: a server
        died or was stopped, the sale does not start, the disk is full. The stack is still to be stopped then.
        """
        self._fail_if_dead()
        with self._watching(), _writing():
            return self._apply(levels)

    def _apply(self, levels: Mapping[str, Level]) -> Endpoints:
        workers, queue_workers = factors.processes(levels), factors.queue_workers(levels)
        if workers > self._most_workers or queue_workers > self._most_queue_workers:
            raise ValueError(f"{workers} and {queue_workers} workers, and the stack was made for fewer")
        store, prometheus, postgres, data, target = self._started()
        self._companions.stop()
        target.stop()
        self._forget_variant()
        self._give_connections(int(levels.get("db_max_connections", self._max_connections)))
        self._confinement.apply({}, self._pids())  # the reset is nobody's measurement, and need not be slow
        seed = factors.of_scope(levels, "data")
        data.reset(seed, lambda url: self._fill(seed, url), keep_queue=factors.queued(levels))
        store.logged = factors.queued(levels)
        database_url, pooled = self._companions.start_pooler(levels, postgres.at, data)
        paid = self._companions.start_provider(levels)
        env = environment({**factors.of_scope(levels, "app"), **seed, **pooled, **paid}, database_url, store.url)
        settings, began_s = self._start_target(env, replicas(levels), workers)
        self._companions.start_workers(env, self._queue_ports[:queue_workers])
        base_url = self._companions.start_balancer(levels, {each.component: each.base_url for each in target.each()})
        # last of all: its start is not measured either, and what it started until now is found below it
        self._confinement.apply(levels, self._pids())
        ports = self._metrics_ports[:workers]
        if self._keep:
            self._file.reachable(
                Access(
                    base_url=base_url,
                    prometheus_url=prometheus.url,
                    postgres_dsn=data.superuser_dsn,
                    redis_url=store.url,
                )
            )
        self._file.listens({each.component: each.port for each in target.each()})
        self._file.listens({each.name: each.port for each in self._companions.each()})
        return Endpoints(
            base_url=base_url,
            prometheus_url=prometheus.url,
            access=self._access(data),
            components=self._components(with_target=True),
            app_metrics=tuple(f"{LOOPBACK}:{port}" for port in ports),
            k6_command=(str(self._binaries.k6),),
            binaries=self._binaries.versions,
            settings=settings,
            logs={name: self._logs / f"{name}.log" for name in self._pids()},
            dead=self.dead,
            unscraped=lambda: self._unscraped([*ports, *self._queue_ports[:queue_workers]], began_s),
            consoles=self._companions.consoles(),
            faults=LocalFaults(
                self._parts(),
                levels,
                self._confinement.limit,
                lambda: self._confinement.apply(levels, self._pids()),
            ),
        )

    def _parts(self) -> dict[str, Part]:
        """Return what a fault can be done to."""
        store, _, postgres, _, target = self._started()
        return {
            "postgres": postgres,
            "redis": store,
            **{each.component: each for each in target.each()},
            **{each.name: each for each in self._companions.each()},
        }

    def _forget_variant(self) -> None:
        """Write down that what only the last variant had is gone."""
        for item in self._file.state.processes:
            if item.component not in SERVERS:
                self._file.ended(item.component)

    def _give_connections(self, most: int) -> None:
        """Have PostgreSQL allow ``most`` connections, for which it has to be started again where it allows others."""
        _, _, postgres, data, _ = self._started()
        if most != self._max_connections:
            postgres.restart({"max_connections": str(most)})
            self._max_connections = most
            data.moved(postgres.at)
            self._file.listens({postgres.name: postgres.port})

    def _pids(self) -> dict[str, int]:
        return {component.name: component.pid for component in self._components(with_target=True)}

    def _fill(self, seed: Mapping[str, Level], url: str) -> None:
        store, *_ = self._started()
        env = environment(seed, url, store.url)
        init_database(self._launcher, env, self._folder / "app", log=self._logs / "init-db.log")

    def _start_target(
        self, env: Mapping[str, str], names: tuple[str, ...], workers: int
    ) -> tuple[dict[str, str], float]:
        """Start the replicas of these names, with so many workers together, until all got their metrics ports.

        Return the servers' settings, read meanwhile, and when its start began (Unix seconds).
        """
        _, prometheus, _, data, target = self._started()
        for attempt in range(1, PORT_ATTEMPTS + 1):
            began_s = time.time()
            target.launch(names, env, self._metrics_ports[:workers])
            settings = data.settings()
            try:
                target.await_ready()
            except MetricsPortBusyError as error:
                target.stop()
                if attempt == PORT_ATTEMPTS:
                    raise EnvironmentFailure(
                        f"the sale found no free port for its metrics: {error}",
                        "look at what else opens ports on this machine",
                    ) from error
                self._choose_ports()
                self._scrape(prometheus)
                continue
            return settings, began_s
        raise AssertionError("the last attempt returns or raises")

    def _unscraped(self, ports: Sequence[int], since_s: float) -> str:
        """Return what differs from each worker, and nobody else, having been scraped with success after ``since_s``."""
        prometheus = self._started()[1]
        wanted = set(_addresses(ports))
        scraped = {
            labels["instance"]
            for labels, at_s in prometheus.query('timestamp(up{job=~"app|worker"} == 1)')
            if at_s > since_s or labels["instance"] not in wanted
        }
        told = [f"not yet {address}" for address in sorted(wanted - scraped)]
        told += [f"still {address}" for address in sorted(scraped - wanted)]
        return ", ".join(told)

    def _fail_if_dead(self) -> None:
        died = {name: why for name, why in self.dead().items() if name in SERVERS}
        if died:
            raise EnvironmentFailure("; ".join(f"{name} died: {why}" for name, why in died.items()))

    def dead(self) -> dict[str, str]:
        """Return the components that should run and do not, each with how it ended and its last log lines."""
        servers: dict[str, Any] = {
            "postgres": self._postgres,
            "redis": self._redis,
            "prometheus": self._prometheus,
            **{each.name: each for each in self._companions.each()},
        }
        sales = {} if self._target is None else {each.component: each for each in self._target.each()}
        found = {name: part.dead() for name, part in {**sales, **servers}.items() if part is not None}
        return {name: why for name, why in found.items() if why is not None}

    def stop(self) -> None:
        """End everything in order and remove its data, also of a stack that was to be kept. Idempotent.

        SIGINT and SIGTERM are held back until it is done. Raises EnvironmentFailure where something cannot be ended.
        """
        with interrupts.deferred():
            self._confinement.release()
            remove(self._file.state)
            self._launcher.reap()
            # from now on nothing of it should run, so nothing of it is dead
            self._companions.forget()
            if self._target is not None:
                self._target.forget()
            for part in (self._prometheus, self._redis, self._postgres):
                if part is not None:
                    part.launched = None


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Turn what the system refuses to the stack's own files (a full disk, a lost right) into EnvironmentFailure."""
    try:
        yield
    except OSError as error:
        raise EnvironmentFailure(
            f"the stack cannot use {error.filename or 'its folder'}: {error.strerror}", remedy(error.strerror or "")
        ) from error


def _addresses(ports: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"{LOOPBACK}:{port}" for port in ports)
