"""How cores are split, and control groups of this machine where it has them for us."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ticketbench import factors, isolation
from ticketbench.errors import EnvironmentFailure
from ticketbench.isolation import CpuGroup, cores_of
from ticketbench.stack import confinement
from ticketbench.stack.state import StateFile, remove


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without threads that share a core."""
    monkeypatch.setattr(isolation, "_siblings", lambda core: (core,))


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("cores", "generator"), [((0, 1), (1,)), ((0, 1, 2, 3), (3,)), (tuple(range(8)), (6, 7)), ((3, 5, 9), (9,))]
)
def test_a_quarter_of_the_cores_is_the_generators(cores: tuple[int, ...], generator: tuple[int, ...]) -> None:
    found = isolation.split(cores)
    assert found.generator == generator
    assert sorted((*found.generator, *found.system)) == list(cores)


def test_threads_of_a_core_stay_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "_siblings", lambda core: (core % 4, core % 4 + 4))  # 0 and 4 are one core
    assert isolation.split(tuple(range(8))).generator == (3, 7)
    assert isolation.split((0, 1, 4, 5)).generator == (1, 5)
    assert isolation.split((0, 4)).generator == (4,)  # there is no other way


def test_one_core_cannot_be_split() -> None:
    with pytest.raises(EnvironmentFailure, match="needs two cores, and this machine lets us use 1") as failure:
        isolation.split((2,))
    assert "pinning=none" in failure.value.hint


@pytest.mark.parametrize(("text", "cores"), [("0-2,5\n", [0, 1, 2, 5]), ("3", [3]), ("", []), ("1,1-2", [1, 2])])
def test_lists_of_cores(text: str, cores: list[int]) -> None:
    assert cores_of(text) == cores


def test_levels_of_a_limit() -> None:
    factor = factors.get("app_cpus", "local")
    assert [factor.parse(text) for text in ("0", "0.5", "2")] == [0, 0.5, 2]
    for text in ("0.01", "-1", "nan", "many", "1000"):
        with pytest.raises(ValueError, match=r"takes 0 or a number from 0\.05 to 256"):
            factor.parse(text)


def test_a_group_of_somebody_else_is_never_touched(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no group of ours"):
        CpuGroup(tmp_path / "system.slice")


def test_a_limit_that_cannot_be_had_says_why_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "_candidates", lambda: iter([Path("/proc/no/such/folder")]))
    isolation.parent.cache_clear()
    try:
        with pytest.raises(EnvironmentFailure, match=r"cannot be limited here: .*No such file") as failure:
            confinement.require([{"app_cpus": 0.0}, {"app_cpus": 0.5}])
        assert "run as root" in failure.value.hint
        confinement.require([{"app_cpus": 0.0, "pinning": "none"}, {}])
        assert "No such file" in isolation.probe().no_limits
    finally:
        isolation.parent.cache_clear()


@pytest.fixture
def parent() -> Path:
    """The folder for groups of this machine."""
    try:
        return isolation.parent()
    except EnvironmentFailure as error:
        pytest.skip(error.message)


def groups_below(parent: Path) -> list[str]:
    return [path.name for path in parent.glob(f"{isolation.PREFIX}*{os.getpid()}*")]


def test_the_probe_leaves_nothing(parent: Path) -> None:
    isolation.parent.cache_clear()
    assert isolation.probe().no_limits == ""
    assert groups_below(parent) == []


@pytest.fixture
def group(parent: Path) -> Iterator[CpuGroup]:
    made = CpuGroup(parent / f"{isolation.PREFIX}test-{os.getpid()}")
    made.make()
    yield made
    assert made.remove()
    assert made.remove()  # idempotent


SPIN = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass"


def test_a_limit_holds(group: CpuGroup) -> None:
    group.limit(0.1)
    assert group.limited_to() == pytest.approx(0.1)
    began = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", f"input()\n{SPIN}"], stdin=subprocess.PIPE) as process:
        group.add([process.pid, 2**22 + 1])  # the second has ended long since
        assert group.pids() == (process.pid,)
        process.communicate(b"go\n")
    # 0.2 s of CPU at a tenth of a core: two of its twenty periods may be handed out at once
    assert time.monotonic() - began > 1.0
    group.limit(0)
    assert group.limited_to() == 0


def test_a_group_goes_with_its_stack_even_where_only_the_file_knows(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKETBENCH_STATE", str(tmp_path))
    file = StateFile(f"groups-{os.getpid()}", keep=False)
    file.create()
    held = confinement.Confinement(file)
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            held.apply({"redis_cpus": 0.5}, {"redis": process.pid})
            (folder,) = map(Path, file.state.groups)
            assert folder.parent == parent
            assert CpuGroup(folder).pids() == (process.pid,)
            held.apply({}, {"redis": process.pid})
            assert CpuGroup(folder).limited_to() == 0
        finally:
            process.kill()
    remove(file.state)  # as `ticketbench down` would after a kill
    assert not folder.exists()


def test_pinning_is_for_all_threads_and_is_taken_back() -> None:
    if len(isolation.CORES) < 2:
        pytest.skip("this machine has one core")
    split = isolation.split()
    file = StateFile("pinning", keep=False)
    held = confinement.Confinement(file)
    with subprocess.Popen(["sleep", "60"]) as system:
        try:
            held.apply({"pinning": "split"}, {"app": system.pid})
            assert os.sched_getaffinity(system.pid) == set(split.system)
            assert os.sched_getaffinity(0) == set(split.generator)
            held.apply({}, {"app": system.pid})
            assert os.sched_getaffinity(system.pid) == os.sched_getaffinity(0) == set(isolation.CORES)
            held.apply({"pinning": "split"}, {"app": system.pid})
        finally:
            held.release()
            system.kill()
    assert os.sched_getaffinity(0) == set(isolation.CORES)
    assert not file.folder.exists()  # nothing had to be written down
