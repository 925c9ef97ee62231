"""Charges and refunds: each key is charged once, whoever asks however often, and a refunded key never again."""

import asyncio
import hashlib
import math
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

from target_app.provider.journal import Journal, Line
from target_app.provider.settings import ProviderSettings

State = Literal["charged", "declined", "refunded", "void"]


class AmountDiffersError(Exception):
    """The key was used for another amount before."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What has become of a key: ``void`` is refunded before it was charged, and so never will be."""

    key: str
    state: State
    amount_pence: int


class Durations:
    """How long payments take, in seconds: lognormal with this mean and this standard deviation as a share of it.

    With m the mean and c the share, ln of a duration is normal with variance ln(1 + c^2) and mean ln(m) - variance / 2.
    The mean stays what it is for every spread, so that a limit serves as many payments a second.
    """

    def __init__(self, mean_s: float, spread: float, seed: int) -> None:
        self._mean_s = mean_s
        self._draws = random.Random(seed)  # noqa: S311
        self._sigma = math.sqrt(math.log1p(spread * spread))
        self._mu = math.log(mean_s) - self._sigma**2 / 2 if mean_s > 0 else 0.0

    def draw(self) -> float:
        """Return the next one."""
        if self._mean_s <= 0 or self._sigma == 0:
            return self._mean_s
        return self._draws.lognormvariate(self._mu, self._sigma)


class Charges:
    """All that one provider knows. Use from one event loop.

    A charge goes on when whoever asked for it has gone: the money moves, and the key tells so to whoever asks next.
    """

    def __init__(self, settings: ProviderSettings, journal: Journal) -> None:
        self._settings = settings
        self._journal = journal
        self._durations = Durations(settings.payment_ms / 1000, settings.payment_spread, settings.seed)
        self._known: dict[str, Charge] = {}
        self._pending: dict[str, tuple[int, asyncio.Task[Charge]]] = {}
        self.limit = settings.payment_limit
        self._seats = asyncio.Semaphore(self.limit) if self.limit else None
        self.busy = 0
        self.served_s = 0.0
        self.waited_s = 0.0
        self.counts: dict[State, int] = {"charged": 0, "declined": 0, "refunded": 0, "void": 0}
        for line in journal.lines():
            self._take(line)

    @property
    def waiting(self) -> int:
        """Charges that wait for their turn."""
        return len(self._pending) - self.busy

    async def charge(self, key: str, amount_pence: int) -> Charge:
        """Return what has become of the key, charged by now unless it was declined or refunded before.

        Raises AmountDiffersError; OSError where it could not be written down, and then it was not charged.
        """
        if (known := self._known.get(key)) is not None:
            if known.state != "void" and known.amount_pence != amount_pence:
                raise AmountDiffersError
            return known
        asked, task = self._pending.get(key, (amount_pence, None))
        if asked != amount_pence:
            raise AmountDiffersError
        if task is None:
            task = asyncio.create_task(self._serve(key, amount_pence))
            self._pending[key] = amount_pence, task
        return await asyncio.shield(task)

    def refund(self, key: str) -> Charge:
        """Give back what was charged under the key; what was not charged yet never will be. Raises OSError."""
        known = self._known.get(key)
        if known is None:
            self._note(Line("void", key, 0))
        elif known.state == "charged":
            self._note(Line("refund", key, known.amount_pence))
        return self._known[key]

    def reset(self) -> None:
        """Forget all charges, also those under way: their keys are void."""
        for _, task in self._pending.values():
            task.cancel()
        self._pending.clear()
        self._known.clear()
        self._journal.empty()

    async def _serve(self, key: str, amount_pence: int) -> Charge:
        try:
            async with self._seat():
                if key not in self._known:  # refunded while it waited
                    began = perf_counter()
                    await asyncio.sleep(self._durations.draw())
                    self.served_s += perf_counter() - began
            if key not in self._known:
                declined = share(f"{self._settings.seed}:{key}") < self._settings.payment_failure_ratio
                self._note(Line("decline" if declined else "charge", key, amount_pence))
            return self._known[key]
        finally:
            if self._pending.get(key, (0, None))[1] is asyncio.current_task():
                del self._pending[key]

    @asynccontextmanager
    async def _seat(self) -> AsyncIterator[None]:
        if self._seats is not None:
            began = perf_counter()
            await self._seats.acquire()  # in the order of asking
            self.waited_s += perf_counter() - began
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1
            if self._seats is not None:
                self._seats.release()

    def _note(self, line: Line) -> None:
        self._journal.write(line)
        self._take(line)

    def _take(self, line: Line) -> None:
        states: dict[str, State] = {"charge": "charged", "decline": "declined", "refund": "refunded", "void": "void"}
        state = states[line.kind]
        self._known[line.key] = Charge(line.key, state, line.amount_pence)
        self.counts[state] += 1


def share(text: str) -> float:
    """Return a number in [0, 1) that looks random and is always the same for a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest()) / 2**56
