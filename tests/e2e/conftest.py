"""A program of its own for each test, and the proof after each that nothing of it is left."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from program import Program


@pytest.fixture
def program() -> Iterator[Program]:
    """The installed program in an empty folder. Afterwards nothing it started may be alive."""
    with tempfile.TemporaryDirectory(prefix="ticketbench-e2e-") as name:
        made = Program(Path(name).resolve())
        yield made
        left = made.alive()
        if left:
            made("down", "--force")
        assert not left, f"still alive after the test: {left}"
