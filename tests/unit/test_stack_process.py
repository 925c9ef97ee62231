"""Processes are known by pid and start time; signals wait where they must."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ticketbench.errors import EnvironmentFailure
from ticketbench.stack.launch import Launcher, NoJournal
from ticketbench.stack.process import (
    LABEL,
    Process,
    await_end,
    descendants,
    identify,
    labelled,
    last_lines,
)

SLEEPER = f"tests-sleeper-{os.getpid()}"  # another test process has one of its own


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "60"], env={LABEL: SLEEPER, "PATH": os.environ["PATH"]}) as process:
        yield process
        process.kill()


def known(popen: "subprocess.Popen[bytes]") -> Process:
    process = identify(popen.pid)
    assert process is not None
    return process


def test_a_process_is_alive_until_it_is_a_zombie(sleeper: "subprocess.Popen[bytes]") -> None:
    process = known(sleeper)
    assert process.alive()
    process.signal(signal.SIGKILL)
    assert await_end([process], 10)  # not reaped yet: a zombie, which is as good as gone
    assert not process.alive()
    assert identify(sleeper.pid) is None
    assert sleeper.wait() == -signal.SIGKILL


def test_a_signal_never_reaches_another_process_of_that_pid(sleeper: "subprocess.Popen[bytes]") -> None:
    process = known(sleeper)
    stranger = process.model_copy(update={"started_ticks": process.started_ticks + 1})
    assert not stranger.alive()
    stranger.signal(signal.SIGKILL)
    stranger.signal_group(signal.SIGKILL)
    assert not await_end([process], 0.2)


def test_labelled_finds_exactly_its_own(sleeper: "subprocess.Popen[bytes]") -> None:
    assert labelled(SLEEPER) == (known(sleeper),)
    assert labelled("tests-sleep") == ()


def test_labelled_spares_ourselves(monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "import subprocess, sys; from ticketbench.stack.process import labelled\n"
        "with subprocess.Popen(['sleep', '60']) as child:\n"
        "    found = [process.pid for process in labelled('tests-self')]\n"
        "    child.kill()\n"
        "sys.exit(0 if found == [child.pid] else f'{found} {child.pid}')"
    )
    monkeypatch.setenv(LABEL, "tests-self")
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])


def test_descendants_are_found_in_sessions_of_their_own(tmp_path: Path) -> None:
    with subprocess.Popen(["sh", "-c", "setsid sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        root = identify(parent.pid)
        assert root is not None
        below = descendants([root])
        assert below
        for process in below:
            process.signal(signal.SIGKILL)
        assert await_end(below, 10)


def test_servers_are_not_tied_to_a_thread_that_ends(tmp_path: Path) -> None:
    launcher = Launcher("tests-thread", NoJournal(), ends_with_us=True)
    failures: list[BaseException] = []

    def start() -> None:
        try:
            launcher.launch("redis", ["sleep", "60"], log=tmp_path / "log", folder=tmp_path)
        except RuntimeError as error:
            failures.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(failures[0])
    assert labelled("tests-thread") == ()


def test_a_command_that_fails_or_hangs_is_told_with_its_last_words(tmp_path: Path) -> None:
    launcher = Launcher("tests-command", NoJournal(), ends_with_us=True)
    log = tmp_path / "log"
    with pytest.raises(EnvironmentFailure, match=r"initdb failed \(exit status 3\); its log ends: no room"):
        launcher.run("initdb", ["sh", "-c", "echo no room; exit 3"], log=log, folder=tmp_path, timeout_s=60)
    with pytest.raises(EnvironmentFailure, match=r"longer than 0\.1 s"):
        launcher.run("initdb", ["sleep", "60"], log=log, folder=tmp_path, timeout_s=0.1)
    with pytest.raises(EnvironmentFailure, match="cannot be started"):
        launcher.run("initdb", ["/nowhere/initdb"], log=log, folder=tmp_path / "missing", timeout_s=60)
    assert labelled("tests-command") == ()


def test_servers_get_nothing_of_the_environment_that_changes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGDATA", "/elsewhere")
    launcher = Launcher("tests-env", NoJournal(), ends_with_us=True)
    launcher.run("initdb", ["env"], log=tmp_path / "log", folder=tmp_path, timeout_s=60)
    names = {line.partition("=")[0] for line in (tmp_path / "log").read_text().splitlines()}
    assert LABEL in names
    assert "PGDATA" not in names


def test_last_lines_are_few_and_on_one_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(f"line {number}" for number in range(10_000)) + "\n\n")
    assert last_lines(log, 2) == "line 9998 / line 9999"
    log.write_text("")
    assert last_lines(log) == "the log is empty"
    assert last_lines(tmp_path / "none") == "no log"
