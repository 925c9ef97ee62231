"""compose/compose.yaml as typed records: the one description of the Docker stack, which `docker compose` reads as well.

``compose_file.read_compose`` makes them. Only what that file needs of Compose's format is known, and only in its long
form. Nothing here talks to an engine.
"""

import graphlib
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)

_DURATION: Final = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?) ?([kmgt]?)i?b?", re.IGNORECASE)
_SIZE_POWER: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_ROOT: Final = re.compile(r"(?:root|0+)?(?::.*)?")


def _seconds(value: object) -> object:
    if isinstance(value, str) and value and (found := _DURATION.fullmatch(value)):
        hours, minutes, seconds = (int(part or 0) for part in found.groups())
        return float(3600 * hours + 60 * minutes + seconds)
    raise ValueError("is not a duration such as 90s or 1m30s")


def _bytes(value: object) -> object:
    if isinstance(value, str | int) and not isinstance(value, bool) and (found := _SIZE.fullmatch(str(value))):
        return int(float(found[1]) * 1024 ** _SIZE_POWER[found[2].lower()])
    raise ValueError("is not a size such as 512m, 2g or a number of bytes (0: no limit)")


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("is not a number")  # noqa: TRY004 - pydantic turns a ValueError into a fault
    return value


def _not_root(user: str) -> str:
    if _ROOT.fullmatch(user):
        raise ValueError("is root: nothing of the stack runs as root")
    return user


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("is not an absolute path")
    return path


def _of_service(mode: str) -> str:
    if not mode.removeprefix("service:") or not mode.startswith("service:"):
        raise ValueError("is not service:NAME")
    return mode


def _in_folder(value: str, info: ValidationInfo) -> Path:
    """Return a path relative to compose.yaml's folder as an absolute one."""
    context: dict[str, Path] = info.context or {}
    return (context["folder"] / value).resolve()


Seconds = Annotated[float, BeforeValidator(_seconds)]
Bytes = Annotated[int, BeforeValidator(_bytes)]
Cores = Annotated[float, BeforeValidator(_number), Field(ge=0, le=1024, allow_inf_nan=False)]
FreeOrPort = Annotated[int, BeforeValidator(_number), Field(ge=0, le=65535)]
Inside = Annotated[str, AfterValidator(_absolute)]  # a path in a container


class Record(BaseModel):
    """Frozen, and without any key that is not its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Build(Record):
    """How an image of ours is built: the Dockerfile is named from the ``context`` folder."""

    context: Annotated[Path, BeforeValidator(_in_folder)]
    dockerfile: str
    args: Mapping[str, str] = Field(default_factory=dict)


class Port(Record):
    """A port of the container, published on the loopback. ``published`` 0: the engine chooses, anew at each start."""

    target: Annotated[int, BeforeValidator(_number), Field(ge=1, le=65535)]
    published: FreeOrPort
    host_ip: Literal["127.0.0.1"]


class Mount(Record):
    """A volume by its name in the file, or a folder of this machine by its absolute path."""

    type: Literal["volume", "bind"]
    source: str
    target: Inside
    read_only: bool = False

    @model_validator(mode="after")
    def _resolved(self, info: ValidationInfo) -> Self:
        if self.type == "bind":
            object.__setattr__(self, "source", str(_in_folder(self.source, info)))
        return self


class ConfigUse(Record):
    """A text of :attr:`Compose.configs` and the file in the container that holds it, readable by all (mode 444)."""

    source: str
    target: Inside


class Dependency(Record):
    """What another service must have reached before this one starts; if it is one of those wanted, unless required."""

    condition: Literal["service_started", "service_completed_successfully"]
    required: bool = True


class Health(Record):
    """The engine's own check of a container, in seconds. It runs within what is measured, so it is seldom."""

    test: Annotated[tuple[str, ...], Field(min_length=2)]
    interval_s: Annotated[Seconds, Field(alias="interval", ge=30)]
    timeout_s: Annotated[Seconds, Field(alias="timeout", gt=0)]
    retries: Annotated[int, Field(ge=1)]
    start_period_s: Seconds = Field(alias="start_period")

    @model_validator(mode="after")
    def _without_shell(self) -> Self:
        if self.test[0] != "CMD":
            raise ValueError("test does not begin with CMD")
        return self


class Logging(Record):
    """Where the engine keeps what a container prints."""

    driver: Literal["local"]


class Service(Record):
    """One container. ``user`` is never root; without ``command`` the image's own holds.

    Limits: ``cpus`` in cores' time, sizes in bytes, 0 for none. ``memory_swap_bytes`` is memory and swap together.
    ``network_mode`` is ``service:NAME`` where the network namespace of another service is shared.
    """

    name: str
    image: Annotated[str, Field(min_length=1)]
    user: Annotated[str, AfterValidator(_not_root)]
    build: Build | None = None
    pull_policy: Literal["missing", "build", "never"] = "missing"
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = Field(default_factory=dict, repr=False)  # passwords
    labels: Mapping[str, str] = Field(default_factory=dict)
    profiles: tuple[str, ...] = ()
    network_mode: Annotated[str, AfterValidator(_of_service)] | None = None
    depends_on: Mapping[str, Dependency] = Field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    volumes: tuple[Mount, ...] = ()
    configs: tuple[ConfigUse, ...] = ()
    healthcheck: Health | None = None
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    logging: Logging | None = None
    cpus: Cores = 0.0
    memory_bytes: Bytes = Field(0, alias="mem_limit")
    memory_swap_bytes: Bytes = Field(0, alias="memswap_limit")
    shm_bytes: Bytes = Field(0, alias="shm_size")

    @property
    def network_of(self) -> str | None:
        """The service whose network namespace this one shares; None: it has its own, on the default network."""
        return self.network_mode.removeprefix("service:") if self.network_mode else None

    @property
    def needs(self) -> tuple[str, ...]:
        """The services that are started before this one."""
        return tuple(dict.fromkeys([*self.depends_on, *filter(None, [self.network_of])]))


class Labelled(Record):
    """A volume or a network."""

    labels: Mapping[str, str] = Field(default_factory=dict)


class Text(Record):
    """A configuration file's text, as the file has it."""

    content: str


class Compose(Record):
    """The whole file. ``configs`` maps a name to its text; ``variables`` are the names that the file refers to."""

    name: str
    services: Mapping[str, Service]
    volumes: Mapping[str, Labelled]
    networks: Mapping[str, Labelled]
    configs: Mapping[str, str] = Field(repr=False)  # passwords
    variables: frozenset[str]

    def files(self, service: str) -> dict[str, str]:
        """Return the text of each file that is to be put into the container before it starts."""
        return {use.target: self.configs[use.source] for use in self.services[service].configs}

    def start_order(self, profiles: Collection[str] = ()) -> tuple[Service, ...]:
        """Return the services without a profile, and those of ``profiles``, each after what it needs."""
        wanted = {
            name: service
            for name, service in self.services.items()
            if not service.profiles or set(service.profiles) & set(profiles)
        }
        graph = {name: [need for need in wanted[name].needs if need in wanted] for name in sorted(wanted)}
        return tuple(wanted[name] for name in graphlib.TopologicalSorter(graph).static_order())
