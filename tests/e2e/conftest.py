"""A program of its own for each test, and the proof after each that nothing of it is left."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from program import Program


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep these tests on one worker: whole runs beside each other would measure each other."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("whole runs"))


@contextlib.contextmanager
def _alone() -> Iterator[Program]:
    with tempfile.TemporaryDirectory(prefix="ticketbench-e2e-") as name:
        made = Program(Path(name).resolve())
        yield made
        made.end()
        left = made.wait_until_gone(5)
        if left:
            made("down", "--force")
        assert not left, f"still alive after the test: {left}"


@pytest.fixture
def program() -> Iterator[Program]:
    """The installed program in an empty folder. Afterwards nothing it started may be alive."""
    with _alone() as made:
        yield made


@pytest.fixture(scope="module")
def shared_program() -> Iterator[Program]:
    """The same, for all tests of a file that look at one run."""
    with _alone() as made:
        yield made
