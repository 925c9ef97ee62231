"""The ledger audit: closed cases, and that nothing is ever netted."""

from hypothesis import given
from hypothesis import strategies as st

from ticketbench.analysis import audit as auditing
from ticketbench.analysis.audit import total
from ticketbench.conclusions import Integrity
from ticketbench.ledger_rows import Ack, LedgerRow
from ticketbench.storing.purchases import Acks, Ledger


def audit(acks: list[Ack] | None, ledger: list[LedgerRow] | None) -> Integrity:
    return auditing.audit(None if acks is None else Acks.of(acks), None if ledger is None else Ledger.of(ledger))


def ticket(number: int, match: int = 1, key: str = "") -> LedgerRow:
    return LedgerRow(kind="ticket", match_id=match, ticket_id=number, key=key or f"key-{number}")


def ack(number: int, match: int = 1, key: str = "") -> Ack:
    return Ack(at_s=1.0, match_id=match, key=key or f"key-{number}", ticket_id=number)


def books(capacity: int, sold: int, match: int = 1, first: int = 1) -> list[LedgerRow]:
    return [
        LedgerRow(kind="capacity", match_id=match, quantity=capacity),
        LedgerRow(kind="stock", match_id=match, quantity=capacity - sold),
        *(ticket(number, match) for number in range(first, first + sold)),
    ]


def test_a_clean_sale_passes() -> None:
    found = audit([ack(n) for n in range(1, 6)], books(10, 5))
    assert found == Integrity(
        status="pass", capacity=10, sold=5, oversold=0, acknowledged=5, lost=0, duplicated=0, stranded=0
    )


def test_a_match_with_seats_left_does_not_make_up_for_another() -> None:
    ledger = books(3, 5) + books(100, 1, match=2, first=50)
    found = audit([ack(n) for n in range(1, 6)], ledger)
    assert (found.status, found.oversold, found.capacity, found.sold) == ("violated", 2, 103, 6)
    assert found.reasons == ("match 1 was oversold by 2 tickets: 5 sold of 3",)


def test_a_lost_update_is_violated_before_the_last_ticket_is_sold() -> None:
    ledger = [row for row in books(10, 5) if row.kind != "stock"]
    ledger.append(LedgerRow(kind="stock", match_id=1, quantity=8))  # five tickets, and the counter fell by two
    found = audit([ack(n) for n in range(1, 6)], ledger)
    assert (found.status, found.oversold) == ("violated", 0)
    assert "the counter of match 1 says 2 are sold, the tickets say 5: 3 updates were lost" in found.reasons[0]


def test_many_matches_that_lost_updates_are_summed_up_after_the_worst() -> None:
    ledger = []
    for match in range(1, 7):  # match m sold m tickets, and no counter fell
        rows = books(100, match, match=match, first=100 * match)
        ledger += [row for row in rows if row.kind != "stock"]
        ledger.append(LedgerRow(kind="stock", match_id=match, quantity=100))
    reasons = audit([ack(100)], ledger).reasons
    told = [reason for reason in reasons if reason.startswith("the counter")]
    assert [text.split(" says")[0] for text in told[:3]] == [f"the counter of match {match}" for match in (6, 5, 4)]
    assert told[3:] == ["the counters of 3 more matches lost 6 updates in the same way"]


def test_a_counter_that_fell_without_a_ticket_wrongs_nobody() -> None:
    ledger = [row for row in books(10, 5) if row.kind != "stock"]
    ledger.append(LedgerRow(kind="stock", match_id=1, quantity=4))
    found = audit([ack(n) for n in range(1, 6)], ledger)
    assert found.status == "pass"
    assert "1 ticket can never be sold" in found.reasons[0]


def accepted(key: str, match: int = 1) -> Ack:
    return Ack(at_s=1.0, match_id=match, key=key, ticket_id=0)


def test_what_was_accepted_into_the_queue_ends_sold_or_refused_or_still_waits() -> None:
    waits = [LedgerRow("queued", 1, key="waits"), LedgerRow("refused", 1, key="late")]
    told = [accepted(f"key-{n}") for n in range(1, 6)] + [accepted("waits"), accepted("late")]
    found = audit([*told, *(ack(n) for n in range(1, 5))], [*books(10, 5), *waits])
    assert (found.status, found.acknowledged, found.lost) == ("pass", 4, 0)
    assert found.reasons == ("1 purchase was still queued when the ledger was read: neither sold nor lost",)


def test_an_accepted_purchase_that_is_nowhere_is_lost() -> None:
    gone = audit([ack(1), accepted("key-1"), accepted("gone"), accepted("key-2", match=2)], books(10, 2))
    assert gone.status == "violated"
    assert gone.lost == 0  # nobody was told that they have a ticket
    assert gone.reasons == (
        "2 of 3 purchases that were accepted into the queue are gone: neither sold, nor refused, nor waiting any more",
    )


def in_cart(count: int, first: int = 900) -> list[LedgerRow]:
    return [LedgerRow(kind="held", match_id=1, key=f"key-{number}") for number in range(first, first + count)]


def test_tickets_in_carts_are_out_of_the_stock_and_hide_nothing() -> None:
    ledger = [*(row for row in books(10, 5) if row.kind != "stock"), *in_cart(3)]
    ledger.append(LedgerRow(kind="stock", match_id=1, quantity=2))
    found = audit([ack(n) for n in range(1, 6)], ledger)
    assert (found.status, found.sold, found.oversold, found.reasons) == ("pass", 5, 0, ())


def test_tickets_in_carts_that_the_counter_does_not_know_are_lost_updates() -> None:
    found = audit([ack(n) for n in range(1, 6)], books(10, 5) + in_cart(3))
    assert found.status == "violated"
    assert found.reasons == (
        "the counter of match 1 says 5 are sold, the tickets say 5 and 3 more are in carts: 3 updates were lost, and so"
        " many too many can be sold",
    )


def test_a_cart_beyond_the_last_seat_is_oversold() -> None:
    ledger = [*books(6, 5), *in_cart(2), LedgerRow(kind="redis_stock", match_id=1, quantity=0)]
    found = audit([ack(n) for n in range(1, 6)], ledger)
    assert (found.status, found.oversold) == ("violated", 1)
    assert found.reasons == ("match 1 was oversold by 1 ticket: 5 sold and 2 held in carts of 6",)


def test_what_redis_took_for_a_cart_is_not_stranded_and_a_sold_ticket_in_a_cart_is_told() -> None:
    taken = [LedgerRow(kind="redis_taken", match_id=1, key=f"key-{number}") for number in (1, 2, 900, 901)]
    ledger = [*books(10, 2), *in_cart(1), *taken, LedgerRow(kind="redis_stock", match_id=1, quantity=6)]
    assert audit([ack(1), ack(2)], ledger).stranded == 1
    found = audit([ack(1), ack(2)], ledger + in_cart(1, first=2))
    assert found.status == "violated"
    assert found.reasons[0] == "1 ticket sold and still in a cart: going back from there, it would be sold again"


def test_lost_is_what_was_told_and_is_not_held() -> None:
    ledger = books(10, 3)
    assert audit([ack(9)], ledger).lost == 1
    assert audit([ack(2, key="another")], ledger).lost == 1  # the ticket went to somebody else
    assert audit([ack(2, match=7)], ledger).lost == 1
    assert audit([ack(2), ack(2)], ledger).acknowledged == 1  # the same purchase, told twice
    assert audit([ack(1)], ledger).lost == 0  # tickets without an answer are unknown, not lost


def test_one_key_with_two_tickets_is_duplicated() -> None:
    ledger = [LedgerRow(kind="capacity", match_id=1, quantity=10), *(ticket(n, key="same") for n in (1, 2, 3))]
    found = audit([ack(1, key="same")], ledger)
    assert (found.status, found.duplicated) == ("violated", 2)


def test_stranded_is_taken_in_redis_and_nowhere_else() -> None:
    redis = [
        LedgerRow(kind="redis_stock", match_id=1, quantity=6),
        *(LedgerRow(kind="redis_taken", match_id=1, key=f"key-{n}") for n in range(1, 5)),
    ]
    ledger = [LedgerRow(kind="capacity", match_id=1, quantity=10), ticket(1), ticket(2), ticket(3), *redis]
    ledger.append(LedgerRow(kind="stock", match_id=1, quantity=10))  # the database's counter is not used
    found = audit([ack(n) for n in (1, 2, 3)], ledger)
    assert (found.status, found.stranded, found.oversold) == ("pass", 1, 0)
    assert found.reasons == ("1 ticket taken in Redis without a row in the database: stranded",)


def test_what_is_missing_is_unknown_and_never_passes() -> None:
    nothing = audit([ack(1)], None)
    assert (nothing.status, nothing.acknowledged, nothing.sold, nothing.lost) == ("unknown", 1, None, None)
    no_acks = audit(None, books(10, 5))
    assert (no_acks.status, no_acks.oversold, no_acks.lost) == ("unknown", 0, None)
    oversold = audit(None, books(3, 5))
    assert (oversold.status, oversold.oversold) == ("violated", 2)
    silent = audit([], books(10, 5))  # a script that logs nothing
    assert silent.status == "unknown"
    assert "5 tickets sold and none logged" in silent.reasons[0]
    stranger = audit([ack(1)], [ticket(1)])
    assert stranger.status == "unknown"
    assert "no known capacity" in stranger.reasons[0]


def test_a_scenario_that_sells_nothing_passes_with_zeros() -> None:
    found = audit([], books(10, 0))
    assert (found.status, found.sold, found.acknowledged, found.lost, found.oversold) == ("pass", 0, 0, 0, 0)


def test_an_emptied_ledger_never_passes() -> None:
    assert (audit([], []).status, audit([], []).oversold) == ("unknown", None)
    without_tickets = [row for row in books(10, 5) if row.kind != "ticket"]
    assert audit([], without_tickets).status == "unknown"
    assert audit([ack(1)], without_tickets).status == "violated"  # and what was told is lost
    without_counters = [row for row in books(10, 5) if row.kind != "stock"]
    assert audit([ack(1)], without_counters).status == "unknown"


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))
def test_each_lost_purchase_counts_once_whatever_else_is_held(sold: int, told: int, lost: int) -> None:
    acks = [ack(n) for n in range(1, min(sold, told) + 1)]
    ledger = books(100, sold)
    before = audit(acks, ledger)
    more = audit([*acks, *(ack(1000 + n) for n in range(lost))], ledger)
    assert before.lost == 0
    assert more.lost == lost
    assert more.acknowledged == min(sold, told) + lost
    assert (more.status == "violated") == (lost > 0)


@given(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)), min_size=1, max_size=6), st.randoms())
def test_oversold_is_summed_by_match_and_order_is_nothing(matches: list[tuple[int, int]], random) -> None:  # type: ignore[no-untyped-def]
    ledger = [row for m, (capacity, sold) in enumerate(matches, 1) for row in books(capacity, sold, m, 100 * m)]
    expected = sum(max(0, sold - capacity) for capacity, sold in matches)
    shuffled = list(ledger)
    random.shuffle(shuffled)
    assert audit(None, ledger).oversold == expected
    assert audit(None, shuffled).model_copy(update={"reasons": ()}) == audit(None, ledger).model_copy(
        update={"reasons": ()}
    )


def test_a_variant_sums_its_trials_and_keeps_the_worst() -> None:
    good, bad, none = audit([ack(1)], books(5, 1)), audit([ack(9)], books(3, 5)), audit(None, None)
    found = total([("t1", good), ("t2", bad), ("t3", none)])
    assert (found.status, found.sold, found.oversold, found.lost, found.acknowledged) == ("violated", 6, 2, 1, 2)
    assert any(reason.startswith("t3: the ledger was not stored") for reason in found.reasons)
    assert total([("t1", good), ("t3", none)]).status == "unknown"
    assert total([("t1", good)]) == good
    assert total([]).status == "unknown"
