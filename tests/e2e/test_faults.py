"""A dozen of the faults, each for a way of its own through the program; ``python -m tests.faults`` tries all."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.case import Case, NotHereError, judge
from tests.faults.cases import all_cases
from tests.faults.scene import Scene

CASES = {case.name: case for case in all_cases()}
CHOSEN = (
    "postgres/set-up/SIGSTOP",  # a server that hangs while it is waited for
    "backend/window/SIGKILL",  # a server that crashes and is up again
    "worker/warm-up/SIGSTOP",  # one process of a part
    "redis/tear-down/SIGKILL",  # the ledger cannot be read any more
    "prometheus/tear-down/SIGSTOP",  # who is asked does not answer
    "sampler/window/SIGKILL",  # nobody samples any more
    "ticketbench/set-up-(reset)/SIGTERM",  # nothing has been measured
    "ticketbench/window/SIGINT-SIGINT",  # asked twice
    "ticketbench/tear-down-(stop)/SIGINT",  # while servers are being stopped
    "terminal/window/closed-(SIGHUP)",
    "output-folder/window/disk-fills-up",
    "state-folder/set-up/is-a-file",
    "descriptors/set-up/ulimit--n-40",
    "ports/set-up/8-ports-in-all",
)


@pytest.fixture
def scene() -> Iterator[Scene]:
    with tempfile.TemporaryDirectory(prefix="ticketbench-fault-") as name:
        folder = Path(name).resolve()
        folder.chmod(0o711)  # servers that run as another user must pass through
        made = Scene(folder)
        yield made
        made.clean()


@pytest.mark.parametrize("case", [CASES[name] for name in CHOSEN], ids=CHOSEN)
def test_a_fault_ends_in_one_message_with_what_was_measured_kept_and_nothing_left(case: Case, scene: Scene) -> None:
    try:
        after = case.play(scene)
    except NotHereError as error:
        pytest.skip(str(error))
    wrong = judge(case, after) + [said for check in case.checks if (said := check(scene, after)) is not None]
    assert wrong == [], after


def test_every_case_has_a_name_of_its_own() -> None:
    assert len(CASES) == len(all_cases())
