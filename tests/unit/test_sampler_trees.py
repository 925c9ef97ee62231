"""CPU of process trees against real processes, compared with what the kernel reports to who waited for them."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from ticketbench.sampling.proc import TICKS_PER_S, parse_stat
from ticketbench.sampling.tree import ProcessTrees

# Burns the given CPU seconds, says so, and waits for its stdin to close.
BURN = """
import os, sys, time
until = float(sys.argv[1])
while sum(os.times()[:2]) < until: pass
print("burnt", flush=True)
sys.stdin.read()
"""
# A parent whose children burn and end while it lives, like a server and its backends.
PARENT = """
import subprocess, sys
for _ in range(3):
    subprocess.run([sys.executable, "-c", sys.argv[1], "0.15"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
print("burnt", flush=True)
sys.stdin.read()
"""
# Precision of what the kernel reports, for each of the figures that are added up here.
TICK_S = 1 / TICKS_PER_S


@pytest.fixture
def started() -> Iterator[list["subprocess.Popen[bytes]"]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        if process.stdin is not None and not process.stdin.closed:
            process.stdin.close()
        if process.returncode is None:
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def start(started: "list[subprocess.Popen[bytes]]", *arguments: str) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen([sys.executable, "-c", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    started.append(process)
    return process


def burnt(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == b"burnt\n"


def end(process: "subprocess.Popen[bytes]") -> float:
    """Wait for it; return the CPU seconds that the kernel reports for it and all that it waited for."""
    assert process.stdin is not None
    process.stdin.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def test_a_process_counts_all_it_burnt_since_its_birth(started: "list[subprocess.Popen[bytes]]") -> None:
    trees = ProcessTrees()
    trees.add_root("ticketbench", os.getpid())
    child = start(started, BURN, "0.4")
    trees.watch("app", child.pid)
    burnt(child)
    trees.tick()
    seen_s = trees.cpu_s["app"]
    assert seen_s == pytest.approx(0.4, abs=3 * TICK_S)
    real_s = end(child)
    for _ in range(3):  # what is reaped is counted two ticks later
        trees.tick()
    assert trees.cpu_s["app"] == pytest.approx(real_s, abs=4 * TICK_S)


def test_backends_that_end_between_two_ticks_count_once_and_for_their_component(
    started: "list[subprocess.Popen[bytes]]",
) -> None:
    trees = ProcessTrees()
    trees.add_root("ticketbench", os.getpid())
    parent = start(started, PARENT, BURN)
    trees.watch("postgres", parent.pid)
    totals = [0.0]
    assert parent.stdout is not None
    os.set_blocking(parent.stdout.fileno(), False)
    said = None
    while said is None:  # ticks at all moments of the children's lives
        trees.tick()
        totals.append(trees.cpu_s["postgres"])
        said = parent.stdout.readline() or None
    assert totals == sorted(totals)
    own_before_s = trees.cpu_s["ticketbench"]
    real_s = end(parent)
    for _ in range(3):
        trees.tick()
    assert real_s > 0.45
    assert trees.cpu_s["postgres"] == pytest.approx(real_s, abs=0.04)
    # none of it counts for the process that waited for the server
    assert trees.cpu_s["ticketbench"] - own_before_s < 0.1


def test_a_server_and_its_backend_that_end_between_two_ticks_count_once(
    started: "list[subprocess.Popen[bytes]]",
) -> None:
    trees = ProcessTrees()
    trees.add_root("ticketbench", os.getpid())
    script = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', *sys.argv[1:]], stdin=subprocess.PIPE)\n"
        "sys.stdin.read()\n"
        "child.stdin.close()\n"
        "child.wait()\n"
    )
    server = start(started, script, BURN, "0.3")
    trees.watch("postgres", server.pid)
    burnt(server)  # the child says so, on the same pipe
    trees.tick()
    assert trees.cpu_s["postgres"] >= 0.3
    real_s = end(server)
    for _ in range(4):
        trees.tick()
    assert trees.cpu_s["postgres"] == pytest.approx(real_s, abs=4 * TICK_S)


def test_what_was_burnt_before_the_sampler_began_does_not_count(started: "list[subprocess.Popen[bytes]]") -> None:
    child = start(started, BURN, "0.3")
    burnt(child)
    trees = ProcessTrees()
    trees.add_root("app", child.pid)
    trees.tick()
    trees.tick()
    assert trees.cpu_s["app"] <= 2 * TICK_S
    assert trees.memory_bytes()["app"] > 1 << 20


def test_a_new_root_replaces_the_old_one_and_the_counter_goes_on(started: "list[subprocess.Popen[bytes]]") -> None:
    trees = ProcessTrees()
    first = start(started, BURN, "0.2")
    trees.watch("app", first.pid)
    burnt(first)
    trees.tick()
    before_s = trees.cpu_s["app"]
    end(first)
    trees.tick()
    assert trees.memory_bytes()["app"] == 0
    second = start(started, BURN, "0.2")
    trees.watch("app", second.pid)
    burnt(second)
    trees.tick()
    assert trees.cpu_s["app"] == pytest.approx(before_s + 0.2, abs=4 * TICK_S)
    assert trees.memory_bytes()["app"] > 1 << 20


def test_a_child_that_is_a_root_of_its_own_is_not_its_parents(started: "list[subprocess.Popen[bytes]]") -> None:
    trees = ProcessTrees()
    trees.add_root("ticketbench", os.getpid())
    child = start(started, BURN, "0.3")
    burnt(child)
    trees.watch("k6", child.pid)
    before = resource.getrusage(resource.RUSAGE_SELF)
    trees.tick()
    assert trees.cpu_s["k6"] == pytest.approx(0.3, abs=3 * TICK_S)
    assert trees.cpu_s["ticketbench"] <= before.ru_utime + before.ru_stime + 0.1


def test_a_waiting_thread_has_run_delay_and_a_sleeping_one_has_none(
    started: "list[subprocess.Popen[bytes]]",
) -> None:
    trees = ProcessTrees()
    core = min(os.sched_getaffinity(0))
    rivals = [start(started, f"import os; os.sched_setaffinity(0, {{{core}}})\n{BURN}", "0.5") for _ in range(2)]
    sleeper = start(started, BURN, "0")
    trees.add_root("app", rivals[0].pid)
    trees.add_root("postgres", rivals[1].pid)
    trees.add_root("redis", sleeper.pid)
    for process in (*rivals, sleeper):
        burnt(process)
    trees.tick()
    # two that want one core wait about as long as the other one runs
    assert trees.delay_s["app"] + trees.delay_s["postgres"] > 0.4
    before_s = trees.delay_s["redis"]
    trees.tick()
    assert trees.delay_s["redis"] == before_s


def test_an_orphan_stays_with_its_component(started: "list[subprocess.Popen[bytes]]") -> None:
    script = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time\\nwhile True: time.sleep(0.01)'])\n"
        "print(child.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    trees = ProcessTrees()
    parent = start(started, script)
    assert parent.stdout is not None
    orphan = int(parent.stdout.readline())
    try:
        trees.watch("app", parent.pid)
        trees.tick()
        end(parent)
        trees.tick()
        assert trees.memory_bytes()["app"] > 0
    finally:
        os.kill(orphan, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while trees.memory_bytes()["app"] and time.monotonic() < deadline:
        trees.tick()
    assert trees.memory_bytes()["app"] == 0


def test_a_process_may_have_any_name() -> None:
    rest = " ".join(["S", "7", *["0"] * 9, "250", "50", "20", "5", "0", "0", "3", "0", "12345", "1", "2"])
    stat = parse_stat(f"42 (a ) (b) {rest}".encode())
    assert (stat.ppid, stat.own_s, stat.reaped_s, stat.threads) == (7, 300 / TICKS_PER_S, 25 / TICKS_PER_S, 3)
    assert stat.started_s == 12345 / TICKS_PER_S


def test_all_replicas_of_the_sale_are_one_component(started: "list[subprocess.Popen[bytes]]") -> None:
    trees = ProcessTrees()
    first, second = start(started, BURN, "0.1"), start(started, BURN, "0.1")
    trees.watch("app", first.pid)
    trees.watch("app-2", second.pid)
    burnt(first)
    burnt(second)
    trees.tick()
    assert [name for name, _ in trees.cpu_s.items()] == ["app"]
    assert trees.cpu_s["app"] >= 0.2 - 2 * TICK_S
    assert set(trees.roots) == {first.pid, second.pid}
    trees.unwatch("app-2")  # the other one stays
    assert trees.roots == {first.pid: "app"}
