"""Everything that is not a plain purchase or a look at a match, brought in with the first request for it.

Templates, models and documents take a worker a moment to load, which a sale that is only bought from need not pay for:
neither at its start nor in the order in which paths are tried.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

if TYPE_CHECKING:
    from target_app.app import Sale


class LateShop:
    """What the application's router falls back on. ``sale_routes`` are described in the OpenAPI document as well."""

    def __init__(self, sale: "Sale", sale_routes: Sequence[BaseRoute]) -> None:
        self._sale = sale
        self._sale_routes = sale_routes
        self._made: asyncio.Task[ASGIApp] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if self._made is None:
            # On a thread, so that purchases go on meanwhile; in one task, however many ask for it at once.
            self._made = asyncio.create_task(asyncio.to_thread(self._make))
        shop = self._made.result() if self._made.done() else await asyncio.shield(self._made)
        own = {name: value for name, value in scope.items() if name not in ("app", "router", "route")}
        try:
            await shop(own, receive, send)
        finally:
            if "route" in own:
                scope["route"] = own["route"]  # for whoever counts

    def _make(self) -> ASGIApp:
        from target_app.shop import make_shop

        return make_shop(self._sale, self._sale_routes)
