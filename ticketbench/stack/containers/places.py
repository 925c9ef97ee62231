"""Where the containers of a Docker stack are found from this machine, and whether they answer there."""

from collections.abc import Mapping

from ticketbench.stack import haproxy, payment, pgbouncer, worker
from ticketbench.stack.clients import PostgresAt, PrometheusAt, RedisAt
from ticketbench.stack.containers import companions
from ticketbench.stack.containers.project import Container
from ticketbench.stack.containers.services import (
    APP_PORT,
    FIRST_METRICS_PORT,
    LOOPBACK,
    POSTGRES_PORT,
    PROMETHEUS_PORT,
    REDIS_PORT,
    sells,
)
from ticketbench.stack.idle import at_work
from ticketbench.stack.replicas import SALE, component_of


class Places:
    """The published ports of ``containers``, the stack's own register by component, as they are now.

    ``told`` are the variables of the stack, with its passwords.
    """

    def __init__(self, containers: Mapping[str, Container], told: Mapping[str, str]) -> None:
        self._containers = containers
        self._told = told

    def port(self, name: str, inside: int) -> int:
        """Return the port of this machine that a container's port is published at."""
        container = self._containers.get(name)
        if container is None:
            raise RuntimeError(f"{name} is not started")
        return container.ports[inside]

    def postgres(self) -> PostgresAt:
        """Return PostgreSQL."""
        return PostgresAt(LOOPBACK, self.port("postgres", POSTGRES_PORT), self._told["TICKETBENCH_PASSWORD_POSTGRES"])

    def redis(self) -> RedisAt:
        """Return Redis."""
        return RedisAt(LOOPBACK, self.port("redis", REDIS_PORT), self._told["TICKETBENCH_PASSWORD_REDIS"])

    def prometheus(self) -> PrometheusAt:
        """Return Prometheus."""
        return PrometheusAt(LOOPBACK, self.port("prometheus", PROMETHEUS_PORT))

    def answers(self, name: str) -> bool:
        """Tell whether a component of the system under test gives a real answer. From any thread."""
        if name == pgbouncer.NAME:
            return companions.pgbouncer_at(self._containers[name], self._told).answers()
        if name == haproxy.NAME:
            return haproxy.answers(companions.consoles(self._containers, self._told)[name])
        if name == payment.NAME:
            return payment.answers(companions.consoles(self._containers, self._told)[name])
        if name == worker.NAME:
            return at_work(self._containers[name].ports.values())
        if component_of(name) == SALE:
            ports = self._containers[name].ports
            metrics = [port for inside, port in ports.items() if inside >= FIRST_METRICS_PORT]
            return sells(f"http://{LOOPBACK}:{self.port(name, APP_PORT)}") and at_work(metrics)
        return self.postgres().answers() if name == "postgres" else self.redis().answers()
