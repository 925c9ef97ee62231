"""Hashing passwords with argon2id, on threads of its own: the event loop has other things to do meanwhile."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Final, TypeVar

from target_app.errors import PasswordsBusy
from target_app.settings import Settings

if TYPE_CHECKING:
    from argon2 import PasswordHasher

_T = TypeVar("_T")

# OWASP's smallest memory for argon2id that goes with two passes; the passes are the factor.
_MEMORY_KIB: Final = 19 * 1024
# Each keeps a core busy; more of them would only take the core from the sale.
_THREADS: Final = 2
# Those who wait, beyond the two being served. At the default cost of some 30 ms that is about a second.
_MOST_WAITING: Final = 64


class Passwords:
    """One worker's hashing. Nothing is imported or started before the first password."""

    def __init__(self, settings: Settings) -> None:
        self._cost = settings.password_cost
        self._under_way = 0
        self._pool: ThreadPoolExecutor | None = None

    @cached_property
    def _hasher(self) -> "PasswordHasher":
        from argon2 import PasswordHasher, Type

        return PasswordHasher(time_cost=self._cost, memory_cost=_MEMORY_KIB, parallelism=1, type=Type.ID)

    @cached_property
    def _nobodys(self) -> str:
        """A hash that no password has, at the same cost as everybody's."""
        return self._hasher.hash("\x00 of nobody")

    async def hash(self, password: str) -> str:
        """Return what is kept of the password. Raises PasswordsBusy."""
        return await self._away(lambda: self._hasher.hash(password))

    async def verify(self, kept: str | None, password: str) -> bool:
        """Tell whether it is the password; None, for nobody's, takes just as long. Raises PasswordsBusy."""

        def verified() -> bool:
            from argon2.exceptions import VerifyMismatchError

            try:
                return self._hasher.verify(kept or self._nobodys, password) and kept is not None
            except VerifyMismatchError:
                return False

        return await self._away(verified)

    def outdated(self, kept: str) -> bool:
        """Tell whether the hash was made at another cost."""
        return self._hasher.check_needs_rehash(kept)

    async def _away(self, work: Callable[[], _T]) -> _T:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="password")
        if self._under_way >= _THREADS + _MOST_WAITING:
            raise PasswordsBusy
        self._under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._under_way -= 1

    def close(self) -> None:
        """End the threads; what they are at is finished by nobody."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
