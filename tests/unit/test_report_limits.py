"""CPU limits in a report: how much of them was used, and for how long they held a component back."""

import json
from dataclasses import replace

from tests.unit.report_page import Page, changed
from ticketbench.conclusions import Saturation
from ticketbench.levels import level_words
from ticketbench.report import ReportInput, html, markdown
from ticketbench.report.export import json_

APP = Saturation(utilisation=0.98, queue=0.0609, unit="threads waiting for a core", limit_cores=0.3, throttled=0.62)


def limited(spike: ReportInput, app: Saturation = APP, **others: Saturation) -> ReportInput:
    signals = spike.analysis.variants[0].signals
    saturation = {"db_pool": Saturation(utilisation=0.4, queue=0.0), "app_cpu": app, **others}
    return changed(spike, signals=signals.model_copy(update={"saturation": saturation}))


def test_a_limit_that_holds_back_is_told_beside_the_busiest_resource(spike: ReportInput) -> None:
    cell = Page(html(limited(spike))).tables["The variants compared"][1][9]
    assert cell.startswith("app CPU 98 % of its limit")
    assert "<0.1 threads waiting for a core" in cell
    assert "held back by its CPU limit 0.6 s of each second" in cell
    idle = Page(html(limited(spike, APP.model_copy(update={"throttled": 0.01})))).tables["The variants compared"][1][9]
    assert "held back" not in idle


def test_another_component_than_the_busiest_is_named_with_its_limit(spike: ReportInput) -> None:
    redis = Saturation(utilisation=0.2, queue=0.0, limit_cores=0.1, throttled=1.24)
    cell = Page(html(limited(spike, redis_cpu=redis))).tables["The variants compared"][1][9]
    assert "Redis CPU: held back by its CPU limit 1.2 s of each second" in cell


def test_each_limited_component_has_a_row_with_its_share_in_page_and_markdown(spike: ReportInput) -> None:
    unseen = Saturation(utilisation=None, queue=None, limit_cores=1.0)
    data = limited(spike, redis_cpu=unseen)
    head, app, redis = Page(html(data)).tables["CPU limits"]
    assert head == ["Variant", "Component", "Limit", "Used of its limit", "Held back by it"]
    assert app[1:] == ["app CPU", "0.3 cores", "98 %", "0.6 s of each second"]
    assert redis[1:3] == ["Redis CPU", "1 core"]
    assert all(cell.startswith("not measured") for cell in redis[3:])
    text = markdown(data).decode()
    assert "| app CPU | 0.3 cores | 98 % | 0.6 s of each second |" in text
    assert "its limit did not let it run" in text


def test_the_figures_are_in_the_json_unrounded(spike: ReportInput) -> None:
    app = json.loads(json_(limited(spike)))["variants"][0]["signals"]["saturation"]["app_cpu"]
    assert (app["limit_cores"], app["throttled"]) == (0.3, 0.62)


def test_a_run_without_limits_says_nothing_of_them(spike: ReportInput) -> None:
    assert "CPU limits" not in Page(html(spike)).tables
    assert "Held back" not in markdown(spike).decode()


def test_no_limit_is_read_as_such_and_commands_keep_their_0(spike: ReportInput) -> None:
    assert level_words("app_cpus", 0.0) == "no limit"
    assert level_words("app_cpus", 0.3) == "0.3"
    assert level_words("stock", 0) == "0"
    assert level_words("of_another_version", 0) == "0"
    plan = spike.run.plan.model_copy(update={"varied": {"app_cpus": (0.3, 0.0)}, "fixed": {"redis_cpus": 0.0}})
    command = "ticketbench run spike --vary app_cpus=0.3,0 --set redis_cpus=0"
    run = spike.run.model_copy(update={"plan": plan, "command": command})
    page = Page(html(replace(spike, run=run)))
    assert page.tables["What differed between the variants"][1] == ["app_cpus", "0.3, no limit", "0.3"]
    text = "".join(page.text)
    assert "Set by hand for all: redis_cpus=no limit." in text
    assert command in text
