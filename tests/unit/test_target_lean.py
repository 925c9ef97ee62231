"""The lean purchase route against FastAPI's own: what it accepts means the same there, the rest it leaves to it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from string import printable

import httpx
import pytest
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp, Receive, Scope, Send

from target_app.endpoints import purchase_router, refuse, refuse_input
from target_app.errors import KeyReused, PoolTimeout, SaleError, SoldOut
from target_app.lean import LeanPurchases
from target_app.locking import Order, Ticket

KEY, JSON = "Idempotency-Key", {"Content-Type": "application/json"}


@dataclass
class Register:
    """A till that notes what it is asked for, and sells or refuses as it is told to."""

    trouble: SaleError | None = None
    asked: list[Order] = field(default_factory=list)

    async def purchase(self, order: Order) -> Ticket:
        self.asked.append(order)
        if self.trouble is not None:
            raise self.trouble
        return Ticket(7, order.match_id, "T-1", order.key, 2750)


def fastapi_with(register: Register) -> FastAPI:
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    app.include_router(purchase_router(register))
    app.add_exception_handler(SaleError, refuse)
    app.add_exception_handler(RequestValidationError, refuse_input)
    return app


@dataclass
class Sides:
    """The same request to both routes; ``passed_on`` counts what the lean one left to FastAPI."""

    plain: Register = field(default_factory=Register)
    lean: Register = field(default_factory=Register)
    passed_on: int = 0

    @asynccontextmanager
    async def clients(self) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
        behind = fastapi_with(self.lean)

        async def otherwise(scope: Scope, receive: Receive, send: Send) -> None:
            self.passed_on += 1
            await behind(scope, receive, send)

        def client(app: ASGIApp) -> httpx.AsyncClient:
            return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://sale")

        async with client(fastapi_with(self.plain)) as plain, client(LeanPurchases(otherwise, self.lean)) as lean:
            yield plain, lean

    async def answer(self, path: str, headers: dict[str, str], body: bytes, method: str = "POST") -> httpx.Response:
        """Return the answer, having made sure that both give the same one for the same order."""
        async with self.clients() as clients:
            first, second = [await each.request(method, path, headers=headers, content=body) for each in clients]
        assert (first.status_code, first.content) == (second.status_code, second.content)
        assert first.headers == second.headers
        assert self.plain.asked == self.lean.asked
        return second


async def test_a_plain_purchase_does_not_reach_the_framework() -> None:
    sides = Sides()
    answer = await sides.answer("/matches/2/purchases", {KEY: "k", **JSON}, b'{"buyer": "\xc3\xa5nn"}')
    assert answer.status_code == 201
    assert (sides.lean.asked, sides.passed_on) == ([Order(2, "ånn", "k")], 0)


@pytest.mark.parametrize(("trouble", "status"), [(SoldOut(), 409), (KeyReused(), 422), (PoolTimeout(), 503)])
async def test_a_refusal_is_worded_alike(trouble: SaleError, status: int) -> None:
    sides = Sides(Register(trouble), Register(trouble))
    answer = await sides.answer("/matches/1/purchases", {KEY: "k", **JSON}, b'{"buyer": "ann"}')
    assert (answer.status_code, sides.passed_on) == (status, 0)
    assert ("retry-after" in answer.headers) == (status == 503)


@pytest.mark.parametrize(
    ("path", "headers", "body", "method"),
    [
        ("/matches/0/purchases", {KEY: "k", **JSON}, b'{"buyer": "ann"}', "POST"),
        ("/matches/02/purchases", {KEY: "k", **JSON}, b'{"buyer": "ann"}', "POST"),
        ("/matches/2147483648/purchases", {KEY: "k", **JSON}, b'{"buyer": "ann"}', "POST"),
        ("/matches/2/purchases", {KEY: "k", **JSON}, b'{"buyer": "ann"}', "GET"),
        ("/matches/2/purchases/", {KEY: "k", **JSON}, b'{"buyer": "ann"}', "POST"),
        ("/matches/2/purchases", {KEY: "k", "Content-Type": "text/plain"}, b'{"buyer": "ann"}', "POST"),
        (
            "/matches/2/purchases",
            {KEY: "k", "Content-Type": "application/json; charset=utf-8"},
            b'{"buyer":"a"}',
            "POST",
        ),
        ("/matches/2/purchases", {KEY: "k", **JSON}, b'{"buyer": "ann", "buyer": 1}', "POST"),
        ("/matches/2/purchases", {KEY: "k", **JSON}, b'["buyer"]', "POST"),
        ("/matches/2/purchases", {KEY: "k", **JSON}, b"[" * 4000, "POST"),
        ("/matches/2/purchases", {KEY: "k", **JSON}, b"\xff", "POST"),
        ("/matches/2/purchases", {KEY: "k", **JSON}, b" " * 5000 + b'{"buyer": "ann"}', "POST"),
    ],
)
async def test_what_is_not_beyond_doubt_is_left_to_the_framework(
    path: str, headers: dict[str, str], body: bytes, method: str
) -> None:
    sides = Sides()
    await sides.answer(path, headers, body, method)
    assert sides.passed_on == 1


@pytest.mark.parametrize(("padding", "passed_on"), [(0, 0), (5000, 1)])
async def test_a_body_in_pieces_arrives_whole_wherever_it_is_read(padding: int, passed_on: int) -> None:
    sides = Sides()

    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"buyer": ' + b" " * padding
        yield b'"ann"'
        yield b"}"

    async with sides.clients() as (_, lean):
        answer = await lean.post("/matches/2/purchases", headers={KEY: "k", **JSON}, content=pieces())
    assert (answer.status_code, sides.passed_on) == (201, passed_on)
    assert sides.lean.asked == [Order(2, "ann", "k")]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.one_of(st.integers(-1, 2**31 + 1).map(str), st.text("0123456789+_ .", min_size=1, max_size=4)),
    key=st.one_of(st.text(printable[:95], max_size=5), st.just("k" * 200), st.just("k" * 201)),
    body=st.one_of(
        st.fixed_dictionaries({"buyer": st.one_of(st.text(max_size=5), st.just("a" * 200), st.just("a" * 201))}),
        st.dictionaries(st.sampled_from(["buyer", "price"]), st.one_of(st.none(), st.integers(), st.text(max_size=3))),
    ),
)
@example(path="2", key="k", body={"buyer": "a\x7f"})
@example(path="2", key="k", body={"buyer": "\ud800"})
@example(path="2", key="k", body={"buyer": "line\n"})
async def test_both_routes_judge_alike(path: str, key: str, body: dict[str, object]) -> None:
    await Sides().answer(
        f"/matches/{path.replace(' ', '%20')}/purchases", {KEY: key, **JSON}, json.dumps(body).encode()
    )
