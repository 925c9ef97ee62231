"""PostgreSQL's figures: wait events at 10 Hz, statements and database counters at 1 Hz.

The connection is made to the maintenance database, never to the target's: that one is dropped and made anew between
trials. As a superuser it gets one of the slots that are reserved, so a full max_connections does not blind it, and it
is made first. All views that are read are visible from there.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg.conninfo import make_conninfo

from ticketbench.sampling.counters import Counters
from ticketbench.sampling.push import Sample

TARGET_DATABASE: Final = "tickets"
MAINTENANCE_DATABASE: Final = "postgres"
APPLICATION_NAME: Final = "ticketbench-sampler"

# A tick later than this stands for less time than has passed: what happened in between nobody saw.
_LONGEST_TICK_S: Final = 2.0
_CONNECT_TIMEOUT_S: Final = 3
_RETRY_S: Final = 0.2
_TOP_STATEMENTS: Final = 10
# Statements that once were among the ten most expensive stay exported until the reset before the next trial; this is
# the bound on their number.
_MOST_STATEMENTS: Final = 30
_STATEMENT_CHARS: Final = 120
_WAL_OF_17: Final = re.compile(r"^IO:Wal(?=[A-Z])")
_STATES: Final = ("active", "idle", "idle in transaction")

# Grouped in the server: the answer is a handful of rows, whatever the number of backends.
_WAITS = """
SELECT CASE WHEN state LIKE 'idle in transaction%%' THEN 'idle in transaction'
            WHEN state = 'idle' THEN 'idle'
            ELSE coalesce(wait_event_type || ':' || wait_event, 'CPU') END,
       count(*)::int
FROM pg_stat_get_activity(NULL)
WHERE datid = (SELECT oid FROM pg_database WHERE datname = %s) AND backend_type = 'client backend' AND state IS NOT NULL
GROUP BY 1
"""
_DATABASE = """
SELECT d.datid::bigint, d.xact_commit, d.xact_rollback, d.deadlocks, {wal}
FROM pg_stat_database d WHERE d.datname = %s
"""
# `false`: without the texts, which are kept in a file that would be read each time.
_STATEMENTS = """
SELECT s.queryid, sum(s.total_exec_time)::float8 / 1000, sum(s.calls)::float8
FROM pg_stat_statements(false) s WHERE s.dbid = %s AND s.queryid IS NOT NULL GROUP BY 1
"""
_TEXTS = "SELECT queryid, left(query, 1000) FROM pg_stat_statements WHERE queryid = ANY(%s)"
_RESET = "SELECT stats_reset FROM pg_stat_statements_info"


def wait_name(told: str) -> str:
    """Return a wait's name as it is in every version: PostgreSQL 17 alone calls it IO:WalSync, not IO:WALSync."""
    return _WAL_OF_17.sub("IO:WAL", told)


@dataclass
class _Epoch:
    """What the statements' counters belong to: they start again when any of it changes."""

    datid: int
    reset: Any


def shorten(text: str) -> str:
    """Return a statement on one line, comments and surplus blanks removed, cut to what fits a label."""
    line = " ".join(re.sub(r"/\*.*?\*/|--[^\n]*", " ", text, flags=re.DOTALL).split())
    return line if len(line) <= _STATEMENT_CHARS else line[: _STATEMENT_CHARS - 3] + "..."


def _conninfo(dsn: str) -> str:
    return make_conninfo(
        dsn,
        dbname=MAINTENANCE_DATABASE,
        application_name=APPLICATION_NAME,
        connect_timeout=_CONNECT_TIMEOUT_S,
        options="-c statement_timeout=3000 -c jit=off",
    )


class Postgres:
    """Samples of one server. :meth:`connect` once, then call :meth:`waits` and :meth:`figures` from one thread.

    Both raise psycopg.Error where the server is away; the next :meth:`waits` tries to connect again.
    """

    def __init__(self, dsn: str) -> None:
        self._given = dsn
        self._dsn = _conninfo(dsn)
        self._moved_to = ""
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._retry_at_s = 0.0
        self._statements = False
        self._max_connections = 0
        self._seen_at_s: float | None = None
        self._epoch: _Epoch | None = None
        self._first_figures = True
        self._texts: dict[int, str] = {}
        self._exported: dict[int, None] = {}
        self._states = dict.fromkeys(_STATES, 0)
        self.wait_s: Counters[str] = Counters()
        for wait in ("CPU", "idle", "idle in transaction"):
            self.wait_s.add(wait, 0.0)
        self._exec_s: Counters[int] = Counters()
        self._calls: Counters[int] = Counters()
        self._database: Counters[str] = Counters()

    @property
    def has_statements(self) -> bool:
        """Whether the server was started with pg_stat_statements."""
        return self._statements

    def connect(self) -> None:
        """Connect, and make pg_stat_statements readable. Raises psycopg.Error."""
        self.close()
        connection = psycopg.connect(self._dsn, autocommit=True, prepare_threshold=1)
        try:
            row = connection.execute("SELECT current_setting('max_connections')::int").fetchone()
            self._max_connections = row[0] if row else 0
            try:
                connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
                connection.execute(_RESET)
                self._statements = True
            except (psycopg.errors.ObjectNotInPrerequisiteState, psycopg.errors.FeatureNotSupported):
                self._statements = False
        except psycopg.Error:
            connection.close()
            raise
        self._connection = connection
        self._seen_at_s = None

    def moved(self, dsn: str) -> None:
        """Connect there at the next look: the same server was started again. From any thread."""
        self._moved_to = dsn

    def _follow(self) -> None:
        dsn, self._moved_to = self._moved_to, ""
        if dsn and dsn != self._given:
            self.close()
            self._given, self._dsn, self._retry_at_s = dsn, _conninfo(dsn), 0.0

    def close(self) -> None:
        """Close the connection. Idempotent."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _query(self, query: str, *arguments: object) -> list[tuple[Any, ...]]:
        """Run a query; on a broken connection drop it, so that the next sample connects anew. Raises psycopg.Error."""
        if self._connection is None:
            if time.monotonic() < self._retry_at_s:
                raise psycopg.OperationalError("not connected")
            self._retry_at_s = time.monotonic() + _RETRY_S
            self.connect()
        connection = self._connection
        if connection is None:
            raise psycopg.OperationalError("not connected")
        try:
            return connection.execute(query.encode(), arguments).fetchall()
        except psycopg.Error:
            if connection.broken or connection.closed:
                self.close()
            raise

    def waits(self) -> None:
        """Count each backend of the target's database for the time since the last look, by what it is doing."""
        self._follow()
        rows = self._query(_WAITS, TARGET_DATABASE)
        now_s = time.monotonic()
        span_s = 0.0 if self._seen_at_s is None else min(now_s - self._seen_at_s, _LONGEST_TICK_S)
        self._seen_at_s = now_s
        states = dict.fromkeys(_STATES, 0)
        for name, count in rows:
            wait = wait_name(name)
            self.wait_s.add(wait, count * span_s)
            states[wait if wait in states else "active"] += count
        self._states = states

    def figures(self) -> None:
        """Read the counters of the target's database and its statements. Without that database nothing is counted."""
        version = self._connection.info.server_version if self._connection else 0
        wal = "(SELECT wal_bytes FROM pg_stat_wal)::float8" if version >= 140000 else "0::float8"
        rows = self._query(_DATABASE.format(wal=wal), TARGET_DATABASE)
        baseline = self._first_figures
        self._first_figures = False
        if not rows:
            return
        datid, commits, rollbacks, deadlocks, wal_bytes = rows[0]
        reset = self._query(_RESET)[0][0] if self._statements else None
        epoch = _Epoch(datid, reset)
        if self._epoch is not None and epoch != self._epoch:
            self._exec_s.forget_raw()
            self._calls.forget_raw()
            self._exported.clear()
        self._epoch = epoch
        counts = {"commits": commits, "rollbacks": rollbacks, "deadlocks": deadlocks, "wal_bytes": wal_bytes}
        for name, raw in counts.items():
            self._database.read(name, float(raw), baseline=baseline or name == "wal_bytes")
        if self._statements:
            statements = self._query(_STATEMENTS, datid)
            for queryid, exec_s, calls in statements:
                self._exec_s.read(queryid, exec_s, baseline=baseline)
                self._calls.read(queryid, calls, baseline=baseline)
            self._choose({queryid: exec_s for queryid, exec_s, _ in statements})

    def _choose(self, exec_s: dict[int, float]) -> None:
        """Export what is among the most expensive since the last reset, and keep it, for its counter to go on."""
        for queryid in sorted(exec_s, key=exec_s.__getitem__, reverse=True)[:_TOP_STATEMENTS]:
            if self._exec_s[queryid] > 0 and len(self._exported) < _MOST_STATEMENTS:
                self._exported.setdefault(queryid)
        unknown = [queryid for queryid in self._exported if queryid not in self._texts]
        if unknown:
            self._texts.update((queryid, shorten(text)) for queryid, text in self._query(_TEXTS, unknown))

    def wait_samples(self) -> Iterator[Sample]:
        """Yield what the wait events come to so far."""
        for wait, total_s in self.wait_s.items():
            yield "tb_pg_wait_seconds_total", (("wait", wait),), total_s
        for state, count in self._states.items():
            yield "tb_pg_backends", (("state", state),), count
        yield "tb_pg_max_connections", (), self._max_connections

    def figure_samples(self) -> Iterator[Sample]:
        """Yield the database's and the statements' counters."""
        for name, total in self._database.items():
            yield f"tb_pg_{name}_total", (), total
        if not self._statements:
            return
        yield "tb_pg_exec_seconds_total", (), self._exec_s.sum()
        yield "tb_pg_calls_total", (), self._calls.sum()
        shown: dict[str, tuple[float, float]] = {}  # texts that differ beyond the cut share a series
        for queryid in self._exported:
            if text := self._texts.get(queryid):
                exec_s, calls = shown.get(text, (0.0, 0.0))
                shown[text] = (exec_s + self._exec_s[queryid], calls + self._calls[queryid])
        for text, (exec_s, calls) in shown.items():
            yield "tb_pg_statement_seconds_total", (("query", text),), exec_s
            yield "tb_pg_statement_calls_total", (("query", text),), calls
