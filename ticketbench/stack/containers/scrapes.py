"""Waits until Prometheus scrapes the target that has just been started, all of it and nobody else."""

import time
from collections.abc import Callable, Set
from typing import Final

from ticketbench.errors import EnvironmentFailure
from ticketbench.stack.clients import PrometheusAt

SCRAPE_TIMEOUT_S: Final = 30.0
# Asking costs the engine's proxy a connection each time; a start takes 1 s.
POLL_S: Final = 0.05


def await_scrapes(
    prometheus: PrometheusAt, wanted: Set[str], since_s: float, ended: Callable[[], tuple[str, str] | None]
) -> None:
    """Return when each worker of ``wanted`` (host:port), and nobody else, was scraped with success after ``since_s``.

    Raises EnvironmentFailure: ``ended`` told of a part of the target that has (why, what to do), or it took too long.
    """
    deadline = time.monotonic() + SCRAPE_TIMEOUT_S
    while True:
        scraped = {
            labels["instance"]
            for labels, at_s in prometheus.query('timestamp(up{job=~"app|worker"} == 1)')
            if at_s > since_s or labels["instance"] not in wanted
        }
        if scraped == wanted:
            return
        if (told := ended()) is not None:
            raise EnvironmentFailure(*told)
        if time.monotonic() > deadline:
            missing = ", ".join(sorted(wanted - scraped)) or "nothing"
            raise EnvironmentFailure(
                f"Prometheus does not scrape the sale's workers within {SCRAPE_TIMEOUT_S:g} s (missing: {missing})",
                "is the machine overloaded? look at it and try again",
            )
        time.sleep(POLL_S)
