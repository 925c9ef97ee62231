"""The statements of carts, checkouts and accounts: as text, since most of them do several things as one.

Like those of ``queries.py`` they are made once for both data layers. Constants stand in the text, times are
PostgreSQL's, and each returns rows, since SQLAlchemy has none to give where a statement has none.
"""

from typing import Final

from sqlalchemy import TextClause, text

# --- holds ------------------------------------------------------------------------------------------------------------

# Whatever a buyer's own requests do to a cart, they do one after another. Not the key: sessions refer to it.
lock_buyer: Final = text("SELECT id FROM buyers WHERE handle = :for_buyer FOR NO KEY UPDATE")

hold_view: Final = text(
    "SELECT price_pence, stock, version, on_sale,"
    " (SELECT count(*) FROM tickets WHERE tickets.buyer = :for_buyer AND tickets.match_id = :for_match)"
    " + (SELECT count(*) FROM holds WHERE holds.buyer = :for_buyer AND holds.match_id = :for_match"
    " AND NOT holds.going_back) AS held"
    " FROM matches WHERE id = :for_match"
)


def _hold(taking: str) -> TextClause:
    """Return one statement that takes from the stock and, only if it took, writes the holds; no row: not taken."""
    return text(
        f"WITH taken AS ({taking})"
        " INSERT INTO holds (match_id, buyer, idempotency_key, code, price_pence, expires_at)"
        " SELECT taken.id, CAST(:for_buyer AS text), each.key, each.code, CAST(:at_price AS integer),"
        " now() + make_interval(secs => :ttl_s)"
        " FROM taken, unnest(CAST(:keys AS text[]), CAST(:codes AS text[])) AS each(key, code)"
        " RETURNING id, expires_at"
    )


_LESS: Final = "UPDATE matches SET stock = stock - :quantity, version = version + 1 WHERE id = :for_match"

hold: Final = _hold(f"{_LESS} AND stock >= :quantity RETURNING id")
hold_if_unchanged: Final = _hold(f"{_LESS} AND stock >= :quantity AND version = :seen_version RETURNING id")
# The race, on purpose: see queries.sell_blindly.
hold_blindly: Final = _hold("UPDATE matches SET stock = :stock_left WHERE id = :for_match RETURNING id")
write_holds: Final = _hold("SELECT CAST(:for_match AS integer) AS id")

# Which holds are given back. A payment that is under way keeps its tickets until their time is over, whoever asks.
_DUE: Final = "expires_at <= now()"
_ONE: Final = "id = :hold AND buyer = :for_buyer AND checkout_id IS NULL AND NOT going_back"
_ALL: Final = "buyer = :for_buyer AND checkout_id IS NULL AND NOT going_back"
# A statement that gives back does so for one match, so that two of them cannot lock rows of matches crosswise.
AT_MOST: Final = 500


def _chosen(which: str, *, passing: bool) -> str:
    """Return the choice of some holds of a match, locked; ``passing``: without those that somebody else is at."""
    skipping = " SKIP LOCKED" if passing else ""
    return (
        f"chosen AS (SELECT id FROM holds WHERE match_id = :for_match AND {which}"
        f" ORDER BY id LIMIT {AT_MOST} FOR UPDATE{skipping})"
    )


def _give_back(which: str, *, passing: bool = False) -> TextClause:
    """Return the statement that deletes holds and gives their tickets to the stock; no row: there were none."""
    return text(
        f"WITH {_chosen(which, passing=passing)},"
        " gone AS (DELETE FROM holds USING chosen WHERE holds.id = chosen.id RETURNING holds.id)"
        " UPDATE matches SET stock = stock + (SELECT count(*) FROM gone), version = version + 1"
        " WHERE id = :for_match AND EXISTS (SELECT FROM gone)"
        " RETURNING (SELECT count(*) FROM gone) AS given_back"
    )


def _mark(which: str, *, passing: bool = False) -> TextClause:
    """Return the statement that marks holds as going back, and their keys."""
    return text(
        f"WITH {_chosen(which, passing=passing)}"
        " UPDATE holds SET going_back = true FROM chosen WHERE holds.id = chosen.id RETURNING holds.idempotency_key"
    )


give_back_due: Final = _give_back(_DUE, passing=True)
give_back_one: Final = _give_back(_ONE)
give_back_all: Final = _give_back(_ALL)
# What was marked by a worker that died is marked again: giving back twice is harmless.
mark_due: Final = _mark(f"({_DUE} OR going_back)", passing=True)
# For a buyer who wants them: what somebody else is just giving back is waited for.
give_back_due_now: Final = _give_back(_DUE)
mark_due_now: Final = _mark(f"({_DUE} OR going_back)")
mark_one: Final = _mark(_ONE)
mark_all: Final = _mark(_ALL)
delete_marked: Final = text(
    "DELETE FROM holds WHERE idempotency_key = ANY(CAST(:keys AS text[])) AND going_back RETURNING id"
)

any_due: Final = text(
    f"SELECT EXISTS (SELECT FROM holds WHERE match_id = :for_match AND ({_DUE} OR going_back)) AS some"
)
due_matches: Final = text(f"SELECT DISTINCT match_id FROM holds WHERE {_DUE} OR going_back ORDER BY match_id LIMIT 50")
any_to_follow: Final = text(
    "SELECT EXISTS (SELECT FROM holds) OR EXISTS (SELECT FROM checkouts WHERE state IN ('paying', 'refunding')) AS some"
)

hold_of: Final = text(
    "SELECT match_id, checkout_id FROM holds WHERE id = :hold AND buyer = :for_buyer AND NOT going_back"
)
cart: Final = text(
    "SELECT h.id, h.match_id, h.price_pence, h.expires_at, h.expires_at <= now() AS due,"
    " extract(epoch FROM h.expires_at - now())::float AS left_s,"
    " m.home, m.away, m.venue, m.kickoff, c.request_key AS paid_with"
    " FROM holds h JOIN matches m ON m.id = h.match_id LEFT JOIN checkouts c ON c.id = h.checkout_id"
    " WHERE h.buyer = :for_buyer AND NOT h.going_back ORDER BY h.match_id, h.id"
)

# --- checkouts --------------------------------------------------------------------------------------------------------

new_checkout: Final = text(
    "INSERT INTO checkouts (buyer, request_key, payment_key, hold_keys, amount_pence, state, ends_at)"
    " VALUES (:for_buyer, :request_key, :payment_key, '{}', 0, 'paying', now() + make_interval(secs => :payment_s))"
    " ON CONFLICT (buyer, request_key) DO NOTHING RETURNING id"
)
checkout_of_key: Final = text(
    "SELECT id, payment_key, hold_keys, amount_pence, state FROM checkouts"
    " WHERE buyer = :for_buyer AND request_key = :request_key"
)
# The tickets of a payment are held for as long as it may take, even where they would have been given back before.
bind_holds: Final = text(
    "WITH bound AS (UPDATE holds SET checkout_id = :checkout,"
    " expires_at = greatest(expires_at, now() + make_interval(secs => :payment_s))"
    " WHERE buyer = :for_buyer AND checkout_id IS NULL AND NOT going_back AND expires_at > now()"
    " RETURNING idempotency_key, price_pence)"
    " UPDATE checkouts SET amount_pence = (SELECT sum(price_pence) FROM bound),"
    " hold_keys = (SELECT array_agg(idempotency_key ORDER BY idempotency_key) FROM bound)"
    " WHERE id = :checkout AND EXISTS (SELECT FROM bound)"
    " RETURNING id, payment_key, hold_keys, amount_pence, state"
)
# From one state to the next, for one of those who try at once.
leave_paying: Final = text(
    "UPDATE checkouts SET state = :to_state WHERE id = :checkout AND state = 'paying' RETURNING hold_keys"
)
unbind_holds: Final = text("UPDATE holds SET checkout_id = NULL WHERE checkout_id = :checkout RETURNING id")
sell_holds: Final = text(
    "WITH sold AS (DELETE FROM holds WHERE checkout_id = :checkout AND NOT going_back"
    " RETURNING match_id, buyer, idempotency_key, code, price_pence)"
    " INSERT INTO tickets (match_id, buyer, idempotency_key, code, price_pence) SELECT * FROM sold RETURNING id"
)
overdue_checkouts: Final = text(
    "SELECT id, payment_key, state FROM checkouts"
    " WHERE state IN ('paying', 'refunding') AND ends_at <= now() ORDER BY ends_at LIMIT 50"
)
refunding: Final = text("SELECT id FROM checkouts WHERE id = :checkout AND state = 'refunding'")
refunded: Final = text(
    "UPDATE checkouts SET state = 'refunded' WHERE id = :checkout AND state = 'refunding' RETURNING id"
)

# --- tickets ----------------------------------------------------------------------------------------------------------

_TICKET: Final = (
    "SELECT t.id, t.match_id, t.code, t.price_pence, t.created_at, t.validated_at, m.home, m.away, m.venue, m.kickoff"
    " FROM tickets t JOIN matches m ON m.id = t.match_id WHERE t.buyer = :for_buyer"
)
tickets_of_buyer: Final = text(f"{_TICKET} ORDER BY m.kickoff, t.id LIMIT 500")
ticket_of_buyer: Final = text(f"{_TICKET} AND t.id = :of_ticket")
tickets_of_keys: Final = text(f"{_TICKET} AND t.idempotency_key = ANY(CAST(:keys AS text[])) ORDER BY t.id")

# --- accounts ---------------------------------------------------------------------------------------------------------

_SESSION: Final = "INSERT INTO sessions (token_hash, buyer_id, expires_at)"
register: Final = text(
    "WITH new AS (INSERT INTO buyers (handle, email, name, password_hash)"
    " VALUES (:handle, :email, :name, :password_hash) ON CONFLICT (email) DO NOTHING RETURNING id)"
    f" {_SESSION} SELECT CAST(:token_hash AS text), new.id, now() + make_interval(secs => :ttl_s) FROM new"
    " RETURNING buyer_id"
)
buyer_of_email: Final = text("SELECT id, handle, email, name, password_hash FROM buyers WHERE email = :email")
new_session: Final = text(
    f"{_SESSION} VALUES (:token_hash, :buyer_id, now() + make_interval(secs => :ttl_s)) RETURNING buyer_id"
)
new_password_hash: Final = text("UPDATE buyers SET password_hash = :password_hash WHERE id = :buyer_id RETURNING id")
buyer_of_session: Final = text(
    "SELECT b.handle, b.email, b.name FROM sessions s JOIN buyers b ON b.id = s.buyer_id"
    " WHERE s.token_hash = :token_hash AND s.expires_at > now()"
)
end_session: Final = text("DELETE FROM sessions WHERE token_hash = :token_hash RETURNING buyer_id")
end_old_sessions: Final = text(
    "DELETE FROM sessions WHERE token_hash IN"
    " (SELECT token_hash FROM sessions WHERE expires_at <= now() LIMIT 500 FOR UPDATE SKIP LOCKED)"
    " RETURNING buyer_id"
)
