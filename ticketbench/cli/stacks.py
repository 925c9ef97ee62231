"""``ticketbench up``, ``down``, ``status`` and ``logs``: stacks of processes and of containers."""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ticketbench import docker_socket
from ticketbench.errors import EXIT_OK, EnvironmentFailure, UsageError
from ticketbench.stack import state

UP: Final = "up"  # stands for a run's name in the names of what is brought up by hand
_LOG_TAIL_BYTES: Final = 256 * 1024


def up(*, stack: str | None, fixed: Sequence[str], as_json: bool) -> int:
    """Bring a stack up for playing with by hand, and tell where it is; it stays until ``down``."""
    # heavy, and not wanted by the other commands
    from ticketbench import factors, interrupts
    from ticketbench import plan as planning
    from ticketbench.cli import panel
    from ticketbench.cli.provided import provide
    from ticketbench.events import Phase
    from ticketbench.levels import FACTORS_HINT, parse_fixed

    stack = planning.AUTO if stack is None else stack
    known = (planning.AUTO, *factors.OUR_STACKS)
    problems = [] if stack in known else [f"--stack {stack!r} is not known: known are {', '.join(known)}"]
    levels = {}
    try:
        levels = parse_fixed(fixed)
    except UsageError as error:
        problems += error.problems
    problems += [f"factor {name!r} is of the load, and up offers none" for name in factors.of_scope(levels, "load")]
    if problems:
        raise UsageError(*problems, hint=FACTORS_HINT)
    with interrupts.raised(), panel.drawer() as draw:
        provided = provide(stack, draw)
        if problems := planning.contradictions(planning.Request(UP, fixed=levels, stack=provided.name)):
            raise UsageError(*problems, hint=FACTORS_HINT)
        whole = {**factors.defaults(), **levels}
        provided = provided.for_variants([whole], draw)
        made = provided.stack(UP, [whole], draw, keep=True)
        try:
            draw(Phase("start", f"PostgreSQL, Redis and Prometheus on the {provided.name} stack"))
            made.start()
            draw(Phase("reset"))
            made.apply(whole)
        except BaseException:
            made.stop()
            raise
    (here,) = (one for one in _found().whole() if one.stack_id == made.stack_id)
    here = here.model_copy(update={"owner": None})  # it stays when we have ended
    print(json.dumps(here.public(), indent=1) if as_json else here.describe())
    return EXIT_OK


def logs(components: Sequence[str], *, lines: int) -> int:
    """Print the last lines of each component of every stack that is up, or of those that are named."""
    found = [(stack, _logs(stack, lines)) for stack in _found().whole()]
    known = sorted({name for _, texts in found for name in texts})
    unknown = [name for name in components if name not in known]
    if unknown and known:
        raise UsageError(*(f"there is no log of {name!r}: known are {', '.join(known)}" for name in unknown))
    if not found:
        print("nothing of ticketbench is up", file=sys.stderr)
    for stack, texts in found:
        for name in sorted(texts):
            for line in texts[name] if not components or name in components else ():
                print(f"{f'{stack.stack_id} ' if len(found) > 1 else ''}{name} | {line}")
    return EXIT_OK


def _logs(stack: state.StackState, lines: int) -> dict[str, list[str]]:
    """Return the last lines of each component's log. Raises EnvironmentFailure where the engine does not give them."""
    if stack.engine:
        from ticketbench.stack.containers import found
        from ticketbench.stack.containers.engine import connect

        return found.logs(connect(), stack.stack_id, lines)
    return {path.stem: _tail(path)[-lines:] for path in (state.folder_of(stack.stack_id) / "logs").glob("*.log")}


def _tail(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()
    except OSError:  # taken down this moment
        return []


def down(*, force: bool, as_json: bool = False) -> int:
    """End what was kept or left behind."""
    found = _found()
    failures: list[EnvironmentFailure] = list(found.trouble)
    taken_down: list[str] = []
    spared: dict[str, str] = {}
    for stack in found.stacks:
        if why := _spared(stack, force=force):
            print(f"{stack.stack_id}: left alone, {why}", file=sys.stderr)
            spared[stack.stack_id] = why
            continue
        try:
            state.remove(stack)
        except EnvironmentFailure as error:  # no reason not to take down the others
            failures.append(error)
        else:
            taken_down.append(stack.stack_id)
            if not as_json:
                print(f"{stack.stack_id}: down")
    if as_json:
        print(json.dumps({"down": taken_down, "left_alone": spared}, indent=1))
    if failures:
        messages = dict.fromkeys(error.message for error in failures)
        raise EnvironmentFailure("; ".join(messages), failures[0].hint)
    if not taken_down and not as_json:
        print("nothing was taken down" if found.stacks else "nothing of ticketbench is up")
    return EXIT_OK


def _spared(stack: state.StackState, *, force: bool) -> str:
    """Return why a stack is not to be taken down; empty where it is.

    Somebody else's run is not ours to end, however it is asked for: whoever means it uses that run's own folder.
    """
    if stack.elsewhere and stack.in_use:
        return "it is in use by a run of another user, or under another TICKETBENCH_STATE"
    if force:
        return ""
    if stack.in_use:
        return "its run is still going on (--force ends it too)"
    if stack.elsewhere and stack.keep:
        return "it was kept by another user, or under another TICKETBENCH_STATE (--force ends it too)"
    return ""


def status(*, as_json: bool) -> int:
    """List the stacks that are up."""
    found = _found()
    if as_json:
        print(json.dumps([stack.public() for stack in found.stacks], indent=1))
    elif not found.stacks and not found.trouble:
        print("nothing of ticketbench is up")
    else:
        for stack in found.stacks:
            print(stack.describe())
    found.whole()
    return EXIT_OK


@dataclass(frozen=True)
class _Found:
    """The stacks that are known of, oldest first, and why these may not be all: an engine that did not answer."""

    stacks: tuple[state.StackState, ...]
    trouble: tuple[EnvironmentFailure, ...] = ()

    def whole(self) -> tuple[state.StackState, ...]:
        """Return the stacks. Raises EnvironmentFailure where these may not be all."""
        for failure in self.trouble:
            raise failure
        return self.stacks


def _found() -> _Found:
    """Return what is written down, and what the Docker engine of this machine has that is not.

    Where no engine could have anything of ours, one that is written down is told of all the same: `down` will say why
    it cannot be reached.
    """
    written = {stack.stack_id: stack for stack in state.running()}
    try:
        docker_socket.reach(docker_socket.find())
        from ticketbench.stack.containers import found  # heavy: the Docker SDK
        from ticketbench.stack.containers.engine import connect

        for stack in found.stacks(connect()):
            known = written.get(stack.stack_id, stack)
            written[stack.stack_id] = known.model_copy(update={"containers": stack.containers})
    except docker_socket.NoEngine:
        return _Found(_oldest_first(written.values()))
    except EnvironmentFailure as failure:
        return _Found(_oldest_first(written.values()), (failure,))
    return _Found(_oldest_first(written.values()))


def _oldest_first(stacks: Iterable[state.StackState]) -> tuple[state.StackState, ...]:
    return tuple(sorted(stacks, key=lambda stack: stack.created))
