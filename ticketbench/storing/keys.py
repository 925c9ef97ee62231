"""Keys of purchases as digests of 128 bits: a row takes the same few bytes whatever the key, and counting is sorting.

Two different keys of 1.8 million have the same digest with a probability of 1e-26.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Digests = NDArray[np.uint64]
Ints = NDArray[np.int64]

# Two keys of SipHash, sixteen characters each: the two halves of a digest have nothing to do with one another.
_HALVES: Final = ("ticketbench:left", "ticketbench:rite")
# splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014)
_GOLDEN, _MIX_1, _MIX_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True, eq=False)
class Keys:
    """Digests of 128 bits in two halves of 64; a set of them with repetitions."""

    left: Digests
    right: Digests

    def __len__(self) -> int:
        return len(self.left)

    @classmethod
    def of(cls, texts: "NDArray[np.object_] | Sequence[str]") -> "Keys":
        """Return the digests of texts."""
        values = np.asarray(texts, dtype=object)
        left, right = (pd.util.hash_array(values, hash_key=half, categorize=False) for half in _HALVES)
        return cls(left.astype(np.uint64, copy=False), right.astype(np.uint64, copy=False))

    @classmethod
    def joined(cls, parts: "Sequence[Keys]") -> "Keys":
        """Return all of several."""
        nothing: Digests = np.zeros(0, dtype=np.uint64)
        return cls(
            np.concatenate([nothing, *(part.left for part in parts)]),
            np.concatenate([nothing, *(part.right for part in parts)]),
        )

    def with_(self, *numbers: Ints) -> "Keys":
        """Return the digest of each key together with the numbers beside it."""
        left, right = self.left, self.right
        for each in numbers:
            number = each.astype(np.uint64)
            left, right = _mixed(left ^ _mixed(number)), _mixed(right ^ _mixed(~number))
        return Keys(left, right)

    def repeated(self, times: int) -> "Keys":
        """Return all of these so many times."""
        return Keys(np.tile(self.left, times), np.tile(self.right, times))

    def only(self, chosen: NDArray[np.bool_]) -> "Keys":
        """Return those that ``chosen`` (one truth each) keeps."""
        return Keys(self.left[chosen], self.right[chosen])

    def distinct(self) -> int:
        """Return how many different ones there are."""
        return len(_groups(self)[1])

    def missing_in(self, others: "Keys") -> int:
        """Return how many different ones of these are not among ``others``."""
        order, starts = _groups(Keys.joined([self, others]))
        if not len(starts):
            return 0
        mine = (order < len(self)).astype(np.uint8)
        any_mine = np.maximum.reduceat(mine, starts)
        any_other = np.maximum.reduceat(1 - mine, starts)
        return int(np.count_nonzero(any_mine & (1 - any_other)))


def _mixed(values: Digests) -> Digests:
    """Return each value's hash, one to one (splitmix64's finaliser); overflow is its arithmetic."""
    z = values + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)


def _groups(keys: Keys) -> tuple[Ints, Ints]:
    """Return an order in which equal digests are neighbours, and where in it each group of equals starts."""
    order = np.argsort(keys.left)
    left, right = keys.left[order], keys.right[order]
    same_left = left[1:] == left[:-1]
    if (same_left & (right[1:] != right[:-1])).any():  # half a digest in common: only a full sort tells them apart
        order = np.lexsort((keys.right, keys.left))
        left, right = keys.left[order], keys.right[order]
        same_left = left[1:] == left[:-1]
    new = np.concatenate([np.ones(min(1, len(left)), dtype=bool), ~same_left | (right[1:] != right[:-1])])
    return order, np.flatnonzero(new)
