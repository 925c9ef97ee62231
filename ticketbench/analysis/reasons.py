"""What several trials or variants say alike is said once, with whose it is."""

import re
from collections.abc import Sequence
from typing import Final

# A percentage is a figure and never a name, unlike other numbers (match 2, status 503): it may become a range.
# What has become one is found again: trials are put together first, then variants.
_PERCENTAGE: Final = re.compile(r"(\d+(?:\.\d+)?) %(?: to (\d+(?:\.\d+)?) %)?")


def said_once(parts: Sequence[tuple[str, Sequence[str]]]) -> list[tuple[tuple[str, ...], str]]:
    """Return each reason of the named ``parts`` once, in the order of its first mention, with the names that have it.

    Reasons that differ in percentages only are one, with the range: ``took 12 % to 14 % of the CPU``.
    """
    groups: dict[str, dict[str, list[str]]] = {}
    for name, reasons in parts:
        for reason in reasons:
            groups.setdefault(_PERCENTAGE.sub("%", reason), {}).setdefault(name, []).append(reason)
    return [(tuple(group), _range([text for texts in group.values() for text in texts])) for group in groups.values()]


def _range(texts: Sequence[str]) -> str:
    """Return texts that are equal but for their percentages as one."""
    columns = iter(list(zip(*(_PERCENTAGE.findall(text) for text in texts), strict=True)))

    def joined(_: re.Match[str]) -> str:
        values = sorted({end for ends in next(columns) for end in ends if end}, key=float)
        return " to ".join(f"{value} %" for value in dict.fromkeys((values[0], values[-1])))

    return _PERCENTAGE.sub(joined, texts[0])
