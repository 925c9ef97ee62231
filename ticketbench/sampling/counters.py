"""Counters that only grow, although what they are read from is reset, dropped and restarted."""

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Counters(Generic[K]):
    """Monotone totals by key, from 0 at the sampler's start, fed with raw totals that may start again.

    A raw value below the last one means that its source was reset: all of it is new. What was counted before the first
    reading of a source is left out (``baseline``); a key that shows up later has counted from 0.
    """

    def __init__(self) -> None:
        self._total: dict[K, float] = {}
        self._raw: dict[K, float] = {}

    def add(self, key: K, increment: float) -> None:
        """Add to a total that has no raw counterpart."""
        self._total[key] = self._total.get(key, 0.0) + increment

    def read(self, key: K, raw: float, *, baseline: bool = False) -> None:
        """Take a raw total. With ``baseline`` a key seen for the first time starts at 0 instead of at its value."""
        last = self._raw.get(key)
        self._raw[key] = raw
        if last is None:
            self._total[key] = self._total.get(key, 0.0) + (0.0 if baseline else raw)
        elif raw != last:
            self._total[key] += raw - last if raw > last else raw

    def forget_raw(self) -> None:
        """Start a new epoch: the source was made anew, so whatever it says next was counted since then."""
        self._raw.clear()

    def __getitem__(self, key: K) -> float:
        return self._total.get(key, 0.0)

    def items(self) -> Iterator[tuple[K, float]]:
        """Yield each key with its total."""
        yield from self._total.items()

    def sum(self) -> float:
        """Return the sum of all totals."""
        return sum(self._total.values())
