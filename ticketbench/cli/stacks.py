"""``ticketbench down`` and ``status``."""

import json
import sys

from ticketbench.errors import EXIT_OK


def down(*, force: bool) -> int:
    """End what was kept or left behind."""
    from ticketbench.stack import state

    found = state.running()
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
    from ticketbench.stack import state

    found = state.running()
    if as_json:
        print(json.dumps([stack.public() for stack in found], indent=1))
        return EXIT_OK
    if not found:
        print("nothing of ticketbench is up")
    for stack in found:
        print(stack.describe())
    return EXIT_OK
