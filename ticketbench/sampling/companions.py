"""Figures of PgBouncer, HAProxy and the payment provider, once a second, while a variant has them (docs/signals.md).

Each is made anew with every variant, so its raw counters begin at 0 with it. PgBouncer is asked at its console, HAProxy
for its table of figures and the provider for its metrics, over connections that are kept.
"""

import abc
import csv
import http.client
import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import psycopg

from ticketbench.sampling.counters import Counters
from ticketbench.sampling.push import Sample

_TIMEOUT_S: Final = 2
_US: Final = 1e-6
# The sale's database as PgBouncer calls it; its console is a database too.
_DATABASE: Final = "tickets"
_BACKEND: Final = "sale"
_OF_ALL: Final = "BACKEND"
_PROVIDER_GAUGES: Final = ("busy", "waiting", "limit")
_PROVIDER_TOTALS: Final = ("served_seconds", "waited_seconds")

Row = Mapping[str, Any]


class ConsoleError(Exception):
    """A companion did not answer, or said what makes no sense."""


class Console(Protocol):
    """What a companion's figures are read from."""

    def tick(self) -> None:
        """Read them. Raises ConsoleError."""

    def samples(self) -> Iterator[Sample]:
        """Yield those of the last tick."""

    def close(self) -> None:
        """Close the connection."""


class PgBouncer:
    """Samples of one PgBouncer at the URL of its console."""

    def __init__(self, url: str, counts: Counters[str]) -> None:
        self._url = url
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._counts = counts
        self._gauges: list[Sample] = []
        self._size = 0.0

    def tick(self) -> None:
        """Read its pool and its counters. Raises ConsoleError."""
        try:
            if self._connection is None:
                # its console knows no prepared statements
                self._connection = psycopg.connect(
                    self._url, autocommit=True, prepare_threshold=None, connect_timeout=_TIMEOUT_S
                )
                told = self._rows("SHOW DATABASES")
                self._size = float(next((row["pool_size"] for row in told if row["name"] == _DATABASE), 0))
            pools = [row for row in self._rows("SHOW POOLS") if row["database"] == _DATABASE]
            stats = [row for row in self._rows("SHOW STATS") if row["database"] == _DATABASE]
            self._take(pools, stats)
        except psycopg.Error as error:
            self.close()
            raise ConsoleError(" ".join(str(error).split())) from error
        except (KeyError, ValueError, TypeError) as error:
            raise ConsoleError(f"its figures are not what they should be: {error!r}") from error

    def _rows(self, command: str) -> list[Row]:
        if self._connection is None:
            return []
        cursor = self._connection.execute(command.encode())
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def _take(self, pools: list[Row], stats: list[Row]) -> None:
        def total(*names: str) -> float:
            return sum(float(row.get(name, 0)) for row in pools for name in names)

        longest_s = max((float(row["maxwait"]) + float(row["maxwait_us"]) * _US for row in pools), default=0.0)
        self._gauges = [
            ("tb_pgbouncer_clients", (("state", "active"),), total("cl_active")),
            ("tb_pgbouncer_clients", (("state", "waiting"),), total("cl_waiting")),
            ("tb_pgbouncer_servers", (("state", "active"),), total("sv_active")),
            # in its words: idle, used (idle for longer), tested, logging in
            ("tb_pgbouncer_servers", (("state", "idle"),), total("sv_idle", "sv_used", "sv_tested", "sv_login")),
            ("tb_pgbouncer_pool_size", (), self._size),
            ("tb_pgbouncer_longest_wait_seconds", (), longest_s),
        ]
        for name, column, unit in (
            ("wait_seconds", "total_wait_time", _US),
            ("xacts", "total_xact_count", 1.0),
            ("xact_seconds", "total_xact_time", _US),
            ("queries", "total_query_count", 1.0),
        ):
            self._counts.read(f"pgbouncer_{name}", sum(float(row[column]) for row in stats) * unit)

    def samples(self) -> Iterator[Sample]:
        """Yield the figures of the last tick."""
        yield from self._gauges
        yield from _totals(self._counts, "pgbouncer_")

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Page(abc.ABC):
    """Samples of what tells its figures on a page."""

    def __init__(self, url: str, counts: Counters[str]) -> None:
        parts = urlsplit(url)
        self._path = parts.path
        self._http = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=_TIMEOUT_S)
        self._counts = counts
        self._gauges: list[Sample] = []

    def tick(self) -> None:
        """Read the page. Raises ConsoleError."""
        try:
            self._http.request("GET", self._path)
            answer = self._http.getresponse()
            text = answer.read().decode(errors="replace")
            if answer.status != http.client.OK:
                raise ConsoleError(f"it answered {answer.status}")
            self._take(text)
        except (OSError, http.client.HTTPException) as error:
            self.close()  # the next request connects again
            raise ConsoleError(str(error) or type(error).__name__) from error
        except (KeyError, ValueError, TypeError) as error:
            raise ConsoleError(f"its figures are not what they should be: {error!r}") from error

    @abc.abstractmethod
    def _take(self, text: str) -> None:
        """Make figures of the page. Raises KeyError, ValueError, TypeError where it is not what it should be."""

    @abc.abstractmethod
    def samples(self) -> Iterator[Sample]:
        """Yield the figures of the last tick."""

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


class Haproxy(_Page):
    """Samples of one HAProxy at the address of its figures."""

    def _take(self, text: str) -> None:
        rows = [row for row in csv.DictReader(io.StringIO(text.removeprefix("# "))) if row["pxname"] == _BACKEND]
        self._gauges = []
        for row in rows:
            server = row["svname"]
            if server == _OF_ALL:
                self._gauges.append(("tb_haproxy_queue", (), _number(row["qcur"])))
                continue
            labels = (("server", server),)
            self._gauges.append(("tb_haproxy_sessions", labels, _number(row["scur"])))
            self._gauges.append(("tb_haproxy_up", labels, float(row["status"].startswith(("UP", "no check")))))
            self._counts.read(f"haproxy_requests|{server}", _number(row["stot"]))
            self._counts.read(f"haproxy_errors|{server}", _number(row["econ"]) + _number(row["eresp"]))
            self._counts.read(f"haproxy_redispatches|{server}", _number(row["wredis"]))

    def samples(self) -> Iterator[Sample]:
        """Yield the figures of the last tick."""
        yield from self._gauges
        yield from _totals(self._counts, "haproxy_")


class Payment(_Page):
    """Samples of one payment provider at its address."""

    def __init__(self, url: str, counts: Counters[str]) -> None:
        super().__init__(f"{url}/metrics", counts)

    def _take(self, text: str) -> None:
        told = dict(line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        self._gauges = [(f"tb_payment_{name}", (), float(told[f"provider_{name}"])) for name in _PROVIDER_GAUGES]
        for name in _PROVIDER_TOTALS:
            self._counts.read(f"payment_{name}", float(told[f"provider_{name}_total"]))

    def samples(self) -> Iterator[Sample]:
        """Yield the figures of the last tick."""
        yield from self._gauges
        yield from _totals(self._counts, "payment_")


_KINDS: Final[dict[str, Callable[[str, Counters[str]], Console]]] = {
    "pgbouncer": PgBouncer,
    "haproxy": Haproxy,
    "payment": Payment,
}


class Companions:
    """The consoles of those that the variant has. Use from one thread."""

    def __init__(self) -> None:
        self._consoles: dict[str, Console] = {}
        self._counts: Counters[str] = Counters()

    def are(self, urls: Mapping[str, str]) -> None:
        """From now on these are there: name to address. Their counters start again, ours go on."""
        self.close()
        self._counts.forget_raw()
        self._consoles = {name: _KINDS[name](url, self._counts) for name, url in urls.items() if name in _KINDS}

    def each(self) -> Iterator[tuple[str, Console]]:
        """Yield name and console of each."""
        yield from self._consoles.items()

    def close(self) -> None:
        """Close all connections."""
        for console in self._consoles.values():
            console.close()
        self._consoles = {}


def _totals(counts: Counters[str], prefix: str) -> Iterator[Sample]:
    for key, total in counts.items():
        name, _, server = key.partition("|")
        if name.startswith(prefix):
            yield f"tb_{name}_total", (("server", server),) if server else (), total


def _number(text: str) -> float:
    return float(text) if text else 0.0
