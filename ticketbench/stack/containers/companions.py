"""PgBouncer, HAProxy and the payment provider as containers of the variants that ask for them.

Each is a service of compose.yaml with a profile of its own; what differs in a variant is said here.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from ticketbench import factors
from ticketbench.model import Level
from ticketbench.stack import haproxy, payment, pgbouncer
from ticketbench.stack.clients import PostgresAt
from ticketbench.stack.containers.bodies import Changes
from ticketbench.stack.containers.project import Container
from ticketbench.stack.containers.services import APP_PORT, LOOPBACK, POSTGRES_PORT
from ticketbench.stack.pgbouncer import PgBouncerAt, Pooling
from ticketbench.stack.replicas import replicas as replicas_of
from ticketbench.stack.reset import Data

PGBOUNCER_PORT: Final = 6432
ENTRY_PORT: Final = 8080
FIGURES_PORT: Final = 8404
PAYMENT_PORT: Final = 8500
_JOURNAL: Final = "/tmp/payments.jsonl"  # noqa: S108 - of its container
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
    if (there := containers.get(payment.NAME)) is not None:
        found[payment.NAME] = f"http://{LOOPBACK}:{there.ports[PAYMENT_PORT]}"
    return found


Start = Callable[[str, Changes], Container]
Await = Callable[[str, str, Callable[[], bool]], None]


class Beside:
    """Starts the companions of one stack, whose variables are ``told``, where a variant asks for them.

    ``start`` makes the container of a service, ``await_answer`` (service, title, whether it answers) waits for it. All
    methods raise EnvironmentFailure.
    """

    def __init__(self, told: Mapping[str, str], start: Start, await_answer: Await) -> None:
        self._told = told
        self._start = start
        self._await = await_answer

    def start_pooler(self, levels: Mapping[str, Level], data: Data) -> tuple[str, dict[str, str]]:
        """Return where the sale finds its database, behind PgBouncer if asked, and the settings that go with it."""
        if not pgbouncer.asked(levels):
            return data.target_dsn(), {}
        password = self._told["TICKETBENCH_PASSWORD_PGBOUNCER"]
        changes = pooler(("postgres", POSTGRES_PORT), Pooling.of(levels), sale=data.password, console=password)
        here = pgbouncer_at(self._start(pgbouncer.NAME, changes), self._told)
        self._await(pgbouncer.NAME, "PgBouncer", here.answers)
        inside = PostgresAt(pgbouncer.NAME, PGBOUNCER_PORT, password)
        return data.target_dsn(through=inside), {"prepared_statements": "on" if here.prepare() else "off"}

    def start_provider(self, levels: Mapping[str, Level]) -> dict[str, str]:
        """Return the settings that tell the sale where its payment provider is; none where it has none."""
        if not payment.asked(levels):
            return {}
        container = self._start(payment.NAME, Changes(environment=payment.settings(levels, _JOURNAL)))
        here = consoles({payment.NAME: container}, self._told)[payment.NAME]
        self._await(payment.NAME, "the payment provider", partial(payment.answers, here))
        return {"payment_url": f"http://{payment.NAME}:{PAYMENT_PORT}"}

    def start_balancer(self, levels: Mapping[str, Level], ports: Sequence[int]) -> tuple[str, int] | None:
        """Return HAProxy's service and its port within where a variant has it; ``ports`` are published with its own."""
        if not factors.balanced(levels):
            return None
        secret = self._told["TICKETBENCH_PASSWORD_HAPROXY"]
        container = self._start(haproxy.NAME, balancer(replicas_of(levels), APP_PORT, secret, ports))
        figures = consoles({haproxy.NAME: container}, self._told)[haproxy.NAME]
        self._await(haproxy.NAME, "HAProxy", partial(haproxy.answers, figures))
        return haproxy.NAME, ENTRY_PORT
