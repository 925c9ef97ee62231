"""Acknowledged purchases and the ledger as columns: an hour at 500/s is 1.8 million of each.

A purchase's key is kept as a digest of 128 bits, so that a row takes the same few bytes whatever the key, and counting
is sorting. Two different keys of 1.8 million have the same digest with a probability of 1e-26.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ticketbench.model import Ack, LedgerKind, LedgerRow
from ticketbench.storing.files import Damaged, read_table, write_table

Digests = NDArray[np.uint64]
Ints = NDArray[np.int64]

_NO_CODE: Final = -2  # pandas itself says -1 for a value that is in no category
_KINDS: Final[tuple[str, ...]] = get_args(LedgerKind)
_ACK_TYPES: Final = {"at_s": float, "match_id": np.int64, "key": object, "ticket_id": np.int64}
_LEDGER_TYPES: Final = {
    "kind": "category", "match_id": np.int64, "quantity": np.int64, "ticket_id": np.int64, "key": object,
}  # fmt: skip
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


@dataclass(frozen=True, eq=False)
class Acks:
    """Acknowledged purchases, each told by key, ticket and match together. ``span_s``: the first and the last.

    ``keyless``: some have an empty key, because whoever bought was never told the ticket's own.
    """

    purchases: Keys
    span_s: tuple[float, float] | None = None
    keyless: bool = False

    def __len__(self) -> int:
        return len(self.purchases)

    @classmethod
    def of(cls, rows: Iterable[Ack]) -> "Acks":
        """Return rows as columns."""
        kept = list(rows)
        return cls(
            Keys.of([row.key for row in kept]).with_(
                _ints([row.ticket_id for row in kept]), _ints([row.match_id for row in kept])
            ),
            (min(row.at_s for row in kept), max(row.at_s for row in kept)) if kept else None,
            any(not row.key for row in kept),
        )


@dataclass(frozen=True, eq=False)
class Ledger:
    """What database and Redis hold: capacity and counters by match, the tickets, and what Redis holds as taken.

    ``tickets`` are told by key, ticket and match together, ``ticket_keys`` by the key alone where there is one,
    ``buyers`` by key and match, and ``numbered`` by ticket and match, as an acknowledgement without a key is; ``taken``
    and ``in_carts`` are buyers too. ``sold`` counts the tickets of each match, ``held`` those that are in carts.
    """

    capacity: dict[int, int] = field(default_factory=dict)
    stock: dict[int, int] = field(default_factory=dict)
    redis_stock: dict[int, int] = field(default_factory=dict)
    sold: dict[int, int] = field(default_factory=dict)
    tickets: Keys = field(default_factory=lambda: Keys.joined([]))
    ticket_keys: Keys = field(default_factory=lambda: Keys.joined([]))
    buyers: Keys = field(default_factory=lambda: Keys.joined([]))
    taken: Keys = field(default_factory=lambda: Keys.joined([]))
    held: dict[int, int] = field(default_factory=dict)
    in_carts: Keys = field(default_factory=lambda: Keys.joined([]))
    numbered: Keys = field(default_factory=lambda: Keys.joined([]))

    def told_by(self, *, keyless: bool) -> Keys:
        """Return the tickets as acknowledgements tell them, ``keyless`` ones too where there are any."""
        return Keys.joined([self.tickets, self.numbered]) if keyless else self.tickets

    @property
    def promised(self) -> Keys:
        """Whoever has a ticket, or one in a cart."""
        return Keys.joined([self.buyers, self.in_carts])

    @classmethod
    def of(cls, rows: Iterable[LedgerRow]) -> "Ledger":
        """Return rows as columns."""
        kept = list(rows)
        table = pd.DataFrame(
            {
                "kind": pd.Categorical([row.kind for row in kept], categories=_KINDS),
                "match_id": _ints([row.match_id for row in kept]),
                "quantity": _ints([row.quantity for row in kept]),
                "ticket_id": _ints([row.ticket_id for row in kept]),
                "key": np.array([row.key for row in kept], dtype=object),
            }
        )
        return _ledger([table], "the ledger")


def _ints(values: Sequence[int]) -> Ints:
    return np.array(values, dtype=np.int64)


# --- the files --------------------------------------------------------------------------------------------------------


def write_acks(path: Path, acks: Iterable[Ack]) -> int:
    """Write acknowledged purchases as they come; return how many. Raises EnvironmentFailure."""
    return write_table(path, tuple(_ACK_TYPES), ((f"{a.at_s:.3f}", a.match_id, a.key, a.ticket_id) for a in acks))


def write_ledger(path: Path, rows: Iterable[LedgerRow]) -> int:
    """Write the ledger as it comes; return how many rows. Raises EnvironmentFailure."""
    return write_table(path, tuple(_LEDGER_TYPES), rows)


def read_acks(path: Path, where: str) -> Acks:
    """Read the file. Raises Damaged, which calls it ``where``."""
    parts, times, keyless = [], [], False
    for piece in read_table(path, _ACK_TYPES, where):
        ticket, match = (piece[name].to_numpy(dtype=np.int64) for name in ("ticket_id", "match_id"))
        named = piece["key"].to_numpy(dtype=object)
        keyless = keyless or bool((named == "").any())
        parts.append(Keys.of(named).with_(ticket, match))
        if len(piece):
            times += [float(piece["at_s"].min()), float(piece["at_s"].max())]
    return Acks(Keys.joined(parts), (min(times), max(times)) if times else None, keyless)


def read_ledger(path: Path, where: str) -> Ledger:
    """Read the file. Raises Damaged, which calls it ``where``."""
    return _ledger(read_table(path, _LEDGER_TYPES, where), where)


def _ledger(tables: Iterable[pd.DataFrame], where: str) -> Ledger:
    counters: dict[str, dict[int, int]] = {"capacity": {}, "stock": {}, "redis_stock": {}}
    counted: dict[str, dict[int, int]] = {"ticket": {}, "held": {}}
    named_buyers: dict[str, list[Keys]] = {"ticket": [], "held": [], "redis_taken": []}
    tickets, keys, numbered = [], [], []
    for table in tables:
        codes = table["kind"].cat.codes.to_numpy()
        code_of = {str(kind): code for code, kind in enumerate(table["kind"].cat.categories)}
        if strange := {kind for kind, code in code_of.items() if kind not in _KINDS and (codes == code).any()}:
            raise Damaged(f"{where} is damaged: a row of kind {min(strange)!r}, which is none of {', '.join(_KINDS)}")
        match, ticket = (table[name].to_numpy(dtype=np.int64) for name in ("match_id", "ticket_id"))
        for kind, of in counters.items():
            for at in np.flatnonzero(codes == code_of.get(kind, _NO_CODE)):
                add = of.get(int(match[at]), 0) if kind == "capacity" else 0
                of[int(match[at])] = add + int(table["quantity"].iloc[at])
        named = table["key"].to_numpy(dtype=object)
        for kind, buyers in named_buyers.items():
            here = codes == code_of.get(kind, _NO_CODE)
            if not here.any():
                continue
            digests = Keys.of(named[here])
            buyers.append(digests.with_(match[here]))
            if kind == "ticket":
                tickets.append(digests.with_(ticket[here], match[here]))
                numbered.append(Keys.of([""]).repeated(int(here.sum())).with_(ticket[here], match[here]))
                keys.append(digests.only((named[here] != "").astype(bool)))
            if kind in counted:
                _count(counted[kind], match[here])
    return Ledger(
        counters["capacity"], counters["stock"], counters["redis_stock"], counted["ticket"],
        Keys.joined(tickets), Keys.joined(keys), Keys.joined(named_buyers["ticket"]),
        Keys.joined(named_buyers["redis_taken"]), counted["held"], Keys.joined(named_buyers["held"]),
        Keys.joined(numbered),
    )  # fmt: skip


def _count(counts: dict[int, int], matches: Ints) -> None:
    """Add how often each match is there."""
    for match, count in zip(*(part.tolist() for part in np.unique(matches, return_counts=True)), strict=True):
        counts[match] = counts.get(match, 0) + count
