"""The stack's servers as whoever talks to them sees them: an address and a password, wherever they run."""

from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import psycopg
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ticketbench.errors import EnvironmentFailure

# Short, because a stranger that took the port may accept and never answer.
ANSWER_TIMEOUT_S: Final = 1.0
SUPERUSER: Final = "ticketbench"


@dataclass(frozen=True)
class PostgresAt:
    """PostgreSQL with the superuser ``ticketbench``."""

    host: str
    port: int
    password: str = field(repr=False)

    def dsn(self, database: str = "postgres", user: str | None = None, password: str | None = None) -> str:
        """Return a URL to ``database``, as the superuser unless another user is given. It holds the password."""
        who = f"{user or SUPERUSER}:{password or self.password}"
        return f"postgresql://{who}@{self.host}:{self.port}/{database}"

    def answers(self) -> bool:
        """Tell whether it gives a real answer."""
        try:
            with psycopg.connect(self.dsn(), connect_timeout=2) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.OperationalError:  # refused, or still starting
            return False


@dataclass(frozen=True)
class RedisAt:
    """Redis or Valkey."""

    host: str
    port: int
    password: str = field(repr=False)

    @property
    def url(self) -> str:
        """The URL of database 0. It holds the password."""
        return f"redis://:{self.password}@{self.host}:{self.port}/0"

    def client(self, patience_s: float = 5.0) -> redis.Redis:
        """Return a client; the caller closes it."""
        return redis.Redis(
            host=self.host,
            port=self.port,
            password=self.password,
            socket_timeout=patience_s,
            socket_connect_timeout=patience_s,
            retry=Retry(NoBackoff(), 0),  # whoever waits does so with a deadline of its own
        )

    def answers(self) -> bool:
        """Tell whether it gives a real answer."""
        with self.client(ANSWER_TIMEOUT_S) as client:
            try:
                return bool(client.ping())
            except (redis.ConnectionError, redis.TimeoutError):  # also: another server's password refused
                return False


@dataclass(frozen=True)
class PrometheusAt:
    """Prometheus."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://{self.host}:{self.port}"

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return labels and value of each series that ``expression`` yields now. Raises EnvironmentFailure."""
        try:
            answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=10, trust_env=False)
            answer.raise_for_status()
            result: list[dict[str, Any]] = answer.json()["data"]["result"]
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise EnvironmentFailure(f"Prometheus does not answer {expression!r}: {error}") from error
        return [(series["metric"], float(series["value"][1])) for series in result]

    def answers(self) -> bool:
        """Tell whether it is ready."""
        try:
            ready = httpx.get(f"{self.url}/-/ready", timeout=ANSWER_TIMEOUT_S, trust_env=False)
        except httpx.TransportError:
            return False
        return ready.status_code == httpx.codes.OK
