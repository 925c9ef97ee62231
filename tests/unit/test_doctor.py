import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ticketbench import doctor
from ticketbench.analysis import validity
from ticketbench.binaries import Sighting
from ticketbench.binaries.probe import Found
from ticketbench.leftovers import Leftover, StackSeen
from ticketbench.model import Isolation
from ticketbench.others import Sharer
from ticketbench.surroundings import Folder, Surroundings, survey

GB = 1_000_000_000


def sighting(part: str) -> Sighting:
    return Sighting(part, found=Found(Path(f"/opt/{part}"), "9.9", "PATH", "0" * 64))


def folder(purpose: str, **changes: Any) -> Folder:
    made = Folder(purpose, Path(f"/srv/{purpose}"), f"TICKETBENCH_{purpose.upper()}", "", 50 * GB, 10**6, False)
    return dataclasses.replace(made, **changes)


GOOD = Surroundings(
    parts=tuple(map(sighting, ("k6", "postgres", "redis", "prometheus"))),
    postgres_tools=("psql",),
    python="3.11.7",
    ticketbench="0.1.0",
    packages=22,
    package_problems=(),
    docker="",
    docker_problem="no Docker engine runs here: there is no /var/run/docker.sock",
    ports_problem="",
    ports_tried=22,
    ports_left=28_000,
    ports_range=28_232,
    descriptors=(1024, 20_000),
    needed_descriptors={"smoke": 110, "spike": 1360},
    folders=(folder("cache"), folder("state"), folder("output", variable="")),
    memory_available_bytes=8 * GB,
    memory_bytes=16 * GB,
    cores=4,
    cores_usable=4,
    cpu_quota_cores=None,
    governors=(),
    others_cores=0.1,
    sharers=(),
    steal_share=0.0,
    clock_source="tsc",
    is_root=False,
    root_way="",
    has_setpriv=True,
    isolation=Isolation(),
    stacks=(),
    leftovers=(),
)


def test_a_good_machine_has_nothing_to_mend() -> None:
    checks = doctor.examine(GOOD)
    assert {check.status for check in checks} == {"ok"}
    assert all(check.text and not check.remedy for check in checks if check.name != "isolation")
    assert doctor.ready(checks)


def test_a_program_that_only_some_factors_need_is_no_fault_of_the_machine() -> None:
    away = (
        Sighting("pgbouncer", fetchable="debian12 package pgbouncer"),
        Sighting("haproxy", problem="there is no apt-get here", remedy="install haproxy 2.6 or newer"),
    )
    seen = dataclasses.replace(
        GOOD, parts=(*GOOD.parts, *away), folders=(folder("cache", free_bytes=1), *GOOD.folders[1:])
    )
    pgbouncer, haproxy = (check for check in doctor.examine(seen) if check.name in ("PgBouncer", "HAProxy"))
    assert pgbouncer.status == haproxy.status == "ok"
    assert "only pooler=pgbouncer needs it: such a run fetches debian12 package pgbouncer" in pgbouncer.text
    assert "replicas above 1 and balancer=haproxy" in haproxy.text
    assert "there is no apt-get here" in haproxy.text
    assert haproxy.remedy == "install haproxy 2.6 or newer"
    assert doctor.ready(doctor.examine(seen))
    wrong = dataclasses.replace(GOOD, parts=(Sighting("haproxy", problem="TICKETBENCH_HAPROXY=/x does not exist"),))
    assert doctor.examine(wrong)[0].status == "warning"


WEAK: list[tuple[str, dict[str, Any], str, str, str]] = [
    # what is changed, the check that must notice, its status, and words that must be told
    ("k6", {"parts": (Sighting("k6", fetchable="k6 1.1.0"),)}, "warning", "fetches k6 1.1.0", "--provide"),
    (
        "Prometheus",
        {
            "parts": (
                Sighting("prometheus", problem="no apt-get here", remedy="install it", passed_over=("/x is old",)),
            )
        },
        "failing",
        "no apt-get here; passed over: /x is old",
        "install it",
    ),
    ("Python", {"package_problems": ("the package scipy is missing",)}, "failing", "scipy is missing", "install"),
    ("ports", {"ports_problem": "after 3 of 22 ports: no"}, "failing", "after 3", "ss -tan"),
    ("ports", {"ports_left": 1000}, "warning", "about 1000 of 28232", "ip_local_port_range"),
    ("open files", {"descriptors": (64, 64)}, "failing", "every bundled", "ulimit -Hn 1360"),
    ("open files", {"descriptors": (1024, 1024)}, "warning", "too few for spike", "ulimit -Hn 1360"),
    ("memory", {"memory_available_bytes": 300_000_000}, "failing", "300 MB available", "end something"),
    ("memory", {"memory_available_bytes": GB}, "warning", "1.0 GB available", "end something"),
    ("cores", {"cores_usable": 1}, "warning", "1 of 4", "2 cores"),
    ("cores", {"cpu_quota_cores": 1.5}, "warning", "CPU time for 1.5", "2 cores"),
    ("frequency", {"governors": ("powersave",)}, "warning", "powersave", "cpupower"),
    ("other load", {"others_cores": 1.0, "sharers": (Sharer("ffmpeg", 0.9),)}, "warning", "ffmpeg 0.90", "wait"),
    ("other load", {"steal_share": 0.2}, "warning", "hypervisor gives 20%", "wait"),
    ("clock", {"clock_source": "hpet"}, "warning", "hpet", "available_clocksource"),
    ("rights", {"is_root": True, "root_way": "none", "has_setpriv": False}, "failing", "root", "util-linux"),
    ("rights", {"has_setpriv": False}, "warning", "without setpriv", "util-linux"),
    ("stacks", {"stacks": (StackSeen("a-1", "in use", ("redis",)),)}, "warning", "a-1: its run", "end first"),
    ("stacks", {"stacks": (StackSeen("a-1", "kept", ()),)}, "warning", "a-1: kept", "down"),
    ("stacks", {"stacks": (StackSeen("a-1", "left behind", ()),)}, "warning", "killed run", "down"),
    (
        "stacks",
        {"stacks": (StackSeen("a-1", "in use", ("redis",), Path("/srv/my state")),)},
        "warning",
        "a-1 of the state folder /srv/my state: its run is going on (redis)",
        "let it end first",
    ),
    (
        "stacks",
        {"stacks": (StackSeen("a-1", "left behind", ("redis",), Path("/srv/my state")),)},
        "warning",
        "left behind by a killed run",
        "`TICKETBENCH_STATE='/srv/my state' ticketbench down` takes it down",
    ),
    (
        "stacks",
        {"stacks": (StackSeen("a-1", "unknown", (), processes=2),)},
        "warning",
        "a-1: 2 processes of a stack; whether its run is going on cannot be told",
        "leave it to whoever started it",
    ),
    ("leftovers", {"leftovers": (Leftover("2 folders", "remove them"),)}, "warning", "2 folders", "remove"),
]


@pytest.mark.parametrize(("name", "changes", "status", "text", "remedy"), WEAK)
def test_each_weakness_is_named_with_what_to_do(
    name: str, changes: dict[str, Any], status: str, text: str, remedy: str
) -> None:
    checks = doctor.examine(dataclasses.replace(GOOD, **changes))
    noticed = [check for check in checks if check.status != "ok"]
    assert [(check.name, check.status) for check in noticed] == [(name, status)]
    assert text in noticed[0].text
    assert remedy in noticed[0].remedy
    assert doctor.ready(checks) == (status != "failing")


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        (folder("state", problem="Read-only file system"), "failing"),
        (folder("state", free_bytes=100_000_000), "failing"),
        (folder("state", free_bytes=GB), "warning"),
        (folder("state", free_inodes=100), "failing"),
        (folder("state", free_inodes=None), "ok"),
        (folder("output", free_bytes=1_000_000), "failing"),
        (folder("output", free_bytes=100_000_000), "warning"),
        (folder("cache", problem="Permission denied"), "warning"),
        (folder("cache", free_bytes=0), "ok"),
    ],
)
def test_a_folder_is_judged_by_what_a_run_needs_of_it(changed: Folder, status: str) -> None:
    folders = tuple(changed if each.purpose == changed.purpose else each for each in GOOD.folders)
    checks = doctor.examine(dataclasses.replace(GOOD, folders=folders))
    (check,) = (check for check in checks if check.name == f"{changed.purpose} folder")
    assert check.status == status
    assert bool(check.remedy) == (status != "ok")


def test_isolation_that_cannot_be_says_why() -> None:
    seen = dataclasses.replace(GOOD, isolation=Isolation(no_limits="the cgroups are read-only"))
    (check,) = (check for check in doctor.examine(seen) if check.name == "isolation")
    assert check.text == "pinning=split can be asked for; CPU limits cannot be: the cgroups are read-only"


def test_the_cache_matters_while_something_has_to_be_fetched() -> None:
    seen = dataclasses.replace(
        GOOD,
        parts=(Sighting("k6", fetchable="k6 1.1.0"),),
        folders=(folder("cache", problem="Permission denied"),),
    )
    assert not doctor.ready(doctor.examine(seen))


def test_what_is_a_warning_here_is_what_weakens_a_trial() -> None:
    assert doctor.OTHERS_SHARE == validity.OTHERS_LOWER_BOUND
    assert doctor.STEAL_SHARE == validity.STEAL_SHARE


def test_a_survey_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKETBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TICKETBENCH_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("PATH", str(tmp_path))
    seen = survey(tmp_path / "reports")
    assert list(tmp_path.iterdir()) == []
    assert [part.found for part in seen.parts[:4]] == [None] * 4  # servers' folders beside PATH may hold the others
    assert seen.cores >= seen.cores_usable >= 1
    assert seen.memory_bytes >= seen.memory_available_bytes > 0
    assert not seen.has_setpriv
    assert all(not each.problem and each.free_bytes > 0 for each in seen.folders)


def test_a_folder_below_a_file_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TICKETBENCH_STATE", str(tmp_path / "file" / "state"))
    (state,) = (each for each in survey(tmp_path).folders if each.purpose == "state")
    assert "is not a folder" in state.problem


@pytest.mark.parametrize(("place", "why"), [("x" * 300, "name too long"), ("circle/state", "symbolic links")])
def test_a_folder_that_the_system_refuses_to_look_at_is_told_and_no_bug(
    place: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "circle").symlink_to("circle")
    for variable in ("TICKETBENCH_STATE", "TICKETBENCH_CACHE"):
        monkeypatch.setenv(variable, str(tmp_path / place))
    seen = survey(tmp_path / place)
    assert len(seen.folders) == 3
    assert all(why in each.problem for each in seen.folders)


def test_a_link_that_leads_nowhere_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "reports").symlink_to("nowhere")
    (output,) = (each for each in survey(tmp_path / "reports").folders if each.purpose == "output")
    assert "is not a folder" in output.problem


def test_programs_are_asked_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # each tells its version once the other has begun: asked one after the other, the first would never tell
    for name, other, says in (("k6", "redis-server", "k6 v1.1.0"), ("redis-server", "k6", "Redis server v=7.0.15")):
        program = tmp_path / name
        program.write_text(
            f"#!/bin/sh\n: > {tmp_path}/began-{name}\n"
            f"until [ -e {tmp_path}/began-{other} ]; do /bin/sleep 0.05; done\necho {says}\n"
        )
        program.chmod(0o755)
    monkeypatch.setenv("TICKETBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {part.part: part.found for part in survey(tmp_path / "reports").parts}
    assert [found[part] and found[part].version for part in ("k6", "redis")] == ["1.1.0", "7.0.15"]
