"""What is left when the process that owns a stack is killed, interrupted, or meant to leave it up."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import psycopg
import pytest

from ticketbench.binaries import Binaries
from ticketbench.stack.process import await_end, descendants, identify, labelled
from ticketbench.stack.state import StackState, folder_of, remove, running

ROOT = Path(__file__).resolve().parents[2]

OWNER = """
import signal, sys, time
from ticketbench import factors
from ticketbench.binaries import provide
from ticketbench.stack.local import LocalStack
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background of a shell
keep, then = sys.argv[1] == "keep", sys.argv[2]
stack = LocalStack("owner", provide(), keep=keep)
stack.start()
endpoints = stack.apply(factors.defaults())
try:
    # Within: a signal may come as soon as the line is read.
    print(stack.stack_id, endpoints.base_url, flush=True)
    if then == "wait":
        time.sleep(300)
finally:
    if not keep:
        print("stopping", flush=True)
        stack.stop()
        print("stopped", flush=True)
if then == "stop":
    stack.stop()
"""


@pytest.fixture
def owners() -> Iterator[list["subprocess.Popen[str]"]]:
    """The owners that a test starts; none outlives it."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for owner in started:
        if owner.poll() is None:
            owner.kill()
        owner.communicate()


def start_owner(
    owners: list["subprocess.Popen[str]"], *arguments: str, environment: Mapping[str, str] | None = None
) -> tuple["subprocess.Popen[str]", str, str]:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, *arguments],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        text=True,
    )
    owners.append(owner)
    assert owner.stdout is not None
    stack_id, base_url = owner.stdout.readline().split()
    return owner, stack_id, base_url


def state_of(stack_id: str) -> StackState:
    (state,) = (state for state in running() if state.stack_id == stack_id)
    return state


def test_kill_9_of_the_owner_ends_everything(binaries: Binaries, owners: list["subprocess.Popen[str]"]) -> None:
    owner, stack_id, _ = start_owner(owners, "no", "wait")
    state = state_of(stack_id)
    assert state.in_use
    assert {item.component for item in state.alive()} == {"postgres", "redis", "prometheus", "app"}
    family = {*labelled(stack_id), *descendants([item.process for item in state.alive()])}
    assert len(family) > 8  # PostgreSQL's own processes and the sale's worker too
    owner.kill()
    owner.wait()
    assert await_end(list(family), 5.0)  # the time that the issue grants
    assert labelled(stack_id) == ()

    left = state_of(stack_id)
    assert not left.in_use
    assert "left behind" in left.describe()
    remove(left)
    assert not folder_of(stack_id).exists()
    remove(left)  # a second `down` finds nothing to do


def test_the_next_start_takes_down_what_a_killed_owner_left(
    binaries: Binaries, owners: list["subprocess.Popen[str]"]
) -> None:
    owner, stack_id, _ = start_owner(owners, "no", "wait")
    owner.kill()
    owner.wait()
    _, other, _ = start_owner(owners, "no", "wait")
    assert [state.stack_id for state in running() if state.stack_id in (stack_id, other)] == [other]
    assert not folder_of(stack_id).exists()


def test_a_kept_stack_outlives_its_owner_and_can_be_used_and_removed(
    binaries: Binaries, owners: list["subprocess.Popen[str]"]
) -> None:
    owner, stack_id, base_url = start_owner(owners, "keep", "leave")
    assert owner.wait() == 0
    state = state_of(stack_id)
    try:
        assert not state.in_use
        assert state.keep
        assert len(state.alive()) == 4
        assert httpx.get(f"{base_url}/ready").status_code == 200
        access = state.access
        assert access is not None
        assert access.base_url == base_url
        assert access.postgres_dsn in state.describe()
        assert state.public()["components"]["app"]["state"] == "running"
        with psycopg.connect(access.postgres_dsn) as connection:
            assert connection.execute("SELECT count(*) > 0 FROM matches").fetchone() == (True,)
        family = {*labelled(stack_id), *descendants([item.process for item in state.alive()])}
    finally:
        remove(state)
    assert not [process for process in family if process.alive()]
    assert not folder_of(stack_id).exists()


def test_a_second_interrupt_while_stopping_changes_nothing(
    binaries: Binaries, owners: list["subprocess.Popen[str]"]
) -> None:
    owner, stack_id, _ = start_owner(owners, "no", "wait")
    assert owner.stdout is not None
    app = [item.process for item in state_of(stack_id).processes if item.component == "app"]
    owner.send_signal(signal.SIGINT)
    assert owner.stdout.readline() == "stopping\n"
    assert await_end(app, 10.0)  # now it is in the midst of stopping
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        owner.send_signal(signum)
    owner.wait()
    assert labelled(stack_id) == ()
    assert not folder_of(stack_id).exists()


def test_remove_finds_what_was_started_and_never_written_down(
    binaries: Binaries, owners: list["subprocess.Popen[str]"]
) -> None:
    owner, stack_id, _ = start_owner(owners, "keep", "leave")
    owner.wait()
    family = {*labelled(stack_id)}
    assert len(family) >= 4
    (folder_of(stack_id) / "stack.json").write_text("{")  # all that is known now is the folder's name
    state = state_of(stack_id)
    assert state.processes == ()
    remove(state)
    assert not [process for process in family if process.alive()]
    assert not folder_of(stack_id).exists()


def test_another_process_with_a_recorded_pid_is_spared() -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        try:
            now = identify(stranger.pid)
            assert now is not None
            recorded = now.model_copy(update={"started_ticks": now.started_ticks - 1})
            state = StackState.model_validate(
                {
                    "stack_id": "tests-stranger",
                    "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
                    "processes": [{"component": "redis", "process": recorded.model_dump()}],
                }
            )
            remove(state)
            assert now.alive()
        finally:
            stranger.kill()


def as_nobody(environment: Mapping[str, str]) -> list[str]:
    """Return a command prefix that makes an ordinary user; skips where that user could not run our interpreter.

    Where the interpreter lies in root's own home, the user gets the right to read everything, and no other.
    """
    plain = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    reading = [*plain, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    for prefix in (plain, reading):
        probe = [
            *prefix,
            "--",
            sys.executable,
            "-c",
            "import os, ticketbench.stack.local; assert os.geteuid() == 65534",
        ]
        if subprocess.run(probe, env=environment, cwd="/", check=False, capture_output=True).returncode == 0:
            return [*prefix, "--"]
    pytest.skip(f"an ordinary user cannot run {sys.executable}, and setpriv cannot grant the reading of it")


@pytest.mark.skipif(os.geteuid() != 0, reason="we are an ordinary user already")
def test_an_ordinary_user_without_any_server_fetches_and_runs_all(owners: list["subprocess.Popen[str]"]) -> None:
    home = Path(tempfile.mkdtemp(prefix="ticketbench-home-"))
    try:
        home.chmod(0o700)
        shutil.chown(home, 65534, 65534)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("TICKETBENCH", "XDG"))}
        environment |= {"HOME": str(home), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
        owner = subprocess.Popen(
            [*as_nobody(environment), sys.executable, "-c", OWNER, "no", "then stop"],
            env=environment, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        owners.append(owner)
        out, err = owner.communicate()
        assert owner.returncode == 0, err
        assert out.splitlines()[1:] == ["stopping", "stopped"]
        fetched = {
            path.name.split("-")[0] for path in (home / ".cache/ticketbench/binaries").iterdir() if path.is_dir()
        }
        assert {"k6", "prometheus"} <= fetched
        assert list((home / ".local/state/ticketbench/stacks").iterdir()) == []
    finally:
        shutil.rmtree(home)
