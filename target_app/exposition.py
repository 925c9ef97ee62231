"""The metrics of a worker over HTTP, on a thread of its own, at as little CPU as a scrape can have.

Written once a second by the process that is being measured, so its cost is part of every figure. The client library's
server and text cost two and a half times as much: a connection and a thread for each scrape, labels escaped and checked
for each of some 550 lines, and compression for a loopback.
"""

import socketserver
import sys
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
# A scraper that has not come back for so long has gone.
_IDLE_S: Final = 60.0


class Exposition:
    """A registry as text. What stands before a value never changes, so it is made once."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._heads: dict[str, str] = {}
        self._series: dict[tuple[str, ...], str] = {}

    def text(self) -> str:
        """Return all metrics in Prometheus's text format 0.0.4."""
        heads, series = self._heads, self._series
        lines: list[str] = []
        for family in self._registry.collect():
            lines.append(heads.get(family.name) or self._head(family))
            for sample in family.samples:
                key = (sample.name, *sample.labels.values())
                lines.append((series.get(key) or self._one(key, sample.labels)) + repr(float(sample.value)))
        return "\n".join([*lines, ""])

    def _head(self, family: Metric) -> str:
        name = family.name + ("_total" if family.type == "counter" else "")
        documentation = family.documentation.replace("\\", r"\\").replace("\n", r"\n")
        head = f"# HELP {name} {documentation}\n# TYPE {name} {family.type}"
        self._heads[family.name] = head
        return head

    def _one(self, key: tuple[str, ...], labels: Mapping[str, str]) -> str:
        listed = ",".join(f'{name}="{_escaped(value)}"' for name, value in sorted(labels.items()))
        series = f"{key[0]}{{{listed}}} " if listed else f"{key[0]} "
        self._series[key] = series
        return series


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True  # a scraper's open connection does not keep the process
    exposition: Exposition

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a scraper that has hung up; a bug keeps its traceback."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Scrape(BaseHTTPRequestHandler):
    """Serves one scraper, for as many scrapes as it comes back for."""

    protocol_version = "HTTP/1.1"
    timeout = _IDLE_S
    server: _Server

    def do_GET(self) -> None:
        body = self.server.exposition.text().encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", _CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
        """Say nothing: a line a second for each worker is nobody's reading."""


class MetricsServer:
    """Answers GET on every path with the registry's metrics, from its making to :meth:`close`. Raises OSError."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        self._server = _Server((host, port), _Scrape)
        self._server.exposition = Exposition(registry)
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop listening and wait for the thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
