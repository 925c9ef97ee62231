"""What a buyer uses: the pages and the JSON interface as one application, and how both say what went wrong."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from http import HTTPStatus
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Scope

from target_app import figures as f
from target_app.api.document import document_route
from target_app.api.endpoints import api_router
from target_app.endpoints import refuse, refuse_input
from target_app.errors import NotLoggedIn, SaleError
from target_app.site.pages import Pages
from target_app.tokens import Tokens

if TYPE_CHECKING:
    from target_app.app import Sale

# Paths that do alike are counted together: what differs between them is said by method and status.
_COUNTED_AS = {
    "/api/sessions/current": f.SESSIONS,
    "/api/cart/holds/{hold_id}": f.HOLDS,
    "/api/tickets/{ticket_id}": f.TICKETS,
    "/shop/register": f.ACCOUNT_PAGE,
    "/shop/login": f.ACCOUNT_PAGE,
    "/shop/logout": f.ACCOUNT_PAGE,
    "/shop/matches/{match_id:int}": f.MATCH_PAGE,
    "/shop/matches/{match_id:int}/holds": f.CART_PAGE,
    "/shop/cart/holds/{hold_id:int}/removal": f.CART_PAGE,
    "/shop/tickets/{ticket_id:int}": f.TICKETS_PAGE,
}


def make_shop(sale: "Sale", sale_routes: Sequence[BaseRoute]) -> ASGIApp:
    """Return the application; its figures are exported from here on. Called once, on any thread."""
    sale.figures.open_shop(_COUNTED_AS)
    tokens = Tokens(sale.settings)
    pages = Pages(sale, tokens)
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    interface = api_router(sale, tokens)
    app.include_router(interface)
    app.router.routes += [document_route([*sale_routes, *interface.routes]), *pages.routes()]
    all_routes = [*interface.routes, *app.router.routes]

    async def trouble(request: Request, error: Exception) -> Response:
        if pages.wanted(request):
            return await pages.trouble(request, error)
        answer = await refuse(request, error)
        if isinstance(error, NotLoggedIn):
            answer.headers["WWW-Authenticate"] = "Bearer"
        return answer

    async def astray(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise TypeError(f"not a fault of the address: {error!r}") from error
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            # The router names the methods of one route only, and a path may have several.
            allowed = {method for route in all_routes for method in _methods_at(route, request.scope)}
            error = HTTPException(error.status_code, headers={"Allow": ", ".join(sorted(allowed))})
        if pages.wanted(request):
            return await pages.trouble(request, error)
        kind = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
        return JSONResponse({"error": kind}, error.status_code, error.headers)

    app.add_exception_handler(SaleError, trouble)
    app.add_exception_handler(HTTPException, astray)
    app.add_exception_handler(RequestValidationError, refuse_input)
    return app


def _methods_at(route: BaseRoute, scope: Scope) -> AbstractSet[str]:
    """Return the methods that the route takes at this path; none where it is another's."""
    if not isinstance(route, Route) or route.matches(scope)[0] is Match.NONE:
        return frozenset()
    return route.methods or frozenset()
