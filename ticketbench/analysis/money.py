"""The audit of the money: what the payment provider has against what the tickets cost.

Violated is what somebody can be wronged by: a purchase that was charged twice, a ticket without money, money without a
ticket. What the sale had no time to settle, because it or the trial was ended, is unknown.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ticketbench.storing.keys import Keys
    from ticketbench.storing.money import Money


@dataclass(frozen=True)
class MoneyAudit:
    """Counts of payments (see :class:`ticketbench.conclusions.Integrity`), None where there was no provider."""

    charged: int | None = None
    refunded: int | None = None
    double_charged: int | None = None
    unpaid: int | None = None
    unrefunded: int | None = None
    violations: tuple[str, ...] = ()
    unknowns: tuple[str, ...] = ()


def audit_money(money: "Money | None") -> MoneyAudit:
    """Hold the provider's books against the tickets."""
    if money is None:
        return MoneyAudit()
    double = len(money.charges) - money.charges.distinct()
    unpaid = money.payers.missing_in(money.charges) + _in_both(money.payers, money.refunds)
    settled = type(money.charges).joined([money.payers, money.refunds])
    open_or_settled = type(money.charges).joined([settled, money.unsettled])
    unrefunded = money.charges.missing_in(open_or_settled)
    under_way = money.charges.missing_in(settled) - unrefunded
    violations = []
    if double:
        violations.append(f"{_payments(double)} too many: the same purchase was charged more than once")
    if unpaid:
        violations.append(f"{_purchases(unpaid)} got tickets without a charge, or with one that was given back")
    if unrefunded:
        violations.append(f"{_payments(unrefunded)} bought no ticket and the money was not given back")
    kept = money.charged_pence - money.refunded_pence
    if not violations and not under_way and kept != money.price_pence:
        violations.append(f"the provider kept {kept} pence, and the tickets cost {money.price_pence}")
    unknowns = []
    if under_way:
        unknowns.append(
            f"{_payments(under_way)} without a ticket had not been given back when the sale ended: it had no time to"
        )
    return MoneyAudit(
        charged=len(money.charges),
        refunded=len(money.refunds),
        double_charged=double,
        unpaid=unpaid,
        unrefunded=unrefunded,
        violations=tuple(violations),
        unknowns=tuple(unknowns),
    )


def _in_both(some: "Keys", others: "Keys") -> int:
    return some.distinct() - some.missing_in(others)


def _payments(count: int) -> str:
    return "1 payment" if count == 1 else f"{count} payments"


def _purchases(count: int) -> str:
    return "1 purchase" if count == 1 else f"{count} purchases"
