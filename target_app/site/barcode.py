"""A ticket's code as bars (Code 39, ISO/IEC 16388): what any scanner at a gate can read, and a few lines of SVG."""

from collections.abc import Iterator
from typing import Final

# Nine elements a character, bars and gaps in turn, a bar first; w: wide, n: narrow.
_PATTERNS: Final = {
    "0": "nnnwwnwnn", "1": "wnnwnnnnw", "2": "nnwwnnnnw", "3": "wnwwnnnnn", "4": "nnnwwnnnw", "5": "wnnwwnnnn",
    "6": "nnwwwnnnn", "7": "nnnwnnwnw", "8": "wnnwnnwnn", "9": "nnwwnnwnn", "A": "wnnnnwnnw", "B": "nnwnnwnnw",
    "C": "wnwnnwnnn", "D": "nnnnwwnnw", "E": "wnnnwwnnn", "F": "nnwnwwnnn", "S": "nnwnnnwwn", "T": "nnnnwnwwn",
    "-": "nwnnnnwnw", "*": "nwnnwnwnn",
}  # fmt: skip
_WIDE: Final = 3


def bars(code: str) -> tuple[list[tuple[int, int]], int] | None:
    """Return the bars as (from, width) and the width of it all, in narrow elements; None for what has no bars here."""
    if any(letter not in _PATTERNS for letter in code):
        return None
    found: list[tuple[int, int]] = []
    at = 0
    for dark, width in _elements(code):
        if dark:
            found.append((at, width))
        at += width
    return found, at - 1  # without the gap behind the last character


def _elements(code: str) -> Iterator[tuple[bool, int]]:
    for letter in f"*{code}*":
        for place, element in enumerate(_PATTERNS[letter]):
            yield place % 2 == 0, _WIDE if element == "w" else 1
        yield False, 1
