"""Gives back what was charged and sold nothing: each worker of a sale with a provider has a settler.

What a purchase of this worker has let go of is settled at once, or when nobody came back for it; what a worker that
died has left is settled by any other when its time is over. All of it is rows of ``payments``: nothing is lost with a
process, and a provider that is gone is asked again until it answers.
"""

import asyncio
from contextlib import suppress
from time import monotonic
from typing import Final

from sqlalchemy import Executable

from target_app import payment_queries as q
from target_app.background import Background
from target_app.database import Database
from target_app.errors import Unavailable
from target_app.figures import Stages
from target_app.payments import Payments

_POLL_S: Final = 5.0  # at what others have left: a connection and a look at an index, for nothing as a rule
_GATHER_S: Final = 0.1  # what is let go of within this time is written down together
_AT_MOST: Final = 200  # payments in one statement
# A refund that failed, or whose worker died, is tried again after this; two who try at once do no harm.
_LEASE_S: Final = 5.0

_Payment = tuple[str, int]  # its key, and the attempt that has let go of it


class Settler:
    """Runs from :meth:`start` to :meth:`stop`. What it has in memory is bounded by the purchases of some seconds."""

    def __init__(self, database: Database, payments: Payments) -> None:
        self._database = database
        self._payments = payments
        self._stages = Stages()  # of no request
        self._declined: dict[_Payment, float] = {}
        self._let_go: dict[_Payment, float] = {}
        self._something = asyncio.Event()
        self._background = Background("the settler has ended: payments without a ticket are kept")

    def let_go(self, key: str, attempt: int, after_s: float = 0.0) -> None:
        """Have the payment refunded, unless another attempt has begun under its key within ``after_s``."""
        self._let_go[key, attempt] = monotonic() + after_s
        self._something.set()

    def declined(self, key: str, attempt: int) -> None:
        """Have it noted that nothing was charged."""
        self._declined[key, attempt] = 0.0
        self._something.set()

    def start(self) -> None:
        """Begin, on the running loop."""
        self._background.start(self._run())

    async def stop(self) -> None:
        """End, in the middle of whatever it is at: another will do it. Raises what a bug has ended it with."""
        await self._background.stop()

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._next_s()):
                    await self._something.wait()
            self._something.clear()
            await asyncio.sleep(_GATHER_S)
            with suppress(Unavailable):  # it is all there the next time
                await self.settle()

    def _next_s(self) -> float:
        """Return how long nothing has to be done, as far as is known now."""
        due = min(self._let_go.values(), default=monotonic() + _POLL_S)
        return max(0.0, min(_POLL_S, due - monotonic()))

    async def settle(self) -> None:
        """Settle everything that is due. Raises Unavailable where PostgreSQL cannot."""
        await self._write_down(q.declined, self._declined)
        await self._write_down(q.let_go, self._let_go)
        while keys := await self._claimed():
            done = await self._refund(keys)
            if done:
                async with self._database.autocommit(self._stages) as session:
                    await session.all(q.refunded, {"keys": done})
            if len(done) < len(keys):
                return  # the provider is not there: the lease will run out

    async def _write_down(self, statement: Executable, those: dict[_Payment, float]) -> None:
        now = monotonic()
        due = [each for each, at_s in those.items() if at_s <= now]
        for start in range(0, len(due), _AT_MOST):
            some = due[start : start + _AT_MOST]
            async with self._database.autocommit(self._stages) as session:
                values = {"keys": [key for key, _ in some], "attempts": [attempt for _, attempt in some]}
                await session.all(statement, values)
            for each in some:
                those.pop(each, None)

    async def _claimed(self) -> list[str]:
        async with self._database.autocommit(self._stages) as session:
            rows = await session.all(q.to_refund, {"at_most": _AT_MOST, "lease_s": _LEASE_S})
        return [row.key for row in rows]

    async def _refund(self, keys: list[str]) -> list[str]:
        done = []
        with suppress(Unavailable):
            for key in keys:
                await self._payments.refund(key)
                done.append(key)
        return done
