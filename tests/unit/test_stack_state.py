"""What is written down of a stack is enough to find it, and safe to read in any condition."""

import json
import os
import stat
from pathlib import Path

import pytest

from ticketbench.errors import EnvironmentFailure
from ticketbench.stack.process import Process, boot_id, identify
from ticketbench.stack.state import Access, StackState, StateFile, folder_of, remove, running, stacks_dir


@pytest.fixture(autouse=True)
def _empty_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TICKETBENCH_STATE", str(tmp_path / "state"))


def test_nothing_is_running_where_nothing_was_started() -> None:
    assert running() == ()


def test_each_change_is_on_disk_and_closed_to_others() -> None:
    file = StateFile("a run/with odd: signs", keep=False)
    file.create()
    file.about_to_start("redis")
    (state,) = running()
    assert (state.starting, state.processes, state.run_id) == ("redis", (), "a run/with odd: signs")
    assert state.in_use
    me = identify(os.getpid())
    assert me is not None
    file.started("redis", me)
    file.listens({"redis": 6379, "postgres": 1})
    (state,) = running()
    assert state.starting == ""
    assert [(item.component, item.process, item.port) for item in state.alive()] == [("redis", me, 6379)]
    assert stat.S_IMODE(file.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((file.folder / "stack.json").stat().st_mode) == 0o600
    file.ended("redis")
    assert running()[0].processes == ()


def test_a_component_is_written_down_once() -> None:
    file = StateFile("run", keep=False)
    file.create()
    file.started("app", Process(pid=1 << 22, started_ticks=1))
    file.started("app", Process(pid=1 << 22, started_ticks=2))
    assert [item.process.started_ticks for item in file.state.processes] == [2]
    assert "app dead" in running()[0].describe()


def test_the_last_boots_processes_and_owner_are_not_ours() -> None:
    me = identify(os.getpid())
    state = StackState(stack_id="x", owner=me, boot=boot_id(), processes=())
    assert state.in_use
    before = state.model_copy(update={"boot": "another"})
    assert not before.in_use
    assert before.alive() == ()


def test_access_is_told_of_a_kept_stack() -> None:
    file = StateFile("run", keep=True)
    file.create()
    file.reachable(
        Access(
            base_url="http://127.0.0.1:1",
            prometheus_url="http://127.0.0.1:2",
            postgres_dsn="postgresql://u:secret@127.0.0.1:3/tickets",
            redis_url="redis://:secret@127.0.0.1:4/0",
        )
    )
    (state,) = running()
    assert "psql 'postgresql://u:secret@127.0.0.1:3/tickets'" in state.describe()
    assert json.loads(json.dumps(state.public()))["access"]["redis_url"] == "redis://:secret@127.0.0.1:4/0"


@pytest.mark.parametrize("content", [None, b"{", b"{}", b'{"schema_version": 99, "stack_id": "x"}', b"\xff"])
def test_a_damaged_file_still_gives_what_remove_needs(content: bytes | None) -> None:
    folder = stacks_dir() / "broken-1"
    folder.mkdir(parents=True)
    if content is not None:
        (folder / "stack.json").write_bytes(content)
    (state,) = running()
    assert state.stack_id == "broken-1"
    assert not state.in_use
    remove(state)
    assert not folder.exists()


def test_remove_takes_folders_elsewhere_with_it(tmp_path: Path) -> None:
    file = StateFile("run", keep=False)
    file.create()
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "data").mkdir(parents=True)
    file.add_folder(elsewhere)
    remove(running()[0])
    assert not elsewhere.exists()
    assert running() == ()


def test_a_state_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    with pytest.raises(EnvironmentFailure, match="cannot make") as failure:
        StateFile("run", keep=False).create()
    assert "TICKETBENCH_STATE" in failure.value.hint


def test_ids_are_unique_and_fit_for_a_folder() -> None:
    ids = {StateFile("../../etc", keep=False).state.stack_id for _ in range(20)}
    assert len(ids) == 20
    assert all(folder_of(stack_id).parent == stacks_dir() and "/" not in stack_id for stack_id in ids)
