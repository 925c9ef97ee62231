"""Other runs are seen by their stacks' state files, with how long they overlapped."""

import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ticketbench.errors import EnvironmentFailure
from ticketbench.stack.neighbours import Neighbours
from ticketbench.stack.process import Process, boot_id, identify
from ticketbench.stack.state import StackState, StateFile


@pytest.fixture
def other() -> Iterator[Process]:
    """A process that owns another run's stack."""
    with subprocess.Popen(["sleep", "60"]) as process:
        found = identify(process.pid)
        assert found is not None
        yield found
        process.kill()


def state(
    owner: Process | None, created_s: float, run_id: str = "20261122T100000Z-browse", stack: str = "1"
) -> StackState:
    created = datetime.fromtimestamp(created_s, UTC).isoformat(timespec="seconds")
    return StackState(stack_id=f"{run_id}-{stack}", run_id=run_id, created=created, boot=boot_id(), owner=owner)


def test_the_overlap_is_counted(other: Process) -> None:
    there: list[StackState] = []
    neighbours = Neighbours(lambda: tuple(there))
    neighbours.look(1000)
    there.append(state(other, 1010))
    neighbours.look(1012)
    neighbours.look(1030)
    there.clear()
    neighbours.look(1032)
    (found,) = neighbours.between(1000, 1060)
    assert found.kind == "shared_machine"
    assert (found.at_s, found.seconds) == (1010, 20)
    assert "the run 20261122T100000Z-browse was using this machine for 20 s of this trial's 60 s" in found.text
    assert [each.seconds for each in neighbours.between(1020, 1025)] == [5]
    assert neighbours.between(1040, 1060) == ()
    assert neighbours.between(990, 1009) == ()


def test_a_run_that_was_resumed_meanwhile_is_told_once_with_its_time_together(other: Process) -> None:
    there = [state(other, 1010)]
    neighbours = Neighbours(lambda: tuple(there))
    neighbours.look(1020)
    there[:] = [state(other, 1030, stack="2")]  # its stack of `--resume`
    neighbours.look(1045)
    (found,) = neighbours.between(1000, 1060)
    assert (found.at_s, found.seconds) == (1010, 25)
    assert "for 25 s of this trial's 60 s" in found.text
    there[:] = [state(other, 1040, run_id="20261122T100000Z-spike")]
    neighbours.look(1050)
    assert [each.seconds for each in neighbours.between(1000, 1060)] == [25, 10]


def test_time_that_two_stacks_of_a_name_share_counts_once(other: Process) -> None:
    neighbours = Neighbours(lambda: (state(other, 1010), state(other, 1020, stack="2")))
    neighbours.look(1040)
    (found,) = neighbours.between(1000, 1060)
    assert found.seconds == 30


def test_ourselves_kept_ones_and_leftovers_do_not_count(other: Process) -> None:
    ours = identify(os.getpid())
    gone = other.model_copy(update={"started_ticks": other.started_ticks + 1})
    neighbours = Neighbours(lambda: (state(ours, 1000), state(gone, 1000), state(None, 1000)))
    neighbours.look(1010)
    assert neighbours.between(1000, 1020) == ()


def test_a_state_folder_that_cannot_be_read_ends_nothing() -> None:
    def fails() -> tuple[StackState, ...]:
        raise EnvironmentFailure("cannot read it")

    neighbours = Neighbours(fails)
    neighbours.look(1000)
    assert neighbours.between(0, 2000) == ()


def test_real_state_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: Process) -> None:
    monkeypatch.setenv("TICKETBENCH_STATE", str(tmp_path))
    file = StateFile("20261122T100000Z-spike", keep=False)
    file.state = file.state.model_copy(update={"owner": other})
    file.create()
    now_s = datetime.now(UTC).timestamp()
    neighbours = Neighbours()
    neighbours.look(now_s + 5)
    (found,) = neighbours.between(now_s - 10, now_s + 10)
    assert "20261122T100000Z-spike" in found.text
    assert 4 <= found.seconds <= 6
