"""One process of the provider: an event loop on a port."""

import asyncio
import socket
from typing import Final

import uvicorn
import uvloop

from target_app.errors import StartupError
from target_app.provider import settings as settings_module
from target_app.provider.app import ProviderApp
from target_app.provider.charges import Charges
from target_app.provider.journal import Journal
from target_app.supervisor import BACKLOG, raise_descriptor_limit

# Longer than any pause of a sale between two payments on a connection.
_KEEP_ALIVE_S: Final = 75
_STOP_S: Final = 1


def serve(host: str, port: int) -> int:
    """Serve until SIGTERM or SIGINT; return 0. Raises StartupError."""
    settings = settings_module.load()
    raise_descriptor_limit()
    try:
        listening = socket.create_server((host, port), backlog=BACKLOG)
    except OSError as error:
        raise StartupError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    with listening:
        try:
            journal = Journal(settings.journal)
        except OSError as error:
            raise StartupError(f"PROVIDER_JOURNAL {settings.journal}: {error.strerror}") from error
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_serve(settings, journal, listening))
        finally:
            journal.close()
    return 0


async def _serve(settings: settings_module.ProviderSettings, journal: Journal, listening: socket.socket) -> None:
    server = uvicorn.Server(
        uvicorn.Config(
            ProviderApp(Charges(settings, journal), journal),
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_level="warning",
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_STOP_S,
        )
    )
    await server.serve(sockets=[listening])
