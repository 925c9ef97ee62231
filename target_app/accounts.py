"""Who a visitor is: accounts and sessions. A session is a random token; its visitor keeps it, we keep a hash of it."""

import hashlib
import re
import secrets
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from target_app import hold_queries as q
from target_app.database import Database
from target_app.errors import AddressTaken, WrongLogin
from target_app.figures import Stages
from target_app.passwords import Passwords
from target_app.settings import Settings

# Stricter than the standard and enough for what people have: no quotes, no comments, a domain with a dot in it.
EMAIL: Final = re.compile(
    r"(?=[^@]{1,64}@)[a-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])"
)
EMAIL_LENGTH: Final = 254
# The lengths of NIST SP 800-63B-4 for a password that is the only factor would be 15; nothing is paid with real money.
PASSWORD_LENGTHS: Final = (10, 128)
NAME_LENGTH: Final = 80


@dataclass(frozen=True, slots=True)
class Buyer:
    """A registered buyer. ``handle`` is what tickets and holds know them by."""

    handle: str
    email: str
    name: str


def normal_email(text: str) -> str | None:
    """Return the address in the form that it is kept in; None for what is none."""
    email = text.strip().lower()
    return email if len(email) <= EMAIL_LENGTH and EMAIL.fullmatch(email) else None


class Accounts:
    """Registers buyers and knows them again. Every method raises Unavailable."""

    def __init__(self, settings: Settings, database: Database, passwords: Passwords) -> None:
        self._database = database
        self._passwords = passwords
        self._ttl_s = float(settings.session_ttl_s)

    async def register(self, email: str, name: str, password: str, stages: Stages) -> tuple[Buyer, str]:
        """Create an account, log in, and return the session's token. Raises AddressTaken."""
        buyer = Buyer(f"buyer-{secrets.token_hex(12)}", email, name)
        began = perf_counter()
        try:
            kept = await self._passwords.hash(password)
        finally:
            stages.cpu += perf_counter() - began
        token = new_token()
        values = {"handle": buyer.handle, "email": email, "name": name, "password_hash": kept}
        async with self._database.autocommit(stages) as session:
            if await session.one(q.register, {**values, "token_hash": _kept(token), "ttl_s": self._ttl_s}) is None:
                raise AddressTaken
        return buyer, token

    async def log_in(self, email: str, password: str, stages: Stages) -> tuple[Buyer, str]:
        """Return the buyer and a new session's token. Raises WrongLogin, after the same work whatever is wrong."""
        # What is no address is looked for all the same, as one that nobody can have.
        async with self._database.autocommit(stages) as session:
            found = await session.one(q.buyer_of_email, {"email": normal_email(email) or ""})
        began = perf_counter()
        try:
            right = await self._passwords.verify(found.password_hash if found else None, password)
            renewed = await self._renewed(found.password_hash, password) if found and right else None
        finally:
            stages.cpu += perf_counter() - began
        if found is None or not right:
            raise WrongLogin
        token = new_token()
        async with self._database.autocommit(stages) as session:
            if renewed is not None:
                await session.all(q.new_password_hash, {"password_hash": renewed, "buyer_id": found.id})
            values = {"token_hash": _kept(token), "buyer_id": found.id, "ttl_s": self._ttl_s}
            await session.all(q.new_session, values)
        return Buyer(found.handle, found.email, found.name), token

    async def _renewed(self, kept: str, password: str) -> str | None:
        """Return a hash at today's cost; None where it is that already."""
        return await self._passwords.hash(password) if self._passwords.outdated(kept) else None

    async def buyer_of(self, token: str, stages: Stages) -> Buyer | None:
        """Return whose session it is; None where it is over, or never was."""
        async with self._database.autocommit(stages) as session:
            row = await session.one(q.buyer_of_session, {"token_hash": _kept(token)})
        return None if row is None else Buyer(row.handle, row.email, row.name)

    async def log_out(self, token: str, stages: Stages) -> None:
        """End the session, here and in every copy of its cookie."""
        async with self._database.autocommit(stages) as session:
            await session.all(q.end_session, {"token_hash": _kept(token)})

    async def end_old_sessions(self, stages: Stages) -> None:
        """Forget sessions that are over, a bounded number."""
        async with self._database.autocommit(stages) as session:
            await session.all(q.end_old_sessions)


def new_token() -> str:
    """Return a token that nobody can guess."""
    return secrets.token_urlsafe(32)


def _kept(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
