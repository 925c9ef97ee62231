"""Acknowledged purchases and the ledger as columns: an hour at 500/s is 1.8 million of each."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ticketbench.ledger_rows import Ack, LedgerKind, LedgerRow
from ticketbench.storing.files import Damaged, read_table, write_table
from ticketbench.storing.keys import Ints, Keys
from ticketbench.storing.money import Money, MoneyReader

_NO_CODE: Final = -2  # pandas itself says -1 for a value that is in no category
_KINDS: Final[tuple[str, ...]] = get_args(LedgerKind)
_ACK_TYPES: Final = {"at_s": float, "match_id": np.int64, "key": object, "ticket_id": np.int64}
_LEDGER_TYPES: Final = {
    "kind": "category", "match_id": np.int64, "quantity": np.int64, "ticket_id": np.int64, "key": object,
}  # fmt: skip
# Rows of these kinds are somebody's.
_NAMED: Final = ("ticket", "held", "redis_taken", "queued", "refused")


@dataclass(frozen=True, eq=False)
class Acks:
    """Acknowledged purchases, each told by key, ticket and match together. ``span_s``: the first and the last.

    ``accepted`` are those that were to be done later, told by key and match: a ticket was not promised yet.
    ``keyless``: some have an empty key, because whoever bought was never told the ticket's own.
    """

    purchases: Keys
    span_s: tuple[float, float] | None = None
    accepted: Keys = field(default_factory=lambda: Keys.joined([]))
    keyless: bool = False

    def __len__(self) -> int:
        return len(self.purchases)

    @classmethod
    def of(cls, rows: Iterable[Ack]) -> "Acks":
        """Return rows as columns."""
        kept = list(rows)
        tickets, accepted = _acks(
            np.array([row.key for row in kept], dtype=object),
            _ints([row.ticket_id for row in kept]),
            _ints([row.match_id for row in kept]),
        )
        times = [row.at_s for row in kept]
        return cls(tickets, (min(times), max(times)) if times else None, accepted, any(not row.key for row in kept))


def _acks(keys: "NDArray[np.object_]", tickets: Ints, matches: Ints) -> tuple[Keys, Keys]:
    """Return the purchases that got a ticket, and those that were only accepted."""
    digests = Keys.of(keys)
    later = tickets == 0
    sold = ~later
    return (
        digests.only(sold).with_(tickets[sold], matches[sold]),
        digests.only(later).with_(matches[later]),
    )


@dataclass(frozen=True, eq=False)
class Ledger:
    """What database and Redis hold: capacity and counters by match, the tickets, and what Redis holds as taken.

    ``tickets`` are told by key, ticket and match together, ``ticket_keys`` by the key alone where there is one,
    ``buyers`` by key and match, and ``numbered`` by ticket and match, as an acknowledgement without a key is; ``taken``
    and ``in_carts`` are buyers too. ``sold`` counts the tickets of each match, ``held`` those that are in carts.
    ``queued`` and ``refused`` are buyers whose purchase waits, or got no ticket.
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
    queued: Keys = field(default_factory=lambda: Keys.joined([]))
    refused: Keys = field(default_factory=lambda: Keys.joined([]))
    money: Money | None = None  # of a trial with a payment provider

    def told_by(self, *, keyless: bool) -> Keys:
        """Return the tickets as acknowledgements tell them, ``keyless`` ones too where there are any."""
        return Keys.joined([self.tickets, self.numbered]) if keyless else self.tickets

    @property
    def promised(self) -> Keys:
        """Whoever has a ticket, or one in a cart."""
        return Keys.joined([self.buyers, self.in_carts])

    @property
    def followed(self) -> Keys:
        """Whoever's purchase is known to have been accepted: done, refused, or waiting."""
        return Keys.joined([self.buyers, self.refused, self.queued])

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
    parts, accepted, times, keyless = [], [], [], False
    for piece in read_table(path, _ACK_TYPES, where):
        ticket, match = (piece[name].to_numpy(dtype=np.int64) for name in ("ticket_id", "match_id"))
        named = piece["key"].to_numpy(dtype=object)
        keyless = keyless or bool((named == "").any())
        sold, later = _acks(named, ticket, match)
        parts.append(sold)
        accepted.append(later)
        if len(piece):
            times += [float(piece["at_s"].min()), float(piece["at_s"].max())]
    span_s = (min(times), max(times)) if times else None
    return Acks(Keys.joined(parts), span_s, Keys.joined(accepted), keyless)


def read_ledger(path: Path, where: str) -> Ledger:
    """Read the file. Raises Damaged, which calls it ``where``."""
    return _ledger(read_table(path, _LEDGER_TYPES, where), where)


def _ledger(tables: Iterable[pd.DataFrame], where: str) -> Ledger:
    counters: dict[str, dict[int, int]] = {"capacity": {}, "stock": {}, "redis_stock": {}}
    counted: dict[str, dict[int, int]] = {"ticket": {}, "held": {}}
    named_buyers: dict[str, list[Keys]] = {kind: [] for kind in _NAMED}
    tickets, keys, numbered = [], [], []
    money = MoneyReader()
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
        money.read(table)
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
        Keys.joined(numbered), Keys.joined(named_buyers["queued"]), Keys.joined(named_buyers["refused"]),
        money.result(),
    )  # fmt: skip


def _count(counts: dict[int, int], matches: Ints) -> None:
    """Add how often each match is there."""
    for match, count in zip(*(part.tolist() for part in np.unique(matches, return_counts=True)), strict=True):
        counts[match] = counts.get(match, 0) + count
