"""A sale that is open on a real PostgreSQL and Redis, in the test's own process: what its tests share."""

import asyncio
import hashlib
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import redis as redis_client

from target_app.accounts import new_token
from target_app.app import Sale
from target_app.errors import PaymentDeclined, Unavailable
from target_app.provider.charges import Charges
from target_app.settings import Settings
from target_app.tokens import Tokens

GUARDED = ("pessimistic", "optimistic", "atomic", "redis")
SQL_GUARDED = ("pessimistic", "optimistic", "atomic")
BY_PLACE = ("atomic", "redis")  # for what differs only by where the stock is kept
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

    def empty(self) -> None:
        """Drop the sale, and all that Redis has of it."""
        self.sql.execute("DROP TABLE IF EXISTS matches, tickets, holds, checkouts, payments, sessions, buyers")
        self.redis.flushdb()

    def settings(self, **levels: Any) -> Settings:
        return Settings(database_url=self.database_url, redis_url=self.redis_url, **levels)

    def sold(self, match_id: int) -> int:
        return int(self.one("SELECT count(*) FROM tickets WHERE match_id = %s", match_id))


@dataclass
class Shop:
    """A sale that is open, and a client of it."""

    sale: Sale
    http: httpx.AsyncClient
    charges: Charges | None = None  # the provider's, where there is one

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


@dataclass(frozen=True)
class Member:
    """A buyer with an account who is logged in, and a client of their own."""

    handle: str
    email: str
    token: str
    http: httpx.AsyncClient

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}", **more.pop("headers", {})}
        return await self.http.request(method, path, headers=headers, **more)

    async def hold(self, quantity: int = 1, match_id: int = HOT) -> httpx.Response:
        return await self.ask("POST", "/api/cart/holds", json={"match_id": match_id, "quantity": quantity})

    async def pay(self, key: str | None = None) -> httpx.Response:
        return await self.ask("POST", "/api/checkouts", headers={"Idempotency-Key": key or uuid.uuid4().hex})

    async def cart(self) -> Any:
        answer = await self.ask("GET", "/api/cart")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def tickets(self) -> list[Any]:
        answer = await self.ask("GET", "/api/tickets")
        assert answer.status_code == 200, answer.text
        return list(answer.json()["tickets"])


def account(stores: Stores, settings: Settings, name: str = "ann") -> tuple[str, str, str]:
    """Register and log somebody in without the hashing of a password; return handle, address and token."""
    handle, token = f"buyer-{uuid.uuid4().hex[:24]}", new_token()
    email = f"{name}-{uuid.uuid4().hex[:8]}@example.org"
    stores.sql.execute(
        "WITH new AS (INSERT INTO buyers (handle, email, name, password_hash) VALUES (%s, %s, %s, '-') RETURNING id)"
        " INSERT INTO sessions (token_hash, buyer_id, expires_at) SELECT %s, id, now() + interval '1 hour' FROM new",
        (handle, email, name, hashlib.sha256(token.encode()).hexdigest()),
    )
    return handle, email, Tokens(settings).signed(token)


def member(stores: Stores, shop: Shop, name: str = "ann") -> Member:
    """Return a buyer who has just registered and logged in."""
    return Member(*account(stores, shop.sale.settings, name), shop.http)


class Till:
    """A provider of payments that keeps books, and does as it is told. See ``target_app.payments.Payments``."""

    def __init__(self) -> None:
        self.charged: dict[str, int] = {}
        self.refunded: set[str] = set()
        self.declining = False
        self.silent = False  # it charges, and its answer is lost
        self.voiding = True  # a key that was refunded is not charged any more
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = 0

    async def charge(self, key: str, amount_pence: int) -> None:
        self.waiting += 1
        try:
            await self.gate.wait()
        finally:
            self.waiting -= 1
        if (self.declining and key not in self.charged) or (self.voiding and key in self.refunded):
            raise PaymentDeclined
        self.charged[key] = amount_pence
        self.refunded.discard(key)
        if self.silent:
            raise Unavailable

    async def refund(self, key: str) -> None:
        self.refunded.add(key)

    def kept(self) -> dict[str, int]:
        """Return what was charged and not given back, by key."""
        return {key: amount for key, amount in self.charged.items() if key not in self.refunded}


def pay_with(shop: Shop) -> Till:
    """Have the sale's checkouts paid with a provider of the test's own."""
    till = Till()
    shop.sale.checkouts._payments = till
    return till


def balance(stores: Stores, match_id: int = HOT) -> tuple[int, int, int, int]:
    """Return stock, held, sold and capacity of a match, the stock from wherever it is kept."""
    kept = stores.redis.get(f"stock:{match_id}")
    stock = int(kept) if kept is not None else stores.one("SELECT stock FROM matches WHERE id = %s", match_id)
    held = stores.one("SELECT count(*) FROM holds WHERE match_id = %s AND NOT going_back", match_id)
    return stock, held, stores.sold(match_id), stores.one("SELECT capacity FROM matches WHERE id = %s", match_id)


def let_time_pass(stores: Stores) -> None:
    """Have everything that has a time to live outlive it."""
    stores.sql.execute("UPDATE holds SET expires_at = now() - interval '1 second'")
    stores.sql.execute("UPDATE checkouts SET ends_at = now() - interval '1 second'")


Open = Callable[..., AbstractAsyncContextManager[Shop]]


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until the condition holds; the test's own time limit is the deadline."""
    while not condition():  # noqa: ASYNC110  (what is waited for happens in a server or a library)
        await asyncio.sleep(0.002)


def kinds(answers: list[httpx.Response]) -> Counter[tuple[int, str]]:
    return Counter((answer.status_code, answer.json().get("error", "")) for answer in answers)
