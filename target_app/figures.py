"""What the sale counts while it works.

Plain numbers in slots, added to by the event loop's thread only; the metrics thread reads them at each scrape. Adding
costs no lock and no label look-up, which is why these are not the client library's own counters.
"""

from bisect import bisect_left
from collections.abc import Mapping
from typing import Final

# Upper bounds in seconds: 1 ms to 12 s, each at most 1.2 times the one before (docs/signals.md). 52 steps of
# 12000 ** (1 / 52) = 1.198.
BUCKETS: Final[tuple[float, ...]] = tuple(float(f"{0.001 * 12_000 ** (step / 52):.4g}") for step in range(53))

STAGES: Final = ("pool_wait", "sql", "commit", "redis", "payment", "cpu", "shared_wait")
OUTCOMES: Final = (
    "sold", "replayed", "sold_out", "conflict", "pool_timeout", "lock_timeout", "max_connections", "database_error",
    "declined", "payment_unclear", "queued", "queue_full",
)  # fmt: skip
UNMATCHED: Final = "(unmatched)"

MATCHES: Final = "/matches"
MATCH: Final = "/matches/{match_id}"
PURCHASE: Final = "/matches/{match_id}/purchases"
PURCHASES: Final = "/purchases"
VALIDATION: Final = "/tickets/{code}/validation"
HEALTH: Final = "/health"
READY: Final = "/ready"

# The answers that exist from the start, so that the first one is a step from 0 and not a new series.
_ANSWERS: Final[dict[str, tuple[str, tuple[int, ...]]]] = {
    MATCHES: ("GET", (200, 500, 503)),
    MATCH: ("GET", (200, 404, 422, 500, 503)),
    PURCHASE: ("POST", (201, 202, 402, 404, 409, 410, 422, 500, 503)),
    VALIDATION: ("POST", (200, 404, 422, 500, 503)),
    HEALTH: ("GET", (200,)),
    READY: ("GET", (200, 503)),
    UNMATCHED: ("GET", (404,)),
}

# What a buyer uses. These are exported from the first request on that any of them gets: a histogram is 56 lines, and a
# sale that is only bought from would pay for them in every scrape. Several paths that do alike share one route.
BUYERS: Final = "/api/buyers"
SESSIONS: Final = "/api/sessions"
CART: Final = "/api/cart"
HOLDS: Final = "/api/cart/holds"
CHECKOUTS: Final = "/api/checkouts"
TICKETS: Final = "/api/tickets"
FRONT: Final = "/"
MATCH_PAGE: Final = "/shop/matches/{match_id}"
ACCOUNT_PAGE: Final = "/shop/account"
CART_PAGE: Final = "/shop/cart"
CHECKOUT_PAGE: Final = "/shop/checkout"
TICKETS_PAGE: Final = "/shop/tickets"
GATE_PAGE: Final = "/shop/gate"

_SHOP_ANSWERS: Final[dict[str, tuple[str, tuple[int, ...]]]] = {
    BUYERS: ("POST", (201, 409, 422, 500, 503)),
    SESSIONS: ("POST", (201, 401, 422, 500, 503)),
    CART: ("GET", (200, 401, 500, 503)),
    HOLDS: ("POST", (201, 401, 409, 500, 503)),
    CHECKOUTS: ("POST", (201, 402, 409, 500, 503)),
    TICKETS: ("GET", (200, 401, 404, 500, 503)),
    FRONT: ("GET", (200, 500, 503)),
    MATCH_PAGE: ("GET", (200, 404, 500, 503)),
    ACCOUNT_PAGE: ("POST", (303, 401, 422, 500, 503)),
    CART_PAGE: ("GET", (200, 303, 500, 503)),
    CHECKOUT_PAGE: ("POST", (303, 402, 409, 500, 503)),
    TICKETS_PAGE: ("GET", (200, 303, 500, 503)),
    GATE_PAGE: ("POST", (200, 404, 500, 503)),
}


# Of a sale with a queue only.
_QUEUE_ANSWERS: Final = {PURCHASES: ("GET", (200, 202, 402, 404, 409, 410, 422, 500, 503))}


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
        self.shared_wait = 0.0


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

    __slots__ = (
        "cache_hits", "cache_misses", "cache_shared", "conflicts", "inflight", "of_path", "purchases", "routes"
    )  # fmt: skip

    def __init__(self, *, queue: bool = False) -> None:
        answers = {**_ANSWERS, **_QUEUE_ANSWERS} if queue else _ANSWERS
        self.routes = {path: RouteFigures(*of) for path, of in answers.items()}
        self.of_path = dict(self.routes)  # the route whose figures a path's answers go to
        self.purchases = dict.fromkeys(OUTCOMES, 0)
        self.inflight = 0
        self.conflicts = 0
        self.cache_hits = 0
        self.cache_misses = 0
        self.cache_shared = 0

    def open_shop(self, paths: Mapping[str, str]) -> None:
        """Begin to count what a buyer uses; ``paths``: each path template and the route that it belongs to.

        In one step for the metrics thread, which may be reading.
        """
        shop = {route: RouteFigures(*answers) for route, answers in _SHOP_ANSWERS.items()}
        self.of_path = {**self.of_path, **shop, **{path: shop[route] for path, route in paths.items()}}
        self.routes = {**self.routes, **shop}
