"""The data layer ``asyncpg``: prepared statements straight on the driver, and a fair pool.

The statements are the same SQLAlchemy constructs, turned into text once; what is left out is everything that SQLAlchemy
does for each execution (a greenlet, a cursor, a result with its rows) and its pool.
"""

from collections.abc import Awaitable, Callable, Iterable
from functools import cache, partial
from time import perf_counter
from types import TracebackType
from typing import Any, Final, Self

import asyncpg
from sqlalchemy import Executable
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.sql import ClauseElement

from target_app.database import Database, Values, cannot_be_used, connecting, meaning, refusal, url_of
from target_app.errors import DatabaseError
from target_app.figures import Stages
from target_app.pool import FairPool
from target_app.settings import Settings

Fetch = Callable[..., Awaitable[list[Any]]]
_DIALECT: Final = PGDialect_asyncpg()  # type: ignore[no-untyped-call]


class _Row(asyncpg.Record):  # type: ignore[misc]  # asyncpg is untyped
    """A row with its columns as attributes."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


@cache
def _text_of(statement: Executable) -> tuple[str, tuple[str, ...]]:
    """Return the statement as PostgreSQL gets it, and the names of its parameters in their order."""
    assert isinstance(statement, ClauseElement)  # noqa: S101  (all of queries.py are)
    compiled = statement.compile(dialect=_DIALECT)
    return str(compiled), tuple(getattr(compiled, "positiontup", None) or ())


class _Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg is untyped
    """A connection with the statements that are prepared on it."""

    prepares = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ready: dict[Executable, tuple[Fetch, tuple[str, ...]]] = {}

    async def make_ready(self, statement: Executable) -> tuple[Fetch, tuple[str, ...]]:
        """Return what executes the statement, prepared where that is of use, and its parameters' names."""
        text, names = _text_of(statement)
        fetch = (await self.prepare(text)).fetch if self.prepares else partial(self.fetch, text)
        self.ready[statement] = found = fetch, names
        return found


class _Unprepared(_Connection):
    """The same to a pooler that loses prepared statements: two round trips for each, of which the first asks for types.

    Both go to one session, also outside of a transaction: asyncpg ends the first without a Sync.
    """

    prepares = False


class _Session:
    """See :class:`target_app.database.Session`; entering it waits for the connection."""

    __slots__ = ("_autocommit", "_begun", "_connection", "_pool", "_stages")

    def __init__(self, pool: FairPool[_Connection], stages: Stages, *, autocommit: bool) -> None:
        self._pool = pool
        self._stages = stages
        self._autocommit = autocommit
        self._begun = autocommit

    async def __aenter__(self) -> Self:
        began = perf_counter()
        try:
            self._connection = await self._pool.get()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:  # TimeoutError is an OSError
            raise refusal(getattr(error, "sqlstate", None)) from error
        finally:
            self._stages.pool_wait += perf_counter() - began
        return self

    async def one(self, statement: Executable, values: Values | None = None) -> Any:
        """Execute and return the only row, or None."""
        rows = await self.all(statement, values)
        return rows[0] if rows else None

    async def all(self, statement: Executable, values: Values | None = None) -> list[Any]:
        """Execute and return all rows."""
        connection = self._connection
        began = perf_counter()
        try:
            if not self._begun:
                self._begun = True
                await connection.execute("BEGIN")
            fetch, names = connection.ready.get(statement) or await connection.make_ready(statement)
            rows: list[Any] = await fetch(*([values[name] for name in names] if values else ()))
        finally:
            self._stages.sql += perf_counter() - began
        return rows

    async def commit(self) -> None:
        """Commit."""
        if self._autocommit or not self._begun:
            return
        began = perf_counter()
        try:
            await self._connection.execute("COMMIT")
        finally:
            self._stages.commit += perf_counter() - began

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        connection = self._connection
        if error is None or (isinstance(error, Exception) and not isinstance(error, _UNCERTAIN)):
            if self._autocommit or not connection.is_in_transaction():
                self._pool.put(connection)
            else:
                await self._roll_back()
        else:
            # An answer may still come, to whoever has the connection then: never reuse it.
            self._pool.drop(connection)
        if error is not None:
            meant = _meaning(error, lost=connection.is_closed())
            if meant is not None:
                raise meant from error

    async def _roll_back(self) -> None:
        connection = self._connection
        try:
            await connection.execute("ROLLBACK")
        except BaseException as error:
            self._pool.drop(connection)
            if isinstance(error, (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
                return  # PostgreSQL rolls back what has lost its connection; the request's end stays what it was
            raise
        self._pool.put(connection)


# TimeoutError is an OSError.
_UNCERTAIN: Final = (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, asyncpg.PostgresConnectionError)


def _meaning(error: BaseException, *, lost: bool) -> Exception | None:
    """Return what a failure of the database means for the request; None for anything else, a fault of ours included."""
    if isinstance(error, asyncpg.PostgresError):
        return meaning(error.sqlstate, str(error))
    # Where the server ended the connection just as it was asked something, asyncpg loses track: InternalClientError.
    gone = isinstance(error, (OSError, asyncpg.InternalClientError))
    return DatabaseError() if gone or (lost and isinstance(error, asyncpg.InterfaceError)) else None


class AsyncpgDatabase(Database):
    """See :class:`target_app.database.Database`."""

    def __init__(self, settings: Settings) -> None:
        self._dsn = url_of(settings).set(drivername="postgresql").render_as_string(hide_password=False)
        self._connecting = connecting(settings)
        self._class = _Connection if settings.prepared_statements == "on" else _Unprepared
        self.pool: FairPool[_Connection] = FairPool(
            self._connect,
            size=settings.pool_size,
            overflow=settings.max_overflow,
            timeout_s=settings.pool_timeout_s,
        )

    async def _connect(self) -> _Connection:
        connection: _Connection = await asyncpg.connect(
            self._dsn, connection_class=self._class, record_class=_Row, **self._connecting
        )
        return connection

    async def open(self, warm: Iterable[tuple[Executable, Values]]) -> None:
        """See :class:`target_app.database.Database`."""
        statements = tuple(warm)

        async def prepare(connection: _Connection) -> None:
            await connection.execute("BEGIN")
            for statement, values in statements:
                fetch, names = await connection.make_ready(statement)
                await fetch(*[values[name] for name in names])
            await connection.execute("ROLLBACK")

        failed: list[BaseException] = []
        try:
            await self.pool.open(prepare, spared=asyncpg.TooManyConnectionsError)
        except* (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as errors:
            failed.append(errors)
        # Not in the block above: what is raised there comes out wrapped in a group before Python 3.11.4.
        if failed:
            raise cannot_be_used(failed[0]) from failed[0]

    async def close(self) -> None:
        """Close all connections."""
        await self.pool.close()

    def autocommit(self, stages: Stages) -> _Session:
        """See :class:`target_app.database.Database`."""
        return _Session(self.pool, stages, autocommit=True)

    def transaction(self, stages: Stages) -> _Session:
        """See :class:`target_app.database.Database`."""
        return _Session(self.pool, stages, autocommit=False)
