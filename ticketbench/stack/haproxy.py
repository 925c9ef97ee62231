"""HAProxy in front of the replicas of the sale: the factors ``replicas`` and ``balancer``, on both stacks.

Requests go round the replicas in turn. One that refuses connections, or does not answer ``/health`` three times, gets
none until it does again, and what could not be sent to it is sent to another. ``/health`` asks no database: a slow one
would otherwise have all replicas taken out together.
"""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import httpx

from ticketbench.binaries.probe import libraries
from ticketbench.stack.clients import ANSWER_TIMEOUT_S
from ticketbench.stack.launch import Identity, Launcher
from ticketbench.stack.rootless import RootlessServer
from ticketbench.stack.servers import LOOPBACK, Ports, free_port

NAME: Final = "haproxy"
# The route that is asked of each replica once a second; these requests are not the load's.
HEALTH_ROUTE: Final = "/health"
# A spike of 1360 virtual users has a connection each; HAProxy takes two descriptors and 34 kB for one, and reserves
# for all that it may have. Where nothing limits a process, that would be for millions.
MOST_FILES: Final = 40_100


def configuration(*, listen: str, figures: str, secret: str, replicas: Mapping[str, str]) -> str:
    """Return HAProxy's configuration file: ``listen`` and ``figures`` are host:port, ``replicas`` name to host:port.

    Whoever knows ``secret`` is told its figures.
    """
    servers = "".join(f"    server {name} {at} check\n" for name, at in replicas.items())
    return (
        "global\n"
        # as many connections as that many open files allow; fewer where the machine allows fewer
        f"    fd-hard-limit {MOST_FILES}\n"
        # a thread serves ten times what the sale can do; a second one would take a core from it
        "    nbthread 1\n"
        "defaults\n"
        "    mode http\n"
        "    balance roundrobin\n"
        "    retries 2\n"
        "    option redispatch 1\n"
        "    timeout connect 2s\n"
        # a replica that is overloaded answers late, and to take it out would overload the others
        "    timeout check 5s\n"
        # longer than the sale lets anything wait
        "    timeout server 60s\n"
        "    timeout client 80s\n"
        "    timeout http-keep-alive 80s\n"
        "frontend entry\n"
        f"    bind {listen}\n"
        "    default_backend sale\n"
        "backend sale\n"
        f"    option httpchk GET {HEALTH_ROUTE}\n"
        "    http-check expect status 200\n"
        "    default-server inter 1s fall 3 rise 1\n"
        f"{servers}"
        "frontend figures\n"
        f"    bind {figures}\n"
        "    stats enable\n"
        f"    stats uri /{secret}\n"
    )


def figures_url(host: str, port: int, secret: str) -> str:
    """Return the address of its figures, as CSV. It holds the secret."""
    return f"http://{host}:{port}/{secret};csv"


def answers(url: str) -> bool:
    """Tell whether the HAProxy whose figures are at ``url`` gives a real answer."""
    try:
        told = httpx.get(url, timeout=ANSWER_TIMEOUT_S, trust_env=False)
    except httpx.TransportError:
        return False
    return told.status_code == httpx.codes.OK and told.text.startswith("# pxname")


class HaproxyServer(RootlessServer):
    """HAProxy in front of the sale's ``replicas``, name to host:port."""

    name = NAME
    title = "HAProxy"

    def __init__(
        self,
        program: Path,
        folder: Path,
        launcher: Launcher,
        *,
        log: Path,
        replicas: Mapping[str, str],
        ports: Ports = free_port,
        identity: Identity | None = None,
    ) -> None:
        super().__init__(program, folder, launcher, log=log, ports=ports, identity=identity)
        self._replicas = dict(replicas)
        self._secret = secrets.token_urlsafe(24)
        self._figures_port = 0

    @property
    def base_url(self) -> str:
        """The address that k6 calls."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def figures(self) -> str:
        """The address of its figures. It holds the secret."""
        return figures_url(LOOPBACK, self._figures_port, self._secret)

    def _command(self) -> list[str]:
        self._figures_port = self._figures_port if self.again else self._ports()
        config = self.folder / "haproxy.cfg"
        config.unlink(missing_ok=True)
        config.touch(mode=0o600)
        config.write_text(
            configuration(
                listen=f"{LOOPBACK}:{self.port}",
                figures=f"{LOOPBACK}:{self._figures_port}",
                secret=self._secret,
                replicas=self._replicas,
            )
        )
        if self._identity().owns_files:
            self._hand_over()
        return [str(self.program), "-db", "-f", str(config)]

    def _runtime(self) -> Mapping[str, str]:
        return libraries(self.program)

    def _answers(self) -> bool:
        return answers(self.figures)
