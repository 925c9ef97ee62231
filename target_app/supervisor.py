"""Starts the workers, those of the sale on one listening socket or those of the queue, and ends with them.

Light on purpose: it imports nothing of the sale, so that the workers start at once.
"""

import contextlib
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from types import FrameType
from typing import Final

from target_app.errors import StartupError

BACKLOG: Final = 4096  # Linux caps it at net.core.somaxconn, 4096 unless changed
# A worker ends by itself after its own limit for requests under way (stop_timeout_s, at most 6 s) and a moment for
# closing its connections; beyond that it hangs.
STOP_S: Final = 8.0


@dataclass(frozen=True)
class Serving:
    """What to start: a worker for each of the metrics ports. Those of the sale get a socket: by fd, or on ``port``.

    Without either they are workers of the queue.
    """

    metrics_ports: tuple[int, ...]
    metrics_host: str
    host: str = ""
    port: int | None = None
    fd: int | None = None

    @property
    def of_queue(self) -> bool:
        """Whether nobody calls them."""
        return self.port is None and self.fd is None


@dataclass(frozen=True)
class _Worker:
    number: int
    process: subprocess.Popen[bytes]
    pidfd: int


def serve(serving: Serving) -> int:
    """Serve until SIGTERM or SIGINT, then 0; 1 when a worker ended by itself. Raises StartupError."""
    raise_descriptor_limit()
    with _signals() as wakeup, _listening(serving) as listening, selectors.DefaultSelector() as selector:
        workers: list[_Worker] = []
        try:
            for number, metrics_port in enumerate(serving.metrics_ports, 1):
                fds = () if listening is None else (listening.fileno(),)
                process = subprocess.Popen(_command(fds, serving.metrics_host, metrics_port), pass_fds=fds)
                workers.append(_Worker(number, process, os.pidfd_open(process.pid)))
            selector.register(wakeup, selectors.EVENT_READ)
            for worker in workers:
                selector.register(worker.pidfd, selectors.EVENT_READ, worker)
            ready = [key.data for key, _ in selector.select()]
        finally:
            if listening is not None:
                listening.close()  # what the workers do not accept any more is refused, not left waiting
            _stop(workers)
    ended = [worker for worker in ready if worker is not None]
    for worker in ended:
        _say(f"worker {worker.number} {_how(worker.process.returncode)}: stopped all")
    return 1 if ended else 0


def _command(fds: Sequence[int], metrics_host: str, metrics_port: int) -> list[str]:
    options = {"metrics-host": metrics_host, "metrics-port": metrics_port, "parent": os.getpid()}
    if fds:
        options["fd"] = fds[0]
    return [
        sys.executable,
        # As the supervisor itself: a folder called target_app where it was started must not take the package's place.
        *(["-P"] if sys.flags.safe_path else []),
        "-m",
        "target_app",
        "worker" if fds else "queue-worker",
        *(word for name, value in options.items() for word in (f"--{name}", str(value))),
    ]


@contextmanager
def _signals() -> Iterator[socket.socket]:
    """Give a socket that becomes readable with SIGTERM or SIGINT, which do nothing else."""
    here, there = socket.socketpair()

    def noted(_signum: int, _frame: FrameType | None) -> None:
        """Leave it to the wake-up descriptor."""

    with here, there:
        there.setblocking(False)  # noqa: FBT003
        before = {signum: signal.signal(signum, noted) for signum in (signal.SIGTERM, signal.SIGINT)}
        descriptor = signal.set_wakeup_fd(there.fileno())
        try:
            yield here
        finally:
            signal.set_wakeup_fd(descriptor)
            for signum, handler in before.items():
                signal.signal(signum, handler)


def _listening(serving: Serving) -> contextlib.AbstractContextManager[socket.socket | None]:
    if serving.of_queue:
        return contextlib.nullcontext()
    try:
        if serving.fd is not None:
            listening = socket.socket(fileno=serving.fd)
        else:
            listening = socket.create_server((serving.host, serving.port or 0), backlog=BACKLOG)
        listening.listen(BACKLOG)
    except OSError as error:
        where = f"descriptor {serving.fd}" if serving.fd is not None else f"{serving.host}:{serving.port}"
        raise StartupError(f"cannot listen on {where}: {error.strerror}") from error
    return listening


def _stop(workers: Sequence[_Worker]) -> None:
    """End every worker, gently until ``STOP_S`` have passed."""
    for worker in workers:
        worker.process.terminate()
    deadline = monotonic() + STOP_S
    for worker in workers:
        try:
            worker.process.wait(max(0.0, deadline - monotonic()))
        except subprocess.TimeoutExpired:
            _say(f"worker {worker.number} did not stop within {STOP_S:g} s: killed")
            worker.process.kill()
            worker.process.wait()
        os.close(worker.pidfd)


def raise_descriptor_limit() -> None:
    """Allow as many open descriptors as the hard limit does: a spike is thousands of connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _how(returncode: int) -> str:
    if returncode < 0:
        return f"was killed by {signal.Signals(-returncode).name}"
    return f"exited with status {returncode}"


def _say(text: str) -> None:
    sys.stderr.write(f"target_app: {text}\n")
    sys.stderr.flush()
