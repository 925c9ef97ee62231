"""The routes for a buyer's own program: a session's token in a header, JSON in and out."""

from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Path, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from target_app import figures as f
from target_app.accounts import Buyer
from target_app.api.models import (
    Cart,
    Fault,
    Hold,
    Holding,
    InputFault,
    Login,
    Registration,
    Session,
    Ticket,
    Tickets,
    Wish,
)
from target_app.checkout import Owned
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
    TooFewLeft,
    UnknownHold,
    UnknownMatch,
    UnknownTicket,
    WrongLogin,
)
from target_app.tokens import Tokens

if TYPE_CHECKING:
    from target_app.app import Sale

_BEARER: Final = HTTPBearer(
    auto_error=False, scheme_name="session", description="The token that registering or logging in has answered with."
)
_Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
BigId = Annotated[int, Path(ge=1, le=9_223_372_036_854_775_807)]
RequestKey = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[\x21-\x7e]{1,200}$",
        description="Yours to choose, a new one for each payment; the same again is answered with the same tickets.",
    ),
]
_UNAVAILABLE: Final = (
    "The sale could not decide: no connection, lock or answer within its time-out."
    " Try again after `Retry-After` seconds."
)


def faults(*errors: type[SaleError]) -> dict[int | str, dict[str, Any]]:
    """Return the descriptions of these refusals, with an example for each, and of those that any request may get."""
    found: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        entry = found.setdefault(
            error.status, {"model": Fault, "description": "", "content": {"application/json": {"examples": {}}}}
        )
        entry["description"] = f"{entry['description']} {(error.__doc__ or '').strip()}".strip()
        entry["content"]["application/json"]["examples"][error.kind] = {"value": {"error": error.kind}}
    return {
        **found,
        422: {"model": InputFault, "description": "The input is not what is described here; every fault is named."},
        503: {
            "model": Fault,
            "description": _UNAVAILABLE,
            "headers": {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}},
            "content": {"application/json": {"examples": {"pool_timeout": {"value": {"error": "pool_timeout"}}}}},
        },
    }


def api_router(sale: "Sale", tokens: Tokens) -> APIRouter:
    """Return the routes."""
    router = APIRouter()
    _accounts(router, sale, tokens)
    _carts(router, sale, tokens)
    _tickets(router, sale, tokens)
    return router


def _buyer_for(sale: "Sale", tokens: Tokens, route: str) -> Any:
    """Return the dependency that finds out who asks; its time goes to the route's stages."""
    stages = sale.figures.routes[route].stages

    async def buyer(credentials: _Credentials) -> Buyer:
        token = tokens.token_of(credentials.credentials) if credentials else None
        found = await sale.accounts.buyer_of(token, stages) if token else None
        if found is None:
            raise NotLoggedIn
        return found

    return Depends(buyer)


def _accounts(router: APIRouter, sale: "Sale", tokens: Tokens) -> None:
    accounts, routes = sale.accounts, sale.figures.routes
    registering, sessions = routes[f.BUYERS].stages, routes[f.SESSIONS].stages

    def session(buyer: Buyer, token: str) -> Session:
        return Session(token=tokens.signed(token), name=buyer.name, email=buyer.email)

    @router.post(f.BUYERS, status_code=201, responses=faults(AddressTaken), tags=["account"])
    async def register(body: Registration) -> Session:
        """Register, and log in."""
        password = body.password.get_secret_value()
        return session(*await accounts.register(body.email, body.name.strip(), password, registering))

    @router.post(f.SESSIONS, status_code=201, responses=faults(WrongLogin), tags=["account"])
    async def log_in(body: Login) -> Session:
        """Log in. Whether the address or the password is wrong is not told."""
        return session(*await accounts.log_in(body.email, body.password.get_secret_value(), sessions))

    buyer = _buyer_for(sale, tokens, f.SESSIONS)

    @router.delete(
        "/api/sessions/current", status_code=204, responses=faults(NotLoggedIn), tags=["account"], dependencies=[buyer]
    )
    async def log_out(credentials: _Credentials) -> Response:
        """Log out: the token is worth nothing any more."""
        token = tokens.token_of(credentials.credentials) if credentials else None
        if token:
            await accounts.log_out(token, sessions)
        return Response(status_code=204)


def _carts(router: APIRouter, sale: "Sale", tokens: Tokens) -> None:
    holds, routes = sale.holds, sale.figures.routes
    in_cart, holding, paying = (routes[route].stages for route in (f.CART, f.HOLDS, f.CHECKOUTS))
    looking, taking = _buyer_for(sale, tokens, f.CART), _buyer_for(sale, tokens, f.HOLDS)
    buying = _buyer_for(sale, tokens, f.CHECKOUTS)

    @router.get(f.CART, responses=faults(NotLoggedIn), tags=["cart"])
    async def cart(buyer: Annotated[Buyer, looking]) -> Cart:
        """Show what is in your cart, and until when."""
        found = await holds.cart(buyer.handle, in_cart)
        return Cart(
            holds=tuple(
                Hold(
                    hold_id=each.id,
                    match_id=each.match_id,
                    home=each.home,
                    away=each.away,
                    venue=each.venue,
                    kickoff=each.kickoff,
                    price_pence=each.price_pence,
                    expires_at=each.expires_at,
                    being_paid=each.paid_with is not None,
                )
                for each in found.held
            ),
            total_pence=found.total_pence,
            expired=found.expired,
        )

    @router.delete(f.CART, status_code=204, responses=faults(NotLoggedIn), tags=["cart"])
    async def abandon(buyer: Annotated[Buyer, looking]) -> Response:
        """Give everything in your cart back, except for what is being paid."""
        await holds.give_back_all(buyer.handle, in_cart)
        return Response(status_code=204)

    refusals = faults(NotLoggedIn, UnknownMatch, SoldOut, TooFewLeft, NotOnSale, BuyerLimit)

    @router.post(f.HOLDS, status_code=201, responses=refusals, tags=["cart"])
    async def hold(body: Wish, buyer: Annotated[Buyer, taking]) -> Holding:
        """Put tickets into your cart, all or none: they are yours to pay for until `expires_at`."""
        held = await holds.take(buyer.handle, body.match_id, body.quantity, holding)
        return Holding(hold_ids=held.ids, expires_at=held.expires_at)

    @router.delete(
        "/api/cart/holds/{hold_id}",
        status_code=204,
        responses=faults(NotLoggedIn, UnknownHold, BeingPaid),
        tags=["cart"],
    )
    async def give_back(hold_id: BigId, buyer: Annotated[Buyer, taking]) -> Response:
        """Take one ticket out of your cart."""
        await holds.give_back_one(buyer.handle, hold_id, holding)
        return Response(status_code=204)

    refusals = faults(NotLoggedIn, PaymentDeclined, EmptyCart, BeingPaid, HoldExpired)

    @router.post(f.CHECKOUTS, status_code=201, responses=refusals, tags=["cart"])
    async def check_out(request_key: RequestKey, buyer: Annotated[Buyer, buying]) -> Tickets:
        """Pay for what is in your cart: all of it becomes tickets, or nothing does and nothing is paid."""
        return _shown(await sale.checkouts.pay(buyer.handle, request_key, paying))


def _tickets(router: APIRouter, sale: "Sale", tokens: Tokens) -> None:
    stages = sale.figures.routes[f.TICKETS].stages
    looking = _buyer_for(sale, tokens, f.TICKETS)

    @router.get(f.TICKETS, responses=faults(NotLoggedIn), tags=["tickets"])
    async def tickets(buyer: Annotated[Buyer, looking]) -> Tickets:
        """Show your tickets, at most 500."""
        return _shown(await sale.checkouts.tickets(buyer.handle, stages))

    @router.get("/api/tickets/{ticket_id}", responses=faults(NotLoggedIn, UnknownTicket), tags=["tickets"])
    async def ticket(ticket_id: BigId, buyer: Annotated[Buyer, looking]) -> Ticket:
        """Show one of your tickets."""
        found = await sale.checkouts.ticket(buyer.handle, ticket_id, stages)
        if found is None:
            raise UnknownTicket
        return _ticket(found)


def _shown(owned: tuple[Owned, ...]) -> Tickets:
    return Tickets(tickets=tuple(map(_ticket, owned)))


def _ticket(owned: Owned) -> Ticket:
    return Ticket(
        ticket_id=owned.id,
        match_id=owned.match_id,
        home=owned.home,
        away=owned.away,
        venue=owned.venue,
        kickoff=owned.kickoff,
        price_pence=owned.price_pence,
        code=owned.code,
        bought_at=owned.bought_at,
        validated_at=owned.validated_at,
    )
