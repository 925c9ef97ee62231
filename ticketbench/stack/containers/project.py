"""One project of ours on the engine: its network, volumes and containers, made from compose.yaml and found by label."""

import io
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import requests

from ticketbench import interrupts
from ticketbench.errors import EnvironmentFailure
from ticketbench.stack.compose import Compose
from ticketbench.stack.containers import bodies
from ticketbench.stack.containers.bodies import Belonging, Body, Changes, Limit
from ticketbench.stack.containers.engine import APIError, DockerException, Engine, NotFound, here, not_ours, spoken
from ticketbench.stack.process import last_lines
from ticketbench.stack.servers import distinct_ports

# A container that was killed is taken away in 0.2 s, PostgreSQL's data in 0.6: several at a time, or it adds up.
REMOVERS: Final = 4
LOG_DRAIN_S: Final = 1.0
DETACHED_S: Final = 5.0
DETACHED_POLL_S: Final = 0.05


@dataclass(frozen=True)
class Container:
    """A container of ours that was started. ``ports`` maps its published ports to this machine's.

    ``service`` tells replicas apart: ``app``, ``app-2``.

    ``pid`` is its first process, None where that cannot be seen from here.
    """

    service: str
    id: str
    name: str
    ports: Mapping[int, int]
    pid: int | None


class Project:
    """Makes and removes what belongs to one stack. Raises EnvironmentFailure where the engine refuses.

    ``fixed_ports``: a container that is started again, or plugged in, is found at the ports that it had.
    """

    def __init__(
        self, engine: Engine, compose: Compose, belonging: Belonging, logs: Path, *, fixed_ports: bool = False
    ) -> None:
        self._fixed_ports = fixed_ports
        self.belonging = belonging
        self._engine = engine
        self._api = engine.client.api
        self._compose = compose
        self._logs = logs
        self._followers: dict[str, threading.Thread] = {}

    def lay(self, volumes: Iterable[str]) -> None:
        """Make the network and these volumes."""
        with spoken("make the network and the volumes"):
            self._api.create_network(
                self.belonging.network(),
                driver="bridge",
                labels=bodies.network_labels(self.belonging),
                check_duplicate=True,
            )
            for name in volumes:
                self._lay_volume(self.belonging.volume(name), bodies.volume_labels(self.belonging, name))

    def _lay_volume(self, name: str, labels: Mapping[str, str]) -> None:
        """Make a volume: of one that is there already the engine says nothing, and gives it as it is."""
        made: dict[str, Any] = self._api.create_volume(name, labels=dict(labels))
        if (made.get("Labels") or {}).get(bodies.STACK) != labels[bodies.STACK]:
            raise EnvironmentFailure(f"there is a volume {name} already", not_ours(name))

    def of(self, service: str) -> tuple[str, ...]:
        """Return the ids of this project's containers of a service, whether they run or not."""
        wanted = [f"{bodies.STACK}={self.belonging.stack_id}", f"com.docker.compose.service={service}"]
        with spoken(f"look for {service}"):
            return tuple(it["Id"] for it in self._api.containers(all=True, filters={"label": wanted}))

    def body(self, service: str, image: str, changes: Changes | None = None) -> Body:
        """Return the request for a service's container."""
        return bodies.container_body(self._compose, service, image, self.belonging, changes or Changes())

    def start(self, service: str, image: str, changes: Changes | None = None) -> Container:
        """Make and start a service's container, its files put in. Its log is followed into ``<service>.log``.

        Signals are held back meanwhile, so that what is made is started or gone. Raises EnvironmentFailure with what
        the engine says, with the container's last lines where it could not even be started.
        """
        changes = changes or Changes()
        name, part = self.belonging.container(service, changes.number), changes.part(service)
        with interrupts.deferred(), spoken(f"start {part}", f"TICKETBENCH_PORT_{service.upper()}"):
            container_id = self._made(service, name, image, changes)
            self._follow(part, container_id)
            return self._container(part, name, container_id)

    def _made(self, service: str, name: str, image: str, changes: Changes) -> str:
        """Make and start a container and return its id; one that cannot be started is gone again."""
        body = self.body(service, image, changes)
        if self._fixed_ports:
            _fix_ports(body)
        container_id: str = self._api.create_container_from_config(body, name)["Id"]
        try:
            if files := {**self._compose.files(service), **changes.files}:
                packed = bodies.archive({path: text.encode() for path, text in files.items()})
                self._api.put_archive(container_id, "/", packed)
            self._api.start(container_id)
        except (DockerException, requests.RequestException):
            self.remove([container_id])
            raise
        return container_id

    def _container(self, service: str, name: str, container_id: str, api: Any = None) -> Container:
        told: dict[str, Any] = (api or self._api).inspect_container(container_id)
        published: dict[str, list[dict[str, str]] | None] = told["NetworkSettings"]["Ports"] or {}
        pid = int(told["State"]["Pid"])
        return Container(
            service=service,
            id=container_id,
            name=name,
            ports={int(key.partition("/")[0]): int(ports[0]["HostPort"]) for key, ports in published.items() if ports},
            pid=pid if here(container_id, pid) else None,
        )

    def again(self, container: Container, api: Any) -> Container:
        """Return a container of ours that was started again, as it is now. ``api`` is of the calling thread."""
        with spoken(f"tell of {container.service}"):
            return self._container(container.service, container.name, container.id, api)

    def run(self, service: str, image: str, changes: Changes, timeout_s: int) -> None:
        """Have a service's container do its work, and wait for its end; then it is gone.

        Raises EnvironmentFailure with its last words where it fails or takes longer than ``timeout_s``.
        """
        container = self.start(service, image, changes)
        try:
            with spoken(f"wait for {service}"):
                try:
                    status = int(self._api.wait(container.id, timeout=timeout_s)["StatusCode"])
                except requests.ReadTimeout as error:
                    raise EnvironmentFailure(
                        f"{service} took longer than {timeout_s:g} s; its log ends: {self.last_lines(service)}"
                    ) from error
                except requests.ConnectionError as error:
                    if "timed out" not in str(error).lower():
                        raise
                    raise EnvironmentFailure(
                        f"{service} took longer than {timeout_s:g} s; its log ends: {self.last_lines(service)}"
                    ) from error
            if status != 0:
                self.drain(service)
                raise EnvironmentFailure(
                    f"{service} failed (exit status {status}); its log ends: {self.last_lines(service)}"
                )
        finally:
            self.remove([container.id])

    def update(self, container: Container, *limits: Limit) -> None:
        """Hold a running container to ``limits``."""
        with spoken(f"limit {container.service}"):
            for limit in limits:
                self._api.update_container(container.id, **limit)

    # --- logs ---------------------------------------------------------------------------------------------------------

    def log(self, service: str) -> Path:
        """Return the file that a service's log goes to."""
        return self._logs / f"{service}.log"

    def last_lines(self, service: str, count: int = 5) -> str:
        """Return the last lines of a service's log on one line."""
        return last_lines(self.log(service), count)

    def drain(self, service: str) -> None:
        """Wait a moment for the last lines of a container that has ended."""
        if (follower := self._followers.get(service)) is not None:
            follower.join(LOG_DRAIN_S)

    def follow_on(self, container: Container) -> None:
        """Follow the log of a container that is about to be started again, behind what it has said before."""
        self.drain(container.service)
        self._follow(container.service, container.id, since_s=time.time())

    def _follow(self, service: str, container_id: str, since_s: float | None = None) -> None:
        follower = threading.Thread(
            target=self._copy_log,
            args=(self.log(service), container_id, since_s),
            name=f"log of {service}",
            daemon=True,
        )
        self._followers[service] = follower
        follower.start()

    def _copy_log(self, path: Path, container_id: str, since_s: float | None) -> None:
        """Copy a container's log until it ends. A log is never worth failing for."""
        client = self._engine.another_client()
        try:
            with path.open("wb" if since_s is None else "ab", buffering=0) as file:
                for piece in client.api.logs(container_id, stream=True, follow=True, since=since_s):
                    file.write(piece)
        except (OSError, DockerException, requests.RequestException):
            return
        finally:
            client.close()

    # --- the end ------------------------------------------------------------------------------------------------------

    def end(self, container: Container, patience_s: int) -> None:
        """Have a container end in its own good way, and take it away. One that takes longer is killed."""
        with interrupts.deferred(), spoken(f"stop {container.service}"):
            _gone(partial(self._api.stop, container.id, timeout=patience_s))
        self.remove([container.id])

    def remove(self, container_ids: Sequence[str]) -> None:
        """Kill these containers and take them away, with the volumes that have no name. What is gone is gone."""
        with interrupts.deferred(), spoken("remove containers"):
            for container_id in container_ids:
                _gone(partial(self._api.remove_container, container_id, v=True, force=True))


def _fix_ports(body: Body) -> None:
    """Have the engine publish each port at one that is free now, and not at any that is free whenever it starts."""
    bindings = [it for port in body["HostConfig"].get("PortBindings", {}).values() for it in port if not it["HostPort"]]
    for binding, port in zip(bindings, distinct_ports(len(bindings)), strict=True):
        binding["HostPort"] = str(port)


def remove_all(engine: Engine, stack_id: str) -> None:
    """Remove every container, network and volume of a stack. Idempotent.

    Raises EnvironmentFailure naming the stack and what the engine says.
    """
    api = engine.client.api
    mine = {"label": f"{bodies.STACK}={stack_id}"}
    with interrupts.deferred(), spoken(f"remove what belongs to {stack_id}"):
        # twice: one that was being made when we looked is there the second time
        for _ in range(2):
            containers = [it["Id"] for it in api.containers(all=True, filters=mine)]
            _at_once(engine, [partial(_remove_container, container_id) for container_id in containers])
        networks = [it["Id"] for it in api.networks(filters=mine)]
        volumes = [it["Name"] for it in api.volumes(filters=mine)["Volumes"] or []]
        _at_once(
            engine,
            [
                *(partial(_remove_network, network_id) for network_id in networks),
                *(partial(_remove_volume, name) for name in volumes),
            ],
        )


def _at_once(engine: Engine, removals: Sequence[Callable[[Any], None]]) -> None:
    """Carry out removals, several at a time, each with the API of a client of its own."""

    def carry_out(removal: Callable[[Any], None]) -> None:
        client = engine.another_client()
        try:
            removal(client.api)
        finally:
            client.close()

    if removals:
        with ThreadPoolExecutor(REMOVERS) as pool:
            list(pool.map(carry_out, removals))


def _remove_container(container_id: str, api: Any) -> None:
    _gone(partial(api.remove_container, container_id, v=True, force=True))


def _remove_volume(name: str, api: Any) -> None:
    _gone(partial(api.remove_volume, name, force=True))


def _remove_network(network_id: str, api: Any) -> None:
    """Remove a network; a container that is gone is detached from it a moment later."""
    deadline = time.monotonic() + DETACHED_S
    while True:
        try:
            _gone(partial(api.remove_network, network_id))
        except APIError as error:
            if "active endpoints" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(DETACHED_POLL_S)
        else:
            return


def _gone(remove: Callable[[], object]) -> None:
    """Remove something; that it is gone already, or is being removed by somebody else, is as good."""
    try:
        remove()
    except NotFound:
        return
    except APIError as error:
        if "is already in progress" not in str(error):
            raise


def copied_out(stream: Iterable[bytes], into: Path) -> None:
    """Write the one file of an archive that the engine sends to ``into``, without holding it in memory."""
    with tarfile.open(fileobj=_Readable(stream), mode="r|") as tar:
        for entry in tar:
            content = tar.extractfile(entry)
            if content is not None:
                with into.open("wb") as file:
                    while piece := content.read(1 << 20):
                        file.write(piece)


class _Readable(io.RawIOBase):
    """A stream of pieces as a file to read from."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._rest) < size:
            piece = next(self._pieces, b"")
            if not piece:
                break
            self._rest += piece
        if size < 0:
            taken, self._rest = self._rest, b""
        else:
            taken, self._rest = self._rest[:size], self._rest[size:]
        return taken
