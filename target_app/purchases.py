"""Selling a ticket: look, pay, take and write, commit, and only then answer."""

import asyncio
from typing import Final, Protocol

from target_app import queries
from target_app.database import Database, DuplicateKey, Row, Session
from target_app.errors import (
    BuyerLimit,
    Conflict,
    DatabaseError,
    KeyReused,
    LockTimeout,
    NotOnSale,
    PaymentDeclined,
    PaymentUnclear,
    PoolTimeout,
    RedisError,
    SaleError,
    SoldOut,
    TooManyConnections,
    UnknownMatch,
)
from target_app.figures import PURCHASE, Figures
from target_app.locking import Accepted, Guard, Order, Ticket, new_code
from target_app.paying import Cashier
from target_app.settings import Settings

# How long the loser of a race for one key looks for the winner's ticket: with the SQL lockings it is there at once,
# with Redis the winner may still be writing it. A winner takes longer than that only when something is wrong.
_LOOKS: Final = 20
_BETWEEN_LOOKS_S: Final = 0.02

_OUTCOME_OF: Final[dict[type[SaleError], str]] = {
    SoldOut: "sold_out",
    Conflict: "conflict",
    PoolTimeout: "pool_timeout",
    LockTimeout: "lock_timeout",
    TooManyConnections: "max_connections",
    DatabaseError: "database_error",
    PaymentDeclined: "declined",
    PaymentUnclear: "payment_unclear",
    RedisError: "database_error",  # the stores count as one
}


class _Replay(Exception):
    """The key has a ticket already."""

    def __init__(self, ticket: Ticket) -> None:
        super().__init__()
        self.ticket = ticket


class Till(Protocol):
    """What sells."""

    async def purchase(self, order: Order) -> Ticket | Accepted:
        """Return the ticket, committed; the one that the key has, if it has one; or that it is queued.

        Raises SaleError.
        """


class Purchases:
    """The sale of tickets under one set of factors; ``cashier`` None: tickets cost nothing."""

    def __init__(
        self, settings: Settings, database: Database, guard: Guard, figures: Figures, cashier: Cashier | None = None
    ) -> None:
        self._database = database
        self._guard = guard
        self._figures = figures
        self._stages = figures.routes[PURCHASE].stages
        self._buyer_limit = settings.buyer_limit
        self._payment = settings.payment
        few = settings.round_trips == "fewest"
        self._selling = database.autocommit if few and guard.lone_statement else database.transaction
        self._cashier = cashier
        if cashier is not None:
            self._buy = self._pay
        elif settings.payment != "outside":
            self._buy = self._inside
        elif few and settings.locking == "atomic":
            self._buy = self._at_once
        else:
            self._buy = self._outside

    async def purchase(self, order: Order) -> Ticket:
        """Return the ticket, committed; the one that the key has, if it has one. Raises SaleError, and counts each."""
        counts = self._figures.purchases
        try:
            ticket = await self._once(order)
        except _Replay as replay:
            counts["replayed"] += 1
            return replay.ticket
        except SaleError as error:
            if outcome := _OUTCOME_OF.get(type(error)):
                counts[outcome] += 1
            raise
        counts["sold"] += 1
        return ticket

    async def _once(self, order: Order) -> Ticket:
        try:
            return await self._buy(order)
        except DuplicateKey:
            await self._replay_the_winner(order)
            raise Conflict from None
        except SoldOut:
            # The last ticket may have gone to this very key, after this request had looked for it.
            async with self._database.autocommit(self._stages) as session:
                await self._replay_if_sold(session, order)
            raise

    async def _outside(self, order: Order) -> Ticket:
        """Look before the transaction that sells."""
        async with self._database.autocommit(self._stages) as session:
            seen = await self._look(session, order)
        await self._decide(order, seen)
        async with self._selling(self._stages) as session:
            ticket = await self._guard.sell(session, order, seen, self._stages)
            await session.commit()
        return ticket

    async def _at_once(self, order: Order) -> Ticket:
        """Sell with a single statement, which commits itself; look only where it did not sell, to say why."""
        code = new_code()
        values = {
            "for_match": order.match_id,
            "for_buyer": order.buyer,
            "with_key": order.key,
            "with_code": code,
            "at_most": self._buyer_limit,
        }
        async with self._database.autocommit(self._stages) as session:
            sold = await session.one(queries.sell_at_once, values)
            if sold is not None:
                return Ticket(sold.id, order.match_id, code, order.key, sold.price_pence)
            seen = await self._look(session, order)
        await self._decide(order, seen)
        raise Conflict  # none of the reasons holds any more

    async def _inside(self, order: Order) -> Ticket:
        """Look in the transaction that sells."""
        async with self._database.transaction(self._stages) as session:
            seen = await self._look(session, order)
            await self._decide(order, seen)
            ticket = await self._guard.sell(session, order, seen, self._stages)
            await session.commit()
        return ticket

    async def _pay(self, order: Order) -> Ticket:
        """Sell for money, which is waited for where the factor ``payment`` says."""
        cashier, stages = self._cashier, self._stages
        if cashier is None:
            raise RuntimeError("there is nobody to pay")
        async with self._database.autocommit(stages) as session:
            seen = await self._look(session, order)
            await self._decide(order, seen)
            attempt = await cashier.begin(session, order, seen.price_pence)
        async with cashier.until_sold(order, attempt):
            if self._payment == "outside":
                await cashier.charge(order, seen.price_pence, stages)
            async with self._database.transaction(stages) as session:
                await cashier.settle(session, order)
                if self._payment == "in_transaction":  # no row that others want is locked yet
                    await cashier.charge(order, seen.price_pence, stages)
                ticket = await self._guard.sell(session, order, seen, stages)
                if self._payment == "holding_lock":
                    try:
                        await cashier.charge(order, seen.price_pence, stages)
                    except BaseException:
                        await self._guard.undo(order, stages)
                        raise
                await session.commit()
        return ticket

    async def _look(self, session: Session, order: Order) -> Row:
        row = await session.one(
            queries.purchase_view, {"for_match": order.match_id, "for_buyer": order.buyer, "with_key": order.key}
        )
        if row is None:
            raise UnknownMatch
        return row

    async def _decide(self, order: Order, seen: Row) -> None:
        """Raise what ends the purchase before it costs anybody anything."""
        if seen.ticket_id is not None:
            raise _Replay(_its_ticket(order, seen))
        if not seen.on_sale:
            raise NotOnSale
        if await self._guard.stock(order, seen, self._stages) <= 0:
            raise SoldOut
        if seen.held >= self._buyer_limit:  # soft: purchases of one buyer at the same time do not see each other
            raise BuyerLimit

    async def _replay_the_winner(self, order: Order) -> None:
        for _ in range(_LOOKS):
            async with self._database.autocommit(self._stages) as session:
                await self._replay_if_sold(session, order)
            await asyncio.sleep(_BETWEEN_LOOKS_S)

    async def _replay_if_sold(self, session: Session, order: Order) -> None:
        row = await session.one(queries.ticket_of_key, {"with_key": order.key})
        if row is not None:
            raise _Replay(_its_ticket(order, row))


def _its_ticket(order: Order, row: Row) -> Ticket:
    if row.ticket_match_id != order.match_id or row.ticket_buyer != order.buyer:
        raise KeyReused
    return Ticket(row.ticket_id, row.ticket_match_id, row.ticket_code, order.key, row.ticket_price_pence)
