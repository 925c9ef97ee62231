"""A sale on a port of the loopback, for clients that are programs of their own: a fuzzer, a browser."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from target_app.app import create_app
from target_app.seed import init_db
from tests.integration.opened_sale import Stores, account


@dataclass(frozen=True)
class Service:
    """A sale on a port, and the token of a buyer in it."""

    url: str
    token: str


@contextmanager
def serving(stores: Stores) -> Iterator[Service]:
    """Serve a fresh sale from a thread with an event loop of its own."""
    stores.empty()
    chosen = stores.settings(password_cost=1, validate_cost=10, pool_timeout_s=30, redis_timeout_s=10)
    app = create_app(chosen)
    server = uvicorn.Server(uvicorn.Config(app.asgi, port=0, lifespan="off", log_level="error", access_log=False))
    ready = threading.Event()

    async def serve() -> None:
        async with app.sale.opened():
            task = asyncio.create_task(server.serve())
            while not server.started:  # noqa: ASYNC110  (the server has no event for it)
                await asyncio.sleep(0.01)
            ready.set()
            await task

    def run() -> None:
        init_db(chosen)  # here, too: a browser's driver may have a loop of its own running on the caller's thread
        asyncio.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(60)
        port = server.servers[0].sockets[0].getsockname()[1]
        _, _, token = account(stores, chosen)
        yield Service(f"http://127.0.0.1:{port}", token)
    finally:
        server.should_exit = True
        thread.join()
