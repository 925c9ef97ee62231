"""Connections to PostgreSQL: the warm pool, a session with its stages timed, and what its failures mean."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any, Final

from sqlalchemy import URL, Executable, Row, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolLimitReached
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from target_app.errors import Conflict, DatabaseError, LockTimeout, PoolTimeout, SaleError, StartupError
from target_app.figures import Stages
from target_app.pool import MeasuredPool
from target_app.settings import Settings

Values = Mapping[str, Any]

_LOCK_TIMEOUT: Final = "55P03"
_RETRYABLE: Final = ("40001", "40P01")  # serialization failure, deadlock
_UNIQUE: Final = "23505"
# Connection lost, no such database, resources used up, cancelled or shut down, the server's own fault.
_SERVER_TROUBLE: Final = ("08", "25P", "3D", "53", "57", "58", "XX")


class DuplicateKey(Exception):
    """The idempotency key has a ticket already: the statement was undone, whoever came first has the ticket."""


def url_of(settings: Settings) -> URL:
    """Return ``database_url`` for SQLAlchemy's asyncpg dialect. Raises StartupError without repeating the password."""
    try:
        url = make_url(settings.database_url.get_secret_value())
    except (ArgumentError, ValueError):
        raise StartupError("TARGET_DATABASE_URL is not a postgresql:// address") from None
    return url.set(drivername="postgresql+asyncpg")


class Session:
    """A connection in use by one request; every statement's time is added to the request's stages."""

    __slots__ = ("_connection", "_stages")

    def __init__(self, connection: AsyncConnection, stages: Stages) -> None:
        self._connection = connection
        self._stages = stages

    async def one(self, statement: Executable, values: Values | None = None) -> Row[Any] | None:
        """Execute and return the only row, or None."""
        began = perf_counter()
        try:
            result = await self._connection.execute(statement, values)
        finally:
            self._stages.sql += perf_counter() - began
        return result.one_or_none()

    async def all(self, statement: Executable, values: Values | None = None) -> list[Row[Any]]:
        """Execute and return all rows."""
        began = perf_counter()
        try:
            result = await self._connection.execute(statement, values)
        finally:
            self._stages.sql += perf_counter() - began
        return list(result.all())

    async def commit(self) -> None:
        """Commit; what was written is durable (as far as ``synchronous_commit`` says) once this returns."""
        began = perf_counter()
        try:
            await self._connection.commit()
        finally:
            self._stages.commit += perf_counter() - began


class Database:
    """The worker's connections. Leaving a session without a commit rolls back; nothing waits without a limit."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        milliseconds = {
            "statement_timeout": settings.statement_timeout_s,
            "lock_timeout": settings.lock_timeout_s,
            # A payment of the longest level plus a lock: beyond this the worker has forgotten the transaction.
            "idle_in_transaction_session_timeout": 30.0,
        }
        self._engine: AsyncEngine = create_async_engine(
            url_of(settings),
            poolclass=MeasuredPool,
            pool_size=settings.pool_size,
            max_overflow=settings.max_overflow,
            pool_timeout=settings.pool_timeout_s,
            connect_args={
                "timeout": settings.connect_timeout_s,
                # The client's own limit, for a server that does not answer at all; the server's acts first.
                "command_timeout": settings.statement_timeout_s + 1,
                "server_settings": {
                    "application_name": "target_app",
                    "synchronous_commit": settings.synchronous_commit,
                    "jit": "off",
                    **{name: str(max(1, round(seconds * 1000))) for name, seconds in milliseconds.items()},
                },
            },
        )
        # Same pool, no BEGIN and no ROLLBACK: a lone statement is one round trip.
        self._autocommit = self._engine.execution_options(isolation_level="AUTOCOMMIT")

    @property
    def pool(self) -> MeasuredPool:
        """The pool, for its figures."""
        pool = self._engine.pool
        assert isinstance(pool, MeasuredPool)  # noqa: S101  (the engine was made with this class)
        return pool

    async def open(self, warm: Iterable[tuple[Executable, Values]]) -> None:
        """Open all connections that the pool keeps and prepare ``warm`` on each, so that no request pays for it.

        The statements are executed and rolled back. Raises StartupError where PostgreSQL cannot be used.
        """
        statements = tuple(warm)
        everyone_is_open = asyncio.Barrier(self._settings.pool_size)

        async def prepare() -> None:
            async with self._engine.connect() as connection:
                for statement, values in statements:
                    await connection.execute(statement, values)
                await connection.rollback()
                await everyone_is_open.wait()

        failed: list[BaseException] = []
        try:
            # The first connection alone: SQLAlchemy learns the server's version on it, others would wait for that.
            async with self._engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
            async with asyncio.TaskGroup() as group:
                for _ in range(self._settings.pool_size):
                    group.create_task(prepare())
        except* (DBAPIError, PoolLimitReached, OSError) as errors:
            failed.append(_first(errors))
        # Not in the block above: what is raised there comes out wrapped in a group before Python 3.11.4.
        if failed:
            raise StartupError(f"PostgreSQL cannot be used: {_one_line(failed[0])}") from failed[0]

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()

    @asynccontextmanager
    async def read(self, stages: Stages) -> AsyncIterator[Session]:
        """Give a session in which each statement stands for itself. Raises Unavailable."""
        async with self._session(self._autocommit, stages) as session:
            yield session

    @asynccontextmanager
    async def transaction(self, stages: Stages) -> AsyncIterator[Session]:
        """Give a session in a transaction, begun with its first statement. Raises Unavailable, DuplicateKey."""
        async with self._session(self._engine, stages) as session:
            yield session

    @asynccontextmanager
    async def _session(self, engine: AsyncEngine, stages: Stages) -> AsyncIterator[Session]:
        connection = engine.connect()
        began = perf_counter()
        try:
            await connection.start()
        except PoolLimitReached as error:
            raise PoolTimeout from error
        except (DBAPIError, OSError) as error:  # whatever it says, nothing was asked of it but a connection
            raise DatabaseError from error
        finally:
            stages.pool_wait += perf_counter() - began
        try:
            yield Session(connection, stages)
        except TimeoutError as error:
            # The server did not answer and may do so later, to whoever has the connection then: never reuse it.
            await connection.invalidate()
            raise DatabaseError from error
        except (DBAPIError, OSError) as error:
            raise meaning(error) from error
        finally:
            await connection.close()


def meaning(error: DBAPIError | OSError) -> Exception:
    """Return what a failure of the database means for the request; a fault of ours comes back unchanged."""
    if isinstance(error, OSError):
        return DatabaseError()
    state = getattr(error.orig, "sqlstate", None)
    if isinstance(error, IntegrityError) and state == _UNIQUE and "idempotency_key" in str(error.orig):
        return DuplicateKey()
    trouble: SaleError | None = None
    if state == _LOCK_TIMEOUT:
        trouble = LockTimeout()
    elif state in _RETRYABLE:
        trouble = Conflict()
    elif _gone(error, state):
        trouble = DatabaseError()
    return trouble or error


def _gone(error: DBAPIError, state: str | None) -> bool:
    if state is None:  # not from the server: asyncpg found the connection closed under it
        return error.connection_invalidated or isinstance(error, InterfaceError)
    return state.startswith(_SERVER_TROUBLE)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _one_line(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    return " ".join(f"{type(cause).__name__}: {cause}".split())
