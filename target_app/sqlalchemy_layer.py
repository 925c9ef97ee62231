"""The data layer ``sqlalchemy``: its engine and its pool, as most applications have them."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

from sqlalchemy import Executable, Row, text
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolLimitReached
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry

from target_app.database import Database, Values, cannot_be_used, connecting, meaning, refusal, url_of
from target_app.errors import DatabaseError, PoolTimeout, TooManyConnections
from target_app.figures import Stages
from target_app.pool import PoolFigures, Waiting
from target_app.settings import Settings


class SqlalchemySession:
    """See :class:`target_app.database.Session`."""

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
        """Commit."""
        began = perf_counter()
        try:
            await self._connection.commit()
        finally:
            self._stages.commit += perf_counter() - began


class MeasuredPool(AsyncAdaptedQueuePool):
    """The pool of a worker. Semantics are SQLAlchemy's; opening an overflow connection counts as waiting for it.

    They include that a connection which is given back is anybody's: who comes just then may take it before who has been
    waiting for it, and who has waited longest may go on waiting.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.figures = PoolFigures()
        self._since: dict[ConnectionPoolEntry, float] = {}

    @property
    def limit(self) -> int:
        """Most connections at a time, overflow included."""
        return self.size() + self._max_overflow

    def _do_get(self) -> ConnectionPoolEntry:
        with Waiting(self.figures, PoolLimitReached) as waiting:
            record = super()._do_get()
        self.figures.checkouts += 1
        self._since[record] = waiting.ended_s
        return record

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        self.figures.hold_s += perf_counter() - self._since.pop(record)
        super()._do_return_conn(record)


class SqlalchemyDatabase(Database):
    """See :class:`target_app.database.Database`."""

    def __init__(self, settings: Settings) -> None:
        self._size = settings.pool_size
        self._engine: AsyncEngine = create_async_engine(
            url_of(settings),
            poolclass=MeasuredPool,
            pool_size=settings.pool_size,
            max_overflow=settings.max_overflow,
            pool_timeout=settings.pool_timeout_s,
            connect_args={**connecting(settings), **_preparing(settings)},
        )
        # Same pool, no BEGIN and no ROLLBACK: a lone statement is one round trip.
        self._autocommit = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        pool = self._engine.pool
        assert isinstance(pool, MeasuredPool)  # noqa: S101  (the engine was made with this class)
        self.pool = pool

    async def open(self, warm: Iterable[tuple[Executable, Values]]) -> None:
        """See :class:`target_app.database.Database`."""
        failed: list[BaseException] = []
        try:
            await self._fill(tuple(warm))
        except* (DBAPIError, PoolLimitReached, OSError) as errors:
            failed.append(errors)
        # Not in the block above: what is raised there comes out wrapped in a group before Python 3.11.4.
        if failed:
            raise cannot_be_used(failed[0]) from failed[0]

    async def _fill(self, statements: tuple[tuple[Executable, Values], ...]) -> None:
        """Open what the pool keeps, as far as PostgreSQL has room, and prepare ``statements`` on each connection."""
        everyone_is_open = asyncio.Barrier(self._size)

        async def prepare() -> None:
            async with self._engine.connect() as connection:
                for statement, values in statements:
                    await connection.execute(statement, values)
                await connection.rollback()
                await everyone_is_open.wait()

        async def prepare_if_there_is_room() -> None:
            try:
                await prepare()
            except DBAPIError as error:
                if not _full(error):
                    raise
                await everyone_is_open.wait()

        try:
            # The first connection alone: SQLAlchemy learns the server's version on it, others would wait for that.
            async with self._engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        except DBAPIError as error:
            if _full(error):
                return
            raise
        async with asyncio.TaskGroup() as group:
            for _ in range(self._size):
                group.create_task(prepare_if_there_is_room())

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()

    @asynccontextmanager
    async def autocommit(self, stages: Stages) -> AsyncIterator[SqlalchemySession]:
        """See :class:`target_app.database.Database`."""
        async with self._session(self._autocommit, stages) as session:
            yield session

    @asynccontextmanager
    async def transaction(self, stages: Stages) -> AsyncIterator[SqlalchemySession]:
        """See :class:`target_app.database.Database`."""
        async with self._session(self._engine, stages) as session:
            yield session

    @asynccontextmanager
    async def _session(self, engine: AsyncEngine, stages: Stages) -> AsyncIterator[SqlalchemySession]:
        connection = engine.connect()
        began = perf_counter()
        try:
            await connection.start()
        except PoolLimitReached as error:
            raise PoolTimeout from error
        except DBAPIError as error:  # whatever it says, nothing was asked of it but a connection
            raise refusal(getattr(error.orig, "sqlstate", None)) from error
        except OSError as error:
            raise DatabaseError from error
        finally:
            stages.pool_wait += perf_counter() - began
        try:
            yield SqlalchemySession(connection, stages)
        except TimeoutError as error:
            # The server did not answer and may do so later, to whoever has the connection then: never reuse it.
            await connection.invalidate()
            raise DatabaseError from error
        except OSError as error:
            raise DatabaseError from error
        except DBAPIError as error:
            raise _meaning(error) from error
        finally:
            await connection.close()


def _preparing(settings: Settings) -> dict[str, Any]:
    """Return how SQLAlchemy prepares: it names and keeps every statement, unless told to do neither."""
    if settings.prepared_statements == "on":
        return {}
    return {"prepared_statement_cache_size": 0, "prepared_statement_name_func": lambda: ""}


def _full(error: DBAPIError) -> bool:
    return isinstance(refusal(getattr(error.orig, "sqlstate", None)), TooManyConnections)


def _meaning(error: DBAPIError) -> Exception:
    """Return what a failure means for the request; a fault of ours comes back unchanged."""
    sqlstate = getattr(error.orig, "sqlstate", None)
    if sqlstate is not None:
        return meaning(sqlstate, str(error.orig)) or error
    # Not from the server: asyncpg found the connection closed under it.
    lost = error.connection_invalidated or isinstance(error, InterfaceError)
    return DatabaseError() if lost else error
