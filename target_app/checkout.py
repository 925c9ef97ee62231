"""Paying for a cart: written down, paid, then sold, so that money and tickets agree whoever dies in between.

The payment is asked for outside of any transaction, under a key that the provider charges once. Its tickets are held
for as long as it may take. When it is through, the checkout's row is moved on from ``paying`` and the holds become
tickets, in one transaction: all of them, or none, where one was given back meanwhile. Then, as for a checkout that
nobody finished (its worker died, its client never asked again), the payment is refunded under the same key.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter
from typing import Any, Final

from target_app import hold_queries as q
from target_app.database import Database, Row
from target_app.errors import BeingPaid, EmptyCart, HoldExpired, NotLoggedIn, PaymentDeclined, Unavailable
from target_app.figures import Stages
from target_app.payments import Payments

# Longer than any payment is waited for (three times payment_timeout_s, which is at most 8 s) together with every other
# limit, so that what is refunded after it is not just being sold.
PAYMENT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Owned:
    """A ticket that somebody has bought."""

    id: int
    match_id: int
    home: str
    away: str
    venue: str
    kickoff: datetime
    code: str
    price_pence: int
    bought_at: datetime
    validated_at: datetime | None


class Checkouts:
    """Turns carts into tickets, and shows them to whom they belong. Every method raises Unavailable."""

    def __init__(self, database: Database, payments: Payments) -> None:
        self._database = database
        self._payments = payments

    async def pay(self, buyer: str, request_key: str, stages: Stages) -> tuple[Owned, ...]:
        """Pay for what is in the cart and return the tickets; the same key again returns the same tickets.

        Raises EmptyCart, BeingPaid (all that is there belongs to another key's payment), PaymentDeclined, HoldExpired.
        """
        checkout = await self._begun(buyer, request_key, stages)
        if checkout.state == "paying":
            if await self._charged(checkout, stages):
                done, otherwise = await self._sold(checkout, stages), "refunding"
            else:
                done, otherwise = False, "declined"
            if not done:
                await self._leave(checkout.id, otherwise, stages)
                await self._look_again(buyer, request_key, checkout, stages)
        else:
            _end(checkout.state)
        async with self._database.autocommit(stages) as session:
            rows = await session.all(q.tickets_of_keys, {"for_buyer": buyer, "keys": list(checkout.hold_keys)})
        return _owned(rows)

    async def _begun(self, buyer: str, request_key: str, stages: Stages) -> Row:
        """Return the key's checkout, committed: a new one over what is in the cart, or the one that there is."""
        named = {"for_buyer": buyer, "request_key": request_key}
        async with self._database.transaction(stages) as session:
            if await session.one(q.lock_buyer, {"for_buyer": buyer}) is None:
                raise NotLoggedIn
            known = await session.one(q.checkout_of_key, named)
            if known is not None:
                return known
            key = f"checkout-{secrets.token_hex(12)}"
            new = await session.one(q.new_checkout, {**named, "payment_key": key, "payment_s": PAYMENT_S})
            bound = None
            if new is not None:
                values = {"checkout": new.id, "for_buyer": buyer, "payment_s": PAYMENT_S}
                bound = await session.one(q.bind_holds, values)
            if bound is None:
                there = await session.all(q.cart, {"for_buyer": buyer})
                raise BeingPaid if any(row.paid_with for row in there) else EmptyCart
            await session.commit()
        return bound

    async def _charged(self, checkout: Row, stages: Stages) -> bool:
        began = perf_counter()
        try:
            await self._payments.charge(checkout.payment_key, checkout.amount_pence)
        except PaymentDeclined:
            return False
        finally:
            stages.payment += perf_counter() - began
        return True

    async def _sold(self, checkout: Row, stages: Stages) -> bool:
        """Make tickets of the holds, committed; False when there is nothing to make them of, and nothing was done."""
        async with self._database.transaction(stages) as session:
            if await session.one(q.leave_paying, {"checkout": checkout.id, "to_state": "paid"}) is None:
                return False
            sold = await session.all(q.sell_holds, {"checkout": checkout.id})
            if len(sold) != len(checkout.hold_keys):
                return False
            await session.commit()
        return True

    async def _look_again(self, buyer: str, request_key: str, checkout: Row, stages: Stages) -> None:
        """Return if another request with the same key has sold meanwhile; else see to the refund and raise."""
        async with self._database.autocommit(stages) as session:
            now = await session.one(q.checkout_of_key, {"for_buyer": buyer, "request_key": request_key})
        state = now.state if now is not None else "refunding"
        if state in ("refunding", "refunded"):  # also where the sweeper refunded before the charge had arrived
            await self._refund(checkout.id, checkout.payment_key, stages)
        _end(state)

    async def _leave(self, checkout_id: int, to_state: str, stages: Stages) -> None:
        """End the payment, unless that was done, and let go of its holds: the buyer may pay anew while they last."""
        async with self._database.transaction(stages) as session:
            if await session.one(q.leave_paying, {"checkout": checkout_id, "to_state": to_state}) is not None:
                await session.all(q.unbind_holds, {"checkout": checkout_id})
                await session.commit()

    async def _refund(self, checkout_id: int, payment_key: str, stages: Stages) -> None:
        began = perf_counter()
        try:
            await self._payments.refund(payment_key)
        finally:
            stages.payment += perf_counter() - began
        async with self._database.autocommit(stages) as session:
            await session.all(q.refunded, {"checkout": checkout_id})

    async def settle_overdue(self, stages: Stages) -> None:
        """Refund what nobody has finished, a bounded number; what cannot be refunded now is left for the next time."""
        async with self._database.autocommit(stages) as session:
            overdue = await session.all(q.overdue_checkouts)
        for row in overdue:
            try:
                if row.state == "paying":
                    await self._leave(row.id, "refunding", stages)
                async with self._database.autocommit(stages) as session:
                    left = await session.one(q.refunding, {"checkout": row.id})
                if left is not None:
                    await self._refund(row.id, row.payment_key, stages)
            except Unavailable:
                continue

    async def tickets(self, buyer: str, stages: Stages) -> tuple[Owned, ...]:
        """Return the buyer's tickets, the nearest kick-off first, at most 500."""
        async with self._database.autocommit(stages) as session:
            return _owned(await session.all(q.tickets_of_buyer, {"for_buyer": buyer}))

    async def ticket(self, buyer: str, ticket_id: int, stages: Stages) -> Owned | None:
        """Return one ticket; None where this buyer has none of this number."""
        async with self._database.autocommit(stages) as session:
            row = await session.one(q.ticket_of_buyer, {"for_buyer": buyer, "of_ticket": ticket_id})
        return None if row is None else _owned([row])[0]


def _end(state: str) -> None:
    """Raise what a payment in this state has ended with; nothing for one that is through."""
    match state:
        case "paid":
            return
        case "paying":  # it was refused to whoever asked just now, and to nobody else
            raise BeingPaid
        case "declined":
            raise PaymentDeclined
        case _:
            raise HoldExpired


def _owned(rows: Sequence[Any]) -> tuple[Owned, ...]:
    return tuple(
        Owned(
            row.id, row.match_id, row.home, row.away, row.venue, row.kickoff, row.code, row.price_pence,
            row.created_at, row.validated_at,
        )
        for row in rows
    )  # fmt: skip
