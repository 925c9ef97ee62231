"""Asks the workers of the sale and of its queue: whether all are at work, and whether nothing is under way any more."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import httpx
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

INFLIGHT: Final = "target_inflight"
POLL_S: Final = 0.05
ANSWER_TIMEOUT_S: Final = 2.0
# Of purchases that wait for a worker (checkout=queue).
STREAM: Final = "purchases"


def idle(app_metrics: Sequence[str], *, deadline_s: float = 10.0) -> bool:
    """Wait until no worker serves a request; ``app_metrics`` are the host:port of each one's metrics.

    Returns False where one still does after ``deadline_s``, where one does not answer, and where there is none to ask.
    """
    deadline = time.monotonic() + deadline_s
    with httpx.Client(timeout=ANSWER_TIMEOUT_S, trust_env=False) as client:
        while app_metrics:
            try:
                busy = sum(_inflight(client, address) for address in app_metrics)
            except (httpx.HTTPError, ValueError):
                return False
            if busy == 0:
                return True
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_S)
    return False


def _inflight(client: httpx.Client, address: str) -> float:
    """Return how many requests a worker serves. Raises httpx.HTTPError, ValueError where it does not tell."""
    answer = client.get(f"http://{address}/metrics").raise_for_status()
    for line in answer.text.splitlines():
        name, _, value = line.partition(" ")
        if name == INFLIGHT:
            return float(value)
    raise ValueError(f"{address} does not tell {INFLIGHT}")


def drained(redis_url: str, *, deadline_s: float, working: Callable[[], bool]) -> int:
    """Wait until no purchase is queued; return how many still are at ``deadline_s``, or once nobody is ``working``.

    An entry leaves the stream when its purchase is done. Returns 0 where Redis does not answer: whoever reads the
    ledger out of it says so.
    """
    client = redis.Redis.from_url(redis_url, socket_timeout=ANSWER_TIMEOUT_S, retry=Retry(NoBackoff(), 0))
    deadline = time.monotonic() + deadline_s
    with client:
        while True:
            try:
                left = client.xlen(STREAM)
            except redis.RedisError:
                return 0
            if not left or time.monotonic() > deadline or not working():
                return left
            time.sleep(POLL_S)


def at_work(metrics_ports: Iterable[int]) -> bool:
    """Tell whether every worker whose metrics are on these ports of the loopback is at work."""
    return all(_at_work(f"127.0.0.1:{port}") for port in metrics_ports)


def _at_work(address: str) -> bool:
    try:
        told = httpx.get(f"http://{address}/metrics", timeout=ANSWER_TIMEOUT_S, trust_env=False)
    except httpx.TransportError:
        return False
    return any(
        line.startswith("target_loop_lag_samples_total ") and float(line.split()[1]) > 0
        for line in told.text.splitlines()
    )
