"""The handle that the runner holds on the sampler process. Imports nothing heavy."""

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Final, Self

from ticketbench import interrupts
from ticketbench.errors import EnvironmentFailure
from ticketbench.sampling import phases
from ticketbench.stack.protocol import Component, Containers, DatabaseAccess
from ticketbench.stack.stopped import StoppedWatch, failure

_READY_S: Final = 20.0
_STOP_S: Final = 6.0
_LAST_LINES: Final = 5


class SamplerProcess:
    """A sampler. :meth:`launch` and :meth:`begin` it; it ends by :meth:`stop`, and by itself when this process ends."""

    def __init__(self, process: subprocess.Popen[bytes], log_path: Path) -> None:
        self._process = process
        self._log_path = log_path

    @classmethod
    def launch(cls, log_path: Path) -> Self:
        """Start the process, which loads what it needs and then waits for :meth:`begin`.

        Call it from the main thread: the kernel kills the sampler when the thread that started it ends. Raises
        EnvironmentFailure.
        """
        # -P: never import from the folder that the user happens to be in
        command = [sys.executable, "-P", "-m", "ticketbench.sampler"]
        if setpriv := shutil.which("setpriv"):
            command = [setpriv, "--pdeathsig", "KILL", *command]
        package_parent = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, (package_parent, os.environ.get("PYTHONPATH"))))
        try:
            with log_path.open("ab") as log:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,
                    env={**os.environ, "PYTHONPATH": path},
                )
        except OSError as error:
            raise EnvironmentFailure(f"cannot start the sampler: {error}") from error
        return cls(process, log_path)

    def begin(
        self,
        prometheus_url: str,
        access: DatabaseAccess | None,
        components: Iterable[Component],
        containers: Containers | None = None,
    ) -> None:
        """Return once it samples; this process and its children count as component ``ticketbench``.

        ``access`` None: PostgreSQL and Redis are left out. ``containers`` are components whose figures the Docker
        engine gives; for them :meth:`watch` changes nothing. Raises EnvironmentFailure with its last lines where it
        does not become ready; it is still to be stopped then.
        """
        roots = [(component.name, component.pid) for component in components]
        ours = dict(roots)
        if not any(name == "ticketbench" for name, _ in roots):
            roots.append(("ticketbench", os.getpid()))
        self._send(
            {
                "prometheus_url": prometheus_url,
                "postgres_dsn": access.postgres_dsn if access else "",
                "redis_url": access.redis_url if access else "",
                "components": roots,
                "containers": asdict(containers) if containers else None,
            }
        )
        watched = StoppedWatch(lambda: {**ours, "sampler": self.pid})
        with interrupts.watching(failure(watched)):
            self._await_ready()

    @classmethod
    def start(
        cls, prometheus_url: str, access: DatabaseAccess | None, components: Iterable[Component], log_path: Path
    ) -> Self:
        """Launch and begin in one step. Raises EnvironmentFailure, with it stopped again."""
        sampler = cls.launch(log_path)
        try:
            sampler.begin(prometheus_url, access, components)
        except BaseException:
            sampler.stop()
            raise
        return sampler

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def alive(self) -> bool:
        """Say whether it still runs."""
        return self._process.poll() is None

    def watch(self, name: str, pid: int) -> None:
        """Count the tree of ``pid`` as component ``name`` from now on. Raises EnvironmentFailure where it has ended."""
        self._send({"watch": {"component": name, "pid": pid}})

    def unwatch(self, name: str) -> None:
        """Expect no process of component ``name`` until the next :meth:`watch`. Raises EnvironmentFailure."""
        self._send({"unwatch": name})

    def variant(self, parts: Iterable[str], access: DatabaseAccess | None, consoles: Mapping[str, str]) -> None:
        """Tell what a new variant consists of, where its PostgreSQL is, and where PgBouncer and HAProxy tell figures.

        Raises EnvironmentFailure where the sampler has ended.
        """
        dsn = access.postgres_dsn if access else ""
        self._send({"variant": {"parts": list(parts), "postgres_dsn": dsn, "consoles": dict(consoles)}})

    def between_variants(self) -> None:
        """Have nobody asked for figures any more who is about to be ended. Raises EnvironmentFailure as above."""
        self._send({"variant": {"parts": None, "postgres_dsn": "", "consoles": {}}})

    def phase(self, phase: phases.LoadPhase | None) -> None:
        """Have the phase that begins now, or the load's end, shown in Prometheus, about a second later at most.

        It is for people who look; that a sampler has ended is for others to tell.
        """
        with contextlib.suppress(EnvironmentFailure):
            self._send(phases.command(phase))

    def stop(self) -> None:
        """End it, with what it has sampled pushed. Idempotent; kills it where it does not end within some seconds."""
        with contextlib.suppress(OSError):
            self._stdin.close()
        self._process.send_signal(signal.SIGCONT)  # one that was stopped would not notice
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()

    @property
    def _stdin(self) -> IO[bytes]:
        assert self._process.stdin is not None  # noqa: S101 it was opened as a pipe
        return self._process.stdin

    @property
    def _stdout(self) -> IO[bytes]:
        assert self._process.stdout is not None  # noqa: S101 it was opened as a pipe
        return self._process.stdout

    def _send(self, line: dict[str, Any]) -> None:
        try:
            self._stdin.write(json.dumps(line).encode() + b"\n")
            self._stdin.flush()
        except (OSError, ValueError) as error:
            raise EnvironmentFailure(f"the sampler has ended{self._last_lines()}", self._hint()) from error

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _READY_S
        answer = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdout, selectors.EVENT_READ)
            while not answer.endswith(b"\n"):
                left_s = deadline - time.monotonic()
                if left_s <= 0 or not selector.select(left_s):
                    raise EnvironmentFailure(
                        f"the sampler was not ready after {_READY_S:.0f} s{self._last_lines()}", self._hint()
                    )
                piece = os.read(self._stdout.fileno(), 4096)
                if not piece:
                    raise EnvironmentFailure(f"the sampler could not start{self._last_lines()}", self._hint())
                answer += piece

    def _last_lines(self) -> str:
        try:
            lines = self._log_path.read_text(errors="replace").splitlines()[-_LAST_LINES:]
        except OSError:
            return ""
        return ": " + " | ".join(lines) if lines else ""

    def _hint(self) -> str:
        return f"its log is {self._log_path}"
