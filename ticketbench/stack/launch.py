"""Starts the processes of a stack: labelled, recorded, in a session of their own, ending with us unless told not to."""

import contextlib
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

from ticketbench import interrupts
from ticketbench.errors import EnvironmentFailure
from ticketbench.stack.process import LABEL, Process, exit_text, identify, last_lines, remedy

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

    def ended(self, component: str) -> None:
        """Write down that ``component`` has done its work and is gone."""


@dataclass
class Launched:
    """A process that was started, with the log that its output goes to."""

    component: str
    popen: "subprocess.Popen[bytes]" = field(repr=False)
    process: Process
    log: Path

    def epitaph(self) -> str | None:
        """Return how it ended and its last log lines, None while it runs."""
        if self.popen.poll() is None and not self.process.alive():
            # its threads are still going: the system tells the status when the last one has gone
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(1.0)
        if self.process.alive():
            return None
        return f"{exit_text(self.popen)}; its log ends: {last_lines(self.log, 2)}"


def base_environment() -> dict[str, str]:
    """Return the environment that a server gets."""
    return {"LC_ALL": "C", **{name: os.environ[name] for name in INHERITED if name in os.environ}}


def _setpriv() -> str | None:
    return shutil.which("setpriv")


def can_unshare() -> bool:
    """Tell whether a user namespace of our own can be made, which lets root start PostgreSQL as nobody."""
    unshare = shutil.which("unshare")
    return _setpriv() is not None and unshare is not None and _unshares(unshare)


@functools.cache
def _unshares(_unshare: str) -> bool:
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
        self._launched: list[Launched] = []

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
        append: bool = False,
    ) -> Launched:
        """Start ``command`` in ``folder`` with its output going to ``log`` (emptied first, unless ``append``).

        Raises EnvironmentFailure where it cannot be started. SIGINT and SIGTERM are held back meanwhile, so that what
        was started is always written down.
        """
        if self._ends_with_us and threading.current_thread() is not threading.main_thread():
            raise RuntimeError("servers end with the thread that starts them: start them from the main thread")
        with interrupts.deferred():
            self._journal.about_to_start(component)
            try:
                with log.open("ab" if append else "wb") as output:
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
            launched = Launched(component, popen, process, log)
            # before the journal, which may fail, and before a deferred signal may strike: reap() finds all
            self._launched = [earlier for earlier in self._launched if earlier.popen.poll() is None] + [launched]
            self._journal.started(component, process)
        return launched

    def run(
        self,
        component: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        folder: Path,
        timeout_s: float,
        identity: Identity = OURSELVES,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start ``command`` as :meth:`launch` does and wait for its end; whatever interrupts that ends it.

        Raises EnvironmentFailure with its last words where it fails or takes longer than ``timeout_s``.
        """
        launched = self.launch(component, command, log=log, folder=folder, identity=identity, environment=environment)
        try:
            status = launched.popen.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise EnvironmentFailure(
                f"{component} took longer than {timeout_s:g} s; its log ends: {last_lines(log)}"
            ) from error
        finally:
            if launched.popen.poll() is None:
                launched.process.signal_group(signal.SIGKILL)
                launched.popen.wait()
        if status != 0:
            raise EnvironmentFailure(
                f"{component} failed ({exit_text(launched.popen)}); its log ends: {last_lines(log)}",
                remedy(last_lines(log, 12)),
            )
        self._journal.ended(component)

    def running(self) -> dict[str, int]:
        """Return the pid of each component that was started here and has not been seen to end."""
        return {
            launched.component: launched.popen.pid for launched in self._launched if launched.popen.returncode is None
        }

    def reap(self) -> None:
        """Wait for everything that was started here, which the caller has ended: only zombies are left."""
        for launched in self._launched:
            launched.popen.wait()
        self._launched = []

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

    def ended(self, component: str) -> None:
        """Write nothing."""
