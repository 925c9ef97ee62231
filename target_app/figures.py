"""What the sale counts while it works.

Plain numbers in slots, added to by the event loop's thread only; the metrics thread reads them at each scrape. Adding
costs no lock and no label look-up, which is why these are not the client library's own counters.
"""

from bisect import bisect_left
from typing import Final

# Upper bounds in seconds: 1 ms to 12 s, each at most 1.2 times the one before (docs/signals.md). 52 steps of
# 12000 ** (1 / 52) = 1.198.
BUCKETS: Final[tuple[float, ...]] = tuple(float(f"{0.001 * 12_000 ** (step / 52):.4g}") for step in range(53))

STAGES: Final = ("pool_wait", "sql", "commit", "redis", "payment", "cpu")
OUTCOMES: Final = ("sold", "replayed", "sold_out", "conflict", "pool_timeout", "lock_timeout", "database_error")
UNMATCHED: Final = "(unmatched)"

MATCHES: Final = "/matches"
MATCH: Final = "/matches/{match_id}"
PURCHASE: Final = "/matches/{match_id}/purchases"
VALIDATION: Final = "/tickets/{code}/validation"
HEALTH: Final = "/health"
READY: Final = "/ready"

# The answers that exist from the start, so that the first one is a step from 0 and not a new series.
_ANSWERS: Final[dict[str, tuple[str, tuple[int, ...]]]] = {
    MATCHES: ("GET", (200, 500, 503)),
    MATCH: ("GET", (200, 404, 422, 500, 503)),
    PURCHASE: ("POST", (201, 404, 409, 422, 500, 503)),
    VALIDATION: ("POST", (200, 404, 422, 500, 503)),
    HEALTH: ("GET", (200,)),
    READY: ("GET", (200, 503)),
    UNMATCHED: ("GET", (404,)),
}


class Stages:
    """Seconds spent in each stage of a route's requests, since the start."""

    __slots__ = STAGES

    def __init__(self) -> None:
        self.pool_wait = 0.0
        self.sql = 0.0
        self.commit = 0.0
        self.redis = 0.0
        self.payment = 0.0
        self.cpu = 0.0


class RouteFigures:
    """One route: its answers by method and status, and how long they took."""

    __slots__ = ("answers", "buckets", "seconds", "stages")

    def __init__(self, method: str, statuses: tuple[int, ...]) -> None:
        self.stages = Stages()
        self.answers: dict[tuple[str, int], int] = {(method, status): 0 for status in statuses}
        self.buckets = [0] * (len(BUCKETS) + 1)  # the last one is beyond the last bound
        self.seconds = 0.0

    def answered(self, method: str, status: int, seconds: float) -> None:
        """Count one answer and the seconds it took."""
        key = (method, status)
        self.answers[key] = self.answers.get(key, 0) + 1
        self.buckets[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds


class Figures:
    """All counters of a worker but the pool's and the runtime's."""

    __slots__ = ("cache_hits", "cache_misses", "conflicts", "inflight", "purchases", "routes")

    def __init__(self) -> None:
        self.routes = {path: RouteFigures(*answers) for path, answers in _ANSWERS.items()}
        self.purchases = dict.fromkeys(OUTCOMES, 0)
        self.inflight = 0
        self.conflicts = 0
        self.cache_hits = 0
        self.cache_misses = 0
