"""What a report says of the machine: all that was recorded, and plainly where nothing was."""

import dataclasses
from typing import Any

import pytest

from tests.unit.report_data import spike
from ticketbench.model import BinaryVersion, Isolation, Split
from ticketbench.report import markdown
from ticketbench.report.about import about_tables


def machine(**changes: Any) -> dict[str, str]:
    data = spike()
    environment = data.run.environment.model_copy(update=changes)
    run = data.run.model_copy(update={"environment": environment})
    table = about_tables(dataclasses.replace(data, run=run))[0]
    return {row.cells[0].text: row.cells[1].text for row in table.rows}


def test_what_was_not_recorded_is_not_made_up() -> None:
    said = machine()
    assert said["CPU"] == "an ordinary processor, 2 cores"
    assert said["Memory"] == "8.00 GiB"
    for name in ("Clock", "Load by others", "The target's packages", "Pinning and CPU limits"):
        assert said[name] == "not recorded"


def test_the_machine_in_full() -> None:
    said = machine(
        machine_cores=8,
        cpu_quota_cores=1.5,
        memory_limit_bytes=4 * 1024**3,
        governor="powersave",
        turbo="on",
        frequency_hz=2.6e9,
        load_average=1.25,
        other_cpu=0.123,
        packages={"uvicorn": "0.54.0", "asyncpg": "0.32.0"},
    )
    assert said["CPU"] == "an ordinary processor, 2 of 8 cores, limited to 1.5 by a control group"
    assert said["Clock"] == "2.60 GHz, governor powersave, turbo on"
    assert said["Memory"] == "8.00 GiB, limited to 4.00 GiB by a control group"
    assert said["Load by others"] == "12.3 % of the CPU while the stack came up; load average 1.2, our own included"
    assert said["The target's packages"] == "asyncpg 0.32.0, uvicorn 0.54.0"


@pytest.mark.parametrize(
    ("isolation", "text"),
    [
        (
            Isolation(split=Split(generator=(3,), system=(0, 1, 2))),
            "load generator and observers on 3, the system on 0",
        ),
        (Isolation(no_pinning="there is one core"), "there is one core"),
    ],
)
def test_who_runs_where_is_told_of_a_run_that_was_pinned_and_of_no_other(isolation: Isolation, text: str) -> None:
    data = spike()
    environment = data.run.environment.model_copy(update={"isolation": isolation})

    def told(level: str) -> dict[str, str]:
        variants = tuple(v.model_copy(update={"levels": v.levels | {"pinning": level}}) for v in data.run.plan.variants)
        plan = data.run.plan.model_copy(update={"variants": variants})
        run = data.run.model_copy(update={"plan": plan, "environment": environment})
        rows = about_tables(dataclasses.replace(data, run=run))[0].rows
        return {row.cells[0].text: row.cells[1].text for row in rows}

    assert told("split")["Cores under pinning=split"].startswith(text)
    assert told("split")["Pinning and CPU limits"] == "pinning split"
    assert "Cores under pinning=split" not in told("none")
    assert told("none")["Pinning and CPU limits"] == "no pinning, no CPU limits"


def test_the_short_report_says_what_the_figures_were_made_with() -> None:
    data = spike()
    limits = (0.5, 0.0, 0.0, 0.0)
    variants = tuple(
        v.model_copy(update={"levels": v.levels | {"pinning": "split", "app_cpus": limit, "redis_cpus": 0.0}})
        for v, limit in zip(data.run.plan.variants, limits, strict=True)
    )
    plan = data.run.plan.model_copy(update={"variants": variants})
    machine = {"governor": "powersave", "cpu_quota_cores": 1.5, "virtualised": "kvm"}
    env = data.run.environment.model_copy(update=machine)
    run = data.run.model_copy(update={"plan": plan, "environment": env})
    text = markdown(dataclasses.replace(data, run=run)).decode()
    told = dict(
        line.strip("| ").split(" | ", 1) for line in text.partition("**Environment**")[2].splitlines() if " | " in line
    )
    assert told["System"] == "Debian GNU/Linux 12, kernel 6.1.0, x86_64, a virtual machine (kvm)"
    assert told["CPU"] == "an ordinary processor, 2 cores, limited to 1.5 by a control group"
    assert told["Clock"] == "governor powersave"
    assert told["Pinning and CPU limits"] == "pinning split; app_cpus 0.5 or no limit"
    assert told["Versions"] == "ticketbench 0.1.0, Python 3.11.4, k6 1.1.0, postgres 18.6"
    assert told["Load by others"].startswith("not recorded")


def test_the_short_report_says_when_an_image_stands_in_for_an_official_one() -> None:
    data = spike()
    images = (
        BinaryVersion(part="redis", version="mine:1", source="stand-in image", sha256="aa"),
        BinaryVersion(part="k6", version="grafana/k6:1.1.0", source="image", sha256="bb"),
    )
    environment = data.run.environment.model_copy(update={"binaries": images})
    run = data.run.model_copy(update={"environment": environment})
    text = markdown(dataclasses.replace(data, run=run)).decode()
    assert "redis mine:1 (stand-in image), k6 grafana/k6:1.1.0" in text
