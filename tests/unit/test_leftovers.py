"""Whose the stacks of another state folder are: real processes that carry a label, and the state files they lead to."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ticketbench.leftovers import StackSeen, look_around
from ticketbench.stack.process import LABEL, Process, identify
from ticketbench.stack.state import StateFile

Make = Callable[..., StateFile]


@pytest.fixture
def other_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder that is not ours; ours, the cache and the runs are empty."""
    monkeypatch.setenv("TICKETBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TICKETBENCH_STATE", str(tmp_path / "ours"))
    return tmp_path / "other"


@pytest.fixture
def make(other_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Write a stack down in the other folder and start a process for it, as a server is started."""
    started = []

    def stack(owner: Process | None, *, keep: bool = False) -> StateFile:
        with monkeypatch.context() as patch:
            patch.setenv("TICKETBENCH_STATE", str(other_folder))
            file = StateFile("20261122T100000Z-spike", keep=keep)
            file.state = file.state.model_copy(update={"owner": owner})
            file.create()
            server = file.folder / "redis"
            server.mkdir()
            labels = {**os.environ, LABEL: file.state.stack_id}
            started.append(subprocess.Popen(["sleep", "60"], cwd=server, env=labels))
            process = identify(started[-1].pid)
            assert process is not None
            file.started("redis", process)
        return file

    yield stack
    for popen in started:
        popen.kill()
        popen.wait()


@pytest.fixture
def ended() -> Process:
    """A process that is no more."""
    with subprocess.Popen(["sleep", "60"]) as popen:
        found = identify(popen.pid)
        popen.kill()
    assert found is not None
    return found


def seen(stack_id: str) -> StackSeen:
    """Return what is said of a stack; other tests' processes may carry labels of their own meanwhile."""
    stacks, _ = look_around(Path("nowhere"))
    (found,) = (stack for stack in stacks if stack.stack_id == stack_id)
    return found


def test_a_stack_elsewhere_is_in_use_while_its_ticketbench_is_alive(make: Make, other_folder: Path) -> None:
    file = make(identify(os.getpid()))
    stack_id = file.state.stack_id
    assert seen(stack_id) == StackSeen(stack_id, "in use", ("redis",), other_folder)


def test_one_whose_ticketbench_has_ended_was_left_behind_unless_it_was_kept(
    make: Make, other_folder: Path, ended: Process
) -> None:
    left, kept = make(ended), make(ended, keep=True)
    assert seen(left.state.stack_id) == StackSeen(left.state.stack_id, "left behind", ("redis",), other_folder)
    assert seen(kept.state.stack_id) == StackSeen(kept.state.stack_id, "kept", ("redis",), other_folder)


@pytest.mark.parametrize("damage", ["removed", "cut off"])
def test_without_a_sound_state_file_nobody_knows(make: Make, damage: str) -> None:
    file = make(identify(os.getpid()))
    if damage == "removed":
        shutil.rmtree(file.folder)
    else:
        (file.folder / "stack.json").write_text("{")
    stack_id = file.state.stack_id
    assert seen(stack_id) == StackSeen(stack_id, "unknown", (), processes=1)


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a PID namespace, which takes root")
def test_a_container_counts_its_processes_in_its_own_way(make: Make) -> None:
    file = make(identify(os.getpid()))
    stack_id = f"{file.state.stack_id}-inside"
    folder = file.folder.with_name(stack_id)
    shutil.copytree(file.folder, folder)
    command = ["unshare", "--pid", "--fork", "--kill-child", "env", f"{LABEL}={stack_id}", "sleep", "60"]
    inside = subprocess.Popen(command, cwd=folder)
    try:
        child = Path(f"/proc/{inside.pid}/task/{inside.pid}/children")
        while not (pid := child.read_text().strip()) or Path(f"/proc/{pid}/comm").read_text() != "sleep\n":
            assert inside.poll() is None
        assert seen(stack_id) == StackSeen(stack_id, "unknown", (), processes=1)
    finally:
        inside.kill()
        inside.wait()
