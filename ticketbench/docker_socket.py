"""Where the Docker engine of this machine listens, and requests to it that need no SDK: small, and quickly loaded."""

import http.client
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ticketbench.errors import EnvironmentFailure

UNIX: Final = "unix://"
SYSTEM_SOCKET: Final = "/var/run/docker.sock"
# An engine that needs longer than this to take a connection is not one to measure on.
CONNECT_S: Final = 5.0
LOCAL_HINT: Final = "start Docker, or use --stack local, which needs none"


class SocketConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket. Kept open between requests; a broken one is opened anew by the next request."""

    def __init__(self, path: str, patience_s: float) -> None:
        super().__init__("localhost", timeout=patience_s)
        self._path = path

    def connect(self) -> None:
        """Open the socket. Raises OSError."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except BaseException:
            self.close()
            raise


def find(environ: Mapping[str, str] = os.environ) -> str:
    """Return the path of the engine's socket: DOCKER_HOST, or the first there is of those that engines use.

    Raises EnvironmentFailure for an engine on another machine: its ports would not be on this machine's loopback, and
    what else runs there could not be seen.
    """
    named = environ.get("DOCKER_HOST", "")
    if named:
        if named.startswith(UNIX):
            return named.removeprefix(UNIX)
        raise EnvironmentFailure(
            f"DOCKER_HOST={named} is a remote engine, and ticketbench measures on this machine's only",
            "unset DOCKER_HOST, or set it to unix:///PATH; to measure a system elsewhere use --stack external",
        )
    candidates = [SYSTEM_SOCKET]
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        candidates.append(f"{runtime}/docker.sock")  # an engine without root
    if home := environ.get("HOME"):
        candidates.append(f"{home}/.docker/run/docker.sock")  # Docker Desktop
    return next((path for path in candidates if Path(path).exists()), SYSTEM_SOCKET)


def reach(path: str) -> None:
    """Connect to the engine's socket once. Raises EnvironmentFailure, saying what is missing: engine or permission."""
    connection = SocketConnection(path, CONNECT_S)
    try:
        connection.connect()
    except FileNotFoundError as error:
        raise EnvironmentFailure(f"no Docker engine runs here: there is no {path}", LOCAL_HINT) from error
    except ConnectionRefusedError as error:
        raise EnvironmentFailure(f"no Docker engine runs here: nobody listens at {path}", LOCAL_HINT) from error
    except PermissionError as error:
        raise EnvironmentFailure(
            f"you may not use the Docker engine at {path}",
            "add yourself to the group docker (sudo usermod -aG docker $USER) and log in again, or use --stack local",
        ) from error
    except OSError as error:
        raise EnvironmentFailure(
            f"the Docker engine at {path} cannot be reached: {error.strerror or error}", LOCAL_HINT
        ) from error
    finally:
        connection.close()
