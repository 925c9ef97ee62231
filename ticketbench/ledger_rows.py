"""What is held against each other after a load: purchases that k6 saw acknowledged, and what the stores hold."""

from typing import Literal, NamedTuple


class Ack(NamedTuple):
    """A purchase that k6 saw acknowledged (201). An hour has millions of them: no more than a tuple.

    ``ticket_id`` 0: it was accepted to be done later (202), and what it came to may be told by another one.
    """

    at_s: float
    match_id: int
    key: str
    ticket_id: int


LedgerKind = Literal[
    "capacity", "stock", "ticket", "held", "redis_stock", "redis_taken", "queued", "refused",
    "provider", "charge", "refund", "paid_with", "unsettled",
]  # fmt: skip


class LedgerRow(NamedTuple):
    """A line of what database and Redis hold after a trial.

    ``capacity``: tickets of a match for sale at the trial's start (``quantity``). ``stock``: what its counter says now.
    ``ticket``: one sold ticket (``ticket_id``, ``key``). ``held``: one in a cart, out of the stock and not sold, which
    becomes a ticket with the same ``key`` or goes back. ``redis_stock``: the counter in Redis. ``redis_taken``: a key
    that Redis holds a taken ticket for. ``queued``: a purchase that still waits for a worker, ``refused``: one that
    waited and got no ticket.

    Of a trial with a payment provider: ``provider``: that there was one, and what all tickets sold cost (``quantity``,
    pence). ``charge``, ``refund``: what it charged and gave back (``key``, ``quantity`` in pence). ``paid_with``: the
    key (``key``) that a ticket (``ticket_id``) was paid under, where it is not its own. ``unsettled``: a key whose
    payment the sale had no time to end. These belong to no match (0).

    Rows of other kinds leave ``key`` empty and ``ticket_id`` 0.
    """

    kind: LedgerKind
    match_id: int
    quantity: int = 1
    ticket_id: int = 0
    key: str = ""
