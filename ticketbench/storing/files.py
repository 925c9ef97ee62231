"""Files that are whole or absent, written as a stream or at once, and tables read in pieces."""

import contextlib
import csv
import errno
import gzip
import io
import itertools
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from ticketbench.errors import EnvironmentFailure

if TYPE_CHECKING:
    import pandas as pd

# What reading a file raises that is not what was written. pandas's and pydantic's own errors are ValueErrors.
DAMAGE: Final = (OSError, EOFError, zlib.error, ValueError, KeyError, OverflowError, csv.Error)

# Level 3 packs within a tenth of level 6 in two thirds of its time (measured on a ledger of 600 000 tickets).
_COMPRESSION: Final = 3
_ROWS_AT_A_TIME: Final = 100_000
_ROWS_WRITTEN_AT_A_TIME: Final = 5000


class Damaged(Exception):
    """A file that is not what ticketbench wrote; the message names it without folders of this machine."""


@contextlib.contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """Open a file beside ``path`` for writing; flush it to disk and rename it once the block has ended well.

    A reader sees the old file or the new one, never a half. Raises EnvironmentFailure (disk full, not writable); where
    anything is raised inside, the old file stays and nothing is left beside it.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise EnvironmentFailure(f"cannot write {path}: {error.strerror or error}", _remedy(error)) from error
        raise


def _remedy(error: OSError) -> str:
    """Return what helps whichever command writes: an option to write elsewhere, only some of them have."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space on its disk"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "make its folder writable"
    return "look at its folder and its disk"


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` whole. Raises EnvironmentFailure, see :func:`whole`."""
    with whole(path) as file:
        file.write(content)


def write_gzip(path: Path, text: str) -> None:
    """Write ``text`` compressed and whole. Raises EnvironmentFailure, see :func:`whole`."""
    write_atomically(path, gzip.compress(text.encode(), compresslevel=_COMPRESSION, mtime=0))


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> int:
    """Write rows as they come, compressed and whole; memory does not grow with their number. Returns how many.

    Raises EnvironmentFailure, see :func:`whole`; what ``rows`` itself raises leaves no file.
    """
    count = 0
    remaining = iter(rows)
    with (
        whole(path) as file,
        gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=_COMPRESSION, mtime=0) as packed,
    ):
        packed.write(_csv([header]))
        while piece := list(itertools.islice(remaining, _ROWS_WRITTEN_AT_A_TIME)):
            packed.write(_csv(piece))
            count += len(piece)
    return count


def _csv(rows: Iterable[Sequence[object]]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode(
        "utf-8", "backslashreplace"
    )  # half a surrogate pair in a script's key is no reason to end


def read_table(path: Path, types: dict[str, Any], where: str) -> "Iterator[pd.DataFrame]":
    """Yield a table in pieces of 100 000 rows; ``types`` are its columns, in order, and what each holds.

    Raises Damaged, which calls the file ``where``, for one that is cut off, altered, or has other columns.
    """
    import pandas as pd  # heavy

    try:
        with (
            gzip.open(path, "rb") as file,
            pd.read_csv(
                file, dtype=types, chunksize=_ROWS_AT_A_TIME, na_filter=False, engine="c", lineterminator="\n"
            ) as pieces,
        ):
            for piece in pieces:
                columns = [str(name) for name in piece.columns]
                if columns != list(types):
                    raise Damaged(f"{where} is damaged: its columns are {columns}, not {list(types)}")
                if not isinstance(piece.index, pd.RangeIndex):  # how pandas reads rows that are too long
                    raise Damaged(f"{where} is damaged: a row has more than {len(types)} fields")
                yield piece
    except DAMAGE as error:
        raise damaged(where, error) from error


def damaged(where: str, error: Exception) -> Damaged:
    """Return the error for a file that cannot be read: its first line says enough."""
    text = " ".join(str(error).splitlines()[:1]) or type(error).__name__
    return Damaged(f"{where} is damaged: {text}")
