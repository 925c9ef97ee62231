"""The provider over HTTP, without a framework: it is to cost as little as a service of somebody else would.

``POST /charges`` and ``POST /refunds`` name the key in ``Idempotency-Key``. ``GET /charges`` streams everything that
was done, a line of JSON each. ``POST /reset`` forgets it. ``GET /health``, ``GET /metrics``.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import Receive, Scope, Send

from target_app.exposition import Exposition
from target_app.provider.charges import AmountDiffersError, Charge, Charges
from target_app.provider.journal import Journal

_KEY: Final = re.compile(rb"[\x21-\x7e]{1,200}")
_MOST_PENCE: Final = 2_147_483_647
_LONGEST_BODY: Final = 4096
_JSON: Final = b"application/json"

Answer = tuple[int, dict[str, Any]]


class Figures(Collector):
    """The provider's metrics, read when they are asked for."""

    def __init__(self, charges: Charges) -> None:
        self._charges = charges

    def describe(self) -> tuple[Metric, ...]:
        """Return nothing: what there is comes with collect."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        charges = self._charges
        done = CounterMetricFamily("provider_payments", "What was done, by what became of a key.", labels=("state",))
        for state, count in charges.counts.items():
            done.add_metric((state,), count)
        yield done
        yield CounterMetricFamily("provider_served_seconds", "Seconds that payments were served.", charges.served_s)
        yield CounterMetricFamily("provider_waited_seconds", "Seconds that payments waited.", charges.waited_s)
        yield GaugeMetricFamily("provider_busy", "Payments being served.", charges.busy)
        yield GaugeMetricFamily("provider_waiting", "Payments that wait for their turn.", charges.waiting)
        yield GaugeMetricFamily("provider_limit", "Payments served at a time; 0: any number.", charges.limit)


class ProviderApp:
    """The ASGI application."""

    def __init__(self, charges: Charges, journal: Journal) -> None:
        self._charges = charges
        self._journal = journal
        registry = CollectorRegistry()
        registry.register(Figures(charges))
        self._metrics = Exposition(registry)
        self._gets: dict[str, Callable[[], tuple[bytes, Iterator[bytes]]]] = {
            "/charges": lambda: (b"application/x-ndjson", journal.export()),
            "/health": lambda: (_JSON, iter([b'{"status": "up"}'])),
            "/metrics": lambda: (b"text/plain; version=0.0.4; charset=utf-8", iter([self._metrics.text().encode()])),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        method, path = scope["method"], scope["path"]
        if method == "GET" and (get := self._gets.get(path)) is not None:
            await _stream(send, *get())
            return
        status, said = await self._post(path, scope, receive) if method == "POST" else _refused(404, "unknown_route")
        body = json.dumps(said).encode()
        await send({"type": "http.response.start", "status": status, "headers": _headers(_JSON, len(body))})
        await send({"type": "http.response.body", "body": body})

    async def _post(self, path: str, scope: Scope, receive: Receive) -> Answer:
        body = await _body(receive)
        if path == "/reset":
            self._charges.reset()
            return 200, {"status": "empty"}
        if path not in ("/charges", "/refunds"):
            return _refused(404, "unknown_route")
        key = next((value for name, value in scope["headers"] if name == b"idempotency-key"), b"")
        if _KEY.fullmatch(key) is None:
            return _refused(422, "bad_key")
        try:
            if path == "/refunds":
                return 200, _said(self._charges.refund(key.decode()))
            return await self._charge(key.decode(), body)
        except OSError as error:
            return _refused(503, str(error))

    async def _charge(self, key: str, body: bytes) -> Answer:
        amount_pence = _amount(body)
        if amount_pence is None:
            return _refused(422, "bad_amount")
        try:
            charge = await self._charges.charge(key, amount_pence)
        except AmountDiffersError:
            return _refused(422, "key_reused")
        match charge.state:
            case "charged":
                return 201, _said(charge)
            case "declined":
                return _refused(402, "declined")
            case _:
                return _refused(409, "refunded")


def _said(charge: Charge) -> dict[str, Any]:
    return {"key": charge.key, "state": charge.state, "amount_pence": charge.amount_pence}


def _refused(status: int, kind: str) -> Answer:
    return status, {"error": kind}


def _amount(body: bytes) -> int | None:
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return None
    amount = asked.get("amount_pence") if isinstance(asked, dict) else None
    return amount if type(amount) is int and 0 <= amount <= _MOST_PENCE else None


async def _body(receive: Receive) -> bytes:
    """Return the body; of one that is too long only what is too long to be one."""
    body = b""
    while True:
        message = await receive()
        piece: bytes = message.get("body", b"")
        body += piece
        if not message.get("more_body", False) or len(body) > _LONGEST_BODY:
            return body


async def _stream(send: Send, content_type: bytes, pieces: Iterator[bytes]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", content_type)]})
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _headers(content_type: bytes, length: int) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", content_type), (b"content-length", str(length).encode())]
