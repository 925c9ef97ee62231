"""The answers of a purchase as they are sent, the same whichever route has taken it."""

import json
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from target_app.errors import RETRY_AFTER_S, SaleError, Unavailable
from target_app.figures import PURCHASES
from target_app.locking import Accepted, Ticket

_RETRY: Final = (b"retry-after", str(RETRY_AFTER_S).encode())


def sold(ticket: Ticket) -> bytes:
    """Return the body of a 201."""
    return json.dumps(
        {
            "ticket_id": ticket.id,
            "match_id": ticket.match_id,
            "code": ticket.code,
            "idempotency_key": ticket.key,
            "price_pence": ticket.price_pence,
        }
    ).encode()


def purchased(result: Ticket | Accepted) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    """Return status, body and further headers of a purchase that was done, or accepted to be done."""
    return accepted(result) if isinstance(result, Accepted) else (HTTPStatus.CREATED, sold(result), [])


def accepted(waiting: Accepted) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    """Return status, body and further headers of a purchase that waits for a worker: where to ask for its outcome."""
    place = f"{PURCHASES}?key={quote(waiting.key, safe='')}"
    body = {"state": "queued", "idempotency_key": waiting.key, "outcome": place}
    return HTTPStatus.ACCEPTED, json.dumps(body).encode(), [(b"location", place.encode()), _RETRY]


def trouble(error: SaleError) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    """Return status, body and further headers of a request that did not end in success."""
    return (
        error.status,
        json.dumps({"error": error.kind}).encode(),
        [_RETRY] if isinstance(error, Unavailable) else [],
    )
