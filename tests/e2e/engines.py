"""The machine's Docker engine as tests ask it, and something that only says which engine it is."""

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer

DOCKER = ("--stack", "docker")


class Engine:
    """What the tests ask of the engine by its own client."""

    def __init__(self, client: str) -> None:
        self._client = client

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run([self._client, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def left(self, *labels: str) -> list[str]:
        """The ids of containers, networks and volumes with one of these labels."""
        found = []
        for label in labels:
            wanted = ("-q", "--filter", f"label={label}")
            found += self("ps", "-a", *wanted).split()
            found += self("network", "ls", *wanted).split()
            found += self("volume", "ls", *wanted).split()
        return found

    def container(self, service: str, run: str) -> str:
        """The id of a service's running container."""
        ids = self("ps", "-q", "--filter", f"label=ticketbench.run={run}",
                   "--filter", f"label=com.docker.compose.service={service}").split()  # fmt: skip
        assert len(ids) == 1, ids
        return ids[0]


@contextlib.contextmanager
def said_to_be(path: Path, engine: str, api: str) -> Iterator[None]:
    """At this socket something says that it is Docker of a version, whatever it is asked."""
    body = json.dumps({"Version": engine, "ApiVersion": api, "MinAPIVersion": "1.12"}).encode()

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "a Unix socket"

        def log_request(self, *args: object) -> None:
            """Say nothing."""

    with UnixStreamServer(str(path), Answering) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
