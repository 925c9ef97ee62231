"""PgBouncer, HAProxy, the queue's workers, the payment provider: started as a variant asks, anew for each trial."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ticketbench import factors
from ticketbench.binaries import Binaries
from ticketbench.model import Level
from ticketbench.stack import haproxy, payment, pgbouncer, worker
from ticketbench.stack.clients import PostgresAt
from ticketbench.stack.companions import Companions
from ticketbench.stack.haproxy import HaproxyServer
from ticketbench.stack.launch import Launcher
from ticketbench.stack.payment import PaymentServer
from ticketbench.stack.pgbouncer import PgBouncerServer, Pooling
from ticketbench.stack.replicas import SALE
from ticketbench.stack.reset import Data
from ticketbench.stack.worker import QueueWorkers


class LocalCompanions(Companions):
    """The companions of one local stack. ``folder`` makes a folder that a server which is not root can use."""

    def __init__(self, binaries: Binaries, launcher: Launcher, logs: Path, folder: Callable[[str], Path]) -> None:
        super().__init__()
        self._binaries = binaries
        self._launcher = launcher
        self._logs = logs
        self._folder = folder
        self._folders: dict[str, Path] = {}

    def start_pooler(
        self, levels: Mapping[str, Level], postgres: PostgresAt, data: Data
    ) -> tuple[str, dict[str, Level]]:
        """Return where the sale finds its database, behind PgBouncer if asked, and the settings that go with it.

        Raises EnvironmentFailure.
        """
        if not pgbouncer.asked(levels):
            return data.target_dsn(), {}
        server = PgBouncerServer(
            self._binaries.program(pgbouncer.NAME),
            self._folder_of(pgbouncer.NAME),
            self._launcher,
            log=self._logs / f"{pgbouncer.NAME}.log",
            postgres=postgres,
            sale=data.password,
            pooling=Pooling.of(levels),
        )
        self.start(server)
        return data.target_dsn(through=server.here.at), {"prepared_statements": "on" if server.prepares else "off"}

    def start_provider(self, levels: Mapping[str, Level]) -> dict[str, Level]:
        """Return the settings that tell the sale where its payment provider is; none where it has none.

        Raises EnvironmentFailure.
        """
        if not payment.asked(levels):
            return {}
        folder, log = self._folder_of(payment.NAME), self._logs / f"{payment.NAME}.log"
        server = PaymentServer(folder, self._launcher, log=log, levels=levels)
        self.start(server)
        return {"payment_url": server.url}

    def start_balancer(self, levels: Mapping[str, Level], places: Mapping[str, str]) -> str:
        """Return where k6 finds the sale: HAProxy in front of all replicas if asked, else the only one.

        ``places`` are the replicas' URLs by name. Raises EnvironmentFailure.
        """
        if not factors.balanced(levels):
            return places[SALE]
        server = HaproxyServer(
            self._binaries.program(haproxy.NAME),
            self._folder_of(haproxy.NAME),
            self._launcher,
            log=self._logs / f"{haproxy.NAME}.log",
            replicas={name: url.removeprefix("http://") for name, url in places.items()},
        )
        self.start(server)
        return server.base_url

    def start_workers(self, environment: Mapping[str, str], metrics_ports: Sequence[int]) -> None:
        """Start a worker of the queue for each of ``metrics_ports``, if any. Raises EnvironmentFailure."""
        if metrics_ports:
            self.start(
                QueueWorkers(
                    self._folder_of(worker.NAME),
                    self._launcher,
                    log=self._logs / f"{worker.NAME}.log",
                    environment=environment,
                    metrics_ports=metrics_ports,
                )
            )

    def _folder_of(self, name: str) -> Path:
        folder = self._folders.get(name)
        if folder is None:
            folder = self._folders[name] = self._folder(name)
        return folder

    def consoles(self) -> dict[str, str]:
        """Return where the companions tell their figures. The addresses hold secrets."""
        found = {}
        for server in self.each():
            if isinstance(server, PgBouncerServer):
                found[server.name] = server.here.console
            elif isinstance(server, HaproxyServer):
                found[server.name] = server.figures
            elif isinstance(server, PaymentServer):
                found[server.name] = server.url
        return found
