"""One real k6 execution after another, against a small real server: what is counted, what is noticed, how it ends."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ticketbench import k6_process, load, scenario
from ticketbench.binaries import Binaries
from ticketbench.errors import EnvironmentFailure, Interrupted
from ticketbench.load import Execution, LoadInterrupted, LoadOutcome, run_load
from ticketbench.model import Ack

# --- the target: a sale in memory, which really sells ---


@dataclass
class Sale:
    """What the server holds. ``refuse_first`` answers the first attempt of every key with 503."""

    stock: int = 1000
    refuse_first: bool = False
    tickets: dict[str, int] = field(default_factory=dict)
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


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet for head and body
    sale: Sale

    def do_GET(self) -> None:
        self.sale.arrivals.append(time.time())
        parts = self.path.strip("/").split("/")
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
        return self._answer(*self.sale.buy(int(parts[1]), key))

    def _answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if status == 503:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Stay silent."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512


@pytest.fixture
def sale() -> Sale:
    return Sale()


@pytest.fixture
def base_url(sale: Sale) -> Iterator[str]:
    handler = type("Handler", (_Handler,), {"sale": sale})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
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

    def own(self, text: str) -> LoadOutcome:
        return self.run(self.execution(self.script(text)))

    def bundled(self, name: str, **env: str) -> LoadOutcome:
        return self.run(self.execution(scenario.find(name), env))


@pytest.fixture
def runs(binaries: Binaries, base_url: str, tmp_path: Path) -> Runs:
    return Runs((str(binaries.k6),), base_url, tmp_path)


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


# --- the bundled scenarios ---


def test_smoke_passes_on_a_sale_that_works(runs: Runs, sale: Sale) -> None:
    outcome = runs.bundled("smoke")
    assert outcome.aborted is None
    assert outcome.result is not None
    assert (outcome.result.exit_code, outcome.result.messages) == (0, ())
    assert failed(outcome) == set()
    assert outcome.result.iterations == 3
    assert len(sale.tickets) == 3  # the same key twice is one ticket
    assert {ack.ticket_id for ack in runs.acks} == set(sale.tickets.values())
    assert runs.phases == [("window", None), ("drain", None)]


def test_smoke_fails_on_a_sale_that_sells_nothing(runs: Runs, sale: Sale) -> None:
    sale.stock = 0
    outcome = runs.bundled("smoke")
    assert outcome.aborted is None
    assert "checks{scenario:main}" in failed(outcome)
    assert runs.acks == []
    assert outcome.result is not None
    assert [text for text in outcome.result.messages if "not so: a purchase gives a ticket" in text and "409" in text]


def test_a_small_spike_sells_out_and_every_acknowledged_ticket_is_known(runs: Runs, sale: Sale) -> None:
    sale.stock = 60
    outcome = runs.bundled("spike", RATE="30", DURATION="4", HOT_SHARE="0.5")
    assert outcome.aborted is None
    assert failed(outcome) == set()  # a 409 after the sell-out is a right answer
    assert {ack.key: ack.ticket_id for ack in runs.acks} == sale.tickets
    assert {ack.key: ack.match_id for ack in runs.acks} == sale.matches
    assert len(sale.tickets) == 60
    before = {ack.match_id for ack in runs.acks if "-warmup-" in ack.key}
    during = {ack.match_id for ack in runs.acks if "-main-" in ack.key}
    assert before
    assert before <= set(range(11, 21))
    assert 1 in during
    assert during <= set(range(1, 11))
    assert all(key.startswith("run-001-") for key in sale.attempts)
    assert [name for name, _ in runs.phases] == ["warm-up", "window", "drain"]
    assert runs.phases[:2] == [("warm-up", 7.0), ("window", 4.0)]
    # The run directory keeps no acknowledged purchase twice, and nothing else was said.
    assert list((runs.folder / "logs").iterdir()) == []


def test_a_refused_purchase_is_tried_once_more_with_its_key(runs: Runs, sale: Sale) -> None:
    sale.refuse_first = True
    outcome = runs.own(
        f"""
        import {{ purchase }} from '{scenario.find("spike").parent}/lib/journeys.js';
        export const options = {{ iterations: 5 }};
        const params = {{ baseUrl: __ENV.BASE_URL }};
        export default function () {{ purchase(params, 3, `key-${{__ITER}}`); }}
        """
    )
    assert outcome.aborted is None
    assert sale.attempts == {f"key-{number}": 2 for number in range(5)}
    assert {ack.key: ack.ticket_id for ack in runs.acks} == sale.tickets
    assert len(sale.tickets) == 5


def test_arrivals_are_spread_and_the_same_for_the_same_seed(runs: Runs, sale: Sale) -> None:
    text = f"""
        import {{ JITTER_S, randomness, wantedMatch }} from '{scenario.find("spike").parent}/lib/arrivals.js';
        export const options = {{
          scenarios: {{ main: {{ executor: 'shared-iterations', vus: VUS, iterations: 2000, maxDuration: '30s' }} }},
        }};
        const params = {{ seed: __ENV.SEED, hotShare: 0.3 }};
        export default function () {{
          const random = randomness(params);
          console.log(`${{random().toFixed(6)}} ${{wantedMatch(params, random)}}`);
        }}
        """
    drawn = []
    for vus in ("1", "8"):
        runs.own(text.replace("VUS", vus))
        lines = (runs.folder / "logs" / k6_process.CONSOLE).read_text().splitlines()
        drawn.append(sorted(lines))
    assert drawn[0] == drawn[1]  # whichever virtual user runs an iteration
    numbers = sorted(float(line.split()[1]) for line in drawn[0])
    matches = [int(line.split()[2]) for line in drawn[0]]
    # Kolmogorov-Smirnov against uniform: 1.95 / sqrt(n) is its 0.1 % point; the draw is fixed by the seed.
    distance = max(abs(number - (rank + 0.5) / 2000) for rank, number in enumerate(numbers))
    assert distance < 1.95 / 2000**0.5
    assert 0.26 < matches.count(1) / 2000 < 0.34
    assert set(matches) == set(range(1, 11))


# --- counting ---


def test_the_offered_journeys_are_those_that_k6_starts_or_drops(runs: Runs) -> None:
    execution = runs.execution(
        runs.script(
            """
            import http from 'k6/http';
            import { sleep } from 'k6';
            export const options = {
              scenarios: {
                ramp: {
                  executor: 'ramping-arrival-rate', startRate: 1000, timeUnit: '10s', preAllocatedVUs: 15,
                  stages: [{ target: 4000, duration: '1s' }, { target: 4000, duration: '1s' },
                           { target: 500, duration: '1s' }],
                },
                flat: { executor: 'constant-arrival-rate', rate: 100, duration: '2s', preAllocatedVUs: 15,
                        startTime: '500ms' },
              },
            };
            export default function () { http.get(`${__ENV.BASE_URL}/health`); sleep(0.1); }
            """
        )
    )
    outcome = runs.run(execution)
    offered = sum((s.end_s - s.start_s) * (s.from_per_s + s.to_per_s) / 2 for s in execution.schedule.offered)
    assert offered == pytest.approx(250 + 400 + 225 + 200)
    assert outcome.result is not None
    assert outcome.result.dropped_iterations > 100  # 30 users for 10 journeys a second each
    assert outcome.result.iterations + outcome.result.dropped_iterations == pytest.approx(offered, rel=0.01)
    assert outcome.result.requests == outcome.result.iterations
    assert outcome.result.vus_max == 30
    assert outcome.result.trends_ms["http_req_duration"]["count"] == outcome.result.requests


def test_the_start_is_known_within_its_stated_bounds(runs: Runs, sale: Sale) -> None:
    outcome = runs.own(
        """
        import exec from 'k6/execution';
        export const options = {
          scenarios: { main: { executor: 'constant-arrival-rate', rate: 5, duration: '1s', preAllocatedVUs: 2 } },
        };
        export function setup() { const end = Date.now() + 300; while (Date.now() < end) { /* busy */ } }
        export default function () { console.log(`STARTED ${exec.scenario.startTime}`); }
        """
    )
    said = (runs.folder / "logs" / k6_process.CONSOLE).read_text().split()
    exactly_s = int(said[said.index("STARTED") + 1]) / 1000
    assert outcome.started_s is not None
    assert abs(outcome.started_s - exactly_s) <= outcome.started_within_s + 0.002  # k6 says whole milliseconds
    assert outcome.result is not None
    assert outcome.result.started_s == outcome.started_s
    assert outcome.result.ended_s >= outcome.started_s + 1


def test_a_journey_that_throws_is_told_without_folders(runs: Runs) -> None:
    outcome = runs.own(
        """
        export const options = { iterations: 3 };
        export default function () { null.price; }
        """
    )
    assert outcome.result is not None
    (message,) = outcome.result.messages
    assert message.startswith("TypeError: Cannot read property 'price'")
    assert message.endswith("(3 times)")
    assert str(runs.folder) not in (runs.folder / "logs" / k6_process.LOG).read_text()


# --- what must not pass ---


def test_a_dead_server_misses_its_slos(runs: Runs) -> None:
    with socket.socket() as bound:  # bound and not listening: refused
        bound.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{bound.getsockname()[1]}"
        outcome = runs.run(runs.execution(runs.script(STEADY % (20, 1)), base_url=dead))
    assert outcome.aborted is None
    assert outcome.result is not None
    assert outcome.result.exit_code == 99
    assert failed(outcome) == {"http_req_failed"}
    latency = {each.metric: each.value for each in outcome.result.thresholds}["http_req_duration{scenario:main}"]
    assert latency == 0  # the reason why failures must be an SLO of their own
    (message,) = outcome.result.messages[:1]
    assert "connection refused" in message
    assert "times)" in message


def test_no_script_reaches_another_address(runs: Runs) -> None:
    with _Server(("127.0.0.2", 0), type("Handler", (_Handler,), {"sale": Sale()})) as other:
        thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        outcome = runs.own(
            f"""
            import http from 'k6/http';
            export const options = {{ iterations: 2, thresholds: {{ http_req_failed: ['rate==0.5'] }} }};
            export default function () {{
              http.get('http://127.0.0.2:{other.server_port}/health');
              http.get(`${{__ENV.BASE_URL}}/health`);
            }}
            """
        )
        other.shutdown()
        thread.join()
    assert failed(outcome) == set()
    assert outcome.result is not None
    assert [text for text in outcome.result.messages if "127.0.0.2" in text and "blacklisted" in text]


# --- ends ---


def test_a_script_that_cannot_begin_is_told_in_k6s_words(runs: Runs) -> None:
    outcome = runs.own(
        """
        export function setup() { throw new Error('no till is open'); }
        export default function () {}
        """
    )
    assert outcome.aborted == "k6 ended with exit code 107: no till is open"
    assert outcome.result is not None
    assert (outcome.result.exit_code, outcome.result.iterations) == (107, 0)
    assert [text for text in outcome.result.messages if "no till is open" in text]


def test_a_script_that_ends_itself_was_not_carried_through(runs: Runs) -> None:
    outcome = runs.own(
        """
        import exec from 'k6/execution';
        export const options = { iterations: 1 };
        export default function () { exec.test.abort('enough'); }
        """
    )
    assert outcome.aborted is not None
    assert outcome.aborted.startswith("the script ended the test itself")
    assert "enough" in outcome.aborted


def test_an_abort_on_a_threshold_cuts_the_window_off(runs: Runs) -> None:
    text = (STEADY % (20, 30)).replace(
        "http_req_failed: ['rate<0.01']", "http_reqs: [{ threshold: 'count<10', abortOnFail: true }]"
    )
    outcome = runs.own(text)
    assert outcome.aborted is not None
    assert "of 30 s" in outcome.aborted
    assert "http_reqs" in outcome.aborted
    assert failed(outcome) == {"http_reqs"}


def test_a_reason_to_stop_ends_k6_and_keeps_what_it_did(runs: Runs, sale: Sale) -> None:
    execution = runs.execution(runs.script(STEADY % (20, 60)))
    outcome = runs.run(execution, lambda: "postgres died: exit status 1" if len(sale.arrivals) >= 10 else None)
    assert outcome.aborted == "postgres died: exit status 1"
    assert outcome.summary is not None
    assert outcome.result is not None
    assert outcome.result.exit_code == 105
    assert 10 <= outcome.result.requests < 20 * 60
    assert not alive(runs.pids[-1])


def test_a_reason_before_the_start_is_heard_as_well(runs: Runs) -> None:
    text = "export function setup() { for (;;) { /* hangs */ } }\nexport default function () {}"
    outcome = runs.run(runs.execution(runs.script(text)), lambda: "redis died")
    assert outcome.aborted == "redis died"
    assert outcome.started_s is None
    assert not alive(runs.pids[-1])


@pytest.mark.parametrize(("error", "signum"), [(Interrupted(15), 15), (KeyboardInterrupt(), 2)])
def test_an_interruption_carries_what_was_done(error: BaseException, signum: int, runs: Runs, sale: Sale) -> None:
    def interrupt_later() -> None:
        if len(sale.arrivals) >= 10:
            raise error

    with pytest.raises(LoadInterrupted) as raised:
        runs.run(runs.execution(runs.script(STEADY % (20, 60))), interrupt_later)
    assert isinstance(raised.value, Interrupted)
    assert raised.value.exit_code == 128 + signum
    outcome = raised.value.outcome
    assert outcome.aborted == raised.value.message
    assert outcome.result is not None
    assert outcome.result.requests >= 10
    assert not alive(runs.pids[-1])


def test_an_error_of_a_callback_leaves_no_k6_behind(runs: Runs) -> None:
    def broken(pid: int) -> None:
        runs.pids.append(pid)
        raise EnvironmentFailure("the sampler is gone")

    with pytest.raises(EnvironmentFailure, match="the sampler is gone"):
        run_load(
            runs.execution(runs.script(STEADY % (20, 60))),
            on_start=broken,
            on_phase=lambda name, expected_s: None,
            should_stop=lambda: None,
        )
    assert not alive(runs.pids[-1])


def test_a_killed_k6_leaves_its_acks_and_no_result(runs: Runs, sale: Sale) -> None:
    def kill_later() -> None:
        if len(sale.tickets) >= 10:
            os.kill(runs.pids[-1], signal.SIGKILL)

    outcome = runs.run(
        runs.execution(scenario.find("purchase"), {"RATE": "40", "DURATION": "60"}),
        kill_later,
    )
    assert outcome.aborted == "k6 was killed by SIGKILL"
    assert (outcome.result, outcome.summary) == (None, None)
    assert outcome.started_s is not None
    assert len(runs.acks) >= 10
    assert {ack.key: ack.ticket_id for ack in runs.acks}.items() <= sale.tickets.items()


def test_an_interrupt_from_outside_is_no_full_run(runs: Runs, sale: Sale) -> None:
    def interrupt_k6() -> None:
        if len(sale.arrivals) >= 10:
            os.kill(runs.pids[-1], signal.SIGINT)

    outcome = runs.run(runs.execution(runs.script(STEADY % (20, 60))), interrupt_k6)
    assert outcome.aborted == "k6 was interrupted from outside"


def test_an_overrun_is_stopped(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "DRAIN_LIMIT_S", 0.5)
    outcome = runs.own(
        """
        import { sleep } from 'k6';
        export const options = { scenarios: { main: {
          executor: 'constant-arrival-rate', rate: 2, duration: '1s', preAllocatedVUs: 4, gracefulStop: '100s',
        } } };
        export default function () { sleep(90); }
        """
    )
    assert outcome.aborted is not None
    assert "still running" in outcome.aborted
    assert outcome.result is not None
    assert not alive(runs.pids[-1])


def test_k6_dies_with_a_killed_parent(runs: Runs, tmp_path: Path) -> None:
    execution = runs.execution(runs.script(STEADY % (5, 60)))
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(
                """
                import sys
                from pathlib import Path
                from ticketbench import load, scenario
                k6, script, base_url, folder = sys.argv[1:]
                _, schedule = scenario.inspect((k6,), Path(script), {})
                execution = load.Execution(
                    (k6,), Path(script), {}, base_url, None, "t", 1, Path(folder), schedule)
                load.run_load(execution, on_start=lambda pid: print(pid, flush=True),
                              on_phase=lambda name, s: None, should_stop=lambda: None)
                """
            ),
            *(runs.k6_command[0], str(execution.script), runs.base_url, str(execution.folder)),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    deadline_s = time.monotonic() + 20
    while alive(pid) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert not alive(pid)


# --- before the start ---


def test_a_taken_port_is_left_to_its_owner(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = iter([taken.getsockname()[1], k6_process.free_port()])
        monkeypatch.setattr(load, "free_port", lambda: next(ports))
        outcome = runs.own(STEADY % (20, 1))
    assert outcome.aborted is None
    assert len(runs.pids) == 2
    assert outcome.result is not None
    assert outcome.result.iterations >= 20


def test_too_few_open_files_are_found_out_before_the_load(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    execution = runs.execution(scenario.find("spike"))
    monkeypatch.setattr(k6_process.resource, "getrlimit", lambda which: (256, 1024))
    with pytest.raises(EnvironmentFailure, match="1260 virtual users need 1360 open files"):
        runs.run(execution)
    assert runs.pids == []


def test_a_host_without_an_address_is_told(runs: Runs) -> None:
    execution = runs.execution(runs.script(STEADY % (20, 1)), base_url="http://nowhere.invalid")
    with pytest.raises(EnvironmentFailure, match=r"nowhere\.invalid"):
        runs.run(execution)


def test_a_k6_that_is_not_there_is_told(runs: Runs) -> None:
    execution = runs.execution(runs.script(STEADY % (20, 1)))
    gone = dataclasses.replace(execution, k6_command=(str(runs.folder / "no-k6"),))
    outcome = runs.run(gone)
    assert outcome.aborted is not None
    assert "no-k6" in outcome.aborted
    assert outcome.started_s is None
