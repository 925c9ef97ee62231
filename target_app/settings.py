"""Everything about the sale that can be set, read from the environment in one place.

Each factor of scope ``app`` or ``data`` in ticketbench's catalogue is exactly one setting here, with the same name,
default and levels; a contract test holds the two together. The other settings are what a deployment must say
(addresses) and the limits that keep every wait bounded.
"""

from typing import Annotated, Final, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from target_app.environment import read

PREFIX: Final = "TARGET_"

Switch = Literal["on", "off"]
Locking = Literal["none", "pessimistic", "optimistic", "atomic", "redis"]
Checkout = Literal["sync", "queue"]
Payment = Literal["outside", "in_transaction", "holding_lock"]
DataLayer = Literal["sqlalchemy", "asyncpg"]
Pooler = Literal["none", "pgbouncer"]
PurchaseRoute = Literal["fastapi", "lean"]
RoundTrips = Literal["plain", "fewest"]


class Settings(BaseSettings):
    """The settings of one deployment; ``TARGET_POOL_SIZE=2`` in the environment sets ``pool_size``. Frozen."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True)

    # --- factors ---
    pool_size: Annotated[int, Field(ge=1, le=200, description="connections a worker keeps to PostgreSQL")] = 10
    max_overflow: Annotated[int, Field(ge=0, le=200, description="connections it may open beyond pool_size")] = 0
    pool_timeout_s: Annotated[float, Field(ge=0.05, le=60, description="wait for a connection before a 503")] = 2.0
    cache: Annotated[Switch, Field(description="matches are read through a cache in Redis")] = "on"
    cache_ttl_s: Annotated[float, Field(ge=0.05, le=3600, description="how long a cached match lives")] = 1.0
    single_flight: Annotated[Switch, Field(description="a worker asks once for what many of its requests miss")] = "off"
    locking: Annotated[Locking, Field(description="how a purchase guards the stock; none is a race, on purpose")] = (
        "atomic"
    )
    workers: Annotated[int, Field(ge=1, le=16, description="processes that serve the sale")] = 1
    data_layer: Annotated[DataLayer, Field(description="what brings statements to PostgreSQL, and whose pool")] = (
        "sqlalchemy"
    )
    pooler: Annotated[Pooler, Field(description="what stands between the connections and PostgreSQL")] = "none"
    round_trips: Annotated[
        RoundTrips, Field(description="fewest: a purchase sends as little as its locking and payment allow")
    ] = "plain"
    purchase_route: Annotated[
        PurchaseRoute,
        Field(description="what a purchase goes through before it begins: FastAPI, or a route without it"),
    ] = "fastapi"
    payment: Annotated[Payment, Field(description="where the payment is waited for")] = "outside"
    # Three of these, and every other wait of a purchase, fit into the time that a transaction may be idle.
    payment_timeout_s: Annotated[float, Field(ge=0.05, le=8, description="wait for one answer of the provider")] = 5.0
    checkout: Annotated[
        Checkout, Field(description="queue: a purchase is put on a stream in Redis, and workers do it")
    ] = "sync"
    queue_limit: Annotated[int, Field(ge=0, le=1_000_000, description="most purchases that wait; 0: no limit")] = 0
    queue_workers: Annotated[int, Field(ge=1, le=16, description="processes that do queued purchases")] = 1
    queue_concurrency: Annotated[int, Field(ge=1, le=200, description="purchases each of them does at a time")] = 10
    synchronous_commit: Annotated[Switch, Field(description="PostgreSQL waits for its log to reach the disk")] = "on"
    validate_cost: Annotated[int, Field(ge=1, le=5_000_000, description="rounds of hashing for a validation")] = 20_000
    hold_ttl_s: Annotated[float, Field(ge=1, le=3600, description="how long a ticket stays in a cart unpaid")] = 600.0
    password_cost: Annotated[int, Field(ge=1, le=50, description="passes of argon2id over 19 MiB for a password")] = 2
    validate_in_loop: Annotated[Switch, Field(description="off: hashing in threads, beside the event loop")] = "on"
    index: Annotated[Switch, Field(description="the index behind a buyer's tickets of a match (init-db)")] = "on"
    stock: Annotated[int, Field(ge=0, le=5_000_000, description="tickets of the hot match (init-db)")] = 1000

    # --- addresses ---
    database_url: Annotated[SecretStr, Field(description="postgresql://user:password@host:port/database")]
    prepared_statements: Annotated[
        Switch, Field(description="off: for a pooler that loses them, as PgBouncer before 1.21 does")
    ] = "on"
    payment_url: Annotated[
        str, Field(pattern=r"^(http://[^/:@]+:[0-9]+)?$", description="http://host:port of the provider; empty: none")
    ] = ""
    redis_url: Annotated[SecretStr, Field(description="redis://[:password@]host:port/number")]
    gate_secret: Annotated[SecretStr, Field(description="what the tokens of the gate are derived with")] = SecretStr(
        "not a secret: the gate of a load test"
    )
    session_secret: Annotated[
        SecretStr, Field(description="what cookies and form tokens are signed with; the same for every worker")
    ] = SecretStr("not a secret: the sessions of a load test")

    # --- limits: nothing that a request waits for is without one ---
    connect_timeout_s: Annotated[float, Field(gt=0, le=60, description="to open a connection")] = 5.0
    statement_timeout_s: Annotated[float, Field(gt=0, le=60, description="one SQL statement")] = 5.0
    lock_timeout_s: Annotated[float, Field(gt=0, le=60, description="a row lock, before a 503")] = 2.0
    redis_timeout_s: Annotated[float, Field(gt=0, le=60, description="one Redis command")] = 1.0
    redis_connections: Annotated[int, Field(ge=1, le=1000, description="most Redis connections of a worker")] = 50
    optimistic_retries: Annotated[int, Field(ge=0, le=1000, description="repeats of an optimistic attempt")] = 10
    buyer_limit: Annotated[int, Field(ge=1, le=1_000_000, description="tickets a buyer may hold of a match")] = 4
    session_ttl_s: Annotated[int, Field(ge=60, le=2_592_000, description="how long a log-in lasts")] = 43_200
    queue_claim_s: Annotated[
        float,
        Field(ge=0.1, le=600, description="a queued purchase that a worker has had for so long is given to another"),
    ] = 30.0
    queue_patience_s: Annotated[
        float, Field(ge=0.1, le=3600, description="a queued purchase that fails for so long is given up")
    ] = 60.0
    queue_result_ttl_s: Annotated[
        int, Field(ge=1, le=604_800, description="how long it is known what a queued purchase was refused with")
    ] = 3600
    stop_timeout_s: Annotated[int, Field(ge=1, le=6, description="for requests under way when stopping")] = 5

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("should be postgresql://user:password@host:port/database")
        return value

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("should be redis://[:password@]host:port/number")
        return value


def load() -> Settings:
    """Read the settings from the environment.

    Raises StartupError that names every variable at fault. An unknown ``TARGET_`` variable is a fault too: a factor
    that is misspelt and silently ignored would make a measurement lie.
    """
    return read(Settings, PREFIX)
