"""k6 in a container, behaving as if it were a process here: whoever starts this program needs to know no difference.

    python -m ticketbench.stack.containers.k6 JSON run [k6's options] SCRIPT

k6 gets the network of the target's container, so that it calls 127.0.0.1 and no packet of the load passes a proxy of
Docker's. The script goes in as k6's own archive, with all that it imports; the files that the options name come out at
its end; its REST API is relayed from the port that ``--address`` names; signals are passed on; what k6 writes to stderr
is written to ours, and its exit code is ours. Of the environment k6 gets K6_... and GOMAXPROCS.

The first argument is :class:`Place` as JSON. It holds no secrets: it can be seen in the list of processes.
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import requests

import ticketbench
from ticketbench import k6
from ticketbench.errors import EXIT_ENVIRONMENT, EnvironmentFailure
from ticketbench.stack.containers import bodies
from ticketbench.stack.containers.engine import DockerException, NotFound, client_at, spoken
from ticketbench.stack.containers.project import copied_out
from ticketbench.stack.containers.watch import limit_text

# k6's API inside of the network that it shares with the target, and published with the target's ports.
API_PORT: Final = 6565
FOLDER: Final = "/ticketbench"
ARCHIVE: Final = f"{FOLDER}/script.tar"
# The files that k6 writes, by the option that names them.
WRITTEN: Final = ("--summary-export", "--console-output")
PASSED_ON: Final = ("K6_", "GOMAXPROCS")
# Whoever stops us waits 4 s before SIGKILL, and k6 must be gone by then, with what it wrote taken out.
END_S: Final = 2.5
API_POLL_S: Final = 0.01
PATIENCE_S: Final = 5.0
_CHUNK: Final = 1 << 16


@dataclass(frozen=True)
class Place:
    """Where k6 runs: ``body`` is the container to make, ``api_port`` where this machine has its API.

    ``k6`` is a k6 of this machine, which packs the script. ``prometheus_url`` is Prometheus as the container sees it.
    """

    socket: str
    api: str
    name: str
    body: dict[str, Any]
    api_port: int
    k6: str
    prometheus_url: str

    def text(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))

    def command(self) -> tuple[str, ...]:
        """Return the prefix that k6's arguments are appended to."""
        # as whoever runs now was found, also from a checkout; -P: never from the folder that the user happens to be in
        package_parent = str(Path(ticketbench.__file__).resolve().parent.parent)
        return (
            "env", f"PYTHONPATH={package_parent}",
            sys.executable, "-P", "-m", "ticketbench.stack.containers.k6", self.text(),
        )  # fmt: skip

    @classmethod
    def parse(cls, text: str) -> "Place":
        """Read what :meth:`text` wrote."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Words:
    """k6's command line taken apart: ``inside`` is what the container gets, ``outside`` maps its files to ours."""

    inside: tuple[str, ...]
    outside: dict[str, Path]
    packing: tuple[str, ...]
    script: str
    port: int | None


def take_apart(arguments: Sequence[str]) -> Words:
    """Return the command lines that ``run ... SCRIPT`` becomes: for the container, and for packing the script.

    Raises ValueError for a command line that is not one of ours.
    """
    if len(arguments) < 2 or arguments[0] != "run":
        raise ValueError(f"not a command line of ticketbench: k6 {' '.join(arguments)}")
    inside, packing = ["run"], ["archive", "--log-format", "json"]
    outside: dict[str, Path] = {}
    port = None
    rest = iter(arguments[1:-1])
    for word in rest:
        if word == "--address":
            port = int(next(rest).rpartition(":")[2])
            inside += [word, f"0.0.0.0:{API_PORT}"]
        elif word in WRITTEN:
            path = Path(next(rest))
            outside[f"{FOLDER}/{path.name}"] = path
            inside += [word, f"{FOLDER}/{path.name}"]
        elif word == "-e":
            value = next(rest)
            inside += [word, value]
            packing += [word, value]
        else:
            inside.append(word)
            if word.startswith("--include-system-env-vars"):
                packing.append(word)
    return Words((*inside, ARCHIVE), outside, tuple(packing), arguments[-1], port)


class Run:
    """One k6 in its container, from packing the script to taking out what it wrote."""

    def __init__(self, place: Place, words: Words) -> None:
        self._place = place
        self._words = words
        self._api = client_at(place.socket, place.api).api
        self._happened: SimpleQueue[tuple[str, int]] = SimpleQueue()
        self._container = ""
        self._over = threading.Event()

    def signalled(self, signum: int, _frame: object) -> None:
        """Take a signal; it is passed on by the thread that waits for what happens."""
        self._happened.put(("signal", signum))

    def carry_out(self, listening: socket.socket | None) -> int:
        """Run k6 to its end and return its exit code, 128 + n after signal n. Raises EnvironmentFailure."""
        packed = self._packed()
        if isinstance(packed, int):
            return packed
        try:
            self._make(packed)
            with spoken("start k6"):
                said = self._api.attach(self._container, stdout=False, stderr=True, stream=True, logs=False)
                self._api.start(self._container)
            copying = self._spawn(self._copy, said)
            self._spawn(self._await_end)
            if listening is not None:
                self._spawn(self._relay, listening)
            code = self._attend()
            self._over.set()
            copying.join(PATIENCE_S)
            with spoken("hand out what k6 wrote"):
                self._take_out()
                self._tell_memory()
        finally:
            self._remove()
        return code

    def _spawn(self, work: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, name=work.__name__, daemon=True)
        thread.start()
        return thread

    def _packed(self) -> bytes | int:
        """Return the script with all that it imports; k6's exit code where it cannot be read, which k6 has told."""
        with tempfile.TemporaryDirectory(prefix="ticketbench-k6-") as folder:
            archive = Path(folder, "script.tar")
            command = [self._place.k6, *self._words.packing, "-O", str(archive), self._words.script]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
            if done.returncode != 0:
                sys.stderr.buffer.write(done.stderr)
                return done.returncode
            return archive.read_bytes()

    def _make(self, packed: bytes) -> None:
        told = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
        if "K6_PROMETHEUS_RW_SERVER_URL" in told:
            told["K6_PROMETHEUS_RW_SERVER_URL"] = f"{self._place.prometheus_url}/api/v1/write"
        body = {
            **self._place.body,
            "Cmd": list(self._words.inside),
            "Env": [f"{name}={value}" for name, value in told.items()],
            "AttachStderr": True,
        }
        with spoken("make k6's container"):
            self._remove_earlier()
            self._container = self._api.create_container_from_config(body, self._place.name)["Id"]
            self._api.put_archive(self._container, "/", bodies.archive({ARCHIVE: packed}, folders=[FOLDER]))

    def _remove_earlier(self) -> None:
        """Remove a container of that name that is ours: a trial that was broken off hard may have left it."""
        try:
            labels = self._api.inspect_container(self._place.name)["Config"]["Labels"] or {}
        except NotFound:
            return
        if labels.get(bodies.STACK) == self._place.body["Labels"][bodies.STACK]:
            self._api.remove_container(self._place.name, v=True, force=True)

    # --- while it runs ------------------------------------------------------------------------------------------------

    def _attend(self) -> int:
        """Pass signals on until k6 has ended; one that is asked to end and does not is killed."""
        give_up_s = None
        while True:
            what, number = self._happened.get()
            if what == "ended":
                return number
            if what == "overdue" and give_up_s is not None:
                self._signal(signal.SIGKILL)
            elif what == "signal":
                self._signal(number)
                if give_up_s is None and number in (signal.SIGINT, signal.SIGTERM):
                    give_up_s = END_S
                    timer = threading.Timer(give_up_s, self._happened.put, [("overdue", 0)])
                    timer.daemon = True
                    timer.start()

    def _signal(self, signum: int) -> None:
        # one that ended meanwhile needs no signal any more
        with contextlib.suppress(DockerException, requests.RequestException):
            self._api.kill(self._container, signal.Signals(signum).name)

    def _await_end(self) -> None:
        client = client_at(self._place.socket, self._place.api)
        code = 128 + signal.SIGKILL  # where the engine went away, k6 went with it
        try:
            code = int(client.api.wait(self._container, timeout=None)["StatusCode"])
        except (DockerException, requests.RequestException, ValueError, KeyError) as error:
            sys.stderr.write(json.dumps({"level": "error", "msg": f"the Docker engine lost k6: {error}"}) + "\n")
        finally:
            self._happened.put(("ended", code))
            client.close()

    @staticmethod
    def _copy(pieces: Any) -> None:
        with contextlib.suppress(OSError, DockerException, requests.RequestException):
            for piece in pieces:
                sys.stderr.buffer.write(piece)
                sys.stderr.buffer.flush()

    def _relay(self, listening: socket.socket) -> None:
        """Relay k6's API, from when it answers on: until then a connection is refused, as by a k6 that is starting."""
        while not self._over.is_set() and not _answers(self._place.api_port):
            time.sleep(API_POLL_S)
        listening.listen()
        while True:
            ours, _ = listening.accept()
            try:
                theirs = socket.create_connection(("127.0.0.1", self._place.api_port), PATIENCE_S)
            except OSError:
                ours.close()
                continue
            self._spawn(_pump, ours, theirs)

    # --- afterwards ---------------------------------------------------------------------------------------------------

    def _take_out(self) -> None:
        for inside, path in self._words.outside.items():
            try:
                stream, _ = self._api.get_archive(self._container, inside)
            except NotFound:  # k6 ended before it wrote it
                continue
            copied_out(stream, path)

    def _tell_memory(self) -> None:
        told = self._api.inspect_container(self._container)
        if told["State"].get("OOMKilled"):
            limit = limit_text(int(told["HostConfig"].get("Memory") or 0))
            sys.stderr.write(json.dumps({"level": "error", "msg": f"k6 was killed for want of memory: {limit}"}) + "\n")

    def _remove(self) -> None:
        if self._container:
            # the stack removes it by its label where this fails
            with contextlib.suppress(DockerException, requests.RequestException):
                self._api.remove_container(self._container, v=True, force=True)


def _answers(port: int) -> bool:
    """Tell whether k6 itself answers: Docker's proxy takes connections before anybody listens behind it."""
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as probe:
            probe.sendall(b"GET /v1/status HTTP/1.0\r\n\r\n")
            return bool(probe.recv(1))
    except OSError:
        return False


def _pump(ours: socket.socket, theirs: socket.socket) -> None:
    """Carry bytes both ways until either side ends."""
    with ours, theirs, selectors.DefaultSelector() as selector, contextlib.suppress(OSError):
        selector.register(ours, selectors.EVENT_READ, theirs)
        selector.register(theirs, selectors.EVENT_READ, ours)
        while True:
            for key, _ in selector.select():
                piece = key.fileobj.recv(_CHUNK)  # type: ignore[union-attr]
                if not piece:
                    return
                key.data.sendall(piece)


def _bound(port: int) -> socket.socket:
    """Return a socket bound to ``port`` that does not listen yet: who connects is refused. Raises OSError."""
    probe = socket.socket()
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
    except BaseException:
        probe.close()
        raise
    return probe


def main(arguments: Sequence[str]) -> int:
    """Run k6; return its exit code, 128 + n where signal n ended it, 4 where the engine failed."""
    place, words = Place.parse(arguments[0]), take_apart(arguments[1:])
    listening = None
    if words.port is not None:
        try:
            listening = _bound(words.port)
        except OSError:
            return k6.EXIT_PORT_BUSY
    run = Run(place, words)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, run.signalled)
    try:
        return run.carry_out(listening)
    except EnvironmentFailure as error:
        sys.stderr.write(json.dumps({"level": "error", "msg": error.message}) + "\n")
        return EXIT_ENVIRONMENT


def _end(code: int) -> None:
    """End as k6 did: by the same signal, or with the same exit code; threads that still wait are left behind."""
    sys.stderr.flush()
    if code > 128:
        with contextlib.suppress(ValueError, OSError):
            if code - 128 != signal.SIGKILL:
                signal.signal(code - 128, signal.SIG_DFL)
            os.kill(os.getpid(), code - 128)
    os._exit(code)


if __name__ == "__main__":
    _end(main(sys.argv[1:]))
