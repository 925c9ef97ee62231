"""Live figures of a real k6 run, from a real Prometheus; and from ones that do not answer."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ticketbench import live, scenario
from ticketbench.binaries import Binaries
from ticketbench.events import Event, Figures, Phase, Progress
from ticketbench.k6_process import Execution
from ticketbench.load import LoadOutcome, run_load
from ticketbench.model import Trial

# Ten journeys a second of 20 slots: of four purchases one finds the stock empty, one fails, two are sold.
SCRIPT = """
import http from 'k6/http';
export const options = {
  scenarios: { main: { executor: 'constant-arrival-rate', rate: 40, duration: '7s', preAllocatedVUs: 20 } },
  ext: { ticketbench: { goal: 'purchase' } },
};
const expected = http.expectedStatuses(201, 409);
export default function () {
  http.post(`${__ENV.BASE_URL}/${['sold', 'sold', 'out', 'broken'][__ITER % 4]}`, '{}',
            { tags: { name: 'purchase' }, responseCallback: expected });
}
"""
STATUS = {"/sold": 201, "/out": 409, "/broken": 500}


class _Sale(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(STATUS[self.path])
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Stay silent."""


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Sale)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def follow(
    binaries: Binaries, base_url: str, pushed_to: str | None, asked: str, folder: Path
) -> tuple[LoadOutcome, list[Event]]:
    """Run the script, and return what came of it and what was told meanwhile."""
    script = folder / "own.js"
    script.write_text(SCRIPT)
    k6_command = (str(binaries.k6),)
    item, schedule = scenario.inspect(k6_command, script, {})
    told: list[Event] = []
    execution = Execution(
        k6_command=k6_command,
        script=script,
        env={},
        base_url=base_url,
        prometheus_url=pushed_to,
        trial_id=f"live-{time.time_ns()}",
        seed=1,
        folder=folder,
        schedule=schedule,
    )
    trial = Trial(id="002", variant="default", repetition=1, position=2)
    with live.LiveLoad(asked, execution.trial_id, item, schedule, trial, 3, told.append) as following:
        outcome = run_load(
            execution,
            on_start=lambda _: None,
            on_phase=following.on_phase,
            on_tick=following.on_tick,
            should_stop=lambda: None,
        )
    return outcome, told


def test_the_figures_are_those_of_the_load(
    binaries: Binaries, base_url: str, prometheus_url: str, tmp_path: Path
) -> None:
    outcome, told = follow(binaries, base_url, prometheus_url, prometheus_url, tmp_path)
    assert outcome.aborted is None
    assert [event.name for event in told if isinstance(event, Phase)] == ["window", "drain"]
    progress = [event for event in told if isinstance(event, Progress)]
    assert {(each.trial, each.of, each.variant) for each in progress} == {(2, 3, "default")}
    window = [each for each in progress if each.phase == "window"]
    assert 6 <= len(window) <= 8  # once a second
    assert {each.offered_per_s for each in window} == {40.0}
    for each in window:
        assert each.left_s == pytest.approx(7 - each.elapsed_s)
    assert window[0].figures == live.NOTHING_KNOWN  # nothing has been pushed yet
    last = window[-1].figures
    assert last.finished_per_s == pytest.approx(40, rel=0.15)
    assert last.goodput_per_s == pytest.approx(20, rel=0.2)
    assert last.error_ratio == pytest.approx(0.25, abs=0.05)
    assert last.dropped == 0
    assert last.p95_s is not None
    assert 0 < last.p95_s < 1


def silent() -> socket.socket:
    """A server that takes connections and never says a word: a Prometheus that was stopped."""
    server = socket.create_server(("127.0.0.1", 0))
    server.listen(64)
    return server


def test_a_prometheus_that_is_frozen_or_gone_gives_no_figures_and_holds_nothing_up(
    binaries: Binaries, base_url: str, tmp_path: Path
) -> None:
    with silent() as server:
        frozen = f"http://127.0.0.1:{server.getsockname()[1]}"
        outcome, told = follow(binaries, base_url, None, frozen, tmp_path)
    assert outcome.aborted is None
    assert outcome.result is not None
    assert outcome.result.ended_s - outcome.result.started_s == pytest.approx(7, abs=0.6)
    progress = [event for event in told if isinstance(event, Progress)]
    assert len(progress) >= 6
    assert {each.figures for each in progress} == {Figures()}
    # the server is closed by now
    assert live.Questions(frozen, "trial", None).ask() is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no JSON",
        b"[]",
        b'{"data": null}',
        b'{"data": {"result": [{"metric": {}}]}}',
        json.dumps({"data": {"result": [{"metric": {"total": "pushed_s"}, "value": [1, "x"]}]}}).encode(),
        json.dumps({"data": {"result": [{"metric": {"total": "pushed_s"}, "histogram": [1, {}]}]}}).encode(),
    ],
)
def test_an_answer_that_cannot_be_read_is_no_figure(body: bytes) -> None:
    class _Odd(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), _Odd) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            questions = live.Questions(f"http://127.0.0.1:{server.server_port}", "trial", None)
            assert questions.ask() is None
        finally:
            server.shutdown()
            thread.join()
