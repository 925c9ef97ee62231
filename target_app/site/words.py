"""How figures, times and refusals are said on the pages."""

import math
from datetime import UTC, datetime
from typing import Final

# By the kind of a refusal: a heading and what to do about it.
REFUSALS: Final[dict[str, tuple[str, str]]] = {
    "unknown_match": ("No such match", "It may have been a mistyped address."),
    "unknown_ticket": ("No such ticket", "There is no ticket of yours at this address."),
    "unknown_hold": ("Not in your cart", "This ticket is not in your cart any more."),
    "not_found": ("Page not found", "There is nothing at this address."),
    "method_not_allowed": ("That does not work here", "This address does not take that kind of request."),
    "sold_out": ("Sold out", "The last ticket is gone. Tickets that stay unpaid in a cart come back on sale."),
    "too_few_left": ("Not so many left", "There are fewer tickets left than you asked for. Try a smaller number."),
    "not_on_sale": ("Not on sale", "Tickets for this match are not being sold."),
    "buyer_limit": (
        "That is the limit",
        "You have as many tickets of this match as one person may have, those in your cart included.",
    ),
    "address_taken": ("Registered already", "Somebody has registered with this address. Is it you? Then log in."),
    "wrong_login": ("That did not work", "Address and password do not belong together."),
    "form_expired": ("This form is too old", "Nothing was done. Go back, load the page again and send it once more."),
    "empty_cart": ("Nothing to pay for", "Your cart is empty."),
    "being_paid": ("A payment is under way", "These tickets are being paid for. Try again in a minute."),
    "hold_expired": (
        "Too late",
        "The tickets went back on sale before the payment was through. You were not charged.",
    ),
    "payment_declined": ("Payment declined", "You were not charged. The tickets are still in your cart."),
    "unavailable": ("Very busy just now", "The sale could not answer in time. Please try again in a moment."),
    "bad_request": ("That was not understood", "The form did not arrive as it was sent. Please try again."),
}
# What a page says after something worked; it is named in the address by its key, so that nobody can put words there.
NOTICES: Final[dict[str, str]] = {
    "held": "The tickets are in your cart.",
    "removed": "The ticket is back on sale.",
    "bought": "Thank you. The tickets are yours.",
    "welcome": "Welcome! Your account is ready.",
    "logged_out": "You are logged out.",
}


def refusal(kind: str, status: int) -> tuple[str, str]:
    """Return heading and text of a refusal."""
    return REFUSALS.get(kind) or REFUSALS["unavailable" if status == 503 else "bad_request"]


def money(pence: int) -> str:
    """Return ``£27.50``."""
    return f"£{pence // 100:,}.{pence % 100:02d}"


def day(at: datetime) -> str:
    """Return ``Saturday 14 August 2027``."""
    return f"{at.astimezone(UTC):%A} {at.astimezone(UTC).day} {at.astimezone(UTC):%B %Y}"


def clock(at: datetime) -> str:
    """Return ``15:00 UTC``."""
    return f"{at.astimezone(UTC):%H:%M} UTC"


def left(seconds: float) -> str:
    """Return how long at most: ``10 minutes``, ``40 seconds``."""
    whole = math.ceil(seconds)
    return _many(math.ceil(whole / 60), "minute") if whole > 60 else _many(whole, "second")


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def tickets(count: int) -> str:
    """Return ``1 ticket``, ``2 tickets``."""
    return f"{count:,} ticket{'' if count == 1 else 's'}"
