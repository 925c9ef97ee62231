"""Reads the CPU profile of a Go program: which share of its samples was spent below some functions.

The format is pprof's, a gzipped protocol buffer. Four of its messages and their fields are all that is needed, so they
are read by hand: Profile (sample 2, location 4, function 5, string_table 6), Sample (location_id 1, value 2), Location
(id 1, line 4), Line (function_id 1), Function (id 1, name 2).
"""

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_VARINT: Final = 0
_FIXED64: Final = 1
_BYTES: Final = 2
_FIXED32: Final = 5


@dataclass(frozen=True)
class Share:
    """How many samples of a profile there are, and how many of them were ``below`` the functions asked for."""

    below: int
    samples: int


def share_below(profile: bytes, part_of_name: str) -> Share:
    """Count the samples with a function of such a name on their stack. Raises ValueError, OSError, EOFError."""
    samples: list[tuple[list[int], int]] = []
    locations: dict[int, set[int]] = {}
    functions: dict[int, int] = {}
    texts: list[str] = []
    for field, value in _fields(gzip.decompress(profile)):
        if isinstance(value, int):
            continue
        if field == 2:
            samples.append(_sample(value))
        elif field == 4:
            number, lines = _location(value)
            locations[number] = lines
        elif field == 5:
            ids = dict(_numbers(value))
            functions[ids.get(1, 0)] = ids.get(2, 0)
        elif field == 6:
            texts.append(value.decode())
    wanted = {number for number, name in functions.items() if part_of_name in texts[name]}
    marked = {number for number, on_lines in locations.items() if on_lines & wanted}
    return Share(
        below=sum(count for stack, count in samples if marked.intersection(stack)),
        samples=sum(count for _, count in samples),
    )


def _sample(message: bytes) -> tuple[list[int], int]:
    """Return the stack of a sample and how often it was met: the first of its values."""
    stack: list[int] = []
    values: list[int] = []
    for field, value in _fields(message):
        numbers = [value] if isinstance(value, int) else list(_varints(value))
        if field == 1:
            stack += numbers
        elif field == 2:
            values += numbers
    return stack, values[0]


def _location(message: bytes) -> tuple[int, set[int]]:
    """Return a location's number and the functions in it: several where some were inlined."""
    number = 0
    found: set[int] = set()
    for field, value in _fields(message):
        if field == 1 and isinstance(value, int):
            number = value
        elif field == 4 and isinstance(value, bytes):
            found.add(dict(_numbers(value)).get(1, 0))
    return number, found


def _numbers(message: bytes) -> Iterator[tuple[int, int]]:
    return ((field, value) for field, value in _fields(message) if isinstance(value, int))


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field of a message."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            number, at = _varint(message, at)
            yield key >> 3, number
            continue
        if kind == _BYTES:
            length, at = _varint(message, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"not a profile: field of kind {kind}")
        if at + length > len(message):
            raise ValueError("not a whole profile")
        yield key >> 3, message[at : at + length]
        at += length


def _varints(packed: bytes) -> Iterator[int]:
    at = 0
    while at < len(packed):
        number, at = _varint(packed, at)
        yield number


def _varint(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(message):
            raise ValueError("not a whole profile")
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
