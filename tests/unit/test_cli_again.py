"""The commands that repeat a run: what a report may say, and what was typed."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.unit.report_data import spike
from ticketbench.cli import again
from ticketbench.cli.external import ExternalOptions
from ticketbench.cli.options import RunOptions
from ticketbench.model import ExternalSystem, Plan

SHOP = "http://shop.internal:8000/v1"


def options(**changes: Any) -> RunOptions:
    nothing: dict[str, Any] = {
        "scenario": None, "vary": (), "fixed": (), "plan": None, "trials": None, "seed": None, "stack": None,
        "output": None, "keep": False, "as_json": False,
    }  # fmt: skip
    return RunOptions(**{**nothing, **changes})


def external(**changes: Any) -> Plan:
    values = {"scheme": "http", "where": "remote", "port": 8000, "path": "/v1", **changes}
    plan = spike().run.plan
    scenario = plan.scenario.model_copy(update={"name": "shop.js", "script": "shop.js"})
    return plan.model_copy(
        update={"scenario": scenario, "stack": "external", "external": ExternalSystem.model_validate(values)}
    )


def test_a_run_of_a_plan_is_repeated_by_the_plan() -> None:
    given = options(plan="load/plan.toml")
    assert again.for_report(given, spike().run.plan) == "ticketbench run --plan load/plan.toml"
    assert again.for_terminal(given, spike().run.plan) == ("run", "--plan", "load/plan.toml")
    assert again.for_report(options(plan="lockings"), spike().run.plan) == "ticketbench run --plan lockings"


@pytest.mark.parametrize("path", ["{}/my plan.toml", "../my plan.toml", "~/my plan.toml"])
def test_a_plan_elsewhere_names_no_path_of_this_machine(path: str, tmp_path: Path) -> None:
    told = again.for_report(options(plan=path.format(tmp_path)), spike().run.plan)
    assert shlex.split(told) == ["ticketbench", "run", "--plan", "path/to/my plan.toml"]


def test_flags_and_variables_come_on_top_of_the_plan_in_a_report_and_flags_on_a_terminal() -> None:
    given = options(
        plan="p.toml", vary=("rate=10,20",), fixed=("duration=30",), trials="3", seed="7", output="out",
        from_variables=frozenset({"seed"}),
    )  # fmt: skip
    assert again.for_report(given, spike().run.plan) == (
        "ticketbench run --plan p.toml --vary rate=10,20 --set duration=30 --trials 3 --seed 7"
    )
    assert shlex.join(again.for_terminal(given, spike().run.plan)) == (
        "run --plan p.toml --vary rate=10,20 --set duration=30 -o out"
    )


def test_a_report_names_no_host_and_no_value_and_a_terminal_the_address_as_typed() -> None:
    system = ExternalOptions(
        target=SHOP, prometheus="http://shop.internal:9090", selector='instance="shop.internal"',
        headers=("X-Tenant: open-sesame",), allow_remote=True,
    )  # fmt: skip
    given = options(plan="p.toml", external=system)
    told = again.for_report(given, external(headers=("X-Tenant", "X-Plan"), prometheus="remote", mapping="m.toml"))
    assert shlex.split(told)[4:] == [
        "--target", "http://HOST:8000/v1", "--prometheus", "URL", "--prometheus-selector", "MATCHERS",
        "--header", "X-Tenant: <value>", "--allow-remote-target",
    ]  # fmt: skip
    typed = again.for_terminal(given, external())
    assert typed[3:7] == ("--target", SHOP, "--prometheus", "http://shop.internal:9090")
    assert "X-Tenant: <value>" in typed
    assert "open-sesame" not in told + shlex.join(typed)


def test_what_the_plan_says_of_the_system_is_not_said_again() -> None:
    assert again.for_report(options(plan="p.toml"), external(headers=("X-Plan",))) == "ticketbench run --plan p.toml"
    assert again.for_terminal(options(plan="p.toml"), external(headers=("X-Plan",))) == ("run", "--plan", "p.toml")


def test_without_a_plan_file_all_of_it_is_named() -> None:
    told = again.for_report(
        options(scenario="load/shop.js"), external(headers=("A", "B"), headers_from_variable=("A",))
    )
    assert told.startswith("ticketbench run load/shop.js --vary pool_size=2,10 ")
    assert told.endswith("--stack external --target http://HOST:8000/v1 --header 'B: <value>' --allow-remote-target")


def test_that_a_selector_was_given_is_told_and_what_it_was_is_not() -> None:
    system = ExternalOptions(target=SHOP, prometheus=SHOP, selector='instance="shop.internal"')
    plan = external(prometheus="remote", mapping="m.toml")
    told = again.for_report(options(scenario="load/shop.js", external=system), plan)
    assert told.endswith(" --allow-remote-target --prometheus-selector MATCHERS")
    assert "shop.internal" not in told


def test_after_a_resume_it_is_the_runs_own_plan() -> None:
    given = options(scenario="load/shop.js", resume="reports/x", external=ExternalOptions(target=SHOP))
    assert again.for_terminal(given, external()) == (
        "run", "load/shop.js", "--vary", "pool_size=2,10", "--vary", "cache=on,off", "--stack", "external",
        "--target", SHOP,
    )  # fmt: skip
