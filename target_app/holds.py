"""Carts: tickets that are out of the stock for a while and become somebody's, or go back.

A ticket is taken under the same ``locking`` as a purchase takes it. From then on it is a row of ``holds``, and whoever
deletes the row decides what becomes of it: a checkout, which writes the ticket, or whoever gives it back, which adds it
to the stock in the same transaction. A row lock decides between the two, so nothing is sold twice and nothing is lost.
"""

import asyncio
import secrets
from dataclasses import dataclass
from datetime import datetime
from random import random
from typing import Any, Final

from sqlalchemy import Executable

from target_app import hold_queries as q
from target_app import queries
from target_app.database import Database, Row, Session
from target_app.errors import (
    BeingPaid,
    BuyerLimit,
    Conflict,
    NotLoggedIn,
    NotOnSale,
    RedisError,
    SoldOut,
    TooFewLeft,
    UnknownHold,
    UnknownMatch,
)
from target_app.figures import Figures, Stages
from target_app.locking import backoff_s, new_code
from target_app.redis_store import RedisStore, Taking
from target_app.settings import Settings


@dataclass(frozen=True, slots=True)
class Held:
    """A ticket in a cart, until ``expires_at``. ``paid_with``: the key of the checkout that is paying for it."""

    id: int
    match_id: int
    home: str
    away: str
    venue: str
    kickoff: datetime
    price_pence: int
    expires_at: datetime
    left_s: float
    paid_with: str | None


@dataclass(frozen=True, slots=True)
class Taken:
    """Tickets that have just been put into a cart, by the ids of their holds."""

    ids: tuple[int, ...]
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Cart:
    """What a buyer has in the cart now; ``expired`` tickets were in it and have just gone back."""

    held: tuple[Held, ...]
    expired: int

    @property
    def total_pence(self) -> int:
        """What all of it costs."""
        return sum(each.price_pence for each in self.held)


class Holds:
    """Takes tickets into carts and gives them back. Every method raises Unavailable."""

    def __init__(self, settings: Settings, database: Database, store: RedisStore, figures: Figures) -> None:
        self._database = database
        self._store = store
        self._figures = figures
        self._locking = settings.locking
        self._retries = settings.optimistic_retries
        self._ttl_s = settings.hold_ttl_s
        self._buyer_limit = settings.buyer_limit
        self._in_redis = settings.locking == "redis"
        self.active = asyncio.Event()  # set from the first hold on: there is something that may have to go back

    async def take(self, buyer: str, match_id: int, quantity: int, stages: Stages) -> Taken:
        """Put tickets into the cart, all or none; they are held once this returns.

        Raises UnknownMatch, NotOnSale, BuyerLimit (tickets and holds of the match together), SoldOut, TooFewLeft.
        """
        try:
            try:
                return await self._take(buyer, match_id, quantity, stages)
            except SoldOut:
                # What is left in carts past its time is for sale: this buyer need not wait for the sweeper. It is asked
                # for first, since it may be gone when the sweeper, who is just giving it back, lets go of it.
                async with self._database.autocommit(stages) as session:
                    found = await session.one(q.any_due, {"for_match": match_id})
                if found is None or not found.some:
                    raise
                await self._give_back(_DUE_NOW, match_id, {}, stages)
            return await self._take(buyer, match_id, quantity, stages)
        finally:
            self.active.set()

    async def _take(self, buyer: str, match_id: int, quantity: int, stages: Stages) -> Taken:
        keys = [f"hold-{secrets.token_hex(12)}" for _ in range(quantity)]
        wanted = {
            "for_match": match_id,
            "for_buyer": buyer,
            "keys": keys,
            "codes": [new_code() for _ in keys],
            "ttl_s": self._ttl_s,
        }
        async with self._database.transaction(stages) as session:
            if await session.one(q.lock_buyer, {"for_buyer": buyer}) is None:
                raise NotLoggedIn
            seen = await session.one(q.hold_view, {"for_buyer": buyer, "for_match": match_id})
            if seen is None:
                raise UnknownMatch
            if not seen.on_sale:
                raise NotOnSale
            if seen.held + quantity > self._buyer_limit:
                raise BuyerLimit
            rows = await self._guarded(session, seen, {**wanted, "at_price": seen.price_pence}, stages)
            await session.commit()
        return Taken(tuple(row.id for row in rows), rows[0].expires_at)

    async def _guarded(self, session: Session, seen: Row, wanted: dict[str, Any], stages: Stages) -> list[Row]:
        """Take and write what is wanted, uncommitted, as ``locking`` says; see :mod:`target_app.locking`."""
        quantity = len(wanted["keys"])
        match self._locking:
            case "atomic":
                rows = await session.all(q.hold, {**wanted, "quantity": quantity})
            case "pessimistic":
                locked = await session.one(queries.lock_stock, {"for_match": wanted["for_match"]})
                if locked is None or locked.stock < quantity:
                    raise _too_few(locked.stock if locked else 0)
                rows = await session.all(q.hold, {**wanted, "quantity": quantity})
            case "optimistic":
                return await self._optimistically(session, seen, {**wanted, "quantity": quantity})
            case "none":
                if seen.stock < quantity:
                    raise _too_few(seen.stock)
                rows = await session.all(q.hold_blindly, {**wanted, "stock_left": seen.stock - quantity})
            case "redis":
                return await self._by_redis(session, wanted, stages)
        if not rows:
            raise _too_few(seen.stock)
        return rows

    async def _optimistically(self, session: Session, seen: Row, wanted: dict[str, Any]) -> list[Row]:
        version, stock = seen.version, seen.stock
        for attempt in range(self._retries + 1):
            if attempt:
                self._figures.conflicts += 1
                await asyncio.sleep(random() * backoff_s(attempt))  # noqa: S311
                now = await session.one(queries.stock_and_version, {"for_match": wanted["for_match"]})
                version, stock = (now.version, now.stock) if now else (version, 0)
            if stock < wanted["quantity"]:
                raise _too_few(stock)
            rows = await session.all(q.hold_if_unchanged, {**wanted, "seen_version": version})
            if rows:
                return rows
        raise Conflict

    async def _by_redis(self, session: Session, wanted: dict[str, Any], stages: Stages) -> list[Row]:
        match_id, keys = wanted["for_match"], wanted["keys"]
        taking = await self._store.take_all(match_id, keys, stages)
        if taking is Taking.EMPTY:
            (stock,) = await self._store.stocks([match_id], stages)
            raise _too_few(stock or 0)
        if taking is not Taking.TAKEN:
            raise RedisError
        rows: list[Row] = []
        try:
            rows = await session.all(q.write_holds, wanted)
        finally:
            # Before the commit is sent a failure is sure to leave no hold; after it nobody can tell: stranded at worst.
            if not rows:
                await self._store.give_back_all(match_id, keys, stages)
        return rows

    async def cart(self, buyer: str, stages: Stages) -> Cart:
        """Return what is in the cart; what has been in it for too long is given back first."""
        rows = await self._in_cart(buyer, stages)
        due = [row for row in rows if row.due and row.paid_with is None]
        for match_id in sorted({row.match_id for row in due}):
            await self.give_back_due(match_id, stages)
        return Cart(
            tuple(
                Held(
                    row.id, row.match_id, row.home, row.away, row.venue, row.kickoff, row.price_pence, row.expires_at,
                    max(0.0, row.left_s), row.paid_with,
                )
                for row in rows if row not in due
            ),
            len(due),
        )  # fmt: skip

    async def _in_cart(self, buyer: str, stages: Stages) -> list[Row]:
        async with self._database.autocommit(stages) as session:
            return await session.all(q.cart, {"for_buyer": buyer})

    async def give_back_one(self, buyer: str, hold_id: int, stages: Stages) -> None:
        """Take one ticket out of the cart. Raises UnknownHold, BeingPaid."""
        which = {"hold": hold_id, "for_buyer": buyer}
        async with self._database.autocommit(stages) as session:
            found = await session.one(q.hold_of, which)
        if found is None:
            raise UnknownHold
        if found.checkout_id is not None:
            raise BeingPaid
        if not await self._give_back(_ONE, found.match_id, which, stages):
            raise UnknownHold  # expired, or begun to be paid for, meanwhile

    async def give_back_all(self, buyer: str, stages: Stages) -> None:
        """Empty the cart, except for what is being paid."""
        rows = await self._in_cart(buyer, stages)
        for match_id in sorted({row.match_id for row in rows if row.paid_with is None}):
            await self._give_back(_ALL, match_id, {"for_buyer": buyer}, stages)

    async def give_back_due(self, match_id: int, stages: Stages) -> int:
        """Give back what is past its time, a bounded number; return how many."""
        return await self._give_back(_DUE, match_id, {}, stages)

    async def due_matches(self, stages: Stages) -> list[int]:
        """Return the matches, a bounded number, with holds that are past their time."""
        async with self._database.autocommit(stages) as session:
            return [row.match_id for row in await session.all(q.due_matches)]

    async def _give_back(self, how: "_Ways", match_id: int, which: dict[str, Any], stages: Stages) -> int:
        at_once, marking = how
        values = {**which, "for_match": match_id}
        if not self._in_redis:
            async with self._database.autocommit(stages) as session:
                row = await session.one(at_once, values)
            return int(row.given_back) if row else 0
        # Each step can be repeated by the next who finds the mark, whoever dies in between.
        async with self._database.autocommit(stages) as session:
            keys = [row.idempotency_key for row in await session.all(marking, values)]
        if keys:
            await self._store.give_back_all(match_id, keys, stages)
            async with self._database.autocommit(stages) as session:
                await session.all(q.delete_marked, {"keys": keys})
        return len(keys)


_Ways = tuple[Executable, Executable]  # in one statement; by marks, where the stock is in Redis
_ONE: Final[_Ways] = (q.give_back_one, q.mark_one)
_ALL: Final[_Ways] = (q.give_back_all, q.mark_all)
_DUE: Final[_Ways] = (q.give_back_due, q.mark_due)
_DUE_NOW: Final[_Ways] = (q.give_back_due_now, q.mark_due_now)


def _too_few(left: int) -> SoldOut:
    return TooFewLeft() if left > 0 else SoldOut()
