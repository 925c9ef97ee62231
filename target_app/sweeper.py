"""Gives back what nobody came for: holds past their time, payments that nobody finished, sessions that are over.

Each worker has one. They do not wait for each other: what one has its hands on, the others pass by. A worker that knows
of nothing held asks once a minute, so that a sale without carts pays nothing for them; what a worker that died has left
is found by any other, or by its successor.
"""

import asyncio
from contextlib import suppress
from typing import Final

from target_app import hold_queries as q
from target_app.accounts import Accounts
from target_app.background import Background
from target_app.checkout import Checkouts
from target_app.database import Database
from target_app.errors import TooManyConnections, Unavailable
from target_app.figures import Stages
from target_app.holds import Holds
from target_app.settings import Settings

_BUSY_S: Final = 5.0  # or as long as a hold lives, where that is less
_IDLE_S: Final = 60.0
_ROUNDS: Final = 20  # of statements for one match: ten thousand carts that a flash sale leaves behind at once


class Sweeper:
    """Runs from :meth:`start` to :meth:`stop`."""

    def __init__(
        self, settings: Settings, database: Database, holds: Holds, checkouts: Checkouts, accounts: Accounts
    ) -> None:
        self._busy_s = min(_BUSY_S, settings.hold_ttl_s)
        self._database = database
        self._holds = holds
        self._checkouts = checkouts
        self._accounts = accounts
        self._stages = Stages()  # of no request
        self._background = Background("the sweeper has ended: holds do not expire any more")

    async def start(self) -> None:
        """Look whether an earlier life has left anything, and begin, on the running loop. Raises Unavailable.

        Where PostgreSQL has no connection left the looking is done by the first sweep.
        """
        try:
            anything = await self._anything()
        except TooManyConnections:
            anything = True
        if anything:
            self._holds.active.set()
        self._background.start(self._run())

    async def stop(self) -> None:
        """End, in the middle of whatever it is at: another will do it. Raises what a bug has ended it with."""
        await self._background.stop()

    async def _run(self) -> None:
        active = self._holds.active
        while True:
            # Not wait_for: before Python 3.12 it may take a cancellation for the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(_IDLE_S):
                    await active.wait()
            active.clear()  # first, so that a hold that comes during the sweep is not missed
            try:
                left = await self.sweep()
            except Unavailable:
                left = True  # who knows
            if left:
                active.set()
            await asyncio.sleep(self._busy_s)

    async def _anything(self) -> bool:
        async with self._database.autocommit(self._stages) as session:
            found = await session.one(q.any_to_follow)
        return found is not None and found.some

    async def sweep(self) -> bool:
        """Give back a bounded number of each; return whether anything is left to come back for. Raises Unavailable."""
        stages = self._stages
        anything = await self._anything()
        await self._accounts.end_old_sessions(stages)
        if not anything:
            return False
        for match_id in await self._holds.due_matches(stages):
            for _ in range(_ROUNDS):
                if await self._holds.give_back_due(match_id, stages) < q.AT_MOST:
                    break
        await self._checkouts.settle_overdue(stages)
        return True
