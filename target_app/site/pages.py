"""The pages: what a buyer sees, and what the forms on them do. Nothing is decided here but what to show."""

import re
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from target_app import figures as f
from target_app.accounts import Buyer
from target_app.answers import trouble as answer_of
from target_app.catalogue import Catalogue
from target_app.errors import (
    AddressTaken,
    BeingPaid,
    BuyerLimit,
    EmptyCart,
    HoldExpired,
    NotLoggedIn,
    NotOnSale,
    PaymentDeclined,
    SaleError,
    SoldOut,
    UnknownHold,
    UnknownMatch,
    UnknownTicket,
    WrongLogin,
)
from target_app.figures import Stages
from target_app.site.forms import login_of, number_of, registration_of
from target_app.site.rendering import Problem, Rendering
from target_app.site.visitors import BadForm, Visitor, Visitors
from target_app.tokens import Tokens
from target_app.validation import Gate

if TYPE_CHECKING:
    from target_app.app import Sale

_Handler = Callable[[Request], Awaitable[Response]]

# Where a log-in may lead back to: our own pages, and no address that somebody else has put there.
_OWN_PAGE: Final = re.compile(r"/(shop/[a-z]{1,20}(/[0-9]{1,19})?)?")
_CODE: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_KEY: Final = re.compile(r"[\x21-\x7e]{1,200}")
_LARGEST_MATCH: Final = 2_147_483_647
_LARGEST_ID: Final = 9_223_372_036_854_775_807


class Pages:
    """The handlers, over one worker's sale."""

    def __init__(self, sale: "Sale", tokens: Tokens) -> None:
        self._accounts = sale.accounts
        self._holds = sale.holds
        self._checkouts = sale.checkouts
        self._catalogue = Catalogue(
            sale.settings, sale.database, sale.store, sale.figures, routes=(f.FRONT, f.MATCH_PAGE)
        )
        self._gate = Gate(sale.settings, sale.database, sale.figures, route=f.GATE_PAGE)
        self._limit = sale.settings.buyer_limit
        self._visitors = Visitors(sale, tokens)
        self._rendering = Rendering(self._visitors)
        self._routes = sale.figures.routes

    def _stages(self, route: str) -> Stages:
        return self._routes[route].stages

    def routes(self) -> list[Route]:
        """Return the pages' routes."""

        def both(path: str, shown: _Handler, sent: _Handler) -> list[Route]:
            return [Route(path, shown), Route(path, sent, methods=["POST"])]

        return [
            Route(f.FRONT, self._matches),
            Route("/shop/matches/{match_id:int}", self._match),
            Route("/shop/matches/{match_id:int}/holds", self._hold, methods=["POST"]),
            *both("/shop/register", self._registering, self._register),
            *both("/shop/login", self._logging_in, self._log_in),
            Route("/shop/logout", self._log_out, methods=["POST"]),
            Route(f.CART_PAGE, self._cart),
            Route("/shop/cart/holds/{hold_id:int}/removal", self._remove, methods=["POST"]),
            *both(f.CHECKOUT_PAGE, self._checking_out, self._check_out),
            Route(f.TICKETS_PAGE, self._tickets),
            Route("/shop/tickets/{ticket_id:int}", self._ticket),
            *both(f.GATE_PAGE, self._at_gate, self._validate),
            Route("/shop/style.css", self._rendering.style),
        ]

    # --- what goes wrong ----------------------------------------------------------------------------------------------

    def wanted(self, request: Request) -> bool:
        """Tell whether a page is what the request is to be answered with."""
        path = request.url.path
        if path == "/" or path.startswith("/shop/"):
            return True
        return not path.startswith("/api/") and "text/html" in request.headers.get("accept", "")

    async def trouble(self, request: Request, error: Exception) -> Response:
        """Return the page that says what went wrong; it needs neither database nor Redis."""
        if isinstance(error, NotLoggedIn):
            return _to(f"/shop/login?next={request.url.path}" if request.method == "GET" else "/shop/login")
        headers: dict[str, str] = {}
        if isinstance(error, SaleError):
            status, _, more = answer_of(error)
            kind = error.kind
            headers = {name.decode(): value.decode() for name, value in more}
        elif isinstance(error, HTTPException):
            status, kind = error.status_code, {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "")
            headers = dict(error.headers or {})
        else:
            raise TypeError(f"not an end of a request: {error!r}") from error
        visitor = self._visitors.stranger(request)
        answer = self._rendering.page(request, visitor, "error.html", status, problem=Problem.of(kind, status))
        answer.headers.update(headers)
        return answer

    # --- matches ------------------------------------------------------------------------------------------------------

    async def _matches(self, request: Request) -> Response:
        visitor = await self._visitors.of(request, self._stages(f.FRONT))
        matches = self._rendering.matches(await self._catalogue.matches())
        return self._rendering.page(request, visitor, "matches.html", matches=matches)

    async def _match(self, request: Request) -> Response:
        visitor = await self._visitors.of(request, self._stages(f.MATCH_PAGE))
        return await self._show_match(request, visitor)

    async def _show_match(
        self, request: Request, visitor: Visitor, status: int = 200, problem: Problem | None = None
    ) -> Response:
        match_id = number_of(request.path_params["match_id"], _LARGEST_MATCH)
        if match_id is None:
            raise UnknownMatch
        (match,) = self._rendering.matches(await self._catalogue.match(match_id))
        most = max(1, min(self._limit, 10, match["stock"]))
        return self._rendering.page(
            request, visitor, "match.html", status, match=match, most=most, limit=self._limit, problem=problem
        )

    async def _hold(self, request: Request) -> Response:
        stages = self._stages(f.CART_PAGE)
        visitor = await self._visitors.of(request, stages)
        form = await self._visitors.form(request, visitor)
        match_id = number_of(request.path_params["match_id"], _LARGEST_MATCH)
        quantity = number_of(form.get("quantity", ""), 10)
        if match_id is None or quantity is None:
            raise BadForm
        if visitor.buyer is None:
            return _to(f"/shop/login?next=/shop/matches/{match_id}")
        try:
            await self._holds.take(visitor.buyer.handle, match_id, quantity, stages)
        except (SoldOut, NotOnSale, BuyerLimit) as error:
            return await self._show_match(request, visitor, error.status, Problem.of(error.kind, error.status))
        return _to("/shop/cart?notice=held")

    # --- accounts -----------------------------------------------------------------------------------------------------

    async def _registering(self, request: Request) -> Response:
        visitor = await self._visitors.of(request, self._stages(f.ACCOUNT_PAGE))
        return self._rendering.page(request, visitor, "register.html", **_fields(_next_of(request)))

    async def _register(self, request: Request) -> Response:
        stages = self._stages(f.ACCOUNT_PAGE)
        visitor = await self._visitors.of(request, stages)
        form = await self._visitors.form(request, visitor)
        asked, faults = registration_of(form)
        status = 422
        if not faults:
            try:
                buyer, token = await self._accounts.register(asked.email, asked.name, asked.password, stages)
            except AddressTaken as error:
                faults["email"] = " ".join(Problem.of(error.kind, error.status))
                status = error.status
            else:
                return self._go_on(request, form, self._visitors.logged_in(buyer, token), "?notice=welcome")
        values = _fields(_own(form.get("next", "")), email=asked.email, name=asked.name, faults=faults)
        return self._rendering.page(request, visitor, "register.html", status, **values)

    async def _logging_in(self, request: Request) -> Response:
        visitor = await self._visitors.of(request, self._stages(f.ACCOUNT_PAGE))
        return self._rendering.page(request, visitor, "login.html", **_fields(_next_of(request)))

    async def _log_in(self, request: Request) -> Response:
        stages = self._stages(f.ACCOUNT_PAGE)
        visitor = await self._visitors.of(request, stages)
        form = await self._visitors.form(request, visitor)
        email, password = login_of(form)
        try:
            buyer, token = await self._accounts.log_in(email, password, stages)
        except WrongLogin as error:
            faults = {"form": " ".join(Problem.of(error.kind, error.status))}
            values = _fields(_own(form.get("next", "")), email=email, faults=faults)
            return self._rendering.page(request, visitor, "login.html", error.status, **values)
        return self._go_on(request, form, self._visitors.logged_in(buyer, token))

    def _go_on(self, request: Request, form: dict[str, str], visitor: Visitor, notice: str = "") -> Response:
        answer = _to(_own(form.get("next", "")) + notice)
        self._visitors.set_cookie(request, answer, visitor)
        return answer

    async def _log_out(self, request: Request) -> Response:
        visitor = self._visitors.stranger(request)
        await self._visitors.form(request, visitor)
        await self._accounts.log_out(visitor.token, self._stages(f.ACCOUNT_PAGE))
        answer = _to("/?notice=logged_out")
        self._visitors.set_cookie(request, answer, self._visitors.nobody())
        return answer

    # --- cart and checkout --------------------------------------------------------------------------------------------

    async def _buyer(self, request: Request, stages: Stages) -> tuple[Visitor, Buyer]:
        visitor = await self._visitors.of(request, stages)
        if visitor.buyer is None:
            raise NotLoggedIn
        return visitor, visitor.buyer

    async def _cart(self, request: Request) -> Response:
        stages = self._stages(f.CART_PAGE)
        visitor, buyer = await self._buyer(request, stages)
        cart = await self._holds.cart(buyer.handle, stages)
        return self._rendering.page(request, visitor, "cart.html", cart=cart, problem=None)

    async def _remove(self, request: Request) -> Response:
        stages = self._stages(f.CART_PAGE)
        visitor, buyer = await self._buyer(request, stages)
        await self._visitors.form(request, visitor)
        hold_id = number_of(request.path_params["hold_id"], _LARGEST_ID)
        if hold_id is None:
            raise UnknownHold
        await self._holds.give_back_one(buyer.handle, hold_id, stages)
        return _to("/shop/cart?notice=removed")

    async def _checking_out(self, request: Request) -> Response:
        visitor, buyer = await self._buyer(request, self._stages(f.CHECKOUT_PAGE))
        return await self._show_checkout(request, visitor, buyer)

    async def _show_checkout(
        self, request: Request, visitor: Visitor, buyer: Buyer, status: int = 200, problem: Problem | None = None
    ) -> Response:
        cart = await self._holds.cart(buyer.handle, self._stages(f.CHECKOUT_PAGE))
        if not cart.held or problem is not None:
            return self._rendering.page(request, visitor, "cart.html", status, cart=cart, problem=problem)
        # A payment that was begun and not finished is gone on with: under its own key nothing is paid twice.
        begun = next((each.paid_with for each in cart.held if each.paid_with), None)
        paid = tuple(each for each in cart.held if each.paid_with == begun)
        return self._rendering.page(
            request, visitor, "checkout.html", cart=cart, paid=paid, begun=begun, key=begun or secrets.token_hex(16),
        )  # fmt: skip

    async def _check_out(self, request: Request) -> Response:
        stages = self._stages(f.CHECKOUT_PAGE)
        visitor, buyer = await self._buyer(request, stages)
        form = await self._visitors.form(request, visitor)
        key = form.get("key", "")
        if _KEY.fullmatch(key) is None:
            raise BadForm
        try:
            await self._checkouts.pay(buyer.handle, key, stages)
        except (EmptyCart, BeingPaid, HoldExpired, PaymentDeclined) as error:
            problem = Problem.of(error.kind, error.status)
            return await self._show_checkout(request, visitor, buyer, error.status, problem)
        return _to("/shop/tickets?notice=bought")

    # --- tickets and the gate -----------------------------------------------------------------------------------------

    async def _tickets(self, request: Request) -> Response:
        stages = self._stages(f.TICKETS_PAGE)
        visitor, buyer = await self._buyer(request, stages)
        tickets = await self._checkouts.tickets(buyer.handle, stages)
        return self._rendering.page(request, visitor, "tickets.html", tickets=tickets)

    async def _ticket(self, request: Request) -> Response:
        stages = self._stages(f.TICKETS_PAGE)
        visitor, buyer = await self._buyer(request, stages)
        ticket_id = number_of(request.path_params["ticket_id"], _LARGEST_ID)
        ticket = None if ticket_id is None else await self._checkouts.ticket(buyer.handle, ticket_id, stages)
        if ticket is None:
            raise UnknownTicket
        return self._rendering.page(request, visitor, "ticket.html", ticket=ticket)

    async def _at_gate(self, request: Request) -> Response:
        visitor = await self._visitors.of(request, self._stages(f.GATE_PAGE))
        return self._rendering.page(request, visitor, "gate.html", code="", admission=None, unknown=False)

    async def _validate(self, request: Request) -> Response:
        visitor = await self._visitors.of(request, self._stages(f.GATE_PAGE))
        form = await self._visitors.form(request, visitor)
        code = form.get("code", "").strip()
        admission = None
        if _CODE.fullmatch(code):
            try:
                admission = await self._gate.validate(code.upper())
            except UnknownTicket:
                admission = None
        shown: dict[str, Any] = {"code": code[:64], "admission": admission, "unknown": admission is None}
        return self._rendering.page(request, visitor, "gate.html", 200 if admission else 404, **shown)


def _to(where: str) -> Response:
    return RedirectResponse(where, 303)


def _own(where: str) -> str:
    return where if _OWN_PAGE.fullmatch(where) else "/"


def _next_of(request: Request) -> str:
    return _own(request.query_params.get("next", ""))


def _fields(following: str, *, email: str = "", name: str = "", faults: dict[str, str] | None = None) -> dict[str, Any]:
    return {"following": following, "email": email, "name": name, "faults": faults or {}}
