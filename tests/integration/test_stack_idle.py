"""Idle means that every worker says so now."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Gauge, start_http_server

from ticketbench.stack.idle import INFLIGHT, idle
from ticketbench.stack.servers import free_port


@contextmanager
def worker(inflight: float, name: str = INFLIGHT) -> Iterator[tuple[str, Gauge]]:
    """A worker's metrics on a port of its own, with the library that the sale uses."""
    registry = CollectorRegistry()
    gauge = Gauge(name, "Requests being served.", registry=registry)
    gauge.set(inflight)
    port = free_port()
    server, thread = start_http_server(port, "127.0.0.1", registry)
    try:
        yield f"127.0.0.1:{port}", gauge
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_all_workers_have_to_be_idle() -> None:
    with worker(0) as (quiet, _), worker(2) as (busy, serving):
        assert idle([quiet])
        assert not idle([quiet, busy], deadline_s=0.2)
        ends = threading.Timer(0.2, serving.set, [0])
        ends.start()
        assert idle([quiet, busy], deadline_s=20)
        ends.join()


def test_nobody_to_ask_or_no_answer_is_not_idle() -> None:
    assert not idle([])
    with worker(0) as (quiet, _):
        assert not idle([quiet, f"127.0.0.1:{free_port()}"])
    with worker(0, name="something_else") as (stranger, _):
        assert not idle([stranger])
