"""``ticketbench down`` and ``status``: stacks of processes and of containers."""

import json
import sys

from ticketbench import docker_socket
from ticketbench.errors import EXIT_OK, EnvironmentFailure
from ticketbench.stack import state


def down(*, force: bool) -> int:
    """End what was kept or left behind."""
    found = _found()
    if not found:
        print("nothing of ticketbench is up")
        return EXIT_OK
    for stack in found:
        if stack.in_use and not force:
            print(f"{stack.stack_id}: left alone, its run is still going on (--force ends it too)", file=sys.stderr)
            continue
        state.remove(stack)
        print(f"{stack.stack_id}: down")
    return EXIT_OK


def status(*, as_json: bool) -> int:
    """List the stacks that are up."""
    found = _found()
    if as_json:
        print(json.dumps([stack.public() for stack in found], indent=1))
        return EXIT_OK
    if not found:
        print("nothing of ticketbench is up")
    for stack in found:
        print(stack.describe())
    return EXIT_OK


def _found() -> tuple[state.StackState, ...]:
    """Return what is written down, and what the Docker engine of this machine has that is not; oldest first.

    An engine that does not answer is one that has nothing of ours running, unless it is written down: then `down` will
    say why it cannot be reached.
    """
    written = {stack.stack_id: stack for stack in state.running()}
    try:
        docker_socket.reach(docker_socket.find())
    except EnvironmentFailure:
        return tuple(written.values())
    from ticketbench.stack.containers import found  # heavy: the Docker SDK
    from ticketbench.stack.containers.engine import connect

    for stack in found.stacks(connect()):
        known = written.get(stack.stack_id, stack)
        written[stack.stack_id] = known.model_copy(update={"containers": stack.containers})
    return tuple(sorted(written.values(), key=lambda stack: stack.created))
