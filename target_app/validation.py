"""The gate: looks a ticket up and derives a token from it, which costs CPU: on the event loop or beside it."""

import asyncio
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

from target_app import queries
from target_app.database import Database
from target_app.errors import UnknownTicket
from target_app.figures import VALIDATION, Figures
from target_app.settings import Settings


@dataclass(frozen=True, slots=True)
class Admission:
    """A valid ticket. ``first`` is False when it has been shown before."""

    ticket_id: int
    match_id: int
    first: bool
    token: str


class Gate:
    """Validates tickets; one validation takes ``validate_cost`` rounds of hashing.

    With ``validate_in_loop`` nothing else runs meanwhile. Without, as many threads hash as there are cores, which is of
    use because hashing lets go of the interpreter; what waits for a thread does not hold up other requests.
    """

    def __init__(self, settings: Settings, database: Database, figures: Figures, *, route: str = VALIDATION) -> None:
        self._database = database
        self._stages = figures.routes[route].stages
        self._rounds = settings.validate_cost
        self._threads = None if settings.validate_in_loop == "on" else ThreadPoolExecutor(os.cpu_count(), "gate")
        self._secret = settings.gate_secret.get_secret_value().encode()

    async def validate(self, code: str) -> Admission:
        """Mark the ticket as validated and return its token, the same each time. Raises UnknownTicket, Unavailable."""
        async with self._database.autocommit(self._stages) as session:
            ticket = await session.one(queries.ticket_of_code, {"with_code": code})
            if ticket is None:
                raise UnknownTicket
            first = (
                ticket.validated_at is None
                and await session.one(queries.mark_validated, {"of_ticket": ticket.id}) is not None
            )
        if self._threads is None:
            token, seconds = self._hashed(code)
        else:
            token, seconds = await asyncio.get_running_loop().run_in_executor(self._threads, self._hashed, code)
        self._stages.cpu += seconds
        return Admission(ticket.id, ticket.match_id, first, token)

    def _hashed(self, code: str) -> tuple[str, float]:
        """Return the token and the seconds that it took."""
        began = perf_counter()
        token = hashlib.pbkdf2_hmac("sha256", code.encode(), self._secret, self._rounds).hex()
        return token, perf_counter() - began

    def close(self) -> None:
        """End the threads. Idempotent."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
