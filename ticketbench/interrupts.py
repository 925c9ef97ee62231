"""Signals that ask ticketbench to end: one exception, raised only where it is safe."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Final

from ticketbench.errors import Interrupted

# A closed terminal ends a run as SIGTERM does.
_SIGNALS: Final = {signal.SIGINT: signal.SIGINT, signal.SIGTERM: signal.SIGTERM, signal.SIGHUP: signal.SIGTERM}


def _interrupt(signum: int, _frame: FrameType | None) -> None:
    raise Interrupted(_SIGNALS[signal.Signals(signum)])


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Within the block SIGINT, SIGTERM and SIGHUP raise :class:`Interrupted`. Call it from the main thread."""
    before = {signum: signal.signal(signum, _interrupt) for signum in _SIGNALS}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Hold SIGINT, SIGTERM and SIGHUP back until the end of the block, then deliver them to who handled them before.

    For what must be finished: stopping servers, writing a trial down. Children are not affected: a handler, unlike a
    mask or an ignored signal, is not inherited. Outside of the main thread no Python handler runs, so nothing has to be
    done there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def remember(signum: int, _frame: FrameType | None) -> None:
        received.append(signum)

    before = {}
    try:
        for held in _SIGNALS:
            before[held] = signal.getsignal(held)
            signal.signal(held, remember)
        yield
    finally:
        for held, handler in before.items():
            # None: installed by something other than Python, which cannot be put back
            signal.signal(held, signal.SIG_DFL if handler is None else handler)
        for signum in received:
            signal.raise_signal(signum)
