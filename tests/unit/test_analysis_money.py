"""The audit of the money: closed cases, and that a trial without a provider says nothing of it."""

import pytest

from tests.unit.test_analysis_audit import ack, audit, books
from ticketbench.analysis.audit import total
from ticketbench.conclusions import Integrity
from ticketbench.ledger_rows import LedgerRow

PRICE = 2500


def charge(number: int, pence: int = PRICE) -> LedgerRow:
    return LedgerRow(kind="charge", match_id=0, quantity=pence, key=f"key-{number}")


def refund(number: int, pence: int = PRICE) -> LedgerRow:
    return LedgerRow(kind="refund", match_id=0, quantity=pence, key=f"key-{number}")


def provider(tickets: int) -> LedgerRow:
    return LedgerRow(kind="provider", match_id=0, quantity=tickets * PRICE)


def audited(*money: LedgerRow, sold: int = 3) -> Integrity:
    return audit([ack(n) for n in range(1, sold + 1)], [*books(10, sold), *money])


def counts(found: Integrity) -> tuple[int | None, ...]:
    return (found.charged, found.refunded, found.double_charged, found.unpaid, found.unrefunded)


PAID = (provider(3), charge(1), charge(2), charge(3))


def test_without_a_provider_nothing_is_said_of_money() -> None:
    assert counts(audited()) == (None,) * 5
    assert audited().status == "pass"


def test_each_ticket_charged_once_and_what_bought_none_given_back() -> None:
    found = audited(*PAID, charge(4), refund(4))
    assert (found.status, counts(found)) == ("pass", (4, 1, 0, 0, 0))


def test_a_provider_that_nobody_has_paid_is_known_to_have_nothing() -> None:
    assert counts(audited(provider(0), sold=0)) == (0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("money", "found", "words"),
    [
        ((*PAID, charge(3)), (4, 0, 1, 0, 0), "1 payment too many: the same purchase was charged more than once"),
        ((*PAID[:3],), (2, 0, 0, 1, 0), "1 purchase got tickets without a charge, or with one that was given back"),
        ((*PAID, refund(2)), (3, 1, 0, 1, 0), "1 purchase got tickets without a charge"),
        ((*PAID, charge(8), charge(9)), (5, 0, 0, 0, 2), "2 payments bought no ticket and the money was not given"),
        ((*PAID[:3], charge(3, 10)), (3, 0, 0, 0, 0), "the provider kept 5010 pence, and the tickets cost 7500"),
    ],
    ids=["charged twice", "not charged", "refunded", "kept", "another price"],
)
def test_money_that_does_not_agree_violates(money: tuple[LedgerRow, ...], found: tuple[int, ...], words: str) -> None:
    integrity = audited(*money)
    assert (integrity.status, counts(integrity)) == ("violated", found)
    assert any(words in reason for reason in integrity.reasons)


def test_what_the_sale_had_no_time_to_settle_is_unknown() -> None:
    under_way = LedgerRow(kind="unsettled", match_id=0, key="key-4")
    found = audited(*PAID, charge(4), under_way)
    assert (found.status, found.unrefunded) == ("unknown", 0)
    assert "1 payment without a ticket had not been given back when the sale ended" in found.reasons[0]
    assert audited(*PAID, under_way).status == "pass"  # it was never charged
    assert audited(*PAID, charge(4), charge(5), under_way).unrefunded == 1


def test_tickets_of_a_checkout_are_paid_with_its_key() -> None:
    paid = [LedgerRow(kind="paid_with", match_id=0, ticket_id=n, key="key-7") for n in (2, 3)]
    found = audited(provider(3), charge(1), charge(7, 2 * PRICE), *paid)
    assert (found.status, counts(found)) == ("pass", (2, 0, 0, 0, 0))
    assert audited(provider(3), charge(1), *paid).unpaid == 1  # the purchase, of two tickets


def test_trials_with_and_without_a_provider_add_up() -> None:
    added = total([("001", audited(*PAID)), ("002", audited()), ("003", audited(*PAID, charge(4), refund(4)))])
    assert counts(added) == (7, 1, 0, 0, 0)
