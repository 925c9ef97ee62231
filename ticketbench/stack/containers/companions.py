"""PgBouncer and HAProxy as containers: how they differ, in a variant, from their services in compose.yaml."""

from collections.abc import Mapping, Sequence
from typing import Final

from ticketbench.stack import haproxy, pgbouncer
from ticketbench.stack.clients import PostgresAt
from ticketbench.stack.containers.bodies import Changes
from ticketbench.stack.containers.project import Container
from ticketbench.stack.containers.services import LOOPBACK
from ticketbench.stack.pgbouncer import PgBouncerAt, Pooling

PGBOUNCER_PORT: Final = 6432
ENTRY_PORT: Final = 8080
FIGURES_PORT: Final = 8404
_PGBOUNCER_FOLDER: Final = "/etc/pgbouncer"
_HAPROXY_FILE: Final = "/usr/local/etc/haproxy/haproxy.cfg"


def allowing(most: int, command: Sequence[str]) -> Changes:
    """Return a PostgreSQL that is started by ``command`` and allows ``most`` connections."""
    setting = "max_connections="
    return Changes(command=[f"{setting}{most}" if word.startswith(setting) else word for word in command])


def pooler(postgres: tuple[str, int], pooling: Pooling, *, sale: str, console: str) -> Changes:
    """Return the pooler of a variant; ``sale`` and ``console`` are passwords."""
    passwords = f"{_PGBOUNCER_FOLDER}/userlist.txt"
    text = pgbouncer.configuration(
        host="0.0.0.0",  # noqa: S104 - of its container
        port=PGBOUNCER_PORT,
        postgres=postgres,
        passwords=passwords,
        pooling=pooling,
    )
    return Changes(
        files={f"{_PGBOUNCER_FOLDER}/pgbouncer.ini": text, passwords: pgbouncer.password_file(sale, console)}
    )


def balancer(replicas: Sequence[str], sale_port: int, secret: str, ports: Sequence[int] = ()) -> Changes:
    """Return the balancer in front of these replicas; ``ports`` are published with its own."""
    text = haproxy.configuration(
        listen=f"*:{ENTRY_PORT}",
        figures=f"*:{FIGURES_PORT}",
        secret=secret,
        replicas={name: f"{name}:{sale_port}" for name in replicas},
    )
    return Changes(files={_HAPROXY_FILE: text}, ports=tuple(ports))


def pgbouncer_at(container: Container, told: Mapping[str, str]) -> PgBouncerAt:
    """Return PgBouncer as it is reached from here; ``told`` are the variables of the stack."""
    place = PostgresAt(LOOPBACK, container.ports[PGBOUNCER_PORT], told["TICKETBENCH_PASSWORD_PGBOUNCER"])
    return PgBouncerAt(place)


def consoles(containers: Mapping[str, Container], told: Mapping[str, str]) -> dict[str, str]:
    """Return where those of the containers that are companions tell their figures."""
    found = {}
    if (there := containers.get(pgbouncer.NAME)) is not None:
        found[pgbouncer.NAME] = pgbouncer_at(there, told).console
    if (there := containers.get(haproxy.NAME)) is not None:
        secret = told["TICKETBENCH_PASSWORD_HAPROXY"]
        found[haproxy.NAME] = haproxy.figures_url(LOOPBACK, there.ports[FIGURES_PORT], secret)
    return found
