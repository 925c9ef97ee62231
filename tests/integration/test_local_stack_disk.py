"""A state folder that is full, or cannot be used: one message, and nothing stays."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ticketbench import factors
from ticketbench.binaries import Binaries
from ticketbench.errors import EnvironmentFailure
from ticketbench.stack.local import LocalStack
from ticketbench.stack.process import labelled


@pytest.fixture
def small(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder on a disk of its own, with as many megabytes as asked for."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={request.param}m", "tmpfs", tmp_path], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"no small disk can be mounted: {done.stderr.decode().strip()}")
    monkeypatch.setenv("TICKETBENCH_STATE", str(tmp_path))
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


# with 12 MB initdb cannot write, with 55 the seed does not fit
@pytest.mark.parametrize("small", [12, 55], indirect=True)
def test_a_full_disk_is_named_and_nothing_stays(small: Path, binaries: Binaries) -> None:
    stack = LocalStack("full", binaries)
    try:
        with pytest.raises(EnvironmentFailure, match="No space left on device") as failure:
            stack.start()
            stack.apply(factors.defaults())
    finally:
        stack.stop()
    assert "the disk of the state folder is full" in failure.value.hint
    assert labelled(stack.stack_id) == ()
    assert list((small / "stacks").iterdir()) == []


@pytest.mark.parametrize("small", [1], indirect=True)
def test_a_disk_without_a_byte_left(small: Path, binaries: Binaries) -> None:
    with pytest.raises(OSError, match="No space left"):
        (small / "filler").write_bytes(bytes(2_000_000))
    stack = LocalStack("full", binaries)
    with pytest.raises(EnvironmentFailure, match="No space left on device") as failure:
        stack.start()
    assert "TICKETBENCH_STATE" in failure.value.hint
    assert labelled(stack.stack_id) == ()
    assert list((small / "stacks").iterdir()) == []


def test_a_state_folder_that_is_none(tmp_path: Path, binaries: Binaries, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    monkeypatch.setenv("TICKETBENCH_STATE", str(file))
    with pytest.raises(EnvironmentFailure, match="Not a directory") as failure:
        LocalStack("nowhere", binaries).start()
    assert "TICKETBENCH_STATE" in failure.value.hint
    assert file.read_text() == "in the way"
