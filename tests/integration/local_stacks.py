"""A local stack for the tests of one module."""

from collections.abc import Iterator
from contextlib import contextmanager

from ticketbench.binaries import Binaries
from ticketbench.stack.local import LocalStack
from ticketbench.stack.process import labelled


@contextmanager
def running_stack(
    name: str, binaries: Binaries, *, most_workers: int, most_queue_workers: int = 0
) -> Iterator[LocalStack]:
    """Give a started stack; each test applies its own variant. Nothing of it is left at the end."""
    stack = LocalStack(name, binaries, most_workers=most_workers, most_queue_workers=most_queue_workers)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()
    assert labelled(stack.stack_id) == ()
