"""A small real server for k6 to run against, and what runs scripts against it."""

import contextlib
import json
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from ticketbench import scenario
from ticketbench.ledger_rows import Ack
from ticketbench.load import Execution, LoadOutcome, run_load

# --- the target: a sale in memory, which really sells ---


@dataclass
class Sale:
    """What the server holds. ``refuse_first`` answers the first attempt of every key with 503.

    ``asks``, where it is set: purchases are accepted with 202, and each is done when it has been asked for so often.
    """

    stock: int = 1000
    refuse_first: bool = False
    tickets: dict[str, int] = field(default_factory=dict)
    asks: int | None = None
    asked: dict[str, int] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    matches: dict[str, int] = field(default_factory=dict)
    arrivals: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def buy(self, match: int, key: str) -> tuple[int, dict[str, Any]]:
        with self.lock:
            self.attempts[key] = self.attempts.get(key, 0) + 1
            if self.refuse_first and self.attempts[key] == 1:
                return 503, {"error": "pool_timeout"}
            if key not in self.tickets:
                if len(self.tickets) >= self.stock:
                    return 409, {"error": "sold_out"}
                self.tickets[key] = len(self.tickets) + 1
                self.matches[key] = match
            number = self.tickets[key]
        return 201, {"ticket_id": number, "match_id": match, "code": f"T-{number}", "idempotency_key": key}

    def accept(self, match: int, key: str) -> tuple[int, dict[str, Any]]:
        with self.lock:
            self.attempts[key] = self.attempts.get(key, 0) + 1
            self.matches[key] = match
            self.asked.setdefault(key, 0)
        return 202, {"state": "queued"}

    def ask(self, key: str) -> tuple[int, dict[str, Any]]:
        with self.lock:
            self.asked[key] += 1
            if self.asked[key] <= (self.asks or 0):
                return 202, {"state": "queued"}
        status, body = self.buy(self.matches[key], key)
        return (200 if status == 201 else status), body


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet for head and body
    sale: Sale

    def do_GET(self) -> None:
        self.sale.arrivals.append(time.time())
        path, _, query = self.path.partition("?")
        parts = path.strip("/").split("/")
        if parts == ["purchases"]:
            return self._answer(*self.sale.ask(unquote(query.removeprefix("key="))))
        if parts == ["matches"]:
            return self._answer(200, [{"id": number} for number in range(1, 21)])
        if parts in (["health"], ["ready"]):
            return self._answer(200, {})
        if len(parts) == 2 and parts[0] == "matches" and int(parts[1]) <= 20:
            return self._answer(200, {"id": int(parts[1])})
        return self._answer(404, {"error": "not_found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        parts = self.path.strip("/").split("/")
        key = self.headers.get("Idempotency-Key")
        if parts[0] == "tickets":
            return self._answer(200, {"first": True})
        if not key or "buyer" not in body:
            return self._answer(422, {"error": "bad_input"})
        if self.sale.asks is not None:
            return self._answer(*self.sale.accept(int(parts[1]), key), Location=f"/purchases?key={quote(key)}")
        return self._answer(*self.sale.buy(int(parts[1]), key))

    def _answer(self, status: int, body: object, **headers: str) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if status == 503:
            self.send_header("Retry-After", "0")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Stay silent."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512


@contextlib.contextmanager
def served(sale: Sale, host: str = "127.0.0.1") -> Iterator[str]:
    """Serve the sale on a free port of ``host``; the URL."""
    server = Server((host, 0), type("Handler", (Handler,), {"sale": sale}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Runs:
    """Runs scripts against the target, and notes what is told meanwhile."""

    k6_command: tuple[str, ...]
    base_url: str
    folder: Path
    phases: list[tuple[str, float | None]] = field(default_factory=list)
    pids: list[int] = field(default_factory=list)
    acks: list[Ack] = field(default_factory=list)

    def execution(self, script: Path, env: dict[str, str] | None = None, base_url: str | None = None) -> Execution:
        item, schedule = scenario.inspect(self.k6_command, script, env or {})
        logs = self.folder / "logs"
        logs.mkdir(exist_ok=True)
        return Execution(
            k6_command=self.k6_command,
            script=script,
            env=env or {},
            base_url=base_url or self.base_url,
            prometheus_url=None,
            trial_id="run-001",
            seed=7,
            folder=logs,
            schedule=schedule,
            slos=item.slos,
        )

    def run(self, execution: Execution, should_stop: Callable[[], str | None] = lambda: None) -> LoadOutcome:
        return run_load(
            execution,
            on_start=self.pids.append,
            on_phase=lambda name, expected_s: self.phases.append((name, expected_s)),
            should_stop=should_stop,
            on_acks=self.acks.extend,
        )

    def script(self, text: str) -> Path:
        path = self.folder / "own.js"
        path.write_text(textwrap.dedent(text))
        return path

    def own(self, text: str, **env: str) -> LoadOutcome:
        return self.run(self.execution(self.script(text), env))

    def bundled(self, name: str, **env: str) -> LoadOutcome:
        return self.run(self.execution(scenario.find(name), env))


STEADY = """
    import http from 'k6/http';
    export const options = {
      scenarios: { main: { executor: 'constant-arrival-rate', rate: %d, duration: '%ds', preAllocatedVUs: 20 } },
      thresholds: {
        http_req_failed: ['rate<0.01'],
        'http_req_duration{scenario:main}': ['p(95)<5000'],
        'dropped_iterations{scenario:main}': ['count<1'],
      },
    };
    export default function () { http.get(`${__ENV.BASE_URL}/matches`, { tags: { name: 'matches' } }); }
"""


def failed(outcome: LoadOutcome) -> set[str]:
    assert outcome.result is not None
    return {threshold.metric for threshold in outcome.result.thresholds if not threshold.ok}


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
