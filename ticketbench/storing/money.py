"""The money of a trial as columns: what was charged and given back, and what each ticket was paid with."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from ticketbench.storing.keys import Ints, Keys

_KEYED: Final = ("charge", "refund", "unsettled", "paid_with", "ticket")


@dataclass(frozen=True, eq=False)
class Money:
    """``charges`` and ``refunds``: the key of each; ``payers``: the key that each ticket was paid under.

    ``unsettled``: keys whose payments the sale had no time to end. Amounts are pence, ``price_pence`` of all tickets.
    """

    charges: Keys
    refunds: Keys
    payers: Keys
    unsettled: Keys
    charged_pence: int
    refunded_pence: int
    price_pence: int


class MoneyReader:
    """Reads the rows of money out of a ledger's tables, one after the other."""

    def __init__(self) -> None:
        self._keys: dict[str, list[Keys]] = {kind: [] for kind in _KEYED}
        self._ids: dict[str, list[Ints]] = {"paid_with": [], "ticket": []}
        self._pence = {"charge": 0, "refund": 0, "provider": 0}
        self._provider = False

    def read(self, table: pd.DataFrame) -> None:
        """Take in a table."""
        for kind in _KEYED:
            rows = table[table["kind"] == kind]
            if rows.empty:
                continue
            self._keys[kind].append(Keys.of(rows["key"].to_numpy(dtype=object)))
            if kind in self._ids:
                self._ids[kind].append(rows["ticket_id"].to_numpy(dtype=np.int64))
        for kind in self._pence:
            rows = table[table["kind"] == kind]
            self._pence[kind] += int(rows["quantity"].sum())
            self._provider = self._provider or (kind == "provider" and not rows.empty)

    def result(self) -> Money | None:
        """Return all of it; None where the trial had no provider."""
        if not self._provider:
            return None
        keys = {kind: Keys.joined(parts) for kind, parts in self._keys.items()}
        nothing: Ints = np.zeros(0, dtype=np.int64)
        ids = {kind: np.concatenate([nothing, *parts]) for kind, parts in self._ids.items()}
        own = keys["ticket"].only(~np.isin(ids["ticket"], ids["paid_with"]))
        others = keys["paid_with"].only(np.isin(ids["paid_with"], ids["ticket"]))
        return Money(
            charges=keys["charge"],
            refunds=keys["refund"],
            payers=Keys.joined([own, others]),
            unsettled=keys["unsettled"],
            charged_pence=self._pence["charge"],
            refunded_pence=self._pence["refund"],
            price_pence=self._pence["provider"],
        )
