"""A payment provider for tests: in the test's own process, or a process of its own that can be killed."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from target_app.provider.app import ProviderApp
from target_app.provider.charges import Charges
from target_app.provider.journal import Journal
from target_app.provider.settings import ProviderSettings

DEADLINE_S = 30.0


@asynccontextmanager
async def provider(journal_path: Path, **levels: Any) -> AsyncIterator[tuple[Charges, str]]:
    """Serve a provider on the running loop; give its charges, and its address."""
    journal = Journal(journal_path)
    charges = Charges(ProviderSettings(journal=journal_path, **levels), journal)
    app = ProviderApp(charges, journal)
    config = uvicorn.Config(app, lifespan="off", log_level="error", access_log=False, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening, contextlib.closing(journal):
        task = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started:  # noqa: ASYNC110  (the server has no event for it)
            await asyncio.sleep(0.01)
        try:
            yield charges, f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


class ProviderProcess:
    """A provider in a process of its own, always on the same port and with the same journal."""

    def __init__(self, folder: Path, **levels: Any) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        told = {"journal": folder / "payments.jsonl", **levels}
        self._environment = {**os.environ, **{f"PROVIDER_{name.upper()}": str(value) for name, value in told.items()}}
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "target_app", "payment", "--port", str(self.port)]
        self._process = subprocess.Popen(command, env=self._environment, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + DEADLINE_S
        while True:
            assert self._process.poll() is None, self._process.communicate()[1]
            assert time.monotonic() < deadline
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health").status_code == 200:
                    return
            time.sleep(0.02)

    def end(self, signum: signal.Signals = signal.SIGKILL) -> int:
        """Have it end by a signal; return its status."""
        assert self._process is not None
        self._process.send_signal(signum)
        self._process.communicate(timeout=DEADLINE_S)
        return self._process.returncode

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield what it has done, from its export."""
        answer = httpx.get(f"{self.url}/charges")
        assert answer.status_code == 200
        return map(json.loads, answer.text.splitlines())

    def keys(self, kind: str) -> list[str]:
        return [line["key"] for line in self.lines() if line["kind"] == kind]
