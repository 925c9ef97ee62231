"""The collector against a real Prometheus: a real k6 run's histograms and counters, and what is not there."""

import json
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pandas as pd
import pytest

from ticketbench import collect as collecting
from ticketbench.binaries import Binaries
from ticketbench.collect import EXPECTED, Collected, collect
from ticketbench.collecting.prometheus import Prometheus
from ticketbench.errors import EnvironmentFailure
from ticketbench.sampling.push import Outbox
from ticketbench.stack.servers import free_port

TRIAL = 'trial "of" collect'
SCRIPT = """
import http from "k6/http";
export const options = {
  systemTags: ["status", "method", "name", "scenario", "expected_response", "error_code"],
  scenarios: {
    warm: { executor: "shared-iterations", vus: 1, iterations: 5, exec: "warm" },
    load: { executor: "constant-arrival-rate", rate: 60, duration: "4s", preAllocatedVUs: 5, startTime: "1s",
            exec: "load" },
  },
};
export function warm() { http.get(`${__ENV.BASE_URL}/matches/${__ITER}?page=2`); }
export function load() {
  if (__ITER % 3) { http.get(`${__ENV.BASE_URL}/matches/${__ITER}`); }
  else { http.post(`${__ENV.BASE_URL}/buy`, "{}", { tags: { name: "purchase" } }); }
}
"""


class _Sale(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: ClassVar[Counter[str]] = Counter()
    lock = threading.Lock()

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def do_GET(self) -> None:
        with self.lock:
            self.served["GET"] += 1
        self._answer(200)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        with self.lock:
            self.served["POST"] += 1
            odd = self.served["POST"] % 2
        self._answer(201 if odd else 409)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the base class's name
        pass


@pytest.fixture(scope="module")
def sale() -> Iterator[str]:
    _Sale.served.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Sale)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class _Run:
    summary: dict[str, Any]
    start_s: float
    end_s: float
    served: "Counter[str]"


@pytest.fixture(scope="module")
def k6_run(binaries: Binaries, prometheus_url: str, sale: str, tmp_path_factory: pytest.TempPathFactory) -> _Run:
    folder = tmp_path_factory.mktemp("k6")
    script = folder / "sale.js"
    script.write_text(SCRIPT)
    summary = folder / "summary.json"
    start_s = time.time()
    subprocess.run(
        [
            str(binaries.k6), "run", "-q", "--no-usage-report", "--address", f"127.0.0.1:{free_port()}",
            "--summary-export", str(summary), "--summary-trend-stats", "med,p(95),p(99),avg,count",
            "--tag", f"trial={TRIAL}", "-e", f"BASE_URL={sale}", "--out", "experimental-prometheus-rw", str(script),
        ],
        env={
            **os.environ,
            "K6_PROMETHEUS_RW_SERVER_URL": f"{prometheus_url}/api/v1/write",
            "K6_PROMETHEUS_RW_PUSH_INTERVAL": "1s",
            "K6_PROMETHEUS_RW_TREND_AS_NATIVE_HISTOGRAM": "true",
            "K6_PROMETHEUS_RW_STALE_MARKERS": "true",
        },
        check=True,
        capture_output=True,
        timeout=60,
    )  # fmt: skip
    return _Run(json.loads(summary.read_text()), start_s, time.time(), Counter(_Sale.served))


@pytest.fixture(scope="module")
def collected(k6_run: _Run, prometheus_url: str, sale: str) -> Collected:
    return collect(prometheus_url, TRIAL, sale, k6_run.start_s, k6_run.end_s)


def test_every_request_is_in_exactly_one_histogram_row(collected: Collected, k6_run: _Run) -> None:
    rows = collected.histograms
    assert sum(row.count for row in rows) == k6_run.summary["metrics"]["http_reqs"]["count"]
    assert sum(row.count for row in rows) == k6_run.served.total() > 200
    for row in rows:
        assert sum(count for _, _, count in row.buckets) == pytest.approx(row.count)
        assert all(low < high for low, high, _ in row.buckets)
    assert [row.t for row in rows] == sorted(row.t for row in rows)
    assert len({row.t for row in rows}) >= 5  # seconds, not one lump


@pytest.mark.parametrize("most_values", [1, 300])
def test_slices_of_any_size_give_the_same(
    collected: Collected,
    k6_run: _Run,
    prometheus_url: str,
    sale: str,
    monkeypatch: pytest.MonkeyPatch,
    most_values: int,
) -> None:
    monkeypatch.setattr(collecting, "_FRESH_S", 0.1)  # all is there already
    found = collect(prometheus_url, TRIAL, sale, k6_run.start_s, k6_run.end_s, most_values=most_values)
    pd.testing.assert_frame_equal(found.series, collected.series)
    assert tuple(found.histograms) == tuple(collected.histograms)
    assert found.missing == collected.missing


def test_rows_tell_routes_statuses_and_scenarios_apart(collected: Collected, k6_run: _Run) -> None:
    counts: Counter[tuple[str, str, str, str, bool]] = Counter()
    for row in collected.histograms:
        counts[row.scenario, row.route, row.method, row.status, row.expected] += round(row.count)
    posts = k6_run.served["POST"]
    assert counts == {
        ("warm", "/matches/{n}", "GET", "200", True): 5,
        ("load", "/matches/{n}", "GET", "200", True): k6_run.served["GET"] - 5,
        ("load", "purchase", "POST", "201", True): posts - posts // 2,
        ("load", "purchase", "POST", "409", False): posts // 2,
    }


def test_quantiles_and_sums_agree_with_k6s_own(collected: Collected, k6_run: _Run) -> None:
    own = k6_run.summary["metrics"]["http_req_duration"]
    buckets: Counter[tuple[float, float]] = Counter()
    for row in collected.histograms:
        for low, high, count in row.buckets:
            buckets[low, high] += count
    total = sum(buckets.values())
    for quantile, name in ((0.5, "med"), (0.95, "p(95)"), (0.99, "p(99)")):
        below = 0.0
        for (low, high), count in sorted(buckets.items()):
            below += count
            if below >= quantile * total:
                # k6 interpolates between neighbours, which may lie in neighbouring buckets
                assert low / 1.1 <= own[name] / 1000 <= high * 1.1
                break
    seconds = sum(row.sum_s for row in collected.histograms)
    assert seconds * 1000 == pytest.approx(own["avg"] * total, rel=1e-6)
    assert collected.series["k6.duration_s"].max() == pytest.approx(seconds)


def test_the_counters_end_at_k6s_totals_although_its_series_went_stale(collected: Collected, k6_run: _Run) -> None:
    series = collected.series
    ends = series.ffill().iloc[-1]
    requests = [name for name in series.columns if name.startswith("k6.requests{")]
    assert ends[requests].sum() == k6_run.summary["metrics"]["http_reqs"]["count"]
    assert ends["k6.iterations{scenario=warm}"] == 5
    assert (
        ends["k6.iterations{scenario=warm}"] + ends["k6.iterations{scenario=load}"]
        == k6_run.summary["metrics"]["iterations"]["count"]
    )
    name = "k6.requests{error=1409,expected=false,method=POST,route=purchase,scenario=load,status=409}"
    assert ends[name] == k6_run.served["POST"] // 2
    assert series["k6.vus_max"].max() >= 5
    assert series["k6.waiting_s"].max() > 0
    for column in (*requests, "k6.duration_s"):
        assert (series[column].dropna().diff().dropna() >= 0).all()


def test_rows_run_from_before_the_start_to_after_the_end(collected: Collected, k6_run: _Run) -> None:
    t = collected.series.index
    assert t[0] <= k6_run.start_s - 2 < t[1]
    assert t[-2] < k6_run.end_s + 1 <= t[-1]
    assert set((t[1:] - t[:-1]).tolist()) == {1.0}


def test_what_has_no_data_is_named(collected: Collected) -> None:
    assert "app.requests" in collected.missing
    assert "app after the end" in collected.missing
    assert "sampler after the end" in collected.missing
    assert not [name for name in collected.missing if name.startswith("k6")]
    assert "histograms" not in collected.missing


def test_a_trial_that_nobody_knows_misses_everything(prometheus_url: str) -> None:
    now_s = time.time()
    found = collect(prometheus_url, "no such trial", "http://127.0.0.1:1", now_s - 60, now_s - 50)
    assert len(found.histograms) == 0
    assert {"histograms", *(name for name in EXPECTED if name.startswith("k6."))} <= set(found.missing)


def test_a_dead_prometheus_is_an_environment_failure() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(EnvironmentFailure, match="did not answer"):
        collect(url, "t", "http://127.0.0.1:1", time.time() - 10, time.time())


def test_a_query_that_prometheus_refuses_says_why(prometheus_url: str) -> None:
    with Prometheus(prometheus_url) as prometheus, pytest.raises(EnvironmentFailure, match="parse error"):
        prometheus.range("sum(", 0, 10, 1)


def test_a_sampler_that_fell_silent_leaves_a_gap(prometheus_url: str) -> None:
    outbox = Outbox(prometheus_url)
    outbox.put([("tb_gap_test", (), 4.0), ("tb_sampler_ticks_total", (("what", "proc"),), 1.0)])
    outbox.push()
    at_s = time.time()
    found = collect(prometheus_url, "no such trial", "http://127.0.0.1:1", at_s, at_s + 30)
    rows = found.series["gap_test"].dropna()
    assert 4 <= len(rows) <= 6
    assert rows.index.max() <= at_s + 6
    assert "sampler after the end" in found.missing


def test_more_points_than_one_answer_holds_come_in_pieces(prometheus_url: str) -> None:
    with Prometheus(prometheus_url) as prometheus:
        answers = prometheus.range("vector(time())", 1_700_000_000, 1_700_025_000, 1)
    assert len(answers) == 1
    times = [t for t, _ in answers[0]["values"]]
    assert times == list(range(1_700_000_000, 1_700_025_001))
