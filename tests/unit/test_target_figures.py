"""What the target exports: the metrics that docs/signals.md names and no others, few lines, histograms that add up."""

import http.client
import re
import socket
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from target_app.app import create_app
from target_app.exposition import Exposition, MetricsServer
from target_app.figures import BUCKETS, HEALTH, MATCH, Figures, RouteFigures
from target_app.queue_figures import QueueCollector, QueueFigures
from target_app.settings import Settings
from target_app.shop import make_shop

SIGNALS = Path(__file__).parents[2] / "docs" / "signals.md"
LINES_A_WORKER = 1500  # DESIGN.md: 67 ms CPU a scrape were seen with more


@pytest.fixture
def exported() -> str:
    """The metrics of a worker that has not served anything; nothing is connected to."""
    return Exposition(registry()).text()


def registry(*, serves: bool = True) -> CollectorRegistry:
    app = create_app(
        Settings(database_url="postgresql://u:p@127.0.0.1:1/sale", redis_url="redis://127.0.0.1:1/0")  # type: ignore[arg-type]
    )
    return app.sale.registry(serves=serves)


def documented() -> dict[str, frozenset[str]]:
    """Return each metric of the target in docs/signals.md with its labels."""
    found: dict[str, frozenset[str]] = {}
    for line in SIGNALS.read_text().splitlines():
        if line.startswith("| `target_"):
            for name, labels in re.findall(r"`(target_\w+)(?:\{([\w,]+)\})?`", line.split("|")[1]):
                found[name] = frozenset(labels.split(",")) if labels else frozenset()
    return found


def told(text: str) -> dict[str, frozenset[str]]:
    """Return each metric of the target in an exposition with its labels."""
    seen: dict[str, frozenset[str]] = {}
    for family in text_string_to_metric_families(text):
        if family.name.startswith("target_"):
            labels = frozenset(family.samples[0].labels) - {"le"}
            seen[family.name + ("_total" if family.type == "counter" else "")] = labels
    return seen


def test_the_metrics_are_those_of_the_contract(exported: str) -> None:
    of_sale = {name: labels for name, labels in documented().items() if not name.startswith("target_queue_")}
    assert told(exported) == of_sale
    assert len(of_sale) > 20


def test_a_worker_of_the_queue_tells_of_the_queue_and_of_no_requests() -> None:
    worker = registry(serves=False)
    worker.register(QueueCollector(QueueFigures()))
    text = Exposition(worker).text()
    requests = {"target_requests_total", "target_request_seconds"}
    assert told(text) == {name: labels for name, labels in documented().items() if name not in requests}
    assert len(text.splitlines()) < 200


def test_the_process_is_exported_and_the_lines_are_few(exported: str) -> None:
    assert "process_cpu_seconds_total " in exported
    assert "process_resident_memory_bytes " in exported
    assert len(exported.splitlines()) <= LINES_A_WORKER


def test_the_lines_are_few_with_all_that_buyers_use() -> None:
    app = create_app(
        Settings(database_url="postgresql://u:p@127.0.0.1:1/sale", redis_url="redis://127.0.0.1:1/0")  # type: ignore[arg-type]
    )
    exposition = Exposition(app.sale.registry())
    before = len(exposition.text().splitlines())
    make_shop(app.sale, ())
    after = exposition.text().splitlines()
    assert before < 600
    assert before < len(after) <= LINES_A_WORKER
    assert sum(line.startswith("target_request_seconds_count") for line in after) == 7 + 13


def test_the_text_is_the_client_librarys_to_the_byte() -> None:
    disable_created_metrics()  # as a worker does, whichever test ran before this one
    registry = CollectorRegistry()
    odd = Counter("odd", 'A "help"\nwith \\ lines', ["path", "b"], registry=registry)
    odd.labels('say "hi"\n', "\\").inc(1e20)
    odd.labels("", "x").inc(0.1)
    Histogram("seconds", "Buckets.", ["route"], registry=registry).labels("/a").observe(0.3)
    Gauge("plain", "No labels.", registry=registry).set(-3)
    exposition = Exposition(registry)
    assert exposition.text() == generate_latest(registry).decode()
    odd.labels("", "x").inc(3)
    assert exposition.text() == generate_latest(registry).decode()  # and what is kept does not age


def test_a_scraper_keeps_its_connection_and_the_end_does_not_wait_for_it() -> None:
    registry = CollectorRegistry()
    gauge = Gauge("turn", "Of the scrapes.", registry=registry)
    server = MetricsServer("127.0.0.1", 0, registry)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.connect()
        where = connection.sock.getsockname()
        for turn in range(3):
            gauge.set(turn)
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            assert (answer.status, f"turn {turn}.0" in answer.read().decode()) == (200, True)
            assert connection.sock.getsockname() == where
    finally:
        server.close()
        connection.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=10)


def test_what_can_be_foreseen_starts_at_zero(exported: str) -> None:
    assert 'target_purchases_total{outcome="lock_timeout"} 0.0' in exported
    assert 'target_requests_total{method="POST",route="/matches/{match_id}/purchases",status="503"} 0.0' in exported


def test_buckets_are_narrow_enough_for_a_quantile() -> None:
    ratios = [high / low for low, high in pairwise(BUCKETS)]
    assert max(ratios) <= 1.2
    assert (BUCKETS[0], BUCKETS[-1]) == (0.001, 12.0)


@pytest.mark.parametrize(("seconds", "bucket"), [(0.0, 0), (0.001, 0), (0.00101, 1), (12.0, 52), (12.1, 53)])
def test_a_bound_belongs_to_its_bucket(seconds: float, bucket: int) -> None:
    route = RouteFigures("GET", (200,))
    route.answered("GET", 200, seconds)
    assert route.buckets[bucket] == 1
    assert sum(route.buckets) == 1


def test_a_scrape_during_counting_never_sees_a_histogram_that_shrinks() -> None:
    app = create_app(
        Settings(database_url="postgresql://u:p@127.0.0.1:1/sale", redis_url="redis://127.0.0.1:1/0")  # type: ignore[arg-type]
    )
    figures: Figures = app.sale.figures
    registry = app.sale.registry()
    stop = threading.Event()

    def count() -> None:
        turn = 0
        while not stop.is_set():
            figures.routes[MATCH].answered("GET", 200, 0.0005 * (turn % 2000))
            figures.routes[HEALTH].answered("GET", 200 + turn % 3, 0.001)  # new label sets appear meanwhile
            turn += 1

    thread = threading.Thread(target=count)
    thread.start()
    try:
        before = 0.0
        for _ in range(30):
            cumulative = [
                sample.value
                for family in registry.collect()
                if family.name == "target_request_seconds"
                for sample in family.samples
                if sample.labels.get("route") == MATCH and sample.name.endswith("_bucket")
            ]
            assert cumulative == sorted(cumulative)
            assert cumulative[-1] >= before
            before = cumulative[-1]
    finally:
        stop.set()
        thread.join()
    assert before > 0
