"""Signals that ask ticketbench to end, turned into one exception that is raised only where it is safe."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Final, Self

from ticketbench.errors import Interrupted

# A closed terminal ends a run as SIGTERM does.
_SIGNALS: Final = {signal.SIGINT: signal.SIGINT, signal.SIGTERM: signal.SIGTERM, signal.SIGHUP: signal.SIGTERM}


class Interrupts:
    """While entered, SIGINT, SIGTERM and SIGHUP raise :class:`Interrupted` in the main thread.

    Within :meth:`shielded` they are only noted, because what runs there (stopping servers, renaming a file) must be
    finished; the first one noted is raised when the outermost shield ends, unless an exception is already under way.
    """

    def __init__(self) -> None:
        self._previous: dict[int, Any] = {}
        self._shields = 0
        self._noted: int | None = None

    def __enter__(self) -> Self:
        for signum in _SIGNALS:
            self._previous[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        effective = _SIGNALS[signal.Signals(signum)]
        if self._shields:
            self._noted = self._noted or effective
            return
        raise Interrupted(effective)

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Hold signals back until the block has ended."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
        if not self._shields and self._noted is not None:
            noted, self._noted = self._noted, None
            raise Interrupted(noted)
