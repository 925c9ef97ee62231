"""The five ways to guard the stock: the factor ``locking``.

Each takes one ticket from the match's stock and writes it, inside the caller's transaction, which the caller commits.
Each raises SoldOut when nothing is left, Unavailable when it cannot tell, DuplicateKey when the key has a ticket or is
about to; then nothing was taken, or the caller's roll back gives it back.
"""

import asyncio
import secrets
from dataclasses import dataclass
from random import random
from typing import Protocol

from sqlalchemy import Executable

from target_app import queries
from target_app.database import DuplicateKey, Row, Session
from target_app.errors import Conflict, RedisError, SoldOut
from target_app.figures import Figures, Stages
from target_app.redis_store import RedisStore, Taking
from target_app.settings import Settings

# The wait between optimistic attempts: random up to 1 ms, doubled each time. Beyond 16 ms a longer wait only keeps the
# connection from others: about ten transactions on a hot row take that long.
_FIRST_WAIT_S = 0.001
_LONGEST_WAIT_S = 0.016


@dataclass(frozen=True, slots=True)
class Order:
    """What a buyer asks for."""

    match_id: int
    buyer: str
    key: str


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket that was sold."""

    id: int
    match_id: int
    code: str
    key: str
    price_pence: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """A purchase that waits for a worker (``checkout=queue``)."""

    key: str


class Guard(Protocol):
    """A way to sell. ``seen`` is the row of ``queries.purchase_view`` that the purchase began with.

    ``lone_statement``: a sale is one statement, which a session without a transaction commits as well.
    """

    lone_statement: bool

    async def stock(self, order: Order, seen: Row, stages: Stages) -> int:
        """Return what seems to be left, to spare a lost buyer the payment. May raise what :meth:`sell` does."""

    async def sell(self, session: Session, order: Order, seen: Row, stages: Stages) -> Ticket:
        """Take and write one ticket, uncommitted."""

    async def undo(self, order: Order, stages: Stages) -> None:
        """Give back what :meth:`sell` took and a roll back does not, before any commit was sent. Raises RedisError."""


class _SqlGuard:
    """Guards that live in PostgreSQL: the stock is the column, and a roll back undoes all."""

    lone_statement = True

    async def stock(self, order: Order, seen: Row, stages: Stages) -> int:
        stock: int = seen.stock
        return stock

    async def undo(self, order: Order, stages: Stages) -> None:
        """See :class:`Guard`."""


class AtomicGuard(_SqlGuard):
    """One statement decrements if anything is left and writes the ticket: the row is locked from there to commit."""

    async def sell(self, session: Session, order: Order, seen: Row, stages: Stages) -> Ticket:
        """See :class:`Guard`."""
        ticket = await _write(session, queries.sell, order, seen)
        if ticket is None:
            raise SoldOut
        return ticket


class PessimisticGuard(_SqlGuard):
    """SELECT ... FOR UPDATE, look, then write: the row is locked for two more round trips than it need be."""

    lone_statement = False  # the lock would be gone with the statement that took it

    async def sell(self, session: Session, order: Order, seen: Row, stages: Stages) -> Ticket:
        """See :class:`Guard`."""
        locked = await session.one(queries.lock_stock, {"for_match": order.match_id})
        if locked is None or locked.stock <= 0:
            raise SoldOut
        ticket = await _write(session, queries.sell, order, seen)
        if ticket is None:  # the lock was not worth its name
            raise Conflict
        return ticket


class OptimisticGuard(_SqlGuard):
    """Write only if nobody changed the row since it was read; else read again and repeat, a bounded number of times.

    The first attempt builds on what the purchase saw before its payment. All attempts share one transaction: nothing
    is written or locked until one succeeds.
    """

    def __init__(self, retries: int, figures: Figures) -> None:
        self._retries = retries
        self._figures = figures

    async def sell(self, session: Session, order: Order, seen: Row, stages: Stages) -> Ticket:
        """See :class:`Guard`."""
        version = seen.version
        for attempt in range(self._retries + 1):
            if attempt:
                self._figures.conflicts += 1
                # Without chance in it, those who collided would collide again.
                await asyncio.sleep(random() * backoff_s(attempt))  # noqa: S311
                now = await session.one(queries.stock_and_version, {"for_match": order.match_id})
                if now is None or now.stock <= 0:
                    raise SoldOut
                version = now.version
            ticket = await _write(session, queries.sell_if_unchanged, order, seen, seen_version=version)
            if ticket is not None:
                return ticket
        raise Conflict


class NoGuard(_SqlGuard):
    """Read n, later write n - 1: two buyers who read the same n both get a ticket, and one decrement is lost.

    The course project's mistake, kept on purpose so that the audit has something to find.
    """

    async def sell(self, session: Session, order: Order, seen: Row, stages: Stages) -> Ticket:
        """See :class:`Guard`."""
        ticket = await _write(session, queries.sell_blindly, order, seen, stock_left=seen.stock - 1)
        if ticket is None:
            raise SoldOut
        return ticket


class RedisGuard:
    """A script in Redis takes the ticket; PostgreSQL only gets it written, so that no row there is hot.

    What Redis took and PostgreSQL did not get is given back. A worker that dies in between, or an answer that is lost
    (Redis's to the script, PostgreSQL's to the commit), leaves the ticket taken: one too few is sold, never one too
    many. The audit calls it stranded, and the same key gets a conflict from then on.
    """

    # Without a commit of its own, no failure of the statement would be sure to have left no ticket.
    lone_statement = False

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    async def stock(self, order: Order, seen: Row, stages: Stages) -> int:
        """See :class:`Guard`; raises RedisError, DuplicateKey."""
        stock, key_known = await self._store.look(order.match_id, order.key, stages)
        if key_known:  # looked for before sold_out is: it may have taken the last one, and be writing it
            raise DuplicateKey
        if stock is None:
            raise RedisError
        return stock

    async def sell(self, session: Session, order: Order, seen: Row, stages: Stages) -> Ticket:
        """See :class:`Guard`; raises RedisError."""
        taking = await self._store.take(order.match_id, order.key, stages)
        if taking is Taking.EMPTY:
            raise SoldOut
        if taking is Taking.KEY_KNOWN:
            raise DuplicateKey
        if taking is Taking.UNKNOWN_STOCK:
            raise RedisError
        ticket = None
        try:
            ticket = await _write(session, queries.write_ticket, order, seen)
        finally:
            # Before the commit is sent a failure is sure to leave no ticket; after it nobody can tell.
            if ticket is None:
                await self._store.give_back(order.match_id, order.key, stages)
        if ticket is None:
            raise Conflict
        return ticket

    async def undo(self, order: Order, stages: Stages) -> None:
        """See :class:`Guard`."""
        await self._store.give_back(order.match_id, order.key, stages)


def guard_of(settings: Settings, figures: Figures, store: RedisStore) -> Guard:
    """Return the guard that ``locking`` names."""
    match settings.locking:
        case "none":
            return NoGuard()
        case "pessimistic":
            return PessimisticGuard()
        case "optimistic":
            return OptimisticGuard(settings.optimistic_retries, figures)
        case "atomic":
            return AtomicGuard()
        case "redis":
            return RedisGuard(store)


def backoff_s(attempt: int) -> float:
    """Return the longest wait before this optimistic attempt, the first repeat being 1."""
    return min(_FIRST_WAIT_S * float(2**attempt), _LONGEST_WAIT_S)


def new_code() -> str:
    """Return the code of a ticket that is about to be sold; nobody can guess it."""
    return "T-" + secrets.token_hex(8).upper()


async def _write(session: Session, statement: Executable, order: Order, seen: Row, **more: int) -> Ticket | None:
    code = new_code()
    values = {
        "for_match": order.match_id,
        "for_buyer": order.buyer,
        "with_key": order.key,
        "with_code": code,
        "at_price": seen.price_pence,
        **more,
    }
    row = await session.one(statement, values)
    return None if row is None else Ticket(row.id, order.match_id, code, order.key, seen.price_pence)
