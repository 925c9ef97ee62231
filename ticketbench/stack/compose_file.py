"""Reads compose/compose.yaml, with the variables of an environment put in, and tells every fault at once.

Anything that the records of ``compose.py`` do not know is refused, so that nothing which `docker compose` would do is
silently left out by us.
"""

import graphlib
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ticketbench import paths
from ticketbench.errors import UsageError
from ticketbench.stack.compose import (
    Build,
    Compose,
    ConfigUse,
    Dependency,
    Health,
    Labelled,
    Logging,
    Mount,
    Port,
    Record,
    Service,
    Text,
)

# The variables of these families are all in compose.yaml. Another one of such a name is a slip of the pen, and what it
# was to change would be measured unchanged.
FAMILIES: Final = tuple(f"TICKETBENCH_{word}_" for word in ("IMAGE", "PASSWORD", "PORT", "CPUS", "MEMORY"))

_HINT: Final = "docs/docker.md lists the variables"
# $$ is a dollar; nothing but ${NAME:-default} is used beside it
_REFERENCE: Final = re.compile(
    r"\$(?:(?P<dollar>\$)|\{(?P<name>[A-Za-z_]\w*):-(?P<default>[^${}]*)\}|(?P<odd>.{0,20}))"
)
_PASSWORD: Final = re.compile(r"[A-Za-z0-9_-]*")  # they stand in URLs, in SQL and in a configuration file, unquoted
Place = tuple[str | int, ...]  # of a value in the file: the keys and numbers that lead to it
R = TypeVar("R", bound=Record)


def read_compose(variables: Mapping[str, str], path: Path | None = None) -> Compose:
    """Read the description of the stack, with ``variables`` (an environment) put in; the bundled one by default.

    A variable that is empty counts as not given, as it does for `docker compose`. Raises UsageError listing every
    fault: each names the service, the key, the value's variable, and what is known.
    """
    path = path or paths.data_dir("compose") / "compose.yaml"
    try:
        raw = yaml.safe_load(path.read_bytes())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path.name} cannot be read: {error}") from error
    if not isinstance(raw, dict):
        raise UsageError(f"{path.name} is not a mapping of services, volumes, networks and configs")
    reader = _Reader(path, variables)
    compose = reader.compose({key: value for key, value in raw.items() if not str(key).startswith("x-")})
    if compose is None:
        raise UsageError(*reader.problems, hint=_HINT)
    return compose


class _Reader:
    """Puts variables in, builds the records and notes each fault with the place where it is."""

    def __init__(self, path: Path, variables: Mapping[str, str]) -> None:
        self.where = path.name
        self.problems: list[str] = []
        self._folder = path.resolve().parent
        self._variables = variables
        self._known: set[str] = set()
        self._came_from: dict[Place, set[str]] = {}

    def compose(self, raw: Mapping[str, Any]) -> Compose | None:
        whole = {key: self._filled(value, (key,)) for key, value in raw.items()}
        self._slips()
        known = ("name", "services", "volumes", "networks", "configs")
        self._unknown(self.where, [key for key in whole if key not in known], known)
        services = dict(self._each(whole, "services", Service))
        volumes = dict(self._each(whole, "volumes", Labelled))
        networks = dict(self._each(whole, "networks", Labelled))
        texts = dict(self._each(whole, "configs", Text))
        name = whole.get("name")
        if not isinstance(name, str):
            self.problems.append(f"{self.where}: name is missing or no text")
        self._references(whole)
        if self.problems:
            return None
        return Compose(
            name=str(name),
            services=services,
            volumes=volumes,
            networks=networks,
            configs={key: text.content for key, text in texts.items()},
            variables=frozenset(self._known),
        )

    def _filled(self, value: Any, at: Place) -> Any:
        """Return a value of the file with the variables put in."""
        if isinstance(value, dict):
            return {key: self._filled(part, (*at, key)) for key, part in value.items()}
        if isinstance(value, list):
            return [self._filled(part, (*at, index)) for index, part in enumerate(value)]
        return _REFERENCE.sub(lambda found: self._replaced(found, at), value) if isinstance(value, str) else value

    def _replaced(self, found: re.Match[str], at: Place) -> str:
        if found["dollar"]:
            return "$"
        if (name := found["name"]) is None:
            where = ".".join(map(str, at))
            self.problems.append(f"{self.where}: {where} has {found[0]!r}: known are ${{NAME:-default}} and $$")
            return ""
        self._known.add(name)
        if not (given := self._variables.get(name, "")):
            return found["default"]
        self._came_from.setdefault(at, set()).add(name)
        return given

    def _slips(self) -> None:
        """Note variables of our families that mean nothing, and passwords that would have to be quoted."""
        for name, value in sorted(self._variables.items()):
            family = next((family for family in FAMILIES if name.startswith(family)), None)
            if family is not None and name not in self._known:
                like = ", ".join(sorted(known for known in self._known if known.startswith(family)))
                self.problems.append(f"there is no variable {name}: known are {like or 'none'}")
            elif family == "TICKETBENCH_PASSWORD_" and not _PASSWORD.fullmatch(value):
                self.problems.append(f"{name} may hold letters, digits, - and _ only")

    def _unknown(self, where: str, keys: Collection[Any], known: Collection[str]) -> None:
        self.problems += [f"{where}: there is no key {key!r}: known are {', '.join(known)}" for key in keys]

    def _each(self, whole: Mapping[str, Any], section: str, kind: type[R]) -> Iterator[tuple[str, R]]:
        """Yield the records of a section that are without fault."""
        entries = whole.get(section)
        if not isinstance(entries, dict) or not all(isinstance(name, str) for name in entries):
            if section in whole or kind is Service:
                self.problems.append(f"{self.where}: {section} is not a mapping of names")
            return
        for name, entry in entries.items():
            place = f"{section.removesuffix('s')} {name}"
            if not isinstance(entry, dict):
                self.problems.append(f"{self.where}: {place} is not a mapping")
                continue
            if kind is Service and "name" in entry:
                self._unknown(f"{self.where}: {place}", ["name"], _keys(kind))
            fields = {**entry, "name": name} if kind is Service else entry
            try:
                yield name, kind.model_validate(fields, context={"folder": self._folder})
            except ValidationError as error:
                self._faults(error, kind, (section, name), place)

    def _faults(self, error: ValidationError, kind: type[Record], at: Place, place: str) -> None:
        for fault in error.errors():
            inside = fault["loc"]
            where = f"{self.where}: {place}"
            if fault["type"] == "extra_forbidden":
                owner = "".join(f": {part}" for part in inside[:-1])
                self._unknown(where + owner, [inside[-1]], _keys(_owner(kind, inside)))
                continue
            whole = (*at, *inside)
            given = (names for key, names in self._came_from.items() if key[: len(whole)] == whole)
            origin = ", ".join(sorted(name for names in given for name in names))
            what = ".".join(map(str, inside)) + (f" = {fault['input']!r} ({origin})" if origin else "")
            said = fault["msg"].removeprefix("Value error, ").replace("Input should", "should").replace("Field ", "is ")
            self.problems.append(f"{where}: {what} {said}")

    def _references(self, whole: Mapping[str, Any]) -> None:
        """Note what a service names and the file does not have, and services that wait for each other."""
        services = {name: entry for name, entry in _mapping(whole.get("services")).items() if isinstance(entry, dict)}
        for name, entry in services.items():
            self.problems += [
                f"{self.where}: service {name}: there is no {section.removesuffix('s')} {wanted!r}:"
                f" known are {', '.join(map(str, _mapping(whole.get(section)))) or 'none'}"
                for section, wanted in _named(entry)
                if wanted not in _mapping(whole.get(section))
            ]
        graph = {
            name: [wanted for section, wanted in _named(entry) if section == "services"]
            for name, entry in services.items()
        }
        try:
            graphlib.TopologicalSorter(graph).prepare()
        except graphlib.CycleError as error:
            self.problems.append(f"{self.where}: services wait for each other: {' -> '.join(error.args[1])}")


def _mapping(value: object) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _named(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield section and name of what a service refers to, as far as it is written as it should be."""
    for section in ("volumes", "configs"):
        uses = entry.get(section)
        for use in map(_mapping, uses if isinstance(uses, list) else []):
            if isinstance(use.get("source"), str) and use.get("type") != "bind":
                yield section, use["source"]
    for need in _mapping(entry.get("depends_on")):
        yield "services", str(need)
    mode = entry.get("network_mode")
    if isinstance(mode, str) and mode.startswith("service:"):
        yield "services", mode.removeprefix("service:")


def _keys(kind: type[BaseModel]) -> list[str]:
    """Return a record's keys as the file has them."""
    return [field.alias or name for name, field in kind.model_fields.items() if (kind, name) != (Service, "name")]


_PARTS: Final[dict[str, type[BaseModel]]] = {
    "build": Build,
    "depends_on": Dependency,
    "ports": Port,
    "volumes": Mount,
    "configs": ConfigUse,
    "healthcheck": Health,
    "logging": Logging,
}


def _owner(kind: type[BaseModel], inside: tuple[int | str, ...]) -> type[BaseModel]:
    """Return the record that the last key of ``inside`` was to be one of."""
    return kind if len(inside) == 1 else _PARTS[str(inside[0])]
