"""Numbers and outside text, made fit to be read: the only place where a figure is rounded or a string is cleaned.

Each function takes base units and returns text, or None where there is nothing to show: the caller then has to say
why, so a missing figure can never turn into a 0 or an empty cell.
"""

import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from ticketbench.analysis import wording as words
from ticketbench.levels import variant_words

MISSING: Final = "not measured"

# What no reader should meet in a page, in XML or in a terminal: control characters but for tab and line feed, halves of
# surrogate pairs (they cannot be encoded), non-characters, and the marks that reverse the direction of text.
_UNFIT: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")

_SAID_AS_LOWER: Final = 0.5  # nobody pictures 0.0172x

_FEWEST: Final = 0.1  # a queue below this is empty nearly all the time
_WHOLE_FROM: Final = 9.95
_LEAST_BUSY: Final = 0.01
_NOT_ALL: Final = 0.99
_LITTLE: Final = 0.0001
_NEARLY_ALL: Final = 0.999

_RESOURCES: Final = {
    "db_pool": "DB pool",
    "event_loop": "event loop",
    "app_cpu": "app CPU",
    "postgres_cpu": "PostgreSQL CPU",
    "redis_cpu": "Redis CPU",
    "pgbouncer": "PgBouncer's pool",
    "pgbouncer_cpu": "PgBouncer CPU",
    "haproxy": "HAProxy",
    "haproxy_cpu": "HAProxy CPU",
    "payment": "payment provider",
    "payment_cpu": "payment provider CPU",
    "queue_worker": "queue",
    "worker_cpu": "queue workers' CPU",
    "host_cpu": "host CPU",
    "other_cpu": "other processes' CPU",
    "load_generator": "load generator",
    "row_lock": "row lock",
}
_COSTS: Final = {
    "cpu_app_s": "app CPU",
    "cpu_postgres_s": "PostgreSQL CPU",
    "cpu_redis_s": "Redis CPU",
    "cpu_pgbouncer_s": "PgBouncer CPU",
    "cpu_haproxy_s": "HAProxy CPU",
    "cpu_payment_s": "payment provider CPU",
    "cpu_worker_s": "queue workers' CPU",
    "cpu_k6_s": "k6 CPU",
    "db_s": "time in PostgreSQL",
}
_SIGNALS: Final = {
    "traffic.goodput_per_s": "goodput",
    "errors.ratio": "failed requests",
    "per_request.cpu_s": "CPU for one request",
    "per_request.db_s": "time in PostgreSQL for one request",
}


def clean(text: str) -> str:
    """Return outside text with every character that could corrupt or disguise a report shown as the mark U+FFFD."""
    return _UNFIT.sub("\ufffd", text.replace("\r\n", "\n"))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _significant(value: float) -> str:
    """Three significant digits, and never fewer than the whole number has: 4.21, 42.1, 421, 4,213."""
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 99.95:
        return f"{value:,.0f}"
    decimals = 1 if size >= 9.995 else 2 if size >= 0.9995 else min(9, 2 - math.floor(math.log10(size)))
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if size < 0.9995 else text  # 0.03, not 0.0300


def seconds(value: float | None) -> str | None:
    """``0.0123`` is ``12.3 ms``; ``75`` is ``75.0 s``."""
    value = _finite(value)
    if value is None:
        return None
    if abs(value) < 0.9995:
        return f"{_significant(value * 1000)} ms"
    return f"{_significant(value)} s"


def latency(value: float | None) -> str | None:
    """Return a quantile of a histogram, or a mean of such figures, with the digits it bears: ``24 ms``, ``1.41 s``."""
    value = _finite(value)
    return None if value is None else words.latency(value)


def rough(value: float | None) -> str | None:
    """Return a mean of what was counted now and then, such as a queue: ``41``, ``2.3``, ``2``, ``<0.1``."""
    value = _finite(value)
    if value is None:
        return None
    if 0 < abs(value) < _FEWEST:
        return f"<{_FEWEST:g}" if value > 0 else f">-{_FEWEST:g}"
    return f"{value:,.0f}" if abs(value) >= _WHOLE_FROM or float(value).is_integer() else f"{value:.1f}"


def busy(ratio: float | None) -> str | None:
    """Return a busy fraction in whole percent. Little is not rounded to nothing, and not quite all is not all."""
    ratio = _finite(ratio)
    if ratio is None:
        return None
    if 0 < ratio < _LEAST_BUSY:
        return "<1 %"
    return "99 %" if _NOT_ALL < ratio < 1 else f"{ratio * 100:.0f} %"


def number(value: float | None) -> str | None:
    """Three significant digits: a rate, a queue, a plain figure."""
    value = _finite(value)
    return None if value is None else _significant(value)


def count(value: int | None) -> str | None:
    """Every digit, with thousands separated: tickets are counted, not rounded."""
    return None if value is None else f"{value:,}"


def percent(ratio: float | None) -> str | None:
    """``0.1234`` is ``12.3 %``. Little is not rounded to nothing, and not quite all is not rounded to all."""
    ratio = _finite(ratio)
    if ratio is None:
        return None
    size = abs(ratio)
    if size in (0, 1):
        return f"{ratio * 100:.0f} %"
    if size < _LITTLE:
        return "<0.01 %" if ratio > 0 else ">-0.01 %"
    if _NEARLY_ALL < size < 1:
        return f"{math.copysign(math.floor(size * 10000) / 100, ratio):.2f} %"
    decimals = 2 if size < 0.1 else 1 if size < 1 else 0
    return f"{ratio * 100:.{decimals}f} %"


def times(ratio: float | None) -> str | None:
    """Return an effect as a factor: ``3.1x``, ``0.97x``; below a half it is said the other way: ``58x lower``."""
    ratio = _finite(ratio)
    if ratio is None:
        return None
    return f"{words.times(1 / ratio)} lower" if 0 < ratio < _SAID_AS_LOWER else words.times(ratio)


def size_bytes(value: int) -> str:
    """``8589934592`` is ``8.00 GiB``."""
    scaled, unit = float(value), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if scaled < 1024:
            break
        scaled, unit = scaled / 1024, larger
    return f"{_significant(scaled)} {unit}"


def moment(unix_s: float) -> str:
    """Return a time of day, UTC, to the second."""
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d %H:%M:%S} UTC"


def plural(n: int, one: str, many: str = "") -> str:
    """``1 trial``, ``3 trials``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def listing(parts: Iterable[str]) -> str:
    """Return ``a, b and c``."""
    items = list(parts)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def resource(key: str) -> str:
    """Return a resource's name for people; an unknown key is shown as it is."""
    return _RESOURCES.get(key, clean(key).replace("_", " "))


def cost(key: str) -> str:
    """Return a cost's name for people."""
    return _COSTS.get(key, clean(key).replace("_", " "))


def signal(key: str) -> str:
    """Return a compared signal's name for people: ``latency_s.p95`` is ``latency, p95``."""
    known = _SIGNALS.get(key)
    if known:
        return known
    return clean(key).replace("latency_s.", "latency, ").replace("_per_s", "").replace(".", ", ").replace("_", " ")


def variant(name: str) -> str:
    """Return a variant's name as it is read, with room to break: ``pool_size=2, cache=on``."""
    return clean(variant_words(name)).replace(",", ", ") or "as configured"
