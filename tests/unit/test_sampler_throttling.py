"""Throttled time of a component's control group, as both versions of control groups tell it."""

from pathlib import Path

import pytest

from ticketbench.sampling.throttling import Throttling

POSTGRES, APP, SELF = 41, 42, "self"


class Machine:
    """A /proc and a mounted hierarchy, written as the kernel writes them."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.proc = folder / "proc"
        self.groups = folder / "cgroup"
        self.kind = kind
        self.put(SELF, "/")
        options = {"v1": "cgroup cgroup rw,cpu,cpuacct", "v2": "cgroup2 cgroup2 rw"}[kind]
        (self.proc / SELF / "mountinfo").write_text(
            f"31 23 0:28 / /sys/fs/other rw,relatime - cgroup cgroup rw,cpuset\n"
            f"32 31 0:29 / {self.groups} rw,relatime shared:5 - {options}\n"
        )

    def put(self, process: int | str, group: str) -> None:
        folder = self.proc / str(process)
        folder.mkdir(parents=True, exist_ok=True)
        first = {"v1": "3:cpuset:/elsewhere\n2:cpu,cpuacct:", "v2": "0::"}[self.kind]
        (folder / "cgroup").write_text(f"{first}{group}\n")

    def throttle(self, group: str, seconds: float) -> None:
        folder = self.groups / group.lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        line = {"v1": f"throttled_time {round(seconds * 1e9)}", "v2": f"throttled_usec {round(seconds * 1e6)}"}
        (folder / "cpu.stat").write_text(f"nr_periods 12\nnr_throttled 3\n{line[self.kind]}\n")


@pytest.fixture(params=["v1", "v2"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return Machine(tmp_path, request.param)


def test_a_component_in_a_group_of_its_own_is_counted_from_the_first_look(machine: Machine) -> None:
    machine.put(POSTGRES, "/limited")
    machine.throttle("/limited", 5.0)
    throttling = Throttling(machine.proc)
    throttling.tick({POSTGRES: "postgres"})
    assert throttling.seconds() == {"postgres": 0.0}
    machine.throttle("/limited", 7.5)
    throttling.tick({POSTGRES: "postgres"})
    assert throttling.seconds() == {"postgres": pytest.approx(2.5)}


def test_a_component_in_the_samplers_own_group_has_no_figure(machine: Machine) -> None:
    machine.put(POSTGRES, "/")
    machine.throttle("/", 5.0)
    throttling = Throttling(machine.proc)
    throttling.tick({POSTGRES: "postgres"})
    assert throttling.seconds() == {}


def test_each_trials_group_goes_on_where_the_last_one_ended(machine: Machine) -> None:
    throttling = Throttling(machine.proc)
    throttling.tick({})
    for trial, (pid, seconds) in enumerate([(APP, 2.0), (APP + 1, 3.0)]):
        machine.put(pid, f"/trial-{trial}")
        machine.throttle(f"/trial-{trial}", seconds)
        throttling.tick({pid: "app"})
    assert throttling.seconds() == {"app": pytest.approx(5.0)}


def test_what_has_gone_keeps_its_figure(machine: Machine) -> None:
    machine.put(APP, "/limited")
    machine.throttle("/limited", 0.0)
    throttling = Throttling(machine.proc)
    throttling.tick({APP: "app"})
    machine.throttle("/limited", 1.25)
    throttling.tick({APP: "app"})
    (machine.groups / "limited" / "cpu.stat").unlink()
    (machine.proc / str(APP) / "cgroup").unlink()
    for _ in range(10):
        throttling.tick({APP: "app"})
    assert throttling.seconds() == {"app": pytest.approx(1.25)}


def test_a_machine_without_control_groups_has_no_figures(tmp_path: Path) -> None:
    throttling = Throttling(tmp_path)
    throttling.tick({APP: "app"})
    assert throttling.seconds() == {}
