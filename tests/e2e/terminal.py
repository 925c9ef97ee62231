"""Runs the installed program on a terminal of its own, and reads what a person would see there."""

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable

import pyte
from program import PROGRAM, Program

_STEP_S = 0.1


class Terminal:
    """The program on a pseudo-terminal, its output drawn by a terminal emulator. ``raw`` is all that was written."""

    def __init__(self, program: Program, columns: int, lines: int, *arguments: str, **env: str) -> None:
        self.screen = pyte.HistoryScreen(columns, lines, history=1000, ratio=1.0)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        ours, theirs = pty.openpty()
        self._file = ours
        self._size(columns, lines)
        with_terminal = {**program.env, "TERM": "xterm-256color", "LANG": "C.UTF-8", **env}
        for name in ("COLUMNS", "NO_COLOR"):
            if name not in env:
                with_terminal.pop(name, None)
        self.process = subprocess.Popen(
            [PROGRAM, *arguments],
            cwd=program.folder,
            env=with_terminal,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # a Ctrl-C needs a controlling terminal
        )
        os.close(theirs)
        program.terminals.append(self)

    def _size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._file, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns: int, lines: int) -> None:
        """Change the window; the emulator cuts lines that are too long, it does not fold them."""
        self.screen.resize(lines, columns)
        self._size(columns, lines)

    def type(self, text: bytes) -> None:
        """Press keys."""
        os.write(self._file, text)

    def shown(self) -> list[str]:
        """The lines of the screen and of what scrolled away above it, without trailing blanks."""
        history = [
            "".join(line[column].data for column in range(self.screen.columns)) for line in self.screen.history.top
        ]
        lines = [line.rstrip() for line in (*history, *self.screen.display)]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def until(self, seen: Callable[[list[str]], bool], seconds: float = 120) -> list[str]:
        """Read on until the screen is as wanted, and return it."""
        deadline = time.monotonic() + seconds
        while not seen(shown := self.shown()):
            assert time.monotonic() < deadline, "\n".join(shown)
            assert self._read(_STEP_S), "ended before that was seen:\n" + "\n".join(shown)
        return shown

    def end(self, seconds: float = 120) -> int:
        """Read on until the program has ended; return its exit code."""
        deadline = time.monotonic() + seconds
        while self._read(_STEP_S):
            assert time.monotonic() < deadline, "\n".join(self.shown())
        return self.process.wait(10)

    def close(self) -> None:
        """End what a failed test left running."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        with contextlib.suppress(OSError):
            os.close(self._file)

    def _read(self, seconds: float) -> bool:
        """Draw what comes within ``seconds``; return whether more may come."""
        if not select.select([self._file], [], [], seconds)[0]:
            return True
        try:
            written = os.read(self._file, 65536)
        except OSError:  # Linux's way to say that the other side is closed
            return False
        self.raw += written
        self._stream.feed(written)
        return bool(written)
