"""Counts and times every request, as plain ASGI: the framework's own middleware base costs a task for each."""

from time import perf_counter
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from target_app.figures import UNMATCHED, Figures

# What a client may put into a metric's label is closed, or it could fill Prometheus.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Measured:
    """Wraps the application; ``figures`` gets each answer under its route's template."""

    def __init__(self, app: ASGIApp, figures: Figures) -> None:
        self._app = app
        self._figures = figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; an exception counts as a 500 and goes on to whoever logs it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        figures = self._figures
        status = 500

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        figures.inflight += 1
        began = perf_counter()
        try:
            await self._app(scope, receive, watch)
        finally:
            figures.inflight -= 1
            route = figures.of_path.get(getattr(scope.get("route"), "path", UNMATCHED)) or figures.routes[UNMATCHED]
            method = scope["method"]
            route.answered(method if method in _METHODS else "OTHER", status, perf_counter() - began)
