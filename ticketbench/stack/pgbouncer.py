"""PgBouncer in transaction mode between the sale and PostgreSQL: the factor ``pooler``, on both stacks.

A client has a session of PostgreSQL only from the begin of a transaction to its end. What is set in a session, prepared
in it or locked by it would be met by others, or lost. So the sale's settings of a session are set by PgBouncer as it
opens one (``SESSION``, held against the target's by a contract test), it takes no advisory locks, and its prepared
statements need PgBouncer 1.21, which knows them by client; with an older one the sale prepares nothing.
"""

import contextlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg

from ticketbench import factors
from ticketbench.binaries.probe import libraries
from ticketbench.model import Level
from ticketbench.stack.clients import SUPERUSER, PostgresAt
from ticketbench.stack.launch import Identity, Launcher
from ticketbench.stack.reset import DATABASE, ROLE
from ticketbench.stack.rootless import RootlessServer
from ticketbench.stack.servers import LOOPBACK, Ports, free_port

NAME: Final = "pgbouncer"
# What holds in every session of the sale: the defaults of its time-outs, in milliseconds.
SESSION: Final = {
    "jit": "off",
    "statement_timeout": "5000",
    "lock_timeout": "2000",
    "idle_in_transaction_session_timeout": "30000",
}
# Statements that PgBouncer keeps prepared in a session of PostgreSQL; the sale has two dozen.
PREPARED: Final = 200
# Whoever opens more connections than this gets a refusal; PgBouncer takes 2 kB for each.
MOST_CLIENTS: Final = 5000
_CONSOLE: Final = "pgbouncer"  # the name of the database that is PgBouncer itself


@dataclass(frozen=True)
class Pooling:
    """How PgBouncer pools: connections to PostgreSQL, seconds that a client waits for one, and how commits are made."""

    size: int = 20
    wait_s: float = 2.0
    synchronous_commit: str = "on"

    @classmethod
    def of(cls, levels: Mapping[str, Level]) -> "Pooling":
        """Return what a variant asks for. A client waits no longer than the sale's own pool lets a request wait."""
        whole = {**factors.defaults(), **levels}
        return cls(
            size=int(whole["pooler_size"]),
            wait_s=float(whole["pool_timeout_s"]),
            synchronous_commit=str(whole["synchronous_commit"]),
        )


def asked(levels: Mapping[str, Level]) -> bool:
    """Tell whether a variant has a pooler."""
    return levels.get("pooler") == NAME


def configuration(*, host: str, port: int, postgres: tuple[str, int], passwords: str, pooling: Pooling) -> str:
    """Return PgBouncer's configuration file: it listens at ``host`` and ``port``, ``passwords`` is the file of them."""
    session = {"synchronous_commit": pooling.synchronous_commit, **SESSION}
    query = "; ".join(f"SET {name} = {value}" for name, value in session.items())
    postgres_host, postgres_port = postgres
    return (
        "[databases]\n"
        f"{DATABASE} = host={postgres_host} port={postgres_port} dbname={DATABASE} connect_query='{query}'\n"
        "[pgbouncer]\n"
        f"listen_addr = {host}\n"
        f"listen_port = {port}\n"
        "unix_socket_dir =\n"
        "auth_type = scram-sha-256\n"
        f"auth_file = {passwords}\n"
        f"admin_users = {SUPERUSER}\n"
        "pool_mode = transaction\n"
        f"default_pool_size = {pooling.size}\n"
        f"max_client_conn = {MOST_CLIENTS}\n"
        f"query_wait_timeout = {pooling.wait_s:g}\n"
        # a PostgreSQL without room is asked again soon: the default of 15 s outlasts every wait of the sale
        "server_login_retry = 1\n"
        "log_connections = 0\n"
        "log_disconnections = 0\n"
        "log_stats = 0\n"
    )


def password_file(sale: str, console: str) -> str:
    """Return the file of passwords: the sale's role, for both sides, and whoever asks PgBouncer itself."""
    return f'"{ROLE}" "{sale}"\n"{SUPERUSER}" "{console}"\n'


@dataclass(frozen=True)
class PgBouncerAt:
    """A PgBouncer as whoever talks to it sees it; ``at.password`` is that of its console."""

    at: PostgresAt

    @property
    def console(self) -> str:
        """The URL of its console. It holds the password."""
        return self.at.dsn(_CONSOLE)

    def answers(self) -> bool:
        """Tell whether it gives a real answer."""
        try:
            self._ask("SHOW VERSION")
        except psycopg.OperationalError:  # refused, or another's
            return False
        return True

    def prepare(self) -> bool:
        """Have it keep prepared statements; False where it is too old to. Nobody may be connected yet."""
        try:
            self._ask(f"SET max_prepared_statements = {PREPARED}")
        except psycopg.Error:
            return False
        return True

    def settings(self) -> dict[str, str]:
        """Return its version and the settings that decide what it does. Raises psycopg.Error."""
        shown = ("pool_mode", "default_pool_size", "max_client_conn", "query_wait_timeout", "max_prepared_statements")
        told = {str(row[0]): str(row[1]) for row in self._ask("SHOW CONFIG")}
        return {f"pgbouncer.{name}": told[name] for name in shown if name in told}

    def _ask(self, command: str) -> list[tuple[object, ...]]:
        with contextlib.closing(psycopg.connect(self.console, autocommit=True, connect_timeout=2)) as connection:
            cursor = connection.execute(command.encode())
            return cursor.fetchall() if cursor.description else []


class PgBouncerServer(RootlessServer):
    """PgBouncer in front of ``postgres``, for the role ``sale`` with the password ``sale``."""

    name = NAME
    title = "PgBouncer"

    def __init__(
        self,
        program: Path,
        folder: Path,
        launcher: Launcher,
        *,
        log: Path,
        postgres: PostgresAt,
        sale: str,
        pooling: Pooling,
        ports: Ports = free_port,
        identity: Identity | None = None,
    ) -> None:
        super().__init__(program, folder, launcher, log=log, ports=ports, identity=identity)
        self.prepares = False
        self._password = secrets.token_urlsafe(24)
        self._postgres = postgres
        self._sale = sale
        self._pooling = pooling

    @property
    def here(self) -> PgBouncerAt:
        """Where it is now."""
        return PgBouncerAt(PostgresAt(LOOPBACK, self.port, self._password))

    def _command(self) -> list[str]:
        passwords, config = self.folder / "userlist.txt", self.folder / "pgbouncer.ini"
        for path in (passwords, config):
            path.unlink(missing_ok=True)
            path.touch(mode=0o600)
        passwords.write_text(password_file(self._sale, self._password))
        config.write_text(
            configuration(
                host=LOOPBACK,
                port=self.port,
                postgres=(self._postgres.host, self._postgres.port),
                passwords=str(passwords),
                pooling=self._pooling,
            )
        )
        if self._identity().owns_files:
            self._hand_over()
        # it does not raise its own limit of open files, of which it takes one for each client
        return ["/bin/sh", "-c", 'ulimit -Sn "$(ulimit -Hn)"; exec "$0" "$@"', str(self.program), str(config)]

    def _runtime(self) -> Mapping[str, str]:
        return libraries(self.program)

    def _answers(self) -> bool:
        if not self.here.answers():
            return False
        self.prepares = self.here.prepare()
        return True
