"""Who looks at a page, and whether what a form brings was sent from one of ours."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response

from target_app.accounts import Buyer, new_token
from target_app.errors import FormExpired, SaleError
from target_app.figures import Stages
from target_app.tokens import Tokens

if TYPE_CHECKING:
    from target_app.app import Sale

COOKIE: Final = "sale_session"
FORM_TOKEN: Final = "form_token"  # noqa: S105  (the field's name)
_LONGEST_FORM: Final = 16_384


class BadForm(SaleError):
    """What came is no form of ours: too long, not the type, not text."""

    status = 400
    kind = "bad_request"


@dataclass(frozen=True)
class Visitor:
    """Whoever looks at a page. ``fresh``: the cookie has still to be set.

    ``buyer`` None: not logged in, where it was ``looked_up``; else nobody knows.
    """

    token: str
    form_token: str
    buyer: Buyer | None = None
    fresh: bool = False
    looked_up: bool = False


class Visitors:
    """Tells visitors by their cookie. It is signed, and no script and no form of another site gets at it."""

    def __init__(self, sale: "Sale", tokens: Tokens) -> None:
        self._accounts = sale.accounts
        self._tokens = tokens
        self._ttl_s = sale.settings.session_ttl_s

    def _new(self, token: str, buyer: Buyer | None = None) -> Visitor:
        return Visitor(token, self._tokens.form_token(token), buyer, fresh=True, looked_up=True)

    def stranger(self, request: Request) -> Visitor:
        """Return who it is as far as it can be told without the database: nobody's name."""
        token = self._tokens.token_of(request.cookies.get(COOKIE))
        return self._new(new_token()) if token is None else Visitor(token, self._tokens.form_token(token))

    async def of(self, request: Request, stages: Stages) -> Visitor:
        """Return who it is. Raises Unavailable."""
        visitor = self.stranger(request)
        if visitor.fresh:
            return visitor
        return replace(visitor, buyer=await self._accounts.buyer_of(visitor.token, stages), looked_up=True)

    def logged_in(self, buyer: Buyer, token: str) -> Visitor:
        """Return the visitor under the new token: one that was set before the log-in is never taken over."""
        return self._new(token, buyer)

    def nobody(self) -> Visitor:
        """Return a visitor whom nothing is known of."""
        return self._new(new_token())

    async def form(self, request: Request, visitor: Visitor) -> dict[str, str]:
        """Return a form's fields, the first of each name. Raises BadForm, and FormExpired for another session's."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded":
            raise BadForm
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _LONGEST_FORM:
                raise BadForm
        try:
            read = parse_qs(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=20)
        except ValueError:
            raise BadForm from None
        fields = {name: values[0] for name, values in read.items()}
        if visitor.fresh or not self._tokens.is_form_token(visitor.token, fields.get(FORM_TOKEN, "")):
            raise FormExpired
        return fields

    def set_cookie(self, request: Request, response: Response, visitor: Visitor) -> None:
        """Have the browser keep the visitor's token, if it does not yet."""
        if visitor.fresh:
            response.set_cookie(
                COOKIE,
                self._tokens.signed(visitor.token),
                max_age=self._ttl_s,
                path="/",
                secure=request.url.scheme == "https",
                httponly=True,
                samesite="lax",
            )
