"""Whether a dashboard's JSON is what Grafana wants, by the types that its makers publish and by what they cannot say.

The published classes drop keys that they do not know and take any value, so a page is read by them, each value is held
against its declared type, and what they write again must hold all that was read.
"""

import enum
import json
import re
import types
import typing
from collections.abc import Iterator
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import dashboard as grafana
from grafana_foundation_sdk.models import prometheus, units

register_default_plugins()

KNOWN_UNITS = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("_")}
WIDTH = 24
# What Prometheus's annotations have besides (Grafana's manual: "Prometheus annotations"); published types lack them.
OF_PROMETHEUS = {"step", "titleFormat", "textFormat", "tagKeys", "useValueForTime"}
OF_GRAFANA = {"__rate_interval", "__rate_interval_ms", "__interval", "__range"}
_VARIABLE = re.compile(r"\$(\w+)")


def faults(page: dict[str, Any]) -> list[str]:
    """Return what is wrong with a page, empty when nothing is."""
    typed = [*_of_types(page), *_of_annotations(page)]
    return typed or [*_of_panels(page), *_of_variables(page)]  # what is of the right types can be looked into


def panels(page: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the panels that show something."""
    return (panel for panel in page["panels"] if panel["type"] != "row")


# --- by the published types -------------------------------------------------------------------------------------------


def _of_types(page: dict[str, Any]) -> Iterator[str]:
    plain = {**page, "annotations": {"list": [_plain(each) for each in page.get("annotations", {}).get("list", [])]}}
    yield from _read(grafana.Dashboard, plain, "page")


def _plain(annotation: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in annotation.items() if key not in OF_PROMETHEUS | {"target"}}


def _of_annotations(page: dict[str, Any]) -> Iterator[str]:
    for annotation in page["annotations"]["list"]:
        where = f"annotation {annotation.get('name')}"
        yield from _read(prometheus.Dataquery, annotation["target"], f"{where}: target")
        if (annotation["target"].get("expr"), annotation["target"].get("interval")) != (
            annotation.get("expr"),
            annotation.get("step"),
        ):
            yield f"{where}: the query differs between the two ways in which it is written"
        for key in OF_PROMETHEUS & annotation.keys():
            if not isinstance(annotation[key], str):
                yield f"{where}: {key} is no text"


def _read(kind: Any, raw: dict[str, Any], where: str) -> Iterator[str]:
    """Yield what the class makes of ``raw`` that is not ``raw``, and which values are of another type."""
    try:
        made = kind.from_json(raw)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        yield f"{where} cannot be read: {error!r}"
        return
    yield from _lost(raw, json.loads(json.dumps(made, cls=JSONEncoder)), where)
    yield from _mistyped(type(made), made, where)


def _lost(given: Any, kept: Any, where: str) -> Iterator[str]:
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            if key not in kept:
                yield f"{where}: there is no key {key!r}"
            else:
                yield from _lost(value, kept[key], f"{where}.{key}")
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for index, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from _lost(one, other, f"{where}[{index}]")
    elif given != kept:
        yield f"{where} became {kept!r}"


def _mistyped(hint: Any, value: Any, where: str) -> Iterator[str]:
    """Yield which values are not of their declared types; enumerations stay texts and numbers when they are read."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        tries = [list(_mistyped(each, value, where)) for each in arguments]
        if all(tries):
            yield from min(tries, key=len)
    elif origin is list and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _mistyped(arguments[0], item, f"{where}[{index}]")
    elif (words := _words(hint)) is not None:
        if value not in words:
            yield f"{where} is {value!r}: known are {words}"
    elif not _is_one(value, origin or hint):
        yield f"{where} is {value!r}, no {(origin or hint).__name__}"
    else:
        yield from _members(value, where)


def _words(hint: Any) -> list[Any] | None:
    """Return what an enumeration or a literal may be; None for another type."""
    if typing.get_origin(hint) is typing.Literal:
        return list(typing.get_args(hint))
    return [each.value for each in hint] if isinstance(hint, type) and issubclass(hint, enum.Enum) else None


def _is_one(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return kind in (bool, object)
    return isinstance(value, int | float) if kind is float else isinstance(value, kind)


def _members(value: Any, where: str) -> Iterator[str]:
    kind = type(value)
    if kind.__module__.startswith("grafana_foundation_sdk."):
        for name, hint in typing.get_type_hints(kind).items():
            yield from _mistyped(hint, getattr(value, name), f"{where}.{name}")


# --- what types cannot say --------------------------------------------------------------------------------------------


def _of_panels(page: dict[str, Any]) -> Iterator[str]:
    numbers = [panel.get("id") for panel in page["panels"]]
    if len(set(numbers)) < len(numbers) or None in numbers:
        yield f"ids are missing or there twice: {numbers}"
    taken: dict[tuple[int, int], str] = {}
    for panel in page["panels"]:
        title = panel.get("title", "")
        if not title:
            yield f"panel {panel.get('id')} has no title"
        yield from _of_place(panel.get("gridPos", {}), title, taken)
    for panel in panels(page):
        yield from _of_panel(panel)


def _of_place(place: dict[str, int], title: str, taken: dict[tuple[int, int], str]) -> Iterator[str]:
    if set(place) != {"x", "y", "w", "h"} or min(place["w"], place["h"]) < 1 or min(place["x"], place["y"]) < 0:
        yield f"{title}: stands nowhere: {place}"
        return
    if place["x"] + place["w"] > WIDTH:
        yield f"{title}: reaches over the edge"
    cells = [
        (x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])
    ]
    for other in {taken[cell] for cell in cells if cell in taken}:
        yield f"{title}: lies on {other}"
    taken.update(dict.fromkeys(cells, title))


def _of_panel(panel: dict[str, Any]) -> Iterator[str]:
    title = panel["title"]
    if panel["type"] != "timeseries":
        yield f"{title}: {panel['type']!r} is no kind of panel that is read here"
    unit = panel["fieldConfig"]["defaults"].get("unit", "")
    if unit not in KNOWN_UNITS and not unit.startswith("suffix:"):
        yield f"{title}: there is no unit {unit!r}"
    if not panel.get("description"):
        yield f"{title}: says nothing of itself"
    targets = panel.get("targets") or []
    names = [target.get("refId") for target in targets]
    if not names or len(set(names)) < len(names):
        yield f"{title}: queries are missing or named twice: {names}"
    yield from (f"{title}: a query without a legend" for target in targets if not target.get("legendFormat"))


def _of_variables(page: dict[str, Any]) -> Iterator[str]:
    known: set[str] = set(OF_GRAFANA)
    for variable in page["templating"]["list"]:
        yield from _unknown(f"variable {variable['name']}", variable["query"]["query"], known)
        known.add(variable["name"])
    for panel in panels(page):
        for target in panel["targets"]:
            yield from _unknown(panel["title"], target["expr"], known)
    for annotation in page["annotations"]["list"]:
        yield from _unknown(f"annotation {annotation['name']}", annotation["target"]["expr"], known)


def _unknown(where: str, query: str, known: set[str]) -> Iterator[str]:
    yield from (f"{where}: there is no variable ${name}" for name in _VARIABLE.findall(query) if name not in known)
