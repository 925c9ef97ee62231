"""The Docker stack: the sale, PostgreSQL, Redis, Prometheus and k6 as containers of this machine's engine."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from ticketbench import factors, interrupts
from ticketbench.errors import EnvironmentFailure
from ticketbench.events import Emit, ignore
from ticketbench.model import Level
from ticketbench.stack import companions, worker
from ticketbench.stack.clients import PostgresAt
from ticketbench.stack.compose import Compose
from ticketbench.stack.containers import companions as beside
from ticketbench.stack.containers import found
from ticketbench.stack.containers.bodies import Belonging, Changes
from ticketbench.stack.containers.companions import Beside
from ticketbench.stack.containers.engine import Engine, inside_advice
from ticketbench.stack.containers.faults import DockerFaults
from ticketbench.stack.containers.images import Image, packages
from ticketbench.stack.containers.k6 import API_PORT, Place
from ticketbench.stack.containers.limits import Limits, memory_bytes
from ticketbench.stack.containers.places import Places
from ticketbench.stack.containers.project import Container, Project, remove_all
from ticketbench.stack.containers.scrapes import await_scrapes
from ticketbench.stack.containers.services import (
    APP_PORT,
    FIRST_METRICS_PORT,
    LOOPBACK,
    POSTGRES_PORT,
    PROMETHEUS_PORT,
    SERVERS,
    environment,
    remedy,
    sells,
    variables,
    versions,
)
from ticketbench.stack.containers.watch import ContainerWatch, limit_text
from ticketbench.stack.postgres import POSTGRES_SETTINGS, CrashWatch
from ticketbench.stack.process import boot_id
from ticketbench.stack.protocol import Component, Containers, DatabaseAccess, Endpoints, Servers
from ticketbench.stack.replicas import SALE, component_of, replica, replicas
from ticketbench.stack.reset import Data
from ticketbench.stack.state import Access, StackState, StateFile, remove, running, take_down_leftovers

READY_TIMEOUT_S: Final = 60.0
SEED_TIMEOUT_S: Final = 300
POSTGRES_STOP_S: Final = 30
# Asking costs the engine's proxy a connection each time; a start takes 1 s.
POLL_S: Final = 0.05


class DockerStack:
    """A stack of containers; implements :class:`ticketbench.stack.Stack`.

    ``describe`` gives compose.yaml with these variables put in; ``images`` are those of all SERVICES, and of the
    companions that a variant has. ``k6`` is a k6 of this machine, which packs scripts. A variant has ``most_workers``
    in each of ``most_replicas`` at most, and ``most_queue_workers`` for its queue. With ``faults`` containers can be
    started again in mid-trial. All that is made carries the stack's label, and goes with it.
    """

    def __init__(
        self,
        run_id: str,
        engine: Engine,
        images: Mapping[str, Image],
        k6: Path,
        describe: Callable[[Mapping[str, str]], Compose],
        emit: Emit = ignore,
        *,
        keep: bool = False,
        most_workers: int = 1,
        most_replicas: int = 1,
        most_queue_workers: int = 0,
        faults: bool = False,
    ) -> None:
        self._engine = engine
        self._images = images
        self._k6 = k6
        self._emit = emit
        self._keep = keep
        self._most_workers = most_workers
        self._most_replicas = most_replicas
        self._most_queue_workers = most_queue_workers
        self._max_connections = int(POSTGRES_SETTINGS["max_connections"])
        self._file = StateFile(run_id, keep=keep)
        state = self._file.state
        self._told = variables(os.environ, most_workers, state.stack_id, most_replicas, most_queue_workers)
        self._logs = self._file.folder / "logs"
        belonging = Belonging(
            stack_id=state.stack_id,
            run_id=run_id,
            owner=found.owner_text(boot_id(), state.owner),
            created=state.created,
            state=found.state_text(),
            keep=keep,
        )
        self._compose = describe(self._told)
        self._project = Project(engine, self._compose, belonging, self._logs, fixed_ports=faults)
        self._limits = Limits(engine, self._project)
        self._containers: dict[str, Container] = {}
        self._at = Places(self._containers, self._told)
        self._watch: ContainerWatch | None = None
        self._crash = CrashWatch(self._project.log("postgres"))
        self._data: Data | None = None
        self._beside = Beside(self._told, self._start, self._await)

    @property
    def stack_id(self) -> str:
        """The id that labels all containers of this stack and names its folder."""
        return self._file.state.stack_id

    @property
    def project(self) -> str:
        """The name for `docker compose -p`."""
        return self._project.belonging.project

    def start(self) -> Servers:
        """Bring up the servers, 3 s. What earlier runs left behind is taken down first.

        Raises EnvironmentFailure, with everything stopped again, as after any other exception.
        """
        try:
            take_down_leftovers(self._emit, self._leftovers())
            self._file.create()
            self._file.in_engine(self._engine.socket)
            self._logs.mkdir()
            self._start_servers()
        except BaseException:
            self.stop()
            raise
        prometheus = self._at.prometheus()
        return Servers(
            prometheus_url=prometheus.url,
            access=self._access(),
            components=self._components(),
            containers=Containers(socket=self._engine.socket, api=self._engine.api, names=self._names()),
        )

    def _names(self) -> dict[str, str]:
        """Return the container of each part that there may be."""
        container = self._project.belonging.container
        once = (*SERVERS, *(name for name in companions.NAMES if name in self._images), "k6")
        sales = {replica(number): container(SALE, number) for number in range(1, self._most_replicas + 1)}
        return {name: container(name) for name in once} | sales

    def _leftovers(self) -> tuple[StackState, ...]:
        """Return what is on the engine and in no file: of a ticketbench whose state folder is gone."""
        written = {state.stack_id for state in running()}
        return tuple(state for state in found.stacks(self._engine) if state.stack_id not in written)

    def _start_servers(self) -> None:
        self._watch = ContainerWatch(self._engine, self.stack_id)
        self._project.lay(self._compose.volumes)
        with interrupts.deferred(), ThreadPoolExecutor(len(SERVERS)) as pool:  # each takes the engine 0.5 s
            self._start("postgres")  # alone: it makes its data folder while the engine makes the others
            list(pool.map(self._start, (name for name in SERVERS if name != "postgres")))
        postgres, store, prometheus = self._at.postgres(), self._at.redis(), self._at.prometheus()
        self._await("postgres", "PostgreSQL", postgres.answers)
        self._await("redis", "Redis", store.answers)
        self._await("prometheus", "Prometheus", prometheus.answers)
        inside = PostgresAt("postgres", POSTGRES_PORT, postgres.password)
        self._data = Data(postgres, store, inside, inside_advice)
        self._data.prepare()

    def _start(self, name: str, changes: Changes | None = None) -> Container:
        container = self._project.start(name, self._images[name].id, changes)
        self._containers[container.service] = container
        return container

    def _await(self, name: str, title: str, answers: Callable[[], bool]) -> None:
        """Return when a service answers. Raises EnvironmentFailure with its state and its last log lines."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not answers():
            if (why := self._fate(name)) is not None:
                raise EnvironmentFailure(f"{title} ended while starting: {why}", self._remedy(name, why))
            if time.monotonic() > deadline:
                raise EnvironmentFailure(
                    f"{title} gave no answer within {READY_TIMEOUT_S:g} s; its log ends: "
                    f"{self._project.last_lines(name)}",
                    "is the machine overloaded? look at it and try again",
                )
            time.sleep(POLL_S)

    def _fate(self, name: str) -> str | None:
        container = self._containers.get(name)
        fate = self._watch.fate(container.id) if container is not None and self._watch is not None else None
        if fate is None:
            return self._crash.look() if name == "postgres" and container is not None else None
        self._project.drain(name)
        if "memory" in fate:
            fate += f" ({limit_text(self._limits.memory_bytes(name))})"
        return f"{fate}; its log ends: {self._project.last_lines(name)}"

    def _remedy(self, name: str, why: str) -> str:
        image = self._compose.services[component_of(name)].image
        return remedy(component_of(name), why, self._project.last_lines(name, 12), image)

    # --- addresses ----------------------------------------------------------------------------------------------------

    def _seeded(self) -> Data:
        if self._data is None:
            raise RuntimeError("the stack is not started")
        return self._data

    def _access(self) -> DatabaseAccess:
        return DatabaseAccess(postgres_dsn=self._seeded().superuser_dsn, redis_url=self._at.redis().url)

    def _components(self) -> tuple[Component, ...]:
        return tuple(Component(name, it.pid) for name, it in self._containers.items() if it.pid is not None)

    # --- a variant ----------------------------------------------------------------------------------------------------

    def apply(self, levels: Mapping[str, Level]) -> Endpoints:
        """Reset all data and make the target anew with ``levels``, 3 s; return when it can sell and is being scraped.

        Raises EnvironmentFailure: a container ended, the sale does not start, the engine refuses. The stack is still to
        be stopped then.
        """
        workers, names, queue_workers = int(levels.get("workers", 1)), replicas(levels), factors.queue_workers(levels)
        most = (self._most_workers, self._most_replicas, self._most_queue_workers)
        if any(wanted > made for wanted, made in zip((workers, len(names), queue_workers), most, strict=True)):
            raise ValueError(f"{len(names)} x {workers} and {queue_workers} workers, and the stack was made for fewer")
        self._remove_variant()
        self._fail_if_dead()
        self._limits.lift(self._containers)  # the reset is nobody's measurement, and need not be slow
        self._give_connections(int(levels.get("db_max_connections", self._max_connections)))
        data = self._seeded()
        seed = factors.of_scope(levels, "data")
        data.reset(seed, lambda url: self._fill(seed, url), keep_queue=factors.queued(levels))
        database_url, pooled = self._beside.start_pooler(levels, data)
        paid = self._beside.start_provider(levels)
        metrics_ports = tuple(FIRST_METRICS_PORT + number for number in range(workers))
        ours = () if factors.balanced(levels) else (API_PORT,)  # k6's, of the container that it calls
        changes = Changes(
            environment=environment({**factors.of_scope(levels, "app"), **seed, **pooled, **paid}, database_url),
            ports=(*metrics_ports, *ours),
            memory_bytes=memory_bytes(levels, SALE),
        )
        began_s = time.time()
        self._start_sale(names, changes)
        settings = data.settings()
        for name in names:
            base_url = f"http://{LOOPBACK}:{self._at.port(name, APP_PORT)}"
            self._await(name, "the sale", partial(sells, base_url))
        queue = self._start_queue(changes, queue_workers)
        balancer = self._beside.start_balancer(levels, (API_PORT,))
        entry, entry_port = balancer if balancer is not None else (SALE, APP_PORT)
        scraped = {f"{name}:{port}" for name in names for port in metrics_ports} | queue
        await_scrapes(self._at.prometheus(), scraped, began_s, self._ended)
        # last of all: its start is not measured either
        self._limits.apply(levels, self._containers)
        if self._keep:
            self._tell_where(f"http://{LOOPBACK}:{self._at.port(entry, entry_port)}")
        return Endpoints(
            base_url=f"http://{LOOPBACK}:{entry_port}",  # as k6 sees it, which shares the entry's network
            prometheus_url=self._at.prometheus().url,
            access=self._access(),
            components=self._components(),
            app_metrics=tuple(f"{LOOPBACK}:{self._at.port(name, port)}" for name in names for port in metrics_ports),
            k6_command=self._k6_command(levels, entry),
            binaries=versions(self._images),
            settings=settings,
            packages=packages(self._compose),
            logs={name: self._project.log(name) for name in self._containers},
            dead=self.dead,
            consoles=beside.consoles(self._containers, self._told),
            faults=self._faults(levels),
        )

    def _faults(self, levels: Mapping[str, Level]) -> DockerFaults | None:
        if self._watch is None:
            return None
        return DockerFaults(self._engine, self._project, self._containers, self._watch, levels, self._at.answers)

    def _remove_variant(self) -> None:
        """Remove what is made anew with each variant, and a k6 that a trial which was broken off hard has left."""
        gone = [self._containers.pop(name) for name in tuple(self._containers) if name not in SERVERS]
        self._project.remove([*self._project.of("k6"), *(container.id for container in gone)])

    def _give_connections(self, most: int) -> None:
        """Have PostgreSQL allow ``most`` connections: its container is made anew where it allows others."""
        if most == self._max_connections:
            return
        self._project.end(self._containers.pop("postgres"), POSTGRES_STOP_S)
        self._crash = CrashWatch(self._project.log("postgres"))
        self._start("postgres", beside.allowing(most, self._compose.services["postgres"].command))
        self._max_connections = most
        postgres = self._at.postgres()
        self._await("postgres", "PostgreSQL", postgres.answers)
        self._seeded().moved(postgres, PostgresAt("postgres", POSTGRES_PORT, postgres.password))

    def _start_sale(self, names: Sequence[str], changes: Changes) -> None:
        for name in names:
            self._limits.made_with(name, changes.memory_bytes or 0)
        numbered = [replace(changes, number=number) for number in range(1, len(names) + 1)]
        with interrupts.deferred(), ThreadPoolExecutor(len(names)) as pool:  # each takes the engine 0.5 s
            list(pool.map(partial(self._start, SALE), numbered))

    def _start_queue(self, sale: Changes, workers: int) -> set[str]:
        """Start so many workers of the queue, set as the sale is; return where Prometheus finds them."""
        if not workers:
            return set()
        ports = tuple(FIRST_METRICS_PORT + number for number in range(workers))
        self._start(worker.NAME, Changes(environment=sale.environment, ports=ports))
        return {f"{worker.NAME}:{port}" for port in ports}

    def _ended(self) -> tuple[str, str] | None:
        """Return why a part of the target has ended, and what to do; None while all of it runs."""
        for name, why in self.dead().items():
            if component_of(name) in (SALE, worker.NAME):
                return f"{name} ended while starting: {why}", self._remedy(name, why)
        return None

    def _fill(self, seed: Mapping[str, Level], url: str) -> None:
        changes = Changes(command=("init-db",), environment=environment(seed, url), once=True)
        self._project.run("seed", self._images["seed"].id, changes, SEED_TIMEOUT_S)

    def _k6_command(self, levels: Mapping[str, Level], entry: str) -> tuple[str, ...]:
        changes = Changes(network_of=self._containers[entry].id, cpuset=self._limits.generator_cpuset(levels))
        place = Place(
            socket=self._engine.socket,
            api=self._engine.api,
            name=self._project.belonging.container("k6"),
            body=self._project.body("k6", self._images["k6"].id, changes),
            api_port=self._at.port(entry, API_PORT),
            k6=str(self._k6),
            prometheus_url=f"http://prometheus:{PROMETHEUS_PORT}",
        )
        return place.command()

    def _tell_where(self, base_url: str) -> None:
        access = self._access()
        self._file.reachable(
            Access(
                base_url=base_url,
                prometheus_url=self._at.prometheus().url,
                postgres_dsn=access.postgres_dsn,
                redis_url=access.redis_url,
            )
        )

    # --- health and end -----------------------------------------------------------------------------------------------

    def _fail_if_dead(self) -> None:
        died = {name: why for name, why in self.dead().items() if name in SERVERS}
        if died:
            raise EnvironmentFailure("; ".join(f"{name} died: {why}" for name, why in died.items()))

    def dead(self) -> dict[str, str]:
        """Return the components that should run and do not, each with how it ended and its last log lines."""
        found_dead = {name: self._fate(name) for name in tuple(self._containers)}
        return {name: why for name, why in found_dead.items() if why is not None}

    def stop(self) -> None:
        """Remove everything, also of a stack that was to be kept. Idempotent; safe in any state, also half-started.

        SIGINT and SIGTERM are held back until it is done. Raises EnvironmentFailure where something cannot be removed.
        """
        with interrupts.deferred():
            self._containers.clear()
            if self._watch is not None:
                self._watch.close()
                self._watch = None
            self._limits.release()
            remove_all(self._engine, self.stack_id)
            remove(self._file.state.model_copy(update={"engine": ""}))  # its folder: the containers are gone
