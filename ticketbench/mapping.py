"""Which series of a system's own Prometheus stand for which of our signals: a small TOML file, read and checked here.

    title = "my shop"
    samples = 'http_requests_total{$selector}'   # a series of the system: its samples' times are the scrapes

    [[signal]]                                   # a column of docs/signals.md
    column = "app.requests"
    query = 'sum by (handler, method, status) (http_requests_total{$selector})'
    labels = { route = "handler", method = "method", status = "status" }

    [[resource]]                                 # anything else that can be used up
    name = "stock"
    used = 'sum(tickets_sold{$selector})'
    capacity = 'sum(tickets_capacity{$selector})'

``$selector`` becomes the label matchers of ``--prometheus-selector``. docs/external.md explains every key.
"""

import hashlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ticketbench import paths
from ticketbench.errors import UsageError
from ticketbench.model import MappedSignal, SignalKind
from ticketbench.toml_file import read_toml

DEFAULT_MAPPING: Final = "prometheus-fastapi-instrumentator"

RESOURCE_USED: Final = "resource.used"
RESOURCE_CAPACITY: Final = "resource.capacity"
RESOURCE_QUEUE: Final = "resource.queue"


@dataclass(frozen=True)
class Known:
    """A column that a mapping may fill: how it counts, its unit, its labels, and whether it needs a component."""

    kind: SignalKind
    unit: str
    labels: tuple[str, ...] = ()
    component: bool = False


COMPONENTS: Final = ("app", "postgres", "redis")
KNOWN: Final[dict[str, Known]] = {
    "app.requests": Known("counter", "requests", ("method", "route", "status")),
    "app.duration_s": Known("counter", "s", ("method", "route")),
    "app.inflight": Known("gauge", "requests"),
    "app.pool_max": Known("gauge", "connections"),
    "app.pool_checked_out": Known("gauge", "connections"),
    "app.pool_waiters": Known("gauge", "requests"),
    "app.pool_wait_s": Known("counter", "s"),
    "app.pool_hold_s": Known("counter", "s"),
    "app.loop_lag_s": Known("counter", "s"),
    "app.loop_lag_samples": Known("counter", "samples"),
    "app.gc_s": Known("counter", "s"),
    "cpu_s": Known("counter", "s", component=True),
    "memory_bytes": Known("gauge", "bytes", component=True),
    "pg.wait_s": Known("counter", "s", ("wait",)),
    "pg.backends": Known("gauge", "connections", ("state",)),
    "pg.max_connections": Known("gauge", "connections"),
    "pg.exec_s": Known("counter", "s"),
    "pg.calls": Known("counter", "statements"),
}

_KEYS: Final = ("title", "samples", "signal", "resource")
_SIGNAL_KEYS: Final = ("column", "kind", "query", "labels", "component", "optional")
_RESOURCE_KEYS: Final = ("name", "used", "capacity", "queue", "unit")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_PLACEHOLDER: Final = re.compile(r"\$([A-Za-z_]\w*)")
_SELECTOR_PLACEHOLDER: Final = "$selector"
_MATCHER: Final = r'[A-Za-z_]\w*\s*(?:=~|!~|!=|=)\s*"(?:[^"\\\n]|\\.)*"'
_SELECTOR: Final = re.compile(rf"\s*{_MATCHER}(?:\s*,\s*{_MATCHER})*\s*,?\s*")


@dataclass(frozen=True)
class Query:
    """One query: the column's ``name``, its fixed labels, and the labels that are taken over (ours: theirs).

    ``constant`` stands for the query where a resource's capacity is a plain number. ``optional``: many systems do not
    export it, so that it is missing is not worth a word.
    """

    name: str
    kind: SignalKind
    unit: str
    promql: str
    fixed: Mapping[str, str]
    labels: Mapping[str, str]
    constant: float | None = None
    optional: bool = False


@dataclass(frozen=True)
class SignalMapping:
    """A checked mapping. ``name`` is a bundled one's, or the file's without its folder."""

    name: str
    sha256: str
    samples: str
    queries: tuple[Query, ...]

    def signals(self) -> tuple[MappedSignal, ...]:
        """Return what is recorded of it: the columns, without the queries (these may name hosts)."""
        return tuple(
            MappedSignal(column=column_of(query.name, query.fixed), kind=query.kind, unit=query.unit)
            for query in self.queries
        )


@dataclass(frozen=True)
class SeriesSource:
    """A Prometheus of somebody else's: where it is, what to take from it, and which of its targets is the system.

    ``components_here``: the system runs on this machine, so its CPU is a part of this machine's. ``selector_said`` is
    the option, variable or key that gave the selector, for messages.
    """

    url: str
    mapping: SignalMapping
    selector: str
    components_here: bool
    selector_said: str = "--prometheus-selector"

    def expanded(self, promql: str) -> str:
        """Return a query of the mapping, ready to be asked."""
        return promql.replace(_SELECTOR_PLACEHOLDER, self.selector)


def column_of(name: str, labels: Mapping[str, str]) -> str:
    """Return ``name{label=value}`` as series.csv.gz has it."""
    return name + ("{" + ",".join(f"{key}={labels[key]}" for key in sorted(labels)) + "}" if labels else "")


def bundled_mappings() -> tuple[str, ...]:
    """Return the names of the mappings that come with ticketbench."""
    return tuple(sorted(path.stem for path in (paths.data_dir("scenarios") / "mappings").glob("*.toml")))


def find_mapping(option: str, text: str) -> Path:
    """Return the file that ``text`` names: a bundled mapping, or a path. Raises UsageError."""
    if text in bundled_mappings():
        return paths.data_dir("scenarios") / "mappings" / f"{text}.toml"
    paths.require_reachable(Path(text), option)
    if Path(text).is_file():
        return Path(text)
    known = ", ".join(bundled_mappings())
    raise UsageError(f"{option} {text!r} is neither a file nor a bundled mapping: bundled are {known}")


def check_selector(option: str, text: str, problems: list[str]) -> str:
    """Return label matchers as they go between the braces of a query; what is none is added to ``problems``."""
    bare = text.strip().removeprefix("{").removesuffix("}")
    if bare and not _SELECTOR.fullmatch(bare):
        problems.append(f'{option} {text!r} is not a list of label matchers, such as job="shop",instance=~"web.+"')
    return bare.strip().rstrip(",")


def read_mapping(path: Path) -> SignalMapping:
    """Read and check a mapping. Raises UsageError listing every fault."""
    where = f"mapping {path.name}"
    raw, content = read_toml(path, where)
    reader = _Reader(where)
    reader.keys(raw, _KEYS, where)
    reader.text(raw, "title", where, optional=True)
    samples = reader.promql(raw, "samples", where)
    queries = [
        *(q for n, table in reader.tables(raw, "signal") for q in reader.signal(f"{where}: signal {n}", table)),
        *(q for n, table in reader.tables(raw, "resource") for q in reader.resource(f"{where}: resource {n}", table)),
    ]
    if not queries and not reader.problems:
        reader.problems.append(f"{where} maps nothing: give at least one [[signal]] or [[resource]]")
    reader.twice(queries)
    if reader.problems:
        raise UsageError(*reader.problems, hint="docs/external.md, mapping files")
    name = path.stem if path.parent == paths.data_dir("scenarios") / "mappings" else path.name
    return SignalMapping(name, hashlib.sha256(content).hexdigest(), samples, tuple(queries))


class _Reader:
    """Checks the tables of a mapping and notes each fault with the place where it is."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.problems: list[str] = []

    def keys(self, raw: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
        self.problems += [
            f"{where}: there is no key {key!r}: known are {', '.join(known)}" for key in raw if key not in known
        ]

    def tables(self, raw: Mapping[str, Any], key: str) -> list[tuple[int, dict[str, Any]]]:
        value = raw.get(key, [])
        if isinstance(value, list) and all(isinstance(item, dict) for item in value):
            return list(enumerate(value, start=1))
        self.problems.append(f"{self.where}: {key} is not a list of tables: each begins with [[{key}]]")
        return []

    def text(self, raw: Mapping[str, Any], key: str, where: str, *, optional: bool = False) -> str:
        value = raw.get(key)
        if isinstance(value, str) and value.strip():
            return value.strip()
        if value is not None or not optional:
            self.problems.append(f"{where}: {key} is missing" if value is None else f"{where}: {key} is not text")
        return ""

    def promql(self, raw: Mapping[str, Any], key: str, where: str, *, optional: bool = False) -> str:
        query = self.text(raw, key, where, optional=optional)
        for name in _PLACEHOLDER.findall(query):
            if f"${name}" != _SELECTOR_PLACEHOLDER:
                self.problems.append(f"{where}: {key} has the placeholder ${name}: known is {_SELECTOR_PLACEHOLDER}")
        return query

    def signal(self, where: str, raw: Mapping[str, Any]) -> list[Query]:
        self.keys(raw, _SIGNAL_KEYS, where)
        name = self.text(raw, "column", where)
        query = self.promql(raw, "query", where)
        known = KNOWN.get(name)
        if known is None:
            if name:
                self.problems.append(f"{where}: column = {name!r} is not known: known are {', '.join(KNOWN)}")
            return []
        if raw.get("kind", known.kind) != known.kind:
            self.problems.append(f"{where}: kind = {raw['kind']!r} is not possible: {name} is a {known.kind}")
        fixed = {}
        if known.component:
            fixed = {"component": str(raw.get("component", "app"))}
            if fixed["component"] not in COMPONENTS:
                self.problems.append(
                    f"{where}: component = {raw['component']!r} is not known: known are {', '.join(COMPONENTS)}"
                )
        elif "component" in raw:
            self.problems.append(f"{where}: {name} takes no component")
        labels = self._labels(where, name, known, raw)
        optional = raw.get("optional", False)
        if not isinstance(optional, bool):
            self.problems.append(f"{where}: optional = {optional!r} is not possible: known are true, false")
        return [Query(name, known.kind, known.unit, query, fixed, labels, optional=optional is True)]

    def _labels(self, where: str, name: str, known: Known, raw: Mapping[str, Any]) -> dict[str, str]:
        labels = raw.get("labels", {})
        if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
            self.problems.append(f'{where}: labels is not a table such as {{ route = "handler" }}')
            return {}
        for label in labels:
            if label not in known.labels:
                takes = f"takes {', '.join(known.labels)}" if known.labels else "takes none"
                self.problems.append(f"{where}: label {label!r} is not possible: {name} {takes}")
        return labels

    def resource(self, where: str, raw: Mapping[str, Any]) -> list[Query]:
        self.keys(raw, _RESOURCE_KEYS, where)
        name = self.text(raw, "name", where)
        if name and not _NAME.fullmatch(name):
            self.problems.append(f"{where}: name = {name!r} is not possible: lower-case letters, digits and _")
        unit = self.text(raw, "unit", where, optional=True)
        fixed = {"resource": name}
        queries = [
            Query(column, "gauge", unit, promql, fixed, {})
            for key, column in (("used", RESOURCE_USED), ("queue", RESOURCE_QUEUE))
            if (promql := self.promql(raw, key, where, optional=True))
        ]
        if not queries:
            self.problems.append(f"{where}: give used (with capacity), queue, or both")
        if ("used" in raw) != ("capacity" in raw):
            self.problems.append(f"{where}: used and capacity belong together")
        capacity = raw.get("capacity")
        if isinstance(capacity, int | float) and not isinstance(capacity, bool):
            if 0 < capacity <= sys.float_info.max:  # TOML has infinity, and whole numbers without bounds
                queries.append(Query(RESOURCE_CAPACITY, "gauge", unit, "", fixed, {}, constant=float(capacity)))
            else:
                self.problems.append(f"{where}: capacity = {capacity} is not possible: it takes a number above 0")
        elif capacity is not None and (promql := self.promql(raw, "capacity", where)):
            queries.append(Query(RESOURCE_CAPACITY, "gauge", unit, promql, fixed, {}))
        return queries

    def twice(self, queries: list[Query]) -> None:
        seen: set[str] = set()
        for query in queries:
            column = column_of(query.name, query.fixed)
            if column in seen:
                self.problems.append(f"{self.where}: {column} is mapped twice")
            seen.add(column)
