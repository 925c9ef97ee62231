"""The purchase route without the framework: ``purchase_route=lean``.

Takes the purchases that are beyond doubt and passes everything else on to FastAPI's own route: a path, a header or a
body that is only nearly right is judged, and refused in words, there. What is accepted here must be accepted there
and mean the same; the tests hold the two together.
"""

import json
import re
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from target_app.answers import purchased, trouble
from target_app.errors import SaleError
from target_app.figures import PURCHASE
from target_app.locking import Order
from target_app.purchases import Till

# Nine digits are within the column's bounds. FastAPI knows other ways to write a number.
_PATH: Final = re.compile(r"/matches/([1-9][0-9]{0,8})/purchases")
_KEY: Final = re.compile(rb"[\x21-\x7e]{1,200}")
_BUYER: Final = re.compile("[^\x00-\x1f\x7f\ud800-\udfff]{1,200}")
_LONGEST_BODY: Final = 4096
_JSON_HEADER: Final = (b"content-type", b"application/json")


class _Route:
    """What the middleware asks of the route that a request has found."""

    path: Final = PURCHASE


_ROUTE: Final = _Route()


class LeanPurchases:
    """Sells where the request is plainly a purchase; ``otherwise`` gets every other request."""

    def __init__(self, otherwise: ASGIApp, till: Till) -> None:
        self._otherwise = otherwise
        self._till = till

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] != "POST" or (path := _PATH.fullmatch(scope["path"])) is None:
            await self._otherwise(scope, receive, send)
            return
        read, body = await _read(receive)
        order = None if body is None else _order(path[1], scope["headers"], body)
        if order is None:
            await self._otherwise(scope, _again(read, receive), send)
            return
        scope["route"] = _ROUTE
        more: list[tuple[bytes, bytes]] = []
        try:
            status, body, more = purchased(await self._till.purchase(order))
        except SaleError as error:
            status, body, more = trouble(error)
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": status, "headers": [length, _JSON_HEADER, *more]})
        await send({"type": "http.response.body", "body": body})


async def _read(receive: Receive) -> tuple[list[Message], bytes | None]:
    """Return the messages that were read, and the body; None for one that is too long or was broken off."""
    read: list[Message] = []
    body = b""
    while len(body) <= _LONGEST_BODY:
        message = await receive()
        read.append(message)
        if message["type"] != "http.request":
            break
        body += message.get("body", b"")
        if not message.get("more_body"):
            return read, body if len(body) <= _LONGEST_BODY else None
    return read, None


def _order(match_id: str, headers: list[tuple[bytes, bytes]], body: bytes) -> Order | None:
    """Return what is asked for, None where that is not beyond doubt."""
    key = content_type = None
    for name, value in headers:
        if name == b"idempotency-key":
            if key is not None:
                return None
            key = value
        elif name == b"content-type":
            if content_type is not None:
                return None
            content_type = value
    if key is None or content_type != b"application/json" or _KEY.fullmatch(key) is None:
        return None
    buyer = _buyer(body)
    return None if buyer is None else Order(int(match_id), buyer, key.decode())


def _buyer(body: bytes) -> str | None:
    try:
        asked: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if type(asked) is not dict or len(asked) != 1:
        return None
    buyer = asked.get("buyer")
    return buyer if type(buyer) is str and _BUYER.fullmatch(buyer) is not None else None


def _again(read: list[Message], receive: Receive) -> Receive:
    """Return a ``receive`` that begins with what has been read already."""
    messages = iter(read)

    async def receive_again() -> Message:
        message = next(messages, None)
        return await receive() if message is None else message

    return receive_again
