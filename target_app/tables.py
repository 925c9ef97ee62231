"""The tables.

The ledger audit reads ``matches(id, capacity, stock)``, ``tickets(id, match_id, idempotency_key)`` and
``holds(match_id, idempotency_key, going_back)``, and what is paid and settled from ``payments`` and ``checkouts``.

There is no foreign key from tickets to matches on purpose: its check would lock the hot match's row once more for each
ticket, also under ``locking=redis``, which exists to leave that row alone. Every purchase has read its match anyway.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

metadata = MetaData()

matches: Final = Table(
    "matches",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("home", Text, nullable=False),
    Column("away", Text, nullable=False),
    Column("venue", Text, nullable=False),
    Column("kickoff", DateTime(timezone=True), nullable=False),
    Column("price_pence", Integer, nullable=False),
    Column("on_sale", Boolean, nullable=False),
    Column("capacity", Integer, nullable=False),  # never changes
    Column("stock", Integer, nullable=False),  # the counter; locking=redis keeps it in Redis instead
    Column("version", Integer, nullable=False, server_default="0"),  # counts changes, for locking=optimistic
)

tickets: Final = Table(
    "tickets",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("match_id", Integer, nullable=False),
    Column("buyer", Text, nullable=False),
    Column("idempotency_key", Text, nullable=False, unique=True),
    Column("code", Text, nullable=False, unique=True),
    Column("price_pence", Integer, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("validated_at", DateTime(timezone=True)),
)

# A buyer with an account is ``handle`` wherever ``buyer`` stands: nobody can guess it, so nobody can buy in the name of
# somebody else through the route that takes any name.
buyers: Final = Table(
    "buyers",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("handle", Text, nullable=False, unique=True),
    Column("email", Text, nullable=False, unique=True),  # in lower case
    Column("name", Text, nullable=False),
    Column("password_hash", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

sessions: Final = Table(
    "sessions",
    metadata,
    Column("token_hash", Text, primary_key=True),  # whoever reads the table cannot log in with it
    Column("buyer_id", BigInteger, ForeignKey("buyers.id", ondelete="CASCADE"), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False, index=True),
)

# One row for each ticket in a cart: it is out of the stock, and nobody's yet. A row ends as a ticket with the same key
# or by being given back, and whoever deletes it does one of the two in the same transaction. Under locking=redis
# ``going_back`` marks it before its ticket is returned there, and it is deleted after that.
holds: Final = Table(
    "holds",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("match_id", Integer, nullable=False),
    Column("buyer", Text, nullable=False, index=True),
    Column("idempotency_key", Text, nullable=False, unique=True),
    Column("code", Text, nullable=False),
    Column("price_pence", Integer, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False, index=True),
    Column("checkout_id", BigInteger, index=True),  # the one that pays for it
    Column("going_back", Boolean, nullable=False, server_default=text("false")),
)

# A payment that is written down before it is asked for, so that whatever dies meanwhile, it is finished or refunded.
checkouts: Final = Table(
    "checkouts",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("buyer", Text, nullable=False),
    Column("request_key", Text, nullable=False),  # the client's
    Column("payment_key", Text, nullable=False, unique=True),  # the provider's
    Column("hold_keys", ARRAY(Text), nullable=False),
    Column("amount_pence", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("ends_at", DateTime(timezone=True), nullable=False),  # refunded from then on, unless it is paid
    UniqueConstraint("buyer", "request_key"),
    CheckConstraint("state IN ('paying', 'paid', 'declined', 'refunding', 'refunded')", name="checkouts_state"),
    Index("checkouts_unsettled", "ends_at", postgresql_where=text("state IN ('paying', 'refunding')")),
)

# The payment of a purchase, written down before the provider is asked, where there is one. Whoever moves it on from
# ``paying`` decides: to ``paid`` in the transaction that writes the ticket of the same key, to ``declined``, or to
# ``refunding`` and, once the provider has given back what it had, to ``refunded``.
payments: Final = Table(
    "payments",
    metadata,
    Column("key", Text, primary_key=True),  # the purchase's, and the provider's
    Column("match_id", Integer, nullable=False),
    Column("buyer", Text, nullable=False),
    Column("amount_pence", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempt", Integer, nullable=False),  # how many purchases have tried under this key
    Column("ends_at", DateTime(timezone=True), nullable=False),  # nobody is at it any more from then on
    CheckConstraint("state IN ('paying', 'paid', 'declined', 'refunding', 'refunded')", name="payments_state"),
    Index("payments_unsettled", "ends_at", postgresql_where=text("state IN ('paying', 'refunding')")),
)

HOT_MATCH: Final = 1
SEEDED_MATCH: Final = 21  # past, not on sale; holds the tickets that are there to be validated
SEEDED_TICKETS: Final = 20_000
