"""Starts the processes of a stack: labelled, recorded, in a session of their own, ending with us unless told not to."""

import functools
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from ticketbench.errors import EnvironmentFailure
from ticketbench.stack.process import LABEL, Process, identify, signals_deferred

# What a server needs of our environment. PGPORT, PGDATA, REDIS_... and the like would change what it does.
INHERITED: Final = ("PATH", "LD_LIBRARY_PATH", "TZ", "TMPDIR", "SSL_CERT_FILE")
# nobody: on every Linux, and in /etc/passwd, where initdb looks its user up.
NOBODY: Final = 65534


class Journal(Protocol):
    """Who writes down what is started, so that it can be found again."""

    def about_to_start(self, component: str) -> None:
        """Write down that ``component`` is going to be started. Raises EnvironmentFailure: then nothing is started."""

    def started(self, component: str, process: Process) -> None:
        """Write down the process that ``component`` now is."""


@dataclass
class Launched:
    """A process that was started, with the log that its output goes to."""

    component: str
    popen: "subprocess.Popen[bytes]" = field(repr=False)
    process: Process
    log: Path


def base_environment() -> dict[str, str]:
    """Return the environment that a server gets."""
    return {"LC_ALL": "C", **{name: os.environ[name] for name in INHERITED if name in os.environ}}


@functools.cache
def _setpriv() -> str | None:
    return shutil.which("setpriv")


@functools.cache
def can_unshare() -> bool:
    """Tell whether a user namespace of our own can be made, which lets root start PostgreSQL as nobody."""
    if _setpriv() is None or shutil.which("unshare") is None:
        return False
    probe = subprocess.run([*_unshared(), "true"], capture_output=True, check=False, timeout=30)
    return probe.returncode == 0


def _unshared() -> tuple[str, ...]:
    return ("unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}", "--")


@dataclass(frozen=True)
class Identity:
    """As whom a server runs: a command prefix, and whether its files have to belong to nobody."""

    prefix: tuple[str, ...] = ()
    owns_files: bool = False


OURSELVES: Final = Identity()


def not_root() -> Identity:
    """Return how to run a server that refuses root. Raises EnvironmentFailure where root has no way to do it."""
    if os.geteuid() != 0:
        return OURSELVES
    if can_unshare():
        return Identity(prefix=_unshared())
    if _setpriv() is None:
        raise EnvironmentFailure(
            "PostgreSQL does not run as root, and there is no setpriv to change the user with",
            "run ticketbench as an ordinary user, or install util-linux",
        )
    return switched_user()


def switched_user() -> Identity:
    """Return the identity for root without user namespaces: really another user, who must be able to read the files."""
    return Identity(
        prefix=("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"), owns_files=True
    )


class Launcher:
    """Starts the processes of the stack ``stack_id``.

    With ``ends_with_us`` each is sent its ending signal by the kernel when the *thread* that started it ends, however
    it ends; so start from the main thread only.
    """

    def __init__(self, stack_id: str, journal: Journal, *, ends_with_us: bool) -> None:
        self._stack_id = stack_id
        self._journal = journal
        self._ends_with_us = ends_with_us

    def launch(
        self,
        component: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        folder: Path,
        ending: signal.Signals = signal.SIGTERM,
        identity: Identity = OURSELVES,
        environment: Mapping[str, str] | None = None,
        fds: Sequence[int] = (),
    ) -> Launched:
        """Start ``command`` in ``folder`` with its output going to ``log`` (emptied first).

        Raises EnvironmentFailure where it cannot be started. SIGINT and SIGTERM are held back meanwhile, so that what
        was started is always written down.
        """
        if self._ends_with_us and threading.current_thread() is not threading.main_thread():
            raise RuntimeError("servers end with the thread that starts them: start them from the main thread")
        with signals_deferred():
            self._journal.about_to_start(component)
            try:
                with log.open("wb") as output:
                    popen = subprocess.Popen(
                        [*self._prefix(identity, ending), *map(str, command)],
                        cwd=folder,
                        env={**(base_environment() if environment is None else environment), LABEL: self._stack_id},
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                        pass_fds=fds,
                    )
            except OSError as error:
                raise EnvironmentFailure(
                    f"{component} cannot be started: {error.strerror}: {error.filename}"
                ) from error
            # a child that ended already is a zombie until we wait for it: its pid cannot be another's
            process = identify(popen.pid) or Process(pid=popen.pid, started_ticks=0)
            self._journal.started(component, process)
        return Launched(component, popen, process, log)

    def _prefix(self, identity: Identity, ending: signal.Signals) -> tuple[str, ...]:
        if not self._ends_with_us or (setpriv := _setpriv()) is None:
            return identity.prefix
        # after the change of user, which would clear it
        return (*identity.prefix, setpriv, "--pdeathsig", ending.name.removeprefix("SIG"), "--")


class NoJournal:
    """A journal for servers that outlive nothing: fixtures of tests, which stop what they start."""

    def about_to_start(self, component: str) -> None:
        """Write nothing."""

    def started(self, component: str, process: Process) -> None:
        """Write nothing."""
