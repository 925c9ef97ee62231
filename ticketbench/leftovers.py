"""What of ticketbench is up on this machine, and what was left behind: stacks, processes, folders."""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ticketbench import store
from ticketbench.errors import EnvironmentFailure, UsageError
from ticketbench.paths import cache_dir
from ticketbench.stack import state
from ticketbench.stack.process import LABEL

RUN_FOLDER: Final = re.compile(r"\d{8}T\d{6}Z-")  # store.run_id

# "in use": its ticketbench is alive; "kept": its user wanted that; "unknown": nothing tells.
Use = Literal["in use", "kept", "left behind", "unknown"]


@dataclass(frozen=True)
class StackSeen:
    """A stack and what it is to its user; ``parts`` are the components that run.

    ``elsewhere`` is the state folder that knows it where that is not ours; ``processes`` counts what carries its label
    where no state file tells the parts.
    """

    stack_id: str
    use: Use
    parts: tuple[str, ...]
    elsewhere: Path | None = None
    processes: int = 0


@dataclass(frozen=True)
class Leftover:
    """Something of ticketbench that lies about, and how to be rid of it."""

    text: str
    remedy: str


def look_around(output: Path) -> tuple[tuple[StackSeen, ...], tuple[Leftover, ...]]:
    """Return the stacks of this machine, and what else lies about; ``output`` is the folder that runs are written to.

    Raises EnvironmentFailure where no home folder is known and nothing names another one. Other users' processes cannot
    be read, and are not seen.
    """
    known: tuple[state.StackState, ...] = ()
    leftovers: list[Leftover] = []
    try:
        known = state.running()
    except EnvironmentFailure as error:
        leftovers.append(Leftover(error.message, "look at the folder, or set TICKETBENCH_STATE to another"))
    stacks = [_seen(item) for item in known]
    stacks += [_stranger(stack_id, pids) for stack_id, pids in _labelled({item.stack_id for item in known}).items()]
    scratch: list[Path] = []
    with contextlib.suppress(OSError):  # the check of the cache folder tells it
        scratch += (cache_dir() / "binaries").glob(".fetch-*")
    if scratch:
        leftovers.append(
            Leftover(f"{len(scratch)} unfinished downloads in {scratch[0].parent}", "the next download removes them")
        )
    empty = [path.name for path in _empty_runs(output)]
    if empty:
        leftovers.append(
            Leftover(f"{len(empty)} run folders without a trial in {output} ({', '.join(empty[:3])})", "remove them")
        )
    return tuple(stacks), tuple(leftovers)


def _seen(item: state.StackState, elsewhere: Path | None = None) -> StackSeen:
    use: Use = "in use" if item.in_use else "kept" if item.keep else "left behind"
    return StackSeen(item.stack_id, use, tuple(process.component for process in item.alive()), elsewhere)


def _stranger(stack_id: str, pids: list[int]) -> StackSeen:
    """Return a stack of which only processes are known: another state folder may tell the rest.

    Servers and sale run within their stack's folder, so theirs leads to the file that says whose they are. Its pids
    mean nothing here where they count in a container.
    """
    for folder in _folders(pid for pid in pids if _counts_as_we_do(pid)):
        if folder.name == stack_id:
            try:
                found = state.read(folder)
            except (OSError, UsageError):
                continue  # damaged or gone: nobody knows
            return _seen(found, folder.parent.parent)
    return StackSeen(stack_id, "unknown", (), processes=len(pids))


def _counts_as_we_do(pid: int) -> bool:
    """Tell whether a process is of our own pid namespace."""
    try:
        return Path(f"/proc/{pid}/ns/pid").readlink() == Path("/proc/self/ns/pid").readlink()
    except OSError:
        return False  # it has ended, or may not be asked


def _folders(pids: Iterable[int]) -> Iterator[Path]:
    """Yield the folders that the processes are in, and those above."""
    for pid in pids:
        try:
            place = Path(f"/proc/{pid}/cwd").readlink()
        except OSError:
            continue  # it has ended
        yield from (place, *place.parents)


def _labelled(known: set[str]) -> dict[str, list[int]]:
    """Return the processes that carry the label of a stack which is not among ``known``, by stack."""
    prefix = f"{LABEL}=".encode()
    found: dict[str, list[int]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - names only
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            environment = Path(f"/proc/{entry}/environ").read_bytes()
        except OSError:
            continue  # ended, or another user's
        for item in environment.split(b"\0"):
            if item.startswith(prefix) and (stack_id := item[len(prefix) :].decode(errors="replace")) not in known:
                found.setdefault(stack_id, []).append(int(entry))
    return found


def _empty_runs(output: Path) -> Iterator[Path]:
    """Yield the run folders that a kill left before anything was written down of them."""
    try:
        folders = sorted(path for path in output.iterdir() if path.is_dir())
    except OSError:
        return
    for folder in folders:
        with contextlib.suppress(OSError):  # another user's, closed to us
            if RUN_FOLDER.match(folder.name) and not (folder / store.RUN_FILE).exists():
                yield folder
