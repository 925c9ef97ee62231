"""One process of the sale: an event loop on the shared socket, and its metrics on a port and thread of its own."""

import asyncio
import ctypes
import gc
import os
import signal
import socket
import sys

import uvicorn
import uvloop
from starlette.types import ASGIApp

from target_app import settings as settings_module
from target_app.app import Sale, create_app
from target_app.errors import StartupError
from target_app.exposition import MetricsServer
from target_app.settings import Settings

BACKLOG = 4096

_PR_SET_PDEATHSIG = 1
# How long a thread may hold the interpreter while another wants it. With Python's 5 ms the loop could wait that long
# for a scrape to let go of it, five times a purchase.
SWITCH_INTERVAL_S = 0.0005
# Longer than any pause of a load generator between two requests on a connection.
_KEEP_ALIVE_S = 75


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when the supervisor ends, however that ends; exit now if it has ended."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise StartupError(f"cannot be tied to the supervisor: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent_pid:  # it ended before the call above
        raise StartupError("the supervisor is gone")


def run(*, fd: int, metrics_host: str, metrics_port: int, parent_pid: int) -> int:
    """Serve until SIGTERM or SIGINT; return 0. Raises StartupError."""
    die_with_parent(parent_pid)
    settings = settings_module.load()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    application = create_app(settings)
    sale = application.sale
    try:
        metrics = MetricsServer(metrics_host, metrics_port, sale.registry())
    except OSError as error:
        raise StartupError(f"metrics port {metrics_host}:{metrics_port}: {error.strerror}") from error
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(application.asgi, sale, settings, fd))
    finally:
        metrics.close()
    return 0


async def _serve(app: ASGIApp, sale: Sale, settings: Settings, fd: int) -> None:
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",  # entered below, so that what it raises arrives here
            access_log=False,
            log_level="warning",
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=settings.stop_timeout_s,
        )
    )
    async with sale.opened():
        # Uvicorn catches these while it serves and raises them again when it is done: by then they mean nothing.
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, lambda *_: None)
        gc.collect()
        gc.freeze()  # what lives until the end need not be looked at in every collection
        with socket.socket(fileno=fd) as listening:
            await server.serve(sockets=[listening])
