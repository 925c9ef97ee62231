"""From Prometheus's names to columns (docs/signals.md), and from addresses to routes."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

from ticketbench.model import OTHER_ROUTE

# A script that tags nothing has one name for each address; beyond this many nobody reads them.
MOST_ROUTES: Final = 60

_NUMBER: Final = re.compile(r"\d+")
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_HEX: Final = re.compile(r"(?=.*\d)[0-9a-f]{12,}", re.IGNORECASE)
# Long, no word: letters, digits and nothing else, with a digit among them (ULID, nanoid, base64url).
_OPAQUE: Final = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[A-Za-z0-9_-]{20,}={0,2}")


def column(name: str, labels: Mapping[str, str]) -> str:
    """Return ``name{label=value,...}`` with labels in alphabetical order; ``name`` alone without labels."""
    if not labels:
        return name
    return f"{name}{{{','.join(f'{label}={_value(labels[label])}' for label in sorted(labels))}}}"


def _value(text: str) -> str:
    """Keep a column's labels separable: a comma would read as the end of the value."""
    return text.replace(",", ";")


def _short(metric: str) -> str:
    return re.sub(r"_seconds(?=_|$)", "_s", metric.removesuffix("_total"))


def target_column(metric: str, group: str = "app") -> str:
    """``target_pool_wait_seconds_total`` is ``app.pool_wait_s``; what the client library adds gets the prefix too.

    ``group`` is ``worker`` for the workers of the queue, whose own figures begin with ``queue_``.
    """
    return f"{group}.{_short(metric.removeprefix('target_'))}"


def sampler_column(metric: str) -> str:
    """``tb_pg_wait_seconds_total`` is ``pg.wait_s``, ``tb_cpu_seconds_total`` is ``cpu_s``."""
    name = _short(metric.removeprefix("tb_"))
    for group in ("pgbouncer", "pg", "redis", "haproxy", "payment", "sampler"):
        if name.startswith(f"{group}_"):
            return f"{group}.{name.removeprefix(f'{group}_')}"
    return name


def route(name: str, base_url: str) -> str:
    """Return the route of a request whose k6 ``name`` tag is ``name``: the tag itself, unless it is an address.

    An address loses the target's base URL, query and fragment, and segments that are ids become ``{n}``.
    """
    base = base_url.rstrip("/")
    if base and (name == base or name.startswith((f"{base}/", f"{base}?", f"{base}#"))):
        name = name[len(base) :] or "/"
    elif "://" not in name and not name.startswith("/"):
        return name
    prefix = ""
    if "://" in name:
        address = urlsplit(name)
        prefix, path = f"{address.scheme}://{address.netloc}", address.path
    else:
        path = re.split(r"[?#]", name, maxsplit=1)[0]
    return prefix + ("/".join(_segment(part) for part in path.split("/")) or "/")


def _segment(part: str) -> str:
    known = any(pattern.fullmatch(part) for pattern in (_NUMBER, _UUID, _HEX, _OPAQUE))
    return "{n}" if known else part


def routes_of(counts: Iterable[tuple[str, float]], base_url: str) -> dict[str, str]:
    """Map each k6 ``name`` to its route; with more than :data:`MOST_ROUTES` the least asked for become ``(other)``."""
    found: Counter[str] = Counter()
    mapping: dict[str, str] = {}
    for name, count in counts:
        mapping[name] = route(name, base_url)
        found[mapping[name]] += int(count)
    if len(found) <= MOST_ROUTES:
        return mapping
    ranked = sorted(found, key=lambda path: (-found[path], path))
    kept = set(ranked[: MOST_ROUTES - 1])
    return {name: path if path in kept else OTHER_ROUTE for name, path in mapping.items()}
