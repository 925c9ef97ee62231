"""What is written down of each stack, so that it is found and taken down whatever became of who started it.

One folder for each stack below the state folder; its name is the stack's id, its data lies in it, and ``stack.json``
(readable by its user only) says what runs. Every process also carries the id in its environment, so that one which was
started and not yet written down is found as well.
"""

import contextlib
import os
import re
import secrets
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from ticketbench import interrupts
from ticketbench.errors import EnvironmentFailure, UsageError
from ticketbench.events import Emit, Notice
from ticketbench.isolation import PREFIX, CpuGroup
from ticketbench.model import SCHEMA_VERSION
from ticketbench.paths import state_dir
from ticketbench.record import Record
from ticketbench.stack.process import (
    ENDING,
    Process,
    await_end,
    boot_id,
    descendants,
    go_on,
    identify,
    labelled,
)
from ticketbench.store import parse_record, write_atomically

STATE_FILE: Final = "stack.json"
STATE_HINT: Final = "point TICKETBENCH_STATE at a folder you may write to"
KILL_TIMEOUT_S: Final = 10.0
# A process that forks while its family is being killed is caught in the next round.
KILL_ROUNDS: Final = 5


class StackProcess(Record):
    """A process of a stack: the component that it is, who it is, and the port it listens on (0 where unknown)."""

    component: str
    process: Process
    port: int = 0


class Access(Record):
    """Where a stack that was kept can be reached, passwords included. Written only for a stack that is kept."""

    base_url: str
    prometheus_url: str
    postgres_dsn: str
    redis_url: str


class ContainerState(Record):
    """A container of a stack: the component that it is, and what the engine says it does (running, exited, ...)."""

    component: str
    state: str


class StackState(Record):
    """One stack as its file says, or the labels of its containers.

    ``starting`` is the component whose start was begun and not yet written down.
    ``folders`` lie elsewhere and go with the stack, as do ``groups``, the control groups that limit a component.
    ``owner`` is the ticketbench that started it, None where its file is lost. Processes count only within the boot that
    ``boot`` names. ``engine`` is the socket of the Docker engine where the stack is one of containers; these are asked
    for, never written down, as is that a stack is from ``elsewhere``: of another user or state folder.
    """

    schema_version: int = SCHEMA_VERSION
    stack_id: str
    run_id: str = ""
    created: str = ""
    boot: str = ""
    owner: Process | None = None
    keep: bool = False
    starting: str = ""
    processes: tuple[StackProcess, ...] = ()
    folders: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    access: Access | None = None
    engine: str = ""
    containers: tuple[ContainerState, ...] = ()
    elsewhere: bool = False

    @property
    def in_use(self) -> bool:
        """Whether the run that this stack belongs to is still going on."""
        return self.owner is not None and self.boot == boot_id() and self.owner.alive()

    def alive(self) -> tuple[StackProcess, ...]:
        """Return the recorded processes that still run."""
        return tuple(item for item in self.processes if self.boot == boot_id() and item.process.alive())

    def public(self) -> dict[str, Any]:
        """Return what ``status --json`` tells; it holds passwords where the stack was kept."""
        living = {item.component for item in self.alive()}
        return {
            "stack_id": self.stack_id,
            "run_id": self.run_id,
            "created": self.created,
            "in_use": self.in_use,
            "keep": self.keep,
            "components": {
                item.component: {
                    "pid": item.process.pid,
                    "port": item.port,
                    "state": "running" if item.component in living else "dead",
                }
                for item in self.processes
            }
            | {item.component: {"state": item.state} for item in self.containers},
            "engine": self.engine,
            "access": self.access.model_dump() if self.access is not None else None,
        }

    def describe(self) -> str:
        """Return the same as lines of text."""
        living = {item.component for item in self.alive()}
        use = "in use" if self.in_use else "kept" if self.keep else "left behind"
        use += " by another user or TICKETBENCH_STATE" if self.elsewhere and self.keep else ""
        parts = [f"{item.component} {'running' if item.component in living else 'dead'}" for item in self.processes]
        parts += [f"{item.component} {item.state}" for item in self.containers]
        nothing = "no containers" if self.engine else "no processes"
        where = ", in Docker" if self.engine else ""
        lines = [f"{self.stack_id}: {use}{where}; {', '.join(parts) or nothing}"]
        if self.access is not None:
            lines += [
                f"  sale        {self.access.base_url}",
                f"  Prometheus  {self.access.prometheus_url}",
                f"  PostgreSQL  psql '{self.access.postgres_dsn}'",
                f"  Redis       redis-cli -u '{self.access.redis_url}'",
            ]
        return "\n".join(lines)


def stacks_dir() -> Path:
    """Return the folder that holds a folder for each stack."""
    return state_dir() / "stacks"


def folder_of(stack_id: str) -> Path:
    """Return the folder of a stack."""
    return stacks_dir() / stack_id


class StateFile:
    """The file of one stack of ours; each change is on disk before the call returns. Raises EnvironmentFailure."""

    def __init__(self, run_id: str, *, keep: bool) -> None:
        slug = re.sub(r"[^A-Za-z0-9_.-]+", "-", run_id).strip("-.")[:60] or "stack"
        stack_id = f"{slug}-{secrets.token_hex(3)}"
        self.state = StackState(
            stack_id=stack_id,
            run_id=run_id,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            boot=boot_id(),
            owner=identify(os.getpid()),
            keep=keep,
        )
        self.folder = folder_of(stack_id)

    def create(self) -> None:
        """Make the stack's folder, with its file in it from the first moment on. Raises EnvironmentFailure."""
        beside = self.folder.with_name(f".{self.folder.name}.new")
        try:
            beside.mkdir(mode=0o700, parents=True)
            self._write(beside)
            beside.rename(self.folder)
        except OSError as error:
            raise EnvironmentFailure(f"cannot make {self.folder}: {error.strerror}", STATE_HINT) from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def about_to_start(self, component: str) -> None:
        """Write down that ``component`` is going to be started."""
        self._change(starting=component)

    def started(self, component: str, process: Process) -> None:
        """Write down the process that ``component`` now is, in place of an earlier one."""
        others = tuple(item for item in self.state.processes if item.component != component)
        self._change(starting="", processes=(*others, StackProcess(component=component, process=process)))

    def ended(self, component: str) -> None:
        """Forget a process that has done its work and is gone."""
        self._change(processes=tuple(item for item in self.state.processes if item.component != component))

    def listens(self, ports: dict[str, int]) -> None:
        """Write down the ports of components."""
        self._change(
            processes=tuple(
                item.model_copy(update={"port": ports.get(item.component, item.port)}) for item in self.state.processes
            )
        )

    def add_folder(self, folder: Path) -> None:
        """Write down a folder elsewhere that goes with the stack."""
        self._change(folders=(*self.state.folders, str(folder)))

    def add_group(self, folder: Path) -> None:
        """Write down a control group that goes with the stack."""
        self._change(groups=(*self.state.groups, str(folder)))

    def in_engine(self, socket: str) -> None:
        """Write down that this stack is one of containers, before the first of them is made."""
        self._change(engine=socket)

    def reachable(self, access: Access) -> None:
        """Write down where a stack that is kept can be reached."""
        self._change(access=access)

    def _change(self, **update: object) -> None:
        self.state = self.state.model_copy(update=update)
        self._write(self.folder)

    def _write(self, folder: Path) -> None:
        path = folder / STATE_FILE
        # the folder is closed to others, and so is the file: it may come to hold passwords
        old = os.umask(0o077)
        try:
            write_atomically(path, self.state.model_dump_json(indent=1).encode() + b"\n")
        except EnvironmentFailure as error:
            raise EnvironmentFailure(error.message, f"free some space, or {STATE_HINT}") from error
        finally:
            os.umask(old)


def running() -> tuple[StackState, ...]:
    """Return every stack that is written down, oldest first: in use, kept, or left behind by a killed ticketbench.

    One whose file is damaged is returned with its id alone, which is enough to remove it.
    """
    try:
        folders = sorted(path for path in stacks_dir().iterdir() if path.is_dir() and not path.name.startswith("."))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise EnvironmentFailure(f"cannot read {stacks_dir()}: {error.strerror}", STATE_HINT) from error
    found = []
    for folder in folders:
        try:
            found.append(read(folder))
        except FileNotFoundError:
            if folder.exists():  # else it was taken down this moment
                found.append(StackState(stack_id=folder.name))
        except (OSError, UsageError):
            found.append(StackState(stack_id=folder.name))
    return tuple(sorted(found, key=lambda state: state.created))


def read(folder: Path) -> StackState:
    """Return the stack whose folder this is. Raises OSError where its file cannot be read, UsageError for damage."""
    path = folder / STATE_FILE
    return parse_record(StackState, path.read_bytes(), str(path))


def remove(state: StackState) -> None:
    """End every process or container of a stack and remove its data. It is the caller's to spare one that is in use.

    Signals that ask us to end are held back until it is done, 30 s at most. Idempotent. Raises EnvironmentFailure where
    something cannot be ended (another user's) or removed.
    """
    with interrupts.deferred():
        if state.engine:
            from ticketbench.stack.containers import found  # heavy: the Docker SDK

            found.remove(state.stack_id)
        end_processes(state)
        _remove_groups(state)
        for folder in (*map(Path, state.folders), folder_of(state.stack_id)):
            _remove_folder(folder)


def take_down_leftovers(emit: Emit, more: Sequence[StackState] = ()) -> None:
    """Remove the stacks of runs that were killed, and say so. One that cannot be removed is no reason not to start.

    ``more`` are stacks that are known otherwise than by their files.
    """
    for state in (*running(), *more):
        if not state.in_use and not state.keep:
            # `ticketbench down` will tell what is wrong with it
            with contextlib.suppress(EnvironmentFailure):
                remove(state)
                emit(Notice(f"took down what a killed run had left behind: {state.stack_id}"))


def _remove_groups(state: StackState) -> None:
    for folder in map(Path, state.groups):
        if not folder.name.startswith(PREFIX):
            continue  # a damaged file must not have us remove something else
        if not CpuGroup(folder).remove():
            raise EnvironmentFailure(f"cannot remove the control group {folder}", "its processes may hang: see inside")


def end_processes(state: StackState) -> None:
    """End every process of a stack and of their families: those written down, and those that carry its label.

    Raises EnvironmentFailure naming those that cannot be ended.
    """
    recorded = {item.component: item.process for item in state.alive()}
    family = _Family(state.stack_id, tuple(recorded.values()))
    go_on(family.seen())
    _ask_to_end(recorded, family)
    deadline = time.monotonic() + KILL_TIMEOUT_S
    for _ in range(KILL_ROUNDS):
        if not (left := family.alive()):
            return
        for process in left:
            process.signal(signal.SIGKILL)
        await_end(left, max(0.0, deadline - time.monotonic()))
    if left := family.alive():
        raise EnvironmentFailure(
            f"stack {state.stack_id}: cannot end {', '.join(str(process.pid) for process in left)}",
            "they belong to another user, or hang in the kernel: end them by hand",
        )


def _ask_to_end(recorded: Mapping[str, Process], family: "_Family") -> None:
    """End all components at a time, each in its way, and those that were started and never written down gently."""
    known = [(process, *ENDING[component]) for component, process in recorded.items() if component in ENDING]
    theirs = {process for process, *_ in known} | set(descendants(process for process, *_ in known))
    for process, signum, _ in known:
        process.signal(signum)
    others = [process for process in family.seen() if process not in theirs]
    for process in others:
        process.signal(signal.SIGTERM)
    await_end(others, 1.0)
    for process, _, patience_s in known:
        await_end([process], patience_s)


class _Family:
    """The processes of a stack, and all that were ever seen below them: a child outlives the parent that named it."""

    def __init__(self, stack_id: str, recorded: tuple[Process, ...]) -> None:
        self._stack_id = stack_id
        self._recorded = recorded
        self._seen: dict[Process, None] = {}
        self.alive()

    def alive(self) -> list[Process]:
        """Look again, and return those that are alive."""
        known = (*self._recorded, *labelled(self._stack_id))
        self._seen.update(dict.fromkeys((*known, *descendants((*known, *self._seen)))))
        return [process for process in self._seen if process.alive()]

    def seen(self) -> list[Process]:
        """Return all of them, dead ones included."""
        return list(self._seen)


def _remove_folder(folder: Path) -> None:
    if not os.path.lexists(folder):  # nor where we may not look, and so could not have made it
        return
    # a last write of a process that was just killed may race with the first try
    for _ in range(3):
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
            return
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise EnvironmentFailure(f"cannot remove {folder}: {error.strerror}", "remove it by hand") from error
