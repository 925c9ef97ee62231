"""A sale that is open on a real PostgreSQL and Redis, in the test's own process: what its tests share."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import redis as redis_client

from target_app.app import Sale
from target_app.settings import Settings

GUARDED = ("pessimistic", "optimistic", "atomic", "redis")
SQL_GUARDED = ("pessimistic", "optimistic", "atomic")
# Whichever way it reaches PostgreSQL, the sale behaves alike: every test that opens one runs for each.
WAYS = {
    "plain": {"data_layer": "sqlalchemy", "round_trips": "plain", "purchase_route": "fastapi"},
    "fastest": {"data_layer": "asyncpg", "round_trips": "fewest", "purchase_route": "lean"},
}
HOT, COLD, PAST = 1, 2, 21
REDIS_NUMBER = 7  # a database of Redis for these tests alone


@dataclass(frozen=True)
class Stores:
    """The two stores of a test: addresses for the sale, connections for the test."""

    database_url: str
    redis_url: str
    sql: psycopg.Connection[Any]
    redis: "redis_client.Redis"

    def one(self, query: str, *values: object) -> Any:
        """Return the only value of a query."""
        row = self.sql.execute(query, values).fetchone()
        assert row is not None
        return row[0]

    def settings(self, **levels: Any) -> Settings:
        return Settings(database_url=self.database_url, redis_url=self.redis_url, **levels)

    def sold(self, match_id: int) -> int:
        return int(self.one("SELECT count(*) FROM tickets WHERE match_id = %s", match_id))


@dataclass
class Shop:
    """A sale that is open, and a client of it."""

    sale: Sale
    http: httpx.AsyncClient

    async def buy(self, match_id: int = HOT, *, key: str | None = None, buyer: str | None = None) -> httpx.Response:
        key = key or uuid.uuid4().hex
        return await self.http.post(
            f"/matches/{match_id}/purchases", headers={"Idempotency-Key": key}, json={"buyer": buyer or key}
        )

    async def buy_until_decided(self, match_id: int = HOT) -> httpx.Response:
        """Try again with the same key after a 503, as a client should."""
        key = uuid.uuid4().hex
        while (answer := await self.buy(match_id, key=key)).status_code == 503:
            assert answer.headers["Retry-After"] == "1"
        return answer

    def outcome(self, name: str) -> int:
        return self.sale.figures.purchases[name]


Open = Callable[..., AbstractAsyncContextManager[Shop]]


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until the condition holds; the test's own time limit is the deadline."""
    while not condition():  # noqa: ASYNC110  (what is waited for happens in a server or a library)
        await asyncio.sleep(0.002)


def kinds(answers: list[httpx.Response]) -> Counter[tuple[int, str]]:
    return Counter((answer.status_code, answer.json().get("error", "")) for answer in answers)
