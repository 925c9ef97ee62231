"""Grafana's dashboards on a Prometheus that holds a finished run: every query, asked as Grafana asks it, has an answer.

Grafana itself cannot run here. What it does with variables and annotations is done again, from its manual.
"""

import itertools
import json
import math
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from program import Program

from ticketbench.isolation import probe
from ticketbench.stack import state
from ticketbench.stack.compose_file import read_compose

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("docker")]

FOLDER = Path(__file__).parents[2] / "compose" / "grafana"
PAGES = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
PANELS = [(name, panel["title"]) for name, page in PAGES.items() for panel in page["panels"] if panel["type"] != "row"]
LIMITS_WANTED = ("resources", "Held back by a CPU limit")
# Some of everything: a pool that is too small for the load, waits that are given up, too few virtual users for what is
# offered, and more buyers than tickets.
LOAD = {
    "duration": 12, "rate": 80, "vus": 30, "stock": 150, "pool_size": 3, "max_overflow": 0, "pool_timeout_s": 0.2,
    "payment_ms": 60,
}  # fmt: skip


@dataclass(frozen=True)
class Kept:
    """A stack that was kept after its run, and what that run wrote down."""

    prometheus: str
    trial: dict[str, Any]
    analysis: dict[str, Any]
    docker_stack: str  # empty: it is local
    limited: bool

    @property
    def label(self) -> str:
        return f"{self.analysis['run_id']}-001"

    @property
    def window(self) -> tuple[float, float]:
        return self.trial["window"]["start_s"], self.trial["window"]["end_s"]

    def ask(self, path: str, **parameters: str | float) -> Any:
        answer = httpx.get(f"{self.prometheus}/api/v1/{path}", params=parameters, timeout=20)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def range(self, query: str, step_s: int = 1) -> list[dict[str, Any]]:
        """Ask for the run as a page over it does."""
        start_s, end_s = self.window
        # Grafana's steps are multiples of their length; the last one here is after all that happened
        first_s, last_s = math.floor((start_s - 15) / step_s) * step_s, math.ceil((end_s + 15) / step_s) * step_s
        series: list[dict[str, Any]] = self.ask("query_range", query=query, start=first_s, end=last_s, step=step_s)[
            "result"
        ]
        return series


def filled(query: str, chosen: Mapping[str, str], step_s: int = 1) -> str:
    """Put in what Grafana puts in for a data source that is scraped each second."""
    known = {
        **{name: value.replace("\\", "\\\\") for name, value in chosen.items()},
        "__interval": f"{step_s}s",
        "__rate_interval": f"{max(step_s + 1, 4)}s",
        "__rate_interval_ms": f"{max(step_s + 1, 4)}000",
        "__range": "3600s",
    }
    return re.sub(r"\$(\w+)", lambda name: known[name[1]], query)


def options(kept: Kept, variable: Mapping[str, Any], chosen: Mapping[str, str]) -> list[str]:
    """Return what Grafana offers for a variable."""
    query = filled(variable["query"]["query"], chosen)
    if of_label := re.fullmatch(r"label_values\((\w+), (\w+)\)", query):
        values: list[str] = kept.ask(f"label/{of_label[2]}/values", **{"match[]": of_label[1]})
        return values
    of_result = re.fullmatch(r"query_result\((.+)\)", query)
    assert of_result is not None, query
    texts = [
        "{" + ",".join(f'{name}="{value}"' for name, value in each["metric"].items()) + "}"
        for each in kept.ask("query", query=of_result[1], time=kept.window[1] + 10)["result"]
    ]
    pattern = re.compile(variable["regex"].strip("/"))
    return [match[1] for match in map(pattern.search, texts) if match]


@pytest.fixture(scope="module", params=["local", "docker"])
def kept(shared_program: Program, request: pytest.FixtureRequest) -> Iterator[Kept]:
    stack: str = request.param
    if stack == "docker":
        shared_program.with_engine(request.getfixturevalue("stack_images"))
    limited = stack == "docker" or not probe().no_limits
    levels = {**LOAD, **({"app_cpus": 0.5} if limited else {})}
    settings = [f"--set={name}={level}" for name, level in levels.items()]
    done = shared_program("run", "spike", "--stack", stack, *settings, "--keep", "-o", stack)
    assert done.code in (0, 1, 3), done.err
    (run,) = (path.parent for path in shared_program.folder.glob(f"{stack}/*/run.json"))
    (up,) = (each for each in json.loads(shared_program("status", "--json").out) if each["run_id"] == run.name)
    try:
        yield Kept(
            f"http://{_address(run.name) if stack == 'docker' else _on_loopback(up)}",
            json.loads((run / "trials" / "001" / "trial.json").read_text()),
            json.loads((run / "analysis.json").read_text()),
            up["stack_id"] if stack == "docker" else "",
            limited,
        )
    finally:
        with pytest.MonkeyPatch.context() as patch:  # not by `down`, which ends what others have kept as well
            patch.setenv("TICKETBENCH_STATE", str(shared_program.state))
            for each in state.running():
                state.remove(each)


def _on_loopback(up: Mapping[str, Any]) -> str:
    return f"127.0.0.1:{up['components']['prometheus']['port']}"


def _address(run: str) -> str:
    """Return where the Prometheus of a run's containers is published."""
    labels = (f"ticketbench.run={run}", "com.docker.compose.service=prometheus")
    container = _docker("ps", "-q", *(f"--filter=label={label}" for label in labels))
    return _docker("port", container, "9090").splitlines()[0]


def _docker(*arguments: str, **env: str) -> str:
    done = subprocess.run(["docker", *arguments], env={**os.environ, **env}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def choices(kept: Kept) -> tuple[dict[str, str], ...]:
    """What stands at the top of the page when it is opened, and when a trial is chosen."""
    (trial, goal), other = (page["templating"]["list"] for page in PAGES.values())
    assert [trial, goal] == other
    assert options(kept, trial, {}) == [kept.label]
    made = []
    for value in (trial["allValue"], kept.label):
        goals = options(kept, goal, {"trial": value})
        assert goals == ["purchase", ".+"]  # the first one is chosen
        made.append({"trial": value, "goal": goals[0]})
    return tuple(made)


@pytest.mark.parametrize(("page", "title"), PANELS)
def test_every_line_has_data(kept: Kept, choices: tuple[dict[str, str], ...], page: str, title: str) -> None:
    if (page, title) == LIMITS_WANTED and not kept.limited:
        pytest.skip(probe().no_limits)
    (panel,) = (panel for panel in PAGES[page]["panels"] if panel["title"] == title)
    for target, chosen in itertools.product(panel["targets"], choices):
        series = kept.range(filled(target["expr"], chosen))
        numbers = [float(value) for each in series for _, value in each["values"]]
        assert any(map(math.isfinite, numbers)), target["legendFormat"]
        assert all(number >= 0 for number in numbers if not math.isnan(number)), target["legendFormat"]
        named = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
        # what tells the lines apart is a label that they have: one series has no more than one value of it
        assert all(set(named) <= {*each["metric"], "error_code"} for each in series)
        assert len({tuple(each["metric"].get(name) for name in named) for each in series}) == len(series)


def line(kept: Kept, chosen: dict[str, str], title: str, legend: str, page: str = "golden-signals") -> list[float]:
    (panel,) = (panel for panel in PAGES[page]["panels"] if panel["title"] == title)
    (target,) = (target for target in panel["targets"] if target["legendFormat"] == legend)
    (series,) = kept.range(filled(target["expr"], chosen))
    return [float(value) for _, value in series["values"]]


@pytest.mark.parametrize("choice", [0, 1])
def test_the_lines_say_what_the_report_says(kept: Kept, choices: tuple[dict[str, str], ...], choice: int) -> None:
    chosen = choices[choice]
    (variant,) = kept.analysis["variants"]
    signals = variant["signals"]
    assert max(line(kept, chosen, "Traffic", "offered")) == pytest.approx(LOAD["rate"], rel=0.001)
    # the warm-up's are shown as well; what came in the last seconds is cut off where k6's series end
    acknowledged = variant["integrity"]["acknowledged"]
    assert 0.8 * acknowledged <= sum(line(kept, chosen, "Traffic", "goodput")) <= acknowledged
    p95 = [value for value in line(kept, chosen, "Latency of successes", "p95") if math.isfinite(value)]
    assert min(p95) <= signals["latency_s"]["p95"] <= max(p95) * 1.1
    assert max(line(kept, chosen, "Errors", "failed")) >= signals["errors"]["ratio"] > 0  # be it a single one
    pool = signals["saturation"]["db_pool"]  # of the whole window: some seconds of it are busier
    assert max(line(kept, chosen, "Utilisation", "connection pool")) >= pool["utilisation"] > 0
    assert max(line(kept, chosen, "Queued work", "for a connection")) >= pool["queue"] > 0
    assert max(line(kept, chosen, "Journeys", "dropped", "resources")) > 0
    assert max(line(kept, chosen, "Connections in use", "at most", "resources")) == LOAD["pool_size"]


def regions(series: Mapping[str, Any], step_s: int) -> list[tuple[float, float]]:
    """Join what is above 0 to regions as Grafana does: what is at most a step apart belongs together."""
    found: list[tuple[float, float]] = []
    for at_s, value in series["values"]:
        if float(value) > 0:
            if found and at_s <= found[-1][1] + step_s:
                found[-1] = (found[-1][0], at_s)
            else:
                found.append((at_s, at_s))
    return found


@pytest.mark.parametrize("step_s", [1, 10, 30])
@pytest.mark.parametrize("page", PAGES)
def test_warm_up_and_window_are_regions(
    kept: Kept, choices: tuple[dict[str, str], ...], page: str, step_s: int
) -> None:
    found, chosen = {}, choices[0]
    for annotation in PAGES[page]["annotations"]["list"]:
        (series,) = kept.range(filled(annotation["target"]["expr"], chosen, step_s), step_s)
        assert series["metric"] == {"trial": kept.label, "variant": kept.trial["trial"]["variant"]}
        (found[annotation["name"]],) = regions(series, step_s)
    start_s, _ = kept.window
    shown_s = found["window"]
    # each end is seen by the sampler's next look, and drawn at the page's next step
    assert start_s - 1 <= shown_s[0] <= start_s + 2 + step_s
    assert found["warm-up"][0] <= shown_s[0]
    if step_s == 1:
        scheduled_s = LOAD["duration"]
        assert shown_s[1] == pytest.approx(start_s + scheduled_s, abs=2.5)
        assert found["warm-up"][1] <= shown_s[0]


LOOK = """
import json, os, urllib.request
folder, _, home = os.environ["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].rpartition("/")
pages = {name: json.load(open(os.path.join(folder, name)))["uid"] for name in os.listdir(folder)}
answer = urllib.request.urlopen("http://prometheus:9090/api/v1/query?query=count(tb_trial_phase)")
provisioned = [os.listdir("/etc/grafana/provisioning/" + kind) for kind in ("datasources", "dashboards")]
print(json.dumps([os.getuid(), home, pages, json.load(answer)["status"], provisioned]))
"""


@pytest.mark.parametrize("kept", ["docker"], indirect=True)  # beside local processes there is no network for it
def test_grafanas_container_sees_the_pages_and_the_runs_prometheus(kept: Kept, request: pytest.FixtureRequest) -> None:
    """With a Python in Grafana's place: what is tried is all around Grafana, as docs/docker.md has it brought up."""
    images: dict[str, str] = request.getfixturevalue("stack_images")
    build = read_compose(images).services["app"].build
    assert build is not None
    said = _docker(
        "compose", "-f", str(FOLDER.parent / "compose.yaml"), "-p", f"ticketbench-{kept.docker_stack.lower()}",
        "--profile", "grafana", "run", "--rm", "--no-deps", "-T", "--entrypoint", "python3", "grafana", "-c", LOOK,
        TICKETBENCH_STACK_LABEL=kept.docker_stack, TICKETBENCH_IMAGE_GRAFANA=build.args["PYTHON_IMAGE"],
    )  # fmt: skip
    assert json.loads(said.splitlines()[-1]) == [
        472,
        "golden-signals.json",
        {f"{name}.json": page["uid"] for name, page in PAGES.items()},
        "success",
        [["ticketbench.yml"], ["ticketbench.yml"]],
    ]
