"""The live panel: what is going on, at the foot of the terminal; what is finished scrolls by above it.

A thread of its own draws. So a terminal that is slow, stopped (Ctrl-S) or gone never holds up a trial, and a signal,
which Python delivers to the main thread, never arrives in the middle of a line.
"""

import contextlib
import os
import queue
import sys
import threading
import time
from dataclasses import dataclass
from typing import Final, Self, TypeAlias

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ticketbench.cli import output
from ticketbench.cli.board import Board
from ticketbench.cli.lines import Lines, stored_text
from ticketbench.events import Event, Notice, TrialStored

REDRAW_EVERY_S: Final = 1.0  # clocks go on where no event comes; a redraw costs about 3 ms of CPU
LOOK_EVERY_S: Final = 0.25  # how late an event, or a window of another width, may show
CLOSE_LIMIT_S: Final = 2.0  # a terminal that takes nothing any more is not waited for longer
_CLEAR_LINE: Final = "\x1b[2K"
_CURSOR_UP: Final = "\x1b[1A"


@dataclass(frozen=True)
class _Announced:
    text: str


class _Closed:
    """The last thing in the queue."""


Drawer: TypeAlias = "Panel | Lines"


def drawer() -> Drawer:
    """Return what draws progress on standard error: the panel on a terminal that can show it, else plain lines.

    Use it as a context manager: after it the terminal is as it was. ``NO_COLOR`` takes the panel's colours away.
    """
    encoding = (getattr(sys.stderr, "encoding", None) or "").lower().replace("-", "")
    fit = sys.stderr.isatty() and os.environ.get("TERM", "dumb").lower() not in ("dumb", "unknown", "")
    return Panel() if fit and encoding == "utf8" else Lines()


class Panel:
    """Draws events as a panel that is renewed in place. Every call returns at once."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Event | _Announced | _Closed] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="panel", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the panel away and leave a clean terminal, cursor included. Idempotent."""
        self._queue.put(_Closed())
        self._thread.join(CLOSE_LIMIT_S)

    def __call__(self, event: Event) -> None:
        """Take in one event."""
        self._queue.put(event)

    def announce(self, text: str) -> None:
        """Print what is about to happen, above the panel."""
        self._queue.put(_Announced(text))

    def _work(self) -> None:
        with contextlib.suppress(OSError):  # the terminal went away, and the run goes on: SIGHUP tells it to end
            _Drawing(self._queue).until_closed()


class _Drawing:
    """The drawing thread's own state."""

    def __init__(self, events: "queue.SimpleQueue[Event | _Announced | _Closed]") -> None:

        self._events = events
        self._console = Console(
            file=sys.stderr, force_terminal=True, highlight=False, markup=False, emoji=False, legacy_windows=False
        )
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        self._begun_s = time.monotonic()
        self._board = Board(begun_s=self._begun_s)
        self._drawn_s = 0.0
        self._drawn_width = 0
        self._drawn_lengths: tuple[int, ...] = ()

    def until_closed(self) -> None:
        """Draw what comes until the end is told; the panel is gone and the cursor shown then, whatever happens."""
        with self._live:
            while True:
                changed = False
                try:
                    item = self._events.get(timeout=LOOK_EVERY_S)
                    while True:
                        if isinstance(item, _Closed):
                            self._make_room()
                            return
                        changed = self._take(item) or changed
                        item = self._events.get_nowait()
                except queue.Empty:
                    pass
                now_s = time.monotonic()
                resized = self._console.width != self._drawn_width
                if changed or resized or now_s - self._drawn_s >= REDRAW_EVERY_S:
                    self._draw(now_s)

    def _take(self, item: "Event | _Announced") -> bool:
        """Take in one thing and return whether the panel has to be drawn anew now."""
        if isinstance(item, _Announced):
            self._print(item.text, "")
            return True
        self._board.apply(item, time.monotonic())
        match item:
            case TrialStored():
                self._print(self._timed(stored_text(item)), "" if item.status == "done" else "yellow")
            case Notice():
                self._print(self._timed(f"note: {item.text}"), "yellow")
        return True

    def _timed(self, text: str) -> str:
        return f"{time.monotonic() - self._begun_s:6.1f} s  {text}"

    def _print(self, text: str, style: str) -> None:
        """Print lines above the panel, folded where they are too long: they are not renewed."""
        self._make_room()
        for line in text.split("\n"):
            self._console.print(Text(output.plain(line), style=style), overflow="fold")

    def _draw(self, now_s: float) -> None:
        self._make_room()
        width = self._console.width
        frame = self._board.frame(now_s, width)
        self._live.update(frame, refresh=True)
        self._drawn_s, self._drawn_width = now_s, width
        options = self._console.options.update(width=width)
        lines = self._console.render_lines(frame, options, pad=False)
        self._drawn_lengths = tuple(sum(segment.cell_length for segment in line) for line in lines)

    def _make_room(self) -> None:
        """Erase what a terminal that became narrower has made of our lines beyond the rows that rich knows of."""
        width = self._console.width
        if not self._drawn_width or width >= self._drawn_width:
            return
        folded = sum(max(0, -(-length // width) - 1) for length in self._drawn_lengths)
        if folded:
            self._console.file.write((_CLEAR_LINE + _CURSOR_UP) * folded)
        self._drawn_width, self._drawn_lengths = width, ()
