"""What the provider has done, a line of JSON for each: it outlives the process, and is the export for the audit.

A line is written before what it says is answered. Not synced: it has to survive the process, not the machine.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from time import time
from typing import Final, Literal, NamedTuple

# charge, refund: money moved. decline, void: none did, and none will under this key.
Kind = Literal["charge", "decline", "refund", "void"]

_PIECE_BYTES: Final = 1 << 16


class Line(NamedTuple):
    """One thing that was done under a key."""

    kind: Kind
    key: str
    amount_pence: int


class Journal:
    """The lines of one provider in a file that is only appended to. Raises OSError where the disk refuses."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def lines(self) -> Iterator[Line]:
        """Yield what was written in earlier lives; half a line at the end, which nobody was answered for, is cut."""
        whole = 0
        with self._path.open("rb") as file:
            for raw in file:
                if not raw.endswith(b"\n"):
                    break
                whole += len(raw)
                said = json.loads(raw)
                yield Line(said["kind"], said["key"], said["amount_pence"])
        os.ftruncate(self._file, whole)

    def write(self, line: Line) -> None:
        """Append a line, whole or not at all."""
        raw = json.dumps({**line._asdict(), "at_s": round(time(), 3)}).encode() + b"\n"
        before = os.fstat(self._file).st_size
        if os.write(self._file, raw) != len(raw):  # the disk is full
            os.ftruncate(self._file, before)
            raise OSError("the journal of charges cannot be written to: no space left on device")

    def export(self) -> Iterator[bytes]:
        """Yield the file as it is now, in pieces; what is written meanwhile is not part of it."""
        end = os.fstat(self._file).st_size
        at = 0
        while at < end:
            piece = os.pread(self._file, min(_PIECE_BYTES, end - at), at)
            if not piece:
                return
            at += len(piece)
            yield piece

    def empty(self) -> None:
        """Forget everything."""
        os.ftruncate(self._file, 0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
