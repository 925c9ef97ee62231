"""Components that were stopped are found, named and let go on; a moment's stop is none."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from ticketbench.errors import EnvironmentFailure
from ticketbench.stack.process import go_on, identify
from ticketbench.stack.stopped import STOPPED_S, StoppedWatch, failure

# A root with one child, which says its pid.
FAMILY = "import subprocess, sys; c = subprocess.Popen(['sleep', '60']); print(c.pid, flush=True); c.wait()"


@pytest.fixture
def family() -> Iterator[tuple[int, int]]:
    """The pids of a process and of its child."""
    with subprocess.Popen([sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, text=True) as root:
        assert root.stdout is not None
        child = int(root.stdout.readline())
        yield root.pid, child
        os.kill(child, signal.SIGKILL)
        root.kill()


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def stop(pid: int) -> None:
    process = identify(pid)
    assert process is not None
    os.kill(pid, signal.SIGSTOP)
    await_state(pid, stopped=True)


def await_state(pid: int, *, stopped: bool) -> None:
    process = identify(pid)
    assert process is not None
    deadline = time.monotonic() + 10
    while process.stopped() is not stopped:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_stopped_component_is_told_once_and_goes_on(family: tuple[int, int]) -> None:
    clock = Clock()
    watch = StoppedWatch(lambda: {"redis": family[0]}, clock=clock)
    assert watch.look() == {}
    stop(family[0])
    assert watch.look() == {}  # it may be a moment's
    clock.now_s += STOPPED_S
    assert watch.look() == {"redis": "redis was stopped (SIGSTOP)"}
    await_state(family[0], stopped=False)
    clock.now_s += STOPPED_S
    assert watch.look() == {}


def test_one_process_of_a_tree_is_enough(family: tuple[int, int]) -> None:
    clock = Clock()
    watch = StoppedWatch(lambda: {"postgres": family[0]}, clock=clock)
    stop(family[1])
    watch.look()
    clock.now_s += STOPPED_S
    assert watch.look() == {"postgres": "postgres was stopped (SIGSTOP): one of its processes, sleep"}
    await_state(family[1], stopped=False)


def test_a_stop_that_is_over_at_a_look_counts_anew(family: tuple[int, int]) -> None:
    clock = Clock()
    watch = StoppedWatch(lambda: {"k6": family[0]}, clock=clock)
    for _ in range(3):
        stop(family[0])
        assert watch.look() == {}
        os.kill(family[0], signal.SIGCONT)
        await_state(family[0], stopped=False)
        clock.now_s += STOPPED_S
        assert watch.look() == {}


def test_components_come_and_go(family: tuple[int, int]) -> None:
    clock = Clock()
    roots: dict[str, int] = {}
    watch = StoppedWatch(lambda: roots, clock=clock)
    assert watch.look() == {}
    stop(family[0])
    roots["k6"] = family[0]
    watch.look()
    clock.now_s += STOPPED_S
    assert list(watch.look()) == ["k6"]
    roots["k6"] = 2**22 + 1  # no process can have it
    clock.now_s += STOPPED_S
    assert watch.look() == {}


def test_the_failure_names_all(family: tuple[int, int]) -> None:
    clock = Clock()
    look = failure(StoppedWatch(lambda: {"redis": family[0], "app": family[1]}, clock=clock))
    assert look() is None
    for pid in family:
        stop(pid)
    assert look() is None
    clock.now_s += STOPPED_S
    found = look()
    assert isinstance(found, EnvironmentFailure)
    assert found.message == "redis was stopped (SIGSTOP); app was stopped (SIGSTOP)"
    assert found.hint


def test_go_on_spares_who_is_not_stopped(family: tuple[int, int]) -> None:
    stop(family[1])
    processes = [process for pid in family if (process := identify(pid)) is not None]
    go_on(processes)
    await_state(family[1], stopped=False)
    assert all(process.alive() for process in processes)
