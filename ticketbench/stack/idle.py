"""Tells when the sale has nothing under way any more, by asking each of its workers."""

import time
from collections.abc import Sequence
from typing import Final

import httpx

INFLIGHT: Final = "target_inflight"
POLL_S: Final = 0.05
ANSWER_TIMEOUT_S: Final = 2.0


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
