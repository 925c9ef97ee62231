"""Puts PostgreSQL and Redis back to the seeded state, the same to the byte for every trial of one seed."""

import contextlib
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import psycopg
import redis
from psycopg import sql

from ticketbench.errors import EnvironmentFailure
from ticketbench.model import Level
from ticketbench.stack.clients import PostgresAt, RedisAt
from ticketbench.stack.patience import patience
from ticketbench.stack.process import remedy

DATABASE: Final = "tickets"
# The target is no superuser, so that PostgreSQL's reserved connections are kept from it.
ROLE: Final = "sale"
# For a handful of statements that take half a second in all: beyond this it is not slow, it hangs.
PATIENCE_S: Final = 120.0
_POLL_S: Final = 0.01

# What decides how fast and how safe the servers are, read back from them: what holds, not what was asked for.
POSTGRES_SHOWN: Final = (
    "server_version", "shared_buffers", "effective_cache_size", "work_mem", "max_connections",
    "superuser_reserved_connections", "fsync", "synchronous_commit", "full_page_writes", "wal_level", "wal_sync_method",
    "max_wal_size", "checkpoint_timeout", "autovacuum", "jit", "default_transaction_isolation", "deadlock_timeout",
    "shared_preload_libraries", "track_io_timing",
)  # fmt: skip
# Whatever else is not its default is shown as well, but for where things lie, how they look, and what keeps it private.
POSTGRES_HIDDEN: Final = (
    r"(_file|_directory|_directories|_addresses|_destination)$|^(port|lc_|log_|log$|TimeZone|DateStyle)"
)
REDIS_SHOWN: Final = ("maxmemory", "maxmemory-policy", "save", "appendonly", "appendfsync", "io-threads", "maxclients")


class Data:
    """The data of a stack: its database, the templates it is copied from, and Redis.

    ``inside`` is PostgreSQL as the target reaches it, where that is another address than ours. ``advice`` says what to
    do about PostgreSQL's words where it refuses.
    """

    def __init__(
        self,
        postgres: PostgresAt,
        store: RedisAt,
        inside: PostgresAt | None = None,
        advice: Callable[[str], str] = remedy,
    ) -> None:
        self._postgres = postgres
        self._store = store
        self._inside = inside or postgres
        self._advice = advice
        self._password = secrets.token_urlsafe(24)
        self._templates: set[str] = set()

    @property
    def superuser_dsn(self) -> str:
        """The superuser's URL of the target's database."""
        return self._postgres.dsn(DATABASE)

    def target_dsn(self, database: str = DATABASE, through: PostgresAt | None = None) -> str:
        """Return the target's own URL of a database, ``through`` what stands before PostgreSQL if anything does."""
        return (through or self._inside).dsn(database, user=ROLE, password=self._password)

    @property
    def password(self) -> str:
        """The password of the target's role."""
        return self._password

    def moved(self, postgres: PostgresAt, inside: PostgresAt | None = None) -> None:
        """Take note that the same PostgreSQL was started again, at another address."""
        self._postgres, self._inside = postgres, inside or postgres

    def prepare(self) -> None:
        """Make the target's role, or give the one that is there a new password. Raises EnvironmentFailure."""
        with self._administering() as connection:
            there = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (ROLE,)).fetchone()
            words = sql.SQL("ALTER ROLE" if there else "CREATE ROLE")
            connection.execute(
                sql.SQL("{} {} LOGIN PASSWORD {}").format(words, sql.Identifier(ROLE), sql.Literal(self._password))
            )
            connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")

    def reset(self, seed: Mapping[str, Level], fill: Callable[[str], None], *, keep_queue: bool = False) -> None:
        """Make database and Redis anew as ``seed`` says; the target must not run.

        ``fill`` is given the URL of an empty database to put schema and seed into; it is called once for each seed.
        With ``keep_queue`` Redis writes a log of what it is told: what is in the queue outlives its process.
        Then the log is checkpointed and statistics start from zero. Raises EnvironmentFailure.
        """
        template = self._template(seed, fill)
        with self._administering() as connection:
            _drop(connection, DATABASE)
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy OWNER {}").format(
                    sql.Identifier(DATABASE), sql.Identifier(template), sql.Identifier(ROLE)
                )
            )
            connection.execute("CHECKPOINT")
            connection.execute("SELECT pg_stat_statements_reset()")
        try:
            with self._store.client() as client:
                _empty(client, logged=keep_queue)
        except redis.RedisError as error:
            raise EnvironmentFailure(f"Redis cannot be emptied: {error}") from error

    def _template(self, seed: Mapping[str, Level], fill: Callable[[str], None]) -> str:
        key = json.dumps(dict(seed), sort_keys=True).encode()
        name = f"seed_{hashlib.sha256(key).hexdigest()[:16]}"
        if name not in self._templates:
            with self._administering() as connection:
                _drop(connection, name)  # a fill that failed or was interrupted may have left one
                connection.execute(
                    sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(ROLE))
                )
            fill(self.target_dsn(name))
            with self._administering(name) as inside:
                inside.execute("CREATE EXTENSION pg_stat_statements")
                # planner statistics and hint bits are the seed's, not left to when autovacuum comes by
                inside.execute("VACUUM (FREEZE, ANALYZE)")
            self._templates.add(name)
        return name

    @contextlib.contextmanager
    def _administering(self, database: str = "postgres") -> Iterator[psycopg.Connection[Any]]:
        try:
            with (
                psycopg.connect(self._postgres.dsn(database), autocommit=True, connect_timeout=10) as connection,
                patience(connection, PATIENCE_S),
            ):
                yield connection
        except psycopg.Error as error:
            why = str(error).strip() or type(error).__name__
            raise EnvironmentFailure(f"PostgreSQL does not do what a reset needs: {why}", self._advice(why)) from error

    def settings(self) -> dict[str, str]:
        """Return the servers' settings that matter, as they hold now. Raises EnvironmentFailure."""
        shown: dict[str, str] = {}
        with self._administering(DATABASE) as connection:
            rows = connection.execute(
                "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY(%s)"
                " OR (source NOT IN ('default', 'override', 'client', 'session') AND NOT name ~ %s)",
                (list(POSTGRES_SHOWN), POSTGRES_HIDDEN),
            )
            shown |= {f"postgres.{name}": value for name, value in rows}
        try:
            with self._store.client() as client:
                for name in REDIS_SHOWN:
                    values: Any = client.config_get(name)
                    shown |= {f"redis.{key}": str(value) for key, value in sorted(_texts(values).items())}
        except redis.RedisError as error:
            raise EnvironmentFailure(f"Redis does not tell its settings: {error}") from error
        return dict(sorted(shown.items()))


def _empty(client: "redis.Redis", *, logged: bool) -> None:
    """Empty Redis, and have it write its log from here on, or none. Raises redis.RedisError, EnvironmentFailure.

    Each command is handed to the system before it is answered, so a killed Redis has lost nothing; it reaches the disk
    within about a second (``everysec``), which is what a machine that loses its power can lose. The log begins with a
    copy, which takes a fork: here, and not in the trial.
    """
    client.config_set("appendonly", "no")
    client.flushall()
    if not logged:
        return
    client.config_set("appendfsync", "everysec")
    client.config_set("auto-aof-rewrite-percentage", 0)
    client.config_set("appendonly", "yes")
    deadline = time.monotonic() + PATIENCE_S
    while True:
        told: Any = client.info("persistence")
        if told["aof_enabled"] and not told["aof_rewrite_in_progress"] and not told["aof_rewrite_scheduled"]:
            break
        if time.monotonic() > deadline:
            raise EnvironmentFailure(f"Redis does not begin its log within {PATIENCE_S:g} s")
        time.sleep(_POLL_S)
    if told["aof_last_bgrewrite_status"] != "ok" or told["aof_last_write_status"] != "ok":
        raise EnvironmentFailure("Redis cannot write its log", "is the disk full? the log of redis says why")


def _texts(values: Mapping[Any, Any]) -> dict[str, str]:
    def text(value: object) -> str:
        return value.decode() if isinstance(value, bytes) else str(value)

    return {text(key): text(value) for key, value in values.items()}


def _drop(connection: psycopg.Connection[Any], name: str) -> None:
    connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
