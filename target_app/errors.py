"""What a request can end with instead of success, each with the status and the kind that it is answered with.

One exception handler turns a :class:`SaleError` into its answer. Anything else is a bug: a 500 with its traceback in
the log.
"""

from typing import ClassVar, Final

# What a refused client should wait, in seconds. Overload here lasts for about as long as the waits that led to it.
RETRY_AFTER_S = 1


class StartupError(Exception):
    """The process cannot do what it was started for; the message is one line for whoever started it."""


class SaleError(Exception):
    """An expected end of a request. ``kind`` is the machine-readable ``error`` of the answer."""

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "error"


class UnknownMatch(SaleError):
    """No match has this number."""

    status = 404
    kind = "unknown_match"


class UnknownTicket(SaleError):
    """No ticket has this code."""

    status = 404
    kind = "unknown_ticket"


class UnknownPurchase(SaleError):
    """Nothing is known of a purchase with this key."""

    status = 404
    kind = "unknown_purchase"


class SoldOut(SaleError):
    """The stock is empty."""

    status = 409
    kind = "sold_out"


class TooFewLeft(SoldOut):
    """There are tickets left, and fewer than were asked for."""

    kind = "too_few_left"


class NotOnSale(SaleError):
    """The match exists and its tickets are not for sale."""

    status = 409
    kind = "not_on_sale"


class BuyerLimit(SaleError):
    """The buyer holds as many tickets of the match as one may."""

    status = 409
    kind = "buyer_limit"


class KeyReused(SaleError):
    """The idempotency key belongs to another buyer's or another match's purchase."""

    status = 422
    kind = "key_reused"


class NotLoggedIn(SaleError):
    """The session is missing, over, or not one of ours."""

    status = 401
    kind = "not_logged_in"


class WrongLogin(SaleError):
    """No buyer has this address together with this password; which of the two is wrong is not told."""

    status = 401
    kind = "wrong_login"


class FormExpired(SaleError):
    """A form came without the token of this visitor's session: it is old, or another site sent it."""

    status = 403
    kind = "form_expired"


class AddressTaken(SaleError):
    """A buyer has registered with this address before."""

    status = 409
    kind = "address_taken"


class UnknownHold(SaleError):
    """The cart of this buyer has no such hold: it is somebody else's, or it has been given back."""

    status = 404
    kind = "unknown_hold"


class EmptyCart(SaleError):
    """There is nothing to pay for."""

    status = 409
    kind = "empty_cart"


class BeingPaid(SaleError):
    """A payment for these tickets is under way, or was begun and has to be settled first."""

    status = 409
    kind = "being_paid"


class HoldExpired(SaleError):
    """The hold ran out before the payment was through: nothing is sold, and what was paid is given back."""

    status = 409
    kind = "hold_expired"


class PaymentDeclined(SaleError):
    """The payment was refused; the tickets stay in the cart until their hold runs out."""

    status = 402
    kind = "payment_declined"


class PaymentRefunded(PaymentDeclined):
    """What was paid under this key has been given back, or is going to be: another purchase takes another key."""

    status = 410
    kind = "payment_refunded"


class Unavailable(SaleError):
    """The sale could not decide; the client should try again with the same key. Answered with Retry-After."""

    status = 503
    kind = "unavailable"


class QueueFull(Unavailable):
    """As many purchases wait already as ``queue_limit`` lets wait."""

    kind = "queue_full"


class GivenUp(Unavailable):
    """The workers could not decide for so long that they stopped trying: the same key may be sent anew."""

    kind = "given_up"


class PoolTimeout(Unavailable):
    """No connection became free within ``pool_timeout_s``."""

    kind = "pool_timeout"


class LockTimeout(Unavailable):
    """A row stayed locked for longer than ``lock_timeout_s``."""

    kind = "lock_timeout"


class Conflict(Unavailable):
    """Others changed the same row each time, or the same key's purchase is still under way."""

    kind = "conflict"


class DatabaseError(Unavailable):
    """PostgreSQL is gone, overloaded or too slow."""

    kind = "database_error"


class PasswordsBusy(Unavailable):
    """More log-ins wait for the hashing of a password than are let wait."""

    kind = "passwords_busy"


class PaymentUnclear(Unavailable):
    """The payment provider is gone or too slow: nobody knows whether it charged, and the same key will tell."""

    kind = "payment_unclear"


class TooManyConnections(Unavailable):
    """PostgreSQL has no connection left: its ``max_connections`` are in use."""

    kind = "max_connections"


class RedisError(Unavailable):
    """Redis is gone or too slow."""

    kind = "redis_error"


# What a queued purchase can have ended with, by kind: what was written down of it is raised again to whoever asks.
REFUSALS: Final[dict[str, type[SaleError]]] = {
    error.kind: error
    for error in (
        UnknownMatch,
        SoldOut,
        NotOnSale,
        BuyerLimit,
        KeyReused,
        PaymentDeclined,
        PaymentRefunded,
        GivenUp,
    )
}
