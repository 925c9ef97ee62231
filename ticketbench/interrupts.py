"""What interrupts ticketbench, signals and failures elsewhere: one exception each, raised only where it is safe."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
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
# The innermost of them.
_held: "Hold | None" = None


def _interrupt(signum: int, _frame: FrameType | None) -> None:
    raise Interrupted(_SIGNALS[signal.Signals(signum)])


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Within the block SIGINT, SIGTERM and SIGHUP raise :class:`Interrupted`. Call it from the main thread."""
    before = {signum: signal.signal(signum, _interrupt) for signum in _SIGNALS}
    try:
        yield
    finally:
        _put_back(before)


def ignored() -> None:
    """From now on SIGINT, SIGTERM and SIGHUP change nothing: all is said, and the exit code is decided.

    It holds beyond the ends of the blocks of :func:`raised` and :func:`deferred` that it is called in.
    """
    for signum in _SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


def _put_back(before: Mapping[signal.Signals, _Handler | int | None]) -> None:
    """Give signals back to those who handled them ``before``, unless they are to be ignored by now."""
    for signum, handler in before.items():
        if signal.getsignal(signum) != signal.SIG_IGN or handler == signal.SIG_IGN:
            # None: installed by something other than Python, which cannot be put back
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)


class Hold:
    """Signals that are held back by :func:`deferred`, and the parts of its block in which they may strike all the same.

    Between two such parts nothing is raised, so what must follow the one (store what it came to, stop the servers)
    follows, however closely two signals lie together.
    """

    def __init__(self) -> None:
        self._received: list[int] = []
        self._open = False
        self._deferring_outside = 0

    def listening(self) -> "Hold":
        """Return a context in which a signal raises :class:`Interrupted`, the first one only, also one held before."""
        return self

    def taken(self) -> Interrupted | None:
        """Return what the first signal held back would have raised, and forget all of them. None where none came."""
        received, self._received = self._received, []
        return Interrupted(_SIGNALS[signal.Signals(received[0])]) if received else None

    def __enter__(self) -> None:
        global _deferring
        if (interrupted := self.taken()) is not None:
            raise interrupted
        self._deferring_outside, _deferring = _deferring, 0
        self._open = True

    def __exit__(self, *_: object) -> None:
        global _deferring
        self._open = False
        _deferring = self._deferring_outside

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """Handle a signal that arrived: raise it where somebody listens, else keep it."""
        # the interpreter looks for signals as it enters __exit__, when the block is over already
        if self._open and (frame is None or frame.f_code is not Hold.__exit__.__code__):
            self._open = False  # whoever is interrupted may put things in order in peace
            raise Interrupted(_SIGNALS[signal.Signals(signum)])
        self._received.append(signum)

    def release(self) -> list[int]:
        """Return the signals held back, in their order, and forget them."""
        received, self._received = self._received, []
        return received

    def inherit(self, outer: "Hold") -> None:
        """Take over what ``outer`` has held back."""
        self._received += outer.release()


@contextlib.contextmanager
def deferred() -> Iterator[Hold]:
    """Hold SIGINT, SIGTERM and SIGHUP back until the end of the block, then deliver them to who handled them before.

    For what must be finished: stopping servers, writing a trial down. The block gets a :class:`Hold`, with which it may
    listen to them in between. Where it ends by Interrupted, what else was held back is forgotten: the user was heard.
    Children are not affected: a handler, unlike a mask or an ignored signal, is not inherited. Outside of the main
    thread no Python handler runs, so nothing has to be done there.
    """
    global _deferring, _held
    hold = Hold()
    if threading.current_thread() is not threading.main_thread():
        yield hold
        return
    outer = _held
    before = {}
    _deferring += 1
    try:
        for held in _SIGNALS:
            before[held] = signal.getsignal(held)
            signal.signal(held, hold.handle)
        _held = hold
        if outer is not None:
            hold.inherit(outer)
        yield hold
    except Interrupted:
        hold.release()
        raise
    finally:
        _deferring -= 1
        _held = outer
        _put_back(before)
        for signum in hold.release():
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
        with deferred():  # a thread whose start was interrupted cannot be waited for
            watcher.thread.start()
        yield
    finally:
        try:
            watcher.end()  # first of all: from here on nothing is raised
        finally:  # a signal strikes a listener once, so what it cut off above is done here
            watcher.end()
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

    def end(self) -> None:
        """Stop watching, and wait for the thread's end where it has begun. Idempotent."""
        self.done.set()
        if self.thread.ident is not None:
            self.thread.join()

    def wake(self, signum: int, frame: FrameType | None) -> None:
        if self._found is not None and not _deferring and not self.done.is_set():
            self.done.set()
            raise self._found
        self.outer(signum, frame)
