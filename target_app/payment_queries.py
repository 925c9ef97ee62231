"""The statements of purchases' payments; see ``hold_queries`` for how they are written."""

from typing import Final

from sqlalchemy import text

# Another try of the same purchase takes over, unless the payment is decided or somebody else's; then there is no row.
begin: Final = text(
    "INSERT INTO payments (key, match_id, buyer, amount_pence, state, attempt, ends_at)"
    " VALUES (:with_key, :for_match, :for_buyer, :amount, 'paying', 1, now() + make_interval(secs => :at_most_s))"
    " ON CONFLICT (key) DO UPDATE SET attempt = payments.attempt + 1, ends_at = excluded.ends_at"
    " WHERE payments.state = 'paying' AND payments.match_id = excluded.match_id AND payments.buyer = excluded.buyer"
    " RETURNING attempt, amount_pence"
)
of_key: Final = text("SELECT match_id, buyer, state FROM payments WHERE key = :with_key")
# In the transaction that sells: from here to its commit nobody else can decide about this payment.
paid: Final = text("UPDATE payments SET state = 'paid' WHERE key = :with_key AND state = 'paying' RETURNING attempt")

# What purchases have let go of, many at a time. Whoever tries again under the same key has raised the attempt, and whom
# a transaction is just deciding about is passed by: it will come to its end without us.
_LET_GO: Final = (
    "WITH gone AS (SELECT p.key FROM payments p"
    " JOIN unnest(CAST(:keys AS text[]), CAST(:attempts AS integer[])) AS each(key, attempt)"
    " ON p.key = each.key AND p.attempt = each.attempt"
    " WHERE p.state = 'paying' ORDER BY p.key FOR UPDATE OF p SKIP LOCKED)"
)
declined: Final = text(
    f"{_LET_GO} UPDATE payments SET state = 'declined' FROM gone WHERE payments.key = gone.key RETURNING payments.key"
)
let_go: Final = text(
    f"{_LET_GO} UPDATE payments SET state = 'refunding', ends_at = now() FROM gone WHERE payments.key = gone.key"
    " RETURNING payments.key"
)
# For whoever refunds them within ``lease_s``; after that they are there for others, or for another try.
to_refund: Final = text(
    "WITH due AS (SELECT key FROM payments WHERE state IN ('paying', 'refunding') AND ends_at <= now()"
    " ORDER BY ends_at LIMIT :at_most FOR UPDATE SKIP LOCKED)"
    " UPDATE payments SET state = 'refunding', ends_at = now() + make_interval(secs => :lease_s)"
    " FROM due WHERE payments.key = due.key RETURNING payments.key"
)
refunded: Final = text(
    "UPDATE payments SET state = 'refunded' WHERE key = ANY(CAST(:keys AS text[])) AND state = 'refunding'"
    " RETURNING key"
)
