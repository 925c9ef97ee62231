"""Grafana's form of a page: what is the same in every panel, and where panels stand."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

SOURCE: Final = {"type": "prometheus", "uid": "ticketbench"}  # as compose.yaml provisions it
SCHEMA_VERSION: Final = 41  # of Grafana 11.6 and 12
WIDTH: Final = 24  # columns of Grafana's grid
HEIGHT: Final = 8
TAG: Final = "ticketbench"
OF_TRIAL: Final = 'trial=~"$trial"'


@dataclass(frozen=True)
class Line:
    """What one query draws. ``legend`` may name labels: ``{{component}}``."""

    legend: str
    query: str


@dataclass(frozen=True)
class Panel:
    """A time series with its lines. ``most`` is where the axis ends; ``stacked`` lines add up to the whole."""

    title: str
    unit: str
    description: str
    lines: tuple[Line, ...]
    most: float | None = None
    stacked: bool = False


@dataclass(frozen=True)
class Row:
    """Panels beside each other, under a heading unless that is empty."""

    heading: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Dashboard:
    """A page. ``name`` is its file's and the end of its address."""

    name: str
    title: str
    description: str
    rows: tuple[Row, ...]


# The goal of the trials that are shown, as ticketbench tells it; beside it, and for a k6 that was run by hand, any.
GOALS: Final = (
    f"query_result(count by (goal) (last_over_time(tb_trial_phase{{{OF_TRIAL}}}[$__range]))"
    ' or label_replace(vector(1), "goal", ".+", "", ""))'
)


def variables() -> list[dict[str, Any]]:
    """Return what can be chosen at the top of the page."""
    everything = {"text": ["All"], "value": ["$__all"]}
    common = {"type": "query", "datasource": SOURCE, "refresh": 2}
    return [
        {
            **common,
            "name": "trial",
            "label": "Trial",
            "description": "Run and trial, the newest first. All: whatever k6 sent, also by hand.",
            "query": {"qryType": 1, "query": "label_values(tb_trial_phase, trial)", "refId": "trial"},
            "sort": 2,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": everything,
        },
        {
            **common,
            "name": "goal",
            "label": "Goal",
            "description": "The requests whose success is goodput, by k6's name tag. .+ stands for all requests.",
            "query": {"qryType": 3, "query": GOALS, "refId": "goal"},
            "regex": '/goal="([^"]*)"/',
            "sort": 0,
        },
    ]


def annotation(phase: str, colour: str) -> dict[str, Any]:
    """Return the regions in which a phase held.

    A page of many minutes looks only every so many seconds: a window that lies between two looks is found as well.
    """
    series = f'tb_trial_phase{{{OF_TRIAL},phase="{phase}"}}'
    query = f"max by (trial, variant) ({series} > 0 or max_over_time({series}[$__interval]))"
    return {
        "name": phase,
        "datasource": SOURCE,
        "enable": True,
        "iconColor": colour,
        "target": {"refId": phase, "expr": query, "interval": "1s"},
        # the same in the words of Grafana before 12
        "expr": query,
        "step": "1s",
        "titleFormat": f"{phase}: {{{{variant}}}}",
        "textFormat": "{{trial}}",
        "tagKeys": "",
    }


def panel(number: int, shown: Panel, place: dict[str, int]) -> dict[str, Any]:
    """Return a panel's JSON."""
    custom: dict[str, Any] = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 40 if shown.stacked else 0,
        "showPoints": "auto",
        "spanNulls": False,
        "stacking": {"mode": "normal" if shown.stacked else "none", "group": "A"},
    }
    defaults: dict[str, Any] = {"unit": shown.unit, "min": 0, "custom": custom}
    if shown.most is not None:
        defaults["max"] = shown.most
    return {
        "id": number,
        "type": "timeseries",
        "title": shown.title,
        "description": shown.description,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": SOURCE,
                "editorMode": "code",
                "expr": line.query,
                "legendFormat": line.legend,
                "range": True,
            }
            for index, line in enumerate(shown.lines)
        ],
    }


def panels(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """Yield the panels row by row, each as wide as its row lets it be."""
    number, y = 1, 0
    for row in rows:
        if row.heading:
            yield {
                "id": number,
                "type": "row",
                "title": row.heading,
                "collapsed": False,
                "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
                "panels": [],
            }
            number, y = number + 1, y + 1
        width = WIDTH // len(row.panels)
        for column, shown in enumerate(row.panels):
            yield panel(number, shown, {"x": column * width, "y": y, "w": width, "h": HEIGHT})
            number += 1
        y += HEIGHT


def dashboard(page: Dashboard) -> dict[str, Any]:
    """Return a whole page's JSON."""
    return {
        "uid": f"ticketbench-{page.name}",
        "title": page.title,
        "description": page.description,
        "tags": [TAG],
        "schemaVersion": SCHEMA_VERSION,
        "timezone": "browser",
        "editable": True,
        "graphTooltip": 1,
        "time": {"from": "now-15m", "to": "now"},
        "refresh": "5s",
        "timepicker": {"refresh_intervals": ["5s", "10s", "30s", "1m"]},
        "links": [
            {
                "title": "ticketbench",
                "type": "dashboards",
                "icon": "external link",
                "tooltip": "the other pages, with the same time and trial",
                "tags": [TAG],
                "asDropdown": False,
                "targetBlank": False,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "templating": {"list": variables()},
        "annotations": {"list": [annotation("warm-up", "yellow"), annotation("window", "green")]},
        "panels": list(panels(page.rows)),
    }
