"""Grafana's dashboards: they are what the script writes, and what Grafana reads. Grafana itself cannot run here."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from scripts.dashboards.__main__ import FOLDER, files
from scripts.dashboards.form import SOURCE
from tests.unit.grafana_form import faults, panels
from ticketbench.stack.compose_file import read_compose

PAGES = {path.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def test_the_files_are_those_of_the_script() -> None:
    assert {path.name: path.read_text() for path in FOLDER.iterdir()} == files()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_grafana_reads(name: str) -> None:
    assert faults(PAGES[name]) == []


def test_pages_have_addresses_and_titles_of_their_own() -> None:
    assert len({page["uid"] for page in PAGES.values()}) == len(PAGES) == 2
    assert len({page["title"] for page in PAGES.values()}) == 2
    assert all(len(page["uid"]) <= 40 for page in PAGES.values())  # Grafana takes no longer one


def test_grafana_gets_the_pages_and_the_source_that_they_name() -> None:
    compose = read_compose({})
    service = compose.services["grafana"]
    provisioned = compose.files("grafana")
    source, pages = (
        yaml.safe_load(provisioned[f"/etc/grafana/provisioning/{kind}/ticketbench.yml"])
        for kind in ("datasources", "dashboards")
    )
    (known,) = source["datasources"]
    assert {"type": known["type"], "uid": known["uid"]} == SOURCE
    (provider,) = pages["providers"]
    (mount,) = service.volumes
    assert mount.source == str(FOLDER)
    assert mount.read_only
    assert provider["type"] == "file"
    assert provider["options"]["path"] == mount.target
    folder, _, home = service.environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].rpartition("/")
    assert folder == mount.target
    assert home in PAGES


def test_everything_is_asked_of_that_source() -> None:
    def sources(part: Any) -> Iterator[Any]:
        if isinstance(part, dict):
            if "datasource" in part:
                yield part["datasource"]
            part = list(part.values())
        if isinstance(part, list):
            for each in part:
                yield from sources(each)

    for page in PAGES.values():
        found = list(sources(page))
        targets = sum(len(panel["targets"]) for panel in panels(page))
        assert len(found) == len(list(panels(page))) + targets + 2 + 2  # two variables, two annotations
        assert all(source == SOURCE for source in found)


# --- the check itself -------------------------------------------------------------------------------------------------

CHANGES: dict[str, tuple[tuple[str | int, ...], Any, str]] = {
    "a key of the page": (("refrsh",), "5s", "there is no key 'refrsh'"),
    "a key of a panel": (("panels", 0, "descripton"), "x", "there is no key 'descripton'"),
    "a key of a query": (("panels", 0, "targets", 0, "legend"), "x", "there is no key 'legend'"),
    "a key of the lines": (("panels", 0, "fieldConfig", "defaults", "custom", "linewidth"), 2, "no key 'linewidth'"),
    "a key of the options": (("panels", 0, "options", "tooltips"), {}, "there is no key 'tooltips'"),
    "a key of an annotation": (("annotations", "list", 0, "textformat"), "x", "there is no key 'textformat'"),
    "a key of an annotation's query": (("annotations", "list", 0, "target", "exp"), "x", "there is no key 'exp'"),
    "a key of a variable": (("templating", "list", 0, "includeall"), True, "there is no key 'includeall'"),
    "a word of the lines": (
        ("panels", 0, "fieldConfig", "defaults", "custom", "drawStyle"), "lines", "is 'lines': known are",
    ),
    "a word of the legend": (("panels", 0, "options", "legend", "placement"), "below", "is 'below': known are"),
    "a word of a variable": (("templating", "list", 0, "type"), "querry", "is 'querry': known are"),
    "a number as text": (("panels", 0, "gridPos", "h"), "8", "is '8', no int"),
    "a text as number": (("panels", 0, "title"), 7, "is 7, no str"),
    "a crosshair that is none": (("graphTooltip",), 3, "is 3: known are"),
    "a kind of panel": (("panels", 0, "type"), "timeserie", "'timeserie' is no kind of panel"),
    "a unit": (("panels", 0, "fieldConfig", "defaults", "unit"), "secs", "there is no unit 'secs'"),
    "an id": (("panels", 1, "id"), 1, "ids are missing or there twice"),
    "a place that is taken": (("panels", 1, "gridPos", "x"), 11, "Traffic: lies on Latency"),
    "a place beyond the edge": (("panels", 1, "gridPos", "w"), 13, "Traffic: reaches over the edge"),
    "a query's name": (("panels", 0, "targets", 1, "refId"), "A", "named twice"),
    "a variable": (("panels", 0, "targets", 0, "expr"), 'x{trial="$tral"}', "there is no variable $tral"),
    "a step that is only half changed": (("annotations", "list", 0, "step"), "2s", "differs between the two ways"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_slip_of_the_pen_is_a_fault(change: str) -> None:
    place, value, said = CHANGES[change]
    page = copy.deepcopy(PAGES["golden-signals.json"])
    part = page
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    assert any(said in fault for fault in faults(page)), faults(page)
