"""The answers of a purchase as they are sent, the same whichever route has taken it."""

import json
from typing import Final

from target_app.errors import RETRY_AFTER_S, SaleError, Unavailable
from target_app.locking import Ticket

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


def trouble(error: SaleError) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    """Return status, body and further headers of a request that did not end in success."""
    return (
        error.status,
        json.dumps({"error": error.kind}).encode(),
        [_RETRY] if isinstance(error, Unavailable) else [],
    )
