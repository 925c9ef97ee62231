"""The statements of the sale, built once for both data layers; each compiles a statement once and keeps the text."""

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Executable,
    Integer,
    Select,
    Text,
    Update,
    bindparam,
    func,
    insert,
    literal_column,
    select,
    update,
)

from target_app.tables import holds, matches, tickets

# Names that no column has: SQLAlchemy keeps the columns' own names for itself in INSERT and UPDATE.
_match: Final = bindparam("for_match", type_=Integer)
_buyer: Final = bindparam("for_buyer", type_=Text)
_key: Final = bindparam("with_key", type_=Text)
_code: Final = bindparam("with_code", type_=Text)
_price: Final = bindparam("at_price", type_=Integer)
_left: Final = bindparam("stock_left", type_=Integer)
_version: Final = bindparam("seen_version", type_=Integer)
_ticket: Final = bindparam("of_ticket", type_=BigInteger)
_limit: Final = bindparam("at_most", type_=Integer)

# Constants stand in the text: as parameters they would be sent, and planned for, each time.
_NONE: Final = literal_column("0", Integer)
_ONE: Final = literal_column("1", Integer)

SHOWN: Final = tuple(column.name for column in matches.c if column.name != "version")
_shown: Final = tuple(matches.c[name] for name in SHOWN)

all_matches: Final = select(*_shown).order_by(matches.c.id)
one_match: Final = select(*_shown).where(matches.c.id == _match)

_held: Final = (
    select(func.count())
    .select_from(tickets)
    .where(tickets.c.buyer == _buyer, tickets.c.match_id == _match)
    .scalar_subquery()
)
_earlier: Final = tickets.alias("earlier")

# One round trip, one snapshot: the match, how many tickets the buyer holds, and the ticket that the key has already.
purchase_view: Final = (
    select(
        matches.c.price_pence,
        matches.c.stock,
        matches.c.version,
        matches.c.on_sale,
        _held.label("held"),
        _earlier.c.id.label("ticket_id"),
        _earlier.c.match_id.label("ticket_match_id"),
        _earlier.c.buyer.label("ticket_buyer"),
        _earlier.c.code.label("ticket_code"),
        _earlier.c.price_pence.label("ticket_price_pence"),
    )
    .select_from(matches.outerjoin(_earlier, _earlier.c.idempotency_key == _key))
    .where(matches.c.id == _match)
)

ticket_of_key: Final = select(
    tickets.c.id.label("ticket_id"),
    tickets.c.match_id.label("ticket_match_id"),
    tickets.c.buyer.label("ticket_buyer"),
    tickets.c.code.label("ticket_code"),
    tickets.c.price_pence.label("ticket_price_pence"),
).where(tickets.c.idempotency_key == _key)

lock_stock: Final = select(matches.c.stock).where(matches.c.id == _match).with_for_update()
stock_and_version: Final = select(matches.c.stock, matches.c.version).where(matches.c.id == _match)

_TICKET: Final = ["match_id", "buyer", "idempotency_key", "code", "price_pence"]


def _sell(taking: Update) -> Executable:
    """Return one statement that takes from the stock and, only if it took, writes the ticket; no row: not taken."""
    taken = taking.returning(matches.c.id).cte("taken")
    row: Select[Any] = select(taken.c.id, _buyer, _key, _code, _price)
    return insert(tickets).from_select(_TICKET, row).returning(tickets.c.id)


_take: Final = update(matches).where(matches.c.id == _match, matches.c.stock > _NONE)
_one_less: Final = {"stock": matches.c.stock - _ONE, "version": matches.c.version + _ONE}

sell: Final = _sell(_take.values(_one_less))
sell_if_unchanged: Final = _sell(_take.where(matches.c.version == _version).values(_one_less))
# The race, on purpose: what was read a while ago, less one, over whatever others have written since.
sell_blindly: Final = _sell(update(matches).where(matches.c.id == _match).values(stock=_left))
# All that ``purchase_view`` is refused for is looked at by the statement that takes. No row: not sold, for one of those
# reasons.
_at_once: Final = (
    _take.where(
        matches.c.on_sale,
        ~select(_ONE).where(tickets.c.idempotency_key == _key).exists(),
        _held < _limit,
    )
    .values(_one_less)
    .returning(matches.c.id, matches.c.price_pence)
    .cte("taken")
)
sell_at_once: Final = (
    insert(tickets)
    .from_select(_TICKET, select(_at_once.c.id, _buyer, _key, _code, _at_once.c.price_pence))
    .returning(tickets.c.id, tickets.c.price_pence)
)
write_ticket: Final = (
    insert(tickets).from_select(_TICKET, select(_match, _buyer, _key, _code, _price)).returning(tickets.c.id)
)

ticket_of_code: Final = select(tickets.c.id, tickets.c.match_id, tickets.c.validated_at).where(tickets.c.code == _code)
mark_validated: Final = (
    update(tickets)
    .where(tickets.c.id == _ticket, tickets.c.validated_at.is_(None))
    .values(validated_at=func.now())
    .returning(tickets.c.id)
)

_in_carts: Final = select(func.count()).select_from(holds).where(holds.c.match_id == matches.c.id).scalar_subquery()
stock_by_sales: Final = (
    select(matches.c.id, (matches.c.capacity - func.count(tickets.c.id) - _in_carts).label("stock"))
    .select_from(matches.outerjoin(tickets, tickets.c.match_id == matches.c.id))
    .where(matches.c.on_sale)
    .group_by(matches.c.id)
)
held_keys: Final = select(holds.c.match_id, holds.c.idempotency_key).order_by(holds.c.match_id)
