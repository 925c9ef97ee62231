"""The ledger audit: what buyers were told against what the database holds. Nothing oversold, nothing lost.

Violated is what a buyer can be wronged by: more tickets than seats, a ticket that was acknowledged and is not there, a
purchase that got two tickets, a stock counter that lost updates (it would go on selling beyond the last seat even where
this trial stopped before), money that does not agree with the tickets (``money.py``). A ticket in a cart is promised:
it counts as if it were sold. Tickets that nobody got (stranded, or a counter that fell without a ticket) are reported
and violate nothing: the sale is smaller than it could be, and no buyer is wrong. A purchase that was accepted into the
queue is promised an outcome: one that is neither sold nor refused, and waits no more, is lost. A request without an
answer is unknown: it is neither acknowledged nor lost.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from ticketbench.analysis.money import audit_money
from ticketbench.analysis.reasons import said_once
from ticketbench.conclusions import Integrity, IntegrityStatus

if TYPE_CHECKING:
    from ticketbench.storing.purchases import Acks, Ledger

# The last reason of every system that is somebody else's.
NOT_OURS: Final = "the system is external: its ledger is not ours to read, so nothing was audited"

NAMED_MATCHES: Final = 3  # more of one kind are summed up

_WORST: Final[tuple[IntegrityStatus, ...]] = ("violated", "unknown", "not_audited", "pass")


def audit(acks: "Acks | None", ledger: "Ledger | None") -> Integrity:
    """Return the integrity of one trial; None stands for what was not stored.

    Without a ledger nothing can be audited; without acknowledgements ``lost`` stays unknown while oversold, duplicated
    and stranded are still found. A missing input never passes.
    """
    acknowledged = None if acks is None else acks.purchases.distinct()
    if ledger is None:
        return Integrity(
            status="unknown",
            acknowledged=acknowledged,
            reasons=("the ledger was not stored or can no longer be read: nobody knows what the database held",),
        )
    books = _Books(ledger)
    lost = None if acks is None else acks.purchases.missing_in(ledger.told_by(keyless=acks.keyless))
    oversold, oversold_reasons = books.oversold()
    duplicated = len(ledger.ticket_keys) - ledger.ticket_keys.distinct()
    overdrawn, unsold_reasons = books.counters()
    violations = [*oversold_reasons, *overdrawn]
    if both := books.sold_and_held:
        violations.append(f"{_tickets(both)} sold and still in a cart: going back from there, it would be sold again")
    if lost:
        violations.append(f"{lost} of {acknowledged} acknowledged purchases are not in the database")
    if duplicated:
        violations.append(f"{_tickets(duplicated)} too many: the same purchase (one key) got more than one")
    waited = _waited(acks, ledger)
    violations += waited.lost
    money = audit_money(ledger.money)
    violations += money.violations
    unknowns = [*_unknowns(books, acknowledged), *money.unknowns]
    status: IntegrityStatus = "violated" if violations else "unknown" if unknowns else "pass"
    return Integrity(
        status=status,
        capacity=sum(books.capacity.values()),
        sold=books.tickets,
        oversold=oversold if books.capacity else None,
        acknowledged=acknowledged,
        lost=lost,
        duplicated=duplicated,
        stranded=books.stranded,
        charged=money.charged,
        refunded=money.refunded,
        double_charged=money.double_charged,
        unpaid=money.unpaid,
        unrefunded=money.unrefunded,
        reasons=(*violations, *unknowns, *unsold_reasons, *waited.told),
    )


def not_audited(acks: "Acks | None", own: Sequence[str]) -> Integrity:
    """Return the integrity of somebody else's system: neither a pass nor a fault, with what its series tell (``own``).

    What the script logged as acknowledged is counted; there is no ledger to hold it against.
    """
    return Integrity(
        status="not_audited",
        acknowledged=len(acks) if acks else None,
        reasons=(*own, NOT_OURS),
    )


def total(parts: Sequence[tuple[str, Integrity]]) -> Integrity:
    """Return the integrity over several trials, each with the name that its reasons get: sums, and the worst status.

    A count is None only where no trial knows it; a trial that could not be audited keeps the status from passing.
    A reason that all of them have is said once and without a name.
    """
    if not parts:
        return Integrity(status="unknown", reasons=("no trial was audited",))
    audits = [integrity for _, integrity in parts]

    def add(values: Iterable[int | None]) -> int | None:
        known = [value for value in values if value is not None]
        return sum(known) if known else None

    return Integrity(
        status=min((one.status for one in audits), key=_WORST.index),
        capacity=add(one.capacity for one in audits),
        sold=add(one.sold for one in audits),
        oversold=add(one.oversold for one in audits),
        acknowledged=add(one.acknowledged for one in audits),
        lost=add(one.lost for one in audits),
        duplicated=add(one.duplicated for one in audits),
        stranded=add(one.stranded for one in audits),
        charged=add(one.charged for one in audits),
        refunded=add(one.refunded for one in audits),
        double_charged=add(one.double_charged for one in audits),
        unpaid=add(one.unpaid for one in audits),
        unrefunded=add(one.unrefunded for one in audits),
        reasons=tuple(
            reason if len(names) == len(parts) else f"{', '.join(names)}: {reason}"
            for names, reason in said_once([(name, one.reasons) for name, one in parts])
        ),
    )


class _Waited(NamedTuple):
    """What became of purchases that were accepted to be done later: what violates, and what only tells."""

    lost: tuple[str, ...] = ()
    told: tuple[str, ...] = ()


def _waited(acks: "Acks | None", ledger: "Ledger") -> _Waited:
    """Follow each purchase that was accepted (202): it is sold, it was refused, or it still waits. All else is lost."""
    if acks is None or not len(acks.accepted):
        return _Waited()
    told = []
    accepted, waiting = acks.accepted.distinct(), ledger.queued.distinct()
    if waiting:
        told.append(f"{_purchases(waiting)} still queued when the ledger was read: neither sold nor lost")
    gone = acks.accepted.missing_in(ledger.followed)
    lost = (
        f"{gone} of {accepted} purchases that were accepted into the queue are gone: neither sold, nor refused,"
        " nor waiting any more"
    )
    return _Waited((lost,) if gone else (), tuple(told))


class _Books:
    """The ledger's accounts, and what follows from holding them against each other."""

    def __init__(self, ledger: "Ledger") -> None:
        self.capacity = ledger.capacity
        self.stock = ledger.stock
        self.redis_stock = ledger.redis_stock
        self.sold = ledger.sold
        self.held = ledger.held
        self.tickets = len(ledger.tickets)
        self.uses_redis = bool(ledger.redis_stock or len(ledger.taken))  # Redis kept the stock (locking=redis)
        # taken in Redis, and neither a ticket nor a hold stands for it
        self.stranded = ledger.taken.missing_in(ledger.promised)
        self.sold_and_held = ledger.in_carts.distinct() - ledger.in_carts.missing_in(ledger.buyers)

    def _gone(self, match: int) -> int:
        """Return how many tickets of a match are out of its stock: sold, or in a cart."""
        return self.sold.get(match, 0) + self.held.get(match, 0)

    def _said(self, match: int) -> str:
        held = self.held.get(match, 0)
        return f"{self.sold.get(match, 0)} sold" + (f" and {held} held in carts" if held else "")

    @property
    def unlisted(self) -> dict[int, int]:
        """Tickets of matches whose capacity is not known."""
        return {match: count for match, count in sorted(self.sold.items()) if match not in self.capacity}

    def oversold(self) -> tuple[int, list[str]]:
        """Count tickets beyond each match's capacity; a match with seats left never makes up for another."""
        gone = {match: self._gone(match) for match in self.capacity}
        excess = {m: gone[m] - seats for m, seats in sorted(self.capacity.items()) if gone[m] > seats}
        reasons = [
            f"match {match} was oversold by {_tickets(count)}: {self._said(match)} of {self.capacity[match]}"
            for match, count in excess.items()
        ]
        return sum(excess.values()), reasons

    def counters(self) -> tuple[list[str], list[str]]:
        """Hold each match's stock counter against its tickets: (sentences that violate, sentences that only tell).

        Where Redis keeps the stock, the database's counter is not used by a purchase and says nothing.
        """
        apart = {
            match: (self.capacity[match] - left, self._gone(match))
            for match, left in sorted(self.stock.items())
            if match in self.capacity and match not in self.redis_stock
        }
        lost = {match: sold - taken for match, (taken, sold) in apart.items() if sold > taken}
        hidden = {match: taken - sold for match, (taken, sold) in apart.items() if sold < taken}

        def sentence(match: int) -> str:
            taken, sold = apart[match]
            if held := self.held.get(match, 0):
                tickets = f"the tickets say {sold - held} and {held} more are in carts"
            else:
                tickets = f"the tickets say {sold}"
            return f"the counter of match {match} says {taken} are sold, {tickets}"

        overdrawn = [
            f"{sentence(match)}: {_updates(lost[match])} lost, and so many too many can be sold"
            for match in _largest(lost)
        ]
        unsold = [f"{sentence(match)}: {_tickets(hidden[match])} can never be sold" for match in _largest(hidden)]
        if rest := sum(lost.values()) - sum(lost[match] for match in _largest(lost)):
            overdrawn.append(
                f"the counters of {len(lost) - NAMED_MATCHES} more matches lost {rest} updates in the same way"
            )
        if rest := sum(hidden.values()) - sum(hidden[match] for match in _largest(hidden)):
            unsold.append(f"{len(hidden) - NAMED_MATCHES} more matches hide {_tickets(rest)} in the same way")
        if self.stranded:
            unsold.append(f"{_tickets(self.stranded)} taken in Redis without a row in the database: stranded")
        return overdrawn, unsold


def _unknowns(books: _Books, acknowledged: int | None) -> list[str]:
    reasons = [
        f"match {match} has {_tickets(count)} and no known capacity: whether it was oversold is unknown"
        for match, count in books.unlisted.items()
    ]
    if not books.capacity:
        reasons.append("the ledger names no match that was for sale: whether anything was oversold is unknown")
    if uncounted := [match for match in sorted(books.capacity) if match not in books.stock]:
        reasons.append(f"the stock counter of {len(uncounted)} matches is not in the ledger")
    fallen = sum(seats - books.stock.get(match, seats) for match, seats in books.capacity.items())
    fallen -= sum(books.held.values())
    if not books.tickets and fallen > 0 and not books.uses_redis:
        reasons.append(f"the counters fell by {fallen} and the ledger holds no ticket at all")
    if acknowledged is None:
        reasons.append("k6's acknowledged purchases were not stored: whether any was lost is unknown")
    elif not acknowledged and books.tickets:
        reasons.append(
            f"{_tickets(books.tickets)} sold and none logged as acknowledged (a script does so with a line"
            " `ACK {...}`): whether any was lost is unknown"
        )
    return reasons


def _largest(by_match: dict[int, int]) -> list[int]:
    """Return the matches with the largest counts, largest first, as many as are named one by one."""
    return sorted(by_match, key=lambda match: (-by_match[match], match))[:NAMED_MATCHES]


def _updates(count: int) -> str:
    return "1 update was" if count == 1 else f"{count} updates were"


def _purchases(count: int) -> str:
    return "1 purchase was" if count == 1 else f"{count} purchases were"


def _tickets(count: int) -> str:
    return "1 ticket" if count == 1 else f"{count} tickets"
