"""What the sale asks of a database, whichever data layer does it: sessions, and what their failures mean."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol

from sqlalchemy import URL, Executable, make_url
from sqlalchemy.exc import ArgumentError

from target_app.errors import Conflict, DatabaseError, LockTimeout, StartupError, TooManyConnections, Unavailable
from target_app.figures import Stages
from target_app.pool import Pool
from target_app.settings import Settings

Values = Mapping[str, Any]
Row = Any  # its attributes are the statement's columns

_LOCK_TIMEOUT: Final = "55P03"
_RETRYABLE: Final = ("40001", "40P01")  # serialization failure, deadlock
_UNIQUE: Final = "23505"
_TOO_MANY: Final = "53300"
# Connection lost, no such database, resources used up, cancelled or shut down, the server's own fault.
_SERVER_TROUBLE: Final = ("08", "25P", "3D", "53", "57", "58", "XX")
# A payment of the longest level plus a lock: beyond this the worker has forgotten the transaction.
_IDLE_IN_TRANSACTION_S: Final = 30.0


class DuplicateKey(Exception):
    """The idempotency key has a ticket already: the statement was undone, whoever came first has the ticket."""


class Session(Protocol):
    """A connection in use by one request; every statement's time is added to the request's stages."""

    async def one(self, statement: Executable, values: Values | None = None) -> Row | None:
        """Execute and return the only row, or None."""

    async def all(self, statement: Executable, values: Values | None = None) -> list[Row]:
        """Execute and return all rows."""

    async def commit(self) -> None:
        """Commit; what was written is durable (as far as ``synchronous_commit`` says) once this returns."""


class Database(ABC):
    """The worker's connections. Leaving a session without a commit rolls back; nothing waits without a limit."""

    pool: Pool

    @abstractmethod
    async def open(self, warm: Iterable[tuple[Executable, Values]]) -> None:
        """Open all connections that the pool keeps and prepare ``warm`` on each, so that no request pays for it.

        The statements are executed and rolled back. A connection for which PostgreSQL has no room is opened later, when
        it is wanted: a sale that is refused some of its connections runs on those that it got. Raises StartupError
        where PostgreSQL cannot be used.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close all connections."""

    @abstractmethod
    def autocommit(self, stages: Stages) -> AbstractAsyncContextManager[Session]:
        """Give a session in which each statement stands for itself. Raises Unavailable, DuplicateKey."""

    @abstractmethod
    def transaction(self, stages: Stages) -> AbstractAsyncContextManager[Session]:
        """Give a session in a transaction, begun with its first statement. Raises Unavailable, DuplicateKey."""


def url_of(settings: Settings) -> URL:
    """Return ``database_url`` for SQLAlchemy's asyncpg dialect. Raises StartupError without repeating the password."""
    try:
        url = make_url(settings.database_url.get_secret_value())
    except (ArgumentError, ValueError):
        raise StartupError("TARGET_DATABASE_URL is not a postgresql:// address") from None
    return url.set(drivername="postgresql+asyncpg")


def session_settings(settings: Settings) -> dict[str, str]:
    """Return PostgreSQL's settings that hold in every session of the sale.

    A pooler has sessions of its own, and these are set in them when it opens one (ticketbench/stack/pgbouncer.py).
    """
    milliseconds = {
        "statement_timeout": settings.statement_timeout_s,
        "lock_timeout": settings.lock_timeout_s,
        "idle_in_transaction_session_timeout": _IDLE_IN_TRANSACTION_S,
    }
    return {
        "synchronous_commit": settings.synchronous_commit,
        "jit": "off",
        **{name: str(max(1, round(seconds * 1000))) for name, seconds in milliseconds.items()},
    }


def connecting(settings: Settings) -> dict[str, Any]:
    """Return what every connection is opened with, as arguments of asyncpg."""
    session = {} if settings.pooler == "pgbouncer" else session_settings(settings)
    return {
        "timeout": settings.connect_timeout_s,
        # The client's own limit, for a server that does not answer at all; the server's acts first.
        "command_timeout": settings.statement_timeout_s + 1,
        "server_settings": {"application_name": "target_app", **session},
        # Without a cache asyncpg sends a statement's text each time, just before it is executed.
        **({"statement_cache_size": 0} if settings.prepared_statements == "off" else {}),
    }


def refusal(sqlstate: str | None) -> Unavailable:
    """Return what it means for a request that no connection could be opened for it."""
    return TooManyConnections() if sqlstate == _TOO_MANY else DatabaseError()


def meaning(sqlstate: str, said: str) -> Exception | None:
    """Return what an error of the server means for the request; None where the fault is ours."""
    if sqlstate == _UNIQUE and "idempotency_key" in said:
        return DuplicateKey()
    if sqlstate == _LOCK_TIMEOUT:
        return LockTimeout()
    if sqlstate in _RETRYABLE:
        return Conflict()
    if sqlstate == _TOO_MANY:
        return TooManyConnections()
    if sqlstate.startswith(_SERVER_TROUBLE):
        return DatabaseError()
    return None


def cannot_be_used(error: BaseException) -> StartupError:
    """Return the one line for whoever started the process."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    cause = getattr(error, "orig", None) or error
    return StartupError("PostgreSQL cannot be used: " + " ".join(f"{type(cause).__name__}: {cause}".split()))
