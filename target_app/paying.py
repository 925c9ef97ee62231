"""The payment of a purchase: begun in PostgreSQL, asked of the provider, settled with the ticket or let go of.

A row of ``payments`` is committed before the provider is asked. The transaction that writes the ticket moves it on to
``paid``; a purchase that ends otherwise hands it to the settler, and one that dies leaves it to its time. So whoever
dies in between, there is a ticket with its money, or neither.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Final

from target_app import payment_queries as q
from target_app.database import DuplicateKey, Session
from target_app.errors import RETRY_AFTER_S, KeyReused, PaymentDeclined, PaymentRefunded, Unavailable
from target_app.figures import Stages
from target_app.locking import Order
from target_app.payments import ATTEMPTS, Payments
from target_app.settings import Settings
from target_app.settling import Settler

# Of the time that a client takes to come back, what is neither its wait nor that for a connection.
_COMING_BACK_S: Final = 2.0
# Of a purchase's time what no setting bounds: its work, and the waits between attempts.
_SLACK_S: Final = 3.0


class Cashier:
    """Has purchases paid at a provider. Every method raises Unavailable."""

    def __init__(self, settings: Settings, payments: Payments, settler: Settler) -> None:
        self._payments = payments
        self._settler = settler
        # So long a client that was told to come back may do so under the same key, and goes on with what it has paid.
        self._retry_s = RETRY_AFTER_S + settings.pool_timeout_s + _COMING_BACK_S
        # Beyond this a purchase is dead, or as good as: what it began is refunded, and it can sell no more.
        self._at_most_s = (
            ATTEMPTS * settings.payment_timeout_s
            + settings.pool_timeout_s
            + settings.lock_timeout_s
            + settings.statement_timeout_s
            + _SLACK_S
            # what a worker of the queue has died over is another's then, with what was paid for it
            + (settings.queue_claim_s if settings.checkout == "queue" else 0.0)
        )

    async def begin(self, session: Session, order: Order, amount_pence: int) -> int:
        """Write down, committed, that the order is going to be paid; return the number of this attempt under its key.

        ``session`` commits each statement. Raises DuplicateKey where the key is paid, KeyReused, PaymentDeclined,
        PaymentRefunded.
        """
        row = await session.one(
            q.begin,
            {
                "with_key": order.key,
                "for_match": order.match_id,
                "for_buyer": order.buyer,
                "amount": amount_pence,
                "at_most_s": self._at_most_s,
            },
        )
        if row is not None:
            return int(row.attempt)
        known = await session.one(q.of_key, {"with_key": order.key})
        if known is not None and (known.match_id != order.match_id or known.buyer != order.buyer):
            raise KeyReused
        _end(known.state if known is not None else "paying")
        raise DuplicateKey

    @asynccontextmanager
    async def until_sold(self, order: Order, attempt: int) -> AsyncIterator[None]:
        """Let go of the payment where what is done inside ends in anything but a ticket."""
        try:
            yield
        except PaymentRefunded:
            self._settler.let_go(order.key, attempt)
            raise
        except PaymentDeclined:
            self._settler.declined(order.key, attempt)
            raise
        except (Unavailable, DuplicateKey):  # the same key may come again
            self._settler.let_go(order.key, attempt, after_s=self._retry_s)
            raise
        except BaseException:
            self._settler.let_go(order.key, attempt)
            raise

    async def charge(self, order: Order, amount_pence: int, stages: Stages) -> None:
        """Return when it is charged. Raises PaymentDeclined, PaymentRefunded."""
        began = perf_counter()
        try:
            await self._payments.charge(order.key, amount_pence)
        finally:
            stages.payment += perf_counter() - began

    async def settle(self, session: Session, order: Order) -> None:
        """Note, in the transaction that sells, that the order is paid for: it is ours to sell until that ends.

        Raises DuplicateKey where the same key has been paid meanwhile, PaymentRefunded.
        """
        if await session.one(q.paid, {"with_key": order.key}) is None:
            known = await session.one(q.of_key, {"with_key": order.key})
            _end(known.state if known is not None else "refunding")
            raise DuplicateKey


def _end(state: str) -> None:
    """Raise what a payment in this state has ended with, unless its key may have a ticket."""
    if state == "declined":
        raise PaymentDeclined
    if state in ("refunding", "refunded"):
        raise PaymentRefunded
