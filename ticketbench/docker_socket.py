"""Where the Docker engine of this machine listens, and requests to it that need no SDK: small, and quickly loaded."""

import http.client
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ticketbench.errors import EnvironmentFailure

UNIX: Final = "unix://"
SYSTEM_SOCKET: Final = "/var/run/docker.sock"
# An engine that needs longer than this to take a connection, and to tell its version, is not one to measure on.
PATIENCE_S: Final = 10.0
# Docker 20.10, of December 2020: the first that tells a container's figures without waiting for a second ("one-shot").
OLDEST_API: Final = (1, 41)
OLDEST_ENGINE: Final = "20.10"
LOCAL_HINT: Final = "start Docker, or use --stack local, which needs none"
WEDGED_HINT: Final = "its log says why (journalctl -u docker); or use --stack local, which needs none"


class NoEngine(EnvironmentFailure):
    """No engine that could have anything of ours: none runs here, or it is another machine's, not for us or too old."""


@dataclass(frozen=True)
class Version:
    """What an engine says that it is, and the version of its API that it is spoken to in."""

    engine: str
    api: str


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

    Raises NoEngine for an engine on another machine: its ports would not be on this machine's loopback, and what else
    runs there could not be seen.
    """
    named = environ.get("DOCKER_HOST", "")
    if named:
        if path := named.removeprefix(UNIX) if named.startswith(UNIX) else "":
            return path
        raise NoEngine(
            f"DOCKER_HOST={named} is a remote engine, and ticketbench measures on this machine's only",
            "unset DOCKER_HOST, or set it to unix:///PATH; to measure a system elsewhere use --stack external",
        )
    candidates = [SYSTEM_SOCKET]
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        candidates.append(f"{runtime}/docker.sock")  # an engine without root
    if home := environ.get("HOME"):
        candidates.append(f"{home}/.docker/run/docker.sock")  # Docker Desktop
    return next(filter(os.path.lexists, candidates), SYSTEM_SOCKET)  # one that may not be looked for is none


def reach(path: str, patience_s: float = PATIENCE_S) -> Version:
    """Ask the engine at this socket once what it is.

    Raises NoEngine, saying what is missing: engine, permission or a newer version; EnvironmentFailure where something
    listens and tells no version in time.
    """
    connection = SocketConnection(path, patience_s)
    try:
        _connect(connection, path)
        try:
            connection.request("GET", "/version")
            told = json.loads(connection.getresponse().read())
            version = Version(engine=str(told["Version"]), api=str(told["ApiVersion"]))
        except (OSError, http.client.HTTPException) as error:
            raise EnvironmentFailure(
                f"what listens at the Docker socket {path} does not tell its version: {error or type(error).__name__}",
                WEDGED_HINT,
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise EnvironmentFailure(
                f"what listens at the Docker socket {path} is no Docker engine: it tells no version", WEDGED_HINT
            ) from error
    finally:
        connection.close()
    require_api(version)
    return version


def _connect(connection: SocketConnection, path: str) -> None:
    try:
        connection.connect()
    except FileNotFoundError as error:
        raise NoEngine(f"no Docker engine runs here: there is no {path}", LOCAL_HINT) from error
    except ConnectionRefusedError as error:
        raise NoEngine(f"no Docker engine runs here: nobody listens at {path}", LOCAL_HINT) from error
    except PermissionError as error:
        raise NoEngine(
            f"you may not use the Docker engine at {path}",
            "add yourself to the group docker (sudo usermod -aG docker $USER) and log in again, or use --stack local",
        ) from error
    except OSError as error:
        raise EnvironmentFailure(
            f"the Docker engine at {path} cannot be reached: {error.strerror or error}", LOCAL_HINT
        ) from error


def require_api(version: Version) -> None:
    """Raise NoEngine where an engine speaks no API that has what is needed, EnvironmentFailure where it tells none."""
    try:
        major, minor = (int(part) for part in version.api.split(".", 1))
    except ValueError:
        raise EnvironmentFailure(
            f"what listens at the Docker socket does not tell its API version ({version.api!r})", WEDGED_HINT
        ) from None
    if (major, minor) < OLDEST_API:
        needed = ".".join(map(str, OLDEST_API))
        raise NoEngine(
            f"Docker {version.engine} is too old: it speaks API {version.api}, and API {needed} is needed"
            f" (Docker {OLDEST_ENGINE})",
            f"install Docker {OLDEST_ENGINE} or later, or use --stack local",
        )
