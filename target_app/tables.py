"""The tables. The ledger audit reads ``matches(id, capacity, stock)`` and ``tickets(id, match_id, idempotency_key)``.

There is no foreign key from tickets to matches on purpose: its check would lock the hot match's row once more for each
ticket, also under ``locking=redis``, which exists to leave that row alone. Every purchase has read its match anyway.
"""

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Identity, Integer, MetaData, Table, Text, func

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

HOT_MATCH: Final = 1
SEEDED_MATCH: Final = 21  # past, not on sale; holds the tickets that are there to be validated
SEEDED_TICKETS: Final = 20_000
