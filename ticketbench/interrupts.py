"""What interrupts ticketbench, signals and failures elsewhere: one exception each, raised only where it is safe."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

from ticketbench.errors import Interrupted, TicketbenchError

# A closed terminal ends a run as SIGTERM does.
_SIGNALS: Final = {signal.SIGINT: signal.SIGINT, signal.SIGTERM: signal.SIGTERM, signal.SIGHUP: signal.SIGTERM}
# Wakes the main thread out of whatever it waits for. Where nobody handles it the system ignores it.
_WAKE: Final = signal.SIGURG
WATCH_PERIOD_S: Final = 0.25

_Handler = Callable[[int, FrameType | None], object]

# How many deferred() blocks the main thread is in. Only the main thread writes it, and handlers run in that thread.
_deferring = 0


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
    global _deferring
    received: list[int] = []

    def remember(signum: int, _frame: FrameType | None) -> None:
        received.append(signum)

    before = {}
    _deferring += 1
    try:
        for held in _SIGNALS:
            before[held] = signal.getsignal(held)
            signal.signal(held, remember)
        yield
    finally:
        _deferring -= 1
        for held, handler in before.items():
            # None: installed by something other than Python, which cannot be put back
            signal.signal(held, signal.SIG_DFL if handler is None else handler)
        for signum in received:
            signal.raise_signal(signum)


@contextlib.contextmanager
def watching(look: Callable[[], TicketbenchError | None]) -> Iterator[None]:
    """Within the block ask ``look`` every 0.25 s, and raise the error that it returns in the block, once.

    It is raised whatever the block waits for, a server's answer above all, but not within a :func:`deferred` block:
    then right after it. ``look`` is called from a thread of its own. Outside of the main thread nothing is watched:
    whoever calls from there has a time-out and no more.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(_WAKE)
    watcher = _Watcher(look, outer=before if callable(before) else _too_late)
    signal.signal(_WAKE, watcher.wake)
    try:
        watcher.thread.start()
        yield
    finally:
        watcher.done.set()  # first of all: from here on nothing is raised
        watcher.thread.join()
        # not the default: one that is still on its way would find nobody to handle it
        signal.signal(_WAKE, watcher.outer)


def _too_late(_signum: int, _frame: FrameType | None) -> None:
    """Take a wake-up that nobody needs any more."""


class _Watcher:
    """The thread of one :func:`watching` block, and the handler that raises what it found."""

    def __init__(self, look: Callable[[], TicketbenchError | None], outer: _Handler) -> None:
        self.outer = outer
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="watching", daemon=True)
        self._look = look
        self._main = threading.main_thread().ident or 0
        self._found: TicketbenchError | None = None

    def _watch(self) -> None:
        while not self.done.wait(WATCH_PERIOD_S):
            self._found = self._found or self._look()
            if self._found is not None:
                # again each time round, until the block has ended: it may be deferring, or start another wait first
                signal.pthread_kill(self._main, _WAKE)

    def wake(self, signum: int, frame: FrameType | None) -> None:
        if self._found is not None and not _deferring and not self.done.is_set():
            self.done.set()
            raise self._found
        self.outer(signum, frame)
