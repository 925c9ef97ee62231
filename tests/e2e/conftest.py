"""A program of its own for each test, and the proof after each that nothing of it is left.

Whole runs on the local stack go on beside each other, on both workers: no test of them asserts a speed. There is one
engine and its stacks are everybody's to see, so what uses it is the group ``docker`` of one worker.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import Engine
from program import Program


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


@pytest.fixture
def engine(docker: str) -> Engine:
    """The machine's engine, by its own client."""
    return Engine(docker)


@pytest.fixture
def in_docker(program: Program, engine: Engine, stack_images: dict[str, str]) -> Iterator[Program]:
    """The program, with the images that are here. Afterwards the engine has nothing of its runs."""
    program.with_engine(stack_images)
    yield program
    program.end()
    names = [path.name for path in program.folder.glob("reports/*")]
    left = engine.left(*(f"ticketbench.run={name}" for name in names))
    if left:
        program("down")
    assert not left, f"left in the engine: {left}"
