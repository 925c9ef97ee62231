"""What the engine is asked to make, as its API takes it: services of compose.yaml to bodies of requests. Pure.

Everything carries Compose's own labels, so that `docker compose -p PROJECT ps` and `logs` see it, and ours, by which it
is found again whatever became of who started it.
"""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final, TypedDict

from ticketbench.stack.compose import Compose, Port, Service

CPU_PERIOD_US: Final = 100_000
NO_LIMIT: Final = -1  # 0 would mean "as before" in an update

STACK: Final = "ticketbench.stack"
RUN: Final = "ticketbench.run"
OWNER: Final = "ticketbench.owner"
KEEP: Final = "ticketbench.keep"
CREATED: Final = "ticketbench.created"
STATE: Final = "ticketbench.state"
_COMPOSE: Final = "com.docker.compose"
# `docker compose` leaves out what does not say which version of it made it.
_COMPOSE_VERSION: Final = "2.23.1"

Body = dict[str, Any]


class Limit(TypedDict, total=False):
    """What a running container is to be held to: arguments of the SDK's update_container."""

    cpu_period: int
    cpu_quota: int
    mem_limit: int
    memswap_limit: int
    cpuset_cpus: str


@dataclass(frozen=True)
class Belonging:
    """Whose a container, network or volume is.

    ``owner`` is the ticketbench that made it: boot, pid and start. ``state`` stands for its state folder.
    """

    stack_id: str
    run_id: str
    owner: str
    created: str
    state: str = ""
    keep: bool = False

    @property
    def project(self) -> str:
        """The name of the project for `docker compose -p`."""
        return project_name(self.stack_id)

    def labels(self) -> dict[str, str]:
        """Return the labels of everything that belongs to the stack."""
        return {
            STACK: self.stack_id,
            RUN: self.run_id,
            OWNER: self.owner,
            KEEP: "yes" if self.keep else "no",
            CREATED: self.created,
            STATE: self.state,
            f"{_COMPOSE}.project": self.project,
            f"{_COMPOSE}.version": _COMPOSE_VERSION,
        }

    def container(self, service: str, number: int = 1) -> str:
        """Return the name of a service's container."""
        return f"{self.project}-{service}-{number}"

    def network(self, name: str = "default") -> str:
        """Return the name of a network."""
        return f"{self.project}_{name}"

    def volume(self, name: str) -> str:
        """Return the name of a volume."""
        return f"{self.project}_{name}"


def project_name(stack_id: str) -> str:
    """Return the project's name of a stack; Compose takes small letters, digits, - and _ only."""
    return "ticketbench-" + re.sub(r"[^a-z0-9_-]+", "-", stack_id.lower()).strip("-_")


def network_labels(belonging: Belonging, name: str = "default") -> dict[str, str]:
    """Return the labels of a network."""
    return {**belonging.labels(), f"{_COMPOSE}.network": name}


def volume_labels(belonging: Belonging, name: str) -> dict[str, str]:
    """Return the labels of a volume."""
    return {**belonging.labels(), f"{_COMPOSE}.volume": name}


@dataclass(frozen=True)
class Changes:
    """How a container differs from its service in compose.yaml. None: as the file says.

    ``environment`` is added to the file's. ``ports`` are published on the loopback, wherever the engine finds one free.
    ``network_of`` is the id of the container whose network is shared. ``once``: it does one thing and ends. ``files``
    are put in over those of the file, by path. ``number`` counts the containers of a service that has several; from the
    second on it is part of the name by which others reach it.
    """

    command: Sequence[str] | None = None
    environment: Mapping[str, str] | None = None
    ports: Sequence[int] = ()
    network_of: str | None = None
    cpuset: str = ""
    memory_bytes: int | None = None
    once: bool = False
    files: Mapping[str, str] = field(default_factory=dict, repr=False)  # passwords
    number: int = 1

    def part(self, service: str) -> str:
        """Return what the container is called within the stack: ``app``, ``app-2``."""
        return service if self.number == 1 else f"{service}-{self.number}"


def container_body(compose: Compose, name: str, image: str, belonging: Belonging, changes: Changes) -> Body:
    """Return the request for the container of service ``name``, made from the image with the id ``image``."""
    service = compose.services[name]
    ports = (*service.ports, *(Port(target=port, published=0, host_ip="127.0.0.1") for port in changes.ports))
    command = service.command if changes.command is None else changes.command
    body: Body = {
        "Image": image,
        "User": service.user,
        "Env": [f"{key}={value}" for key, value in {**service.environment, **(changes.environment or {})}.items()],
        "HostConfig": _host(service, belonging, changes),
    }
    if command:
        body["Cmd"] = list(command)
    if service.healthcheck is not None:
        body["Healthcheck"] = _health(service)
    if changes.network_of is None:
        body["ExposedPorts"] = {f"{port.target}/tcp": {} for port in ports}
        body["HostConfig"]["PortBindings"] = {
            f"{port.target}/tcp": [{"HostIp": port.host_ip, "HostPort": str(port.published or "")}] for port in ports
        }
        network = belonging.network()
        body["NetworkingConfig"] = {"EndpointsConfig": {network: {"Aliases": [changes.part(name)]}}}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    body["Labels"] = {
        **service.labels,
        **belonging.labels(),
        f"{_COMPOSE}.service": name,
        f"{_COMPOSE}.container-number": str(changes.number),
        f"{_COMPOSE}.oneoff": "True" if changes.once else "False",
        f"{_COMPOSE}.config-hash": digest,
        f"{_COMPOSE}.image": image,
        f"{_COMPOSE}.depends_on": ",".join(f"{need}:{to.condition}:false" for need, to in service.depends_on.items()),
    }
    return body


def _host(service: Service, belonging: Belonging, changes: Changes) -> Body:
    memory_bytes = service.memory_bytes if changes.memory_bytes is None else changes.memory_bytes
    host: Body = {
        "NetworkMode": f"container:{changes.network_of}" if changes.network_of else belonging.network(),
        "Mounts": [
            {
                "Type": mount.type,
                "Source": belonging.volume(mount.source) if mount.type == "volume" else mount.source,
                "Target": mount.target,
                "ReadOnly": mount.read_only,
            }
            for mount in service.volumes
            if mount.type == "volume"  # a folder of this machine: what is in it is copied in, see k6.py
        ],
        "CapDrop": list(service.cap_drop),
        "SecurityOpt": list(service.security_opt),
        "Memory": memory_bytes,
        # memory and swap together: what swaps is not limited, it is slow
        "MemorySwap": memory_bytes,
        "ShmSize": service.shm_bytes,
        "CpusetCpus": changes.cpuset,
    }
    if service.logging is not None:
        host["LogConfig"] = {"Type": service.logging.driver}
    if service.cpus:
        # not "nano_cpus": a container made with it cannot be given another limit
        host |= {"CpuPeriod": CPU_PERIOD_US, "CpuQuota": round(service.cpus * CPU_PERIOD_US)}
    return host


def _health(service: Service) -> Body:
    health = service.healthcheck
    if health is None:
        return {}
    # without a start period: within it newer engines check every 5 s, and each check is CPU of what is measured
    return {
        "Test": list(health.test),
        "Interval": round(health.interval_s * 1e9),
        "Timeout": round(health.timeout_s * 1e9),
        "Retries": health.retries,
    }


def cpu_limit(cpus: float) -> Limit:
    """Return what lets a running container use ``cpus`` cores' time; 0 takes the limit away."""
    return {"cpu_period": CPU_PERIOD_US, "cpu_quota": round(cpus * CPU_PERIOD_US) or NO_LIMIT}


def memory_limit(size_bytes: int) -> Limit:
    """Return what lets a running container use so much memory, and no swap; 0 takes the limit away."""
    return {"mem_limit": size_bytes or NO_LIMIT, "memswap_limit": size_bytes or NO_LIMIT}


def pinned(cores: Sequence[int]) -> Limit:
    """Return what holds a running container to ``cores``."""
    return {"cpuset_cpus": ",".join(map(str, cores))}


def archive(files: Mapping[str, bytes], folders: Sequence[str] = ()) -> bytes:
    """Return a tar of ``files``, by their paths in the container: readable by all; ``folders`` are writable by all."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in folders:
            entry = tarfile.TarInfo(folder.strip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o777
            tar.addfile(entry)
        for path, content in files.items():
            entry = tarfile.TarInfo(str(PurePosixPath(path)).lstrip("/"))
            entry.size, entry.mode = len(content), 0o444
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
