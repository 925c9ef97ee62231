"""Rows kept as columns say what the rows said."""

import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ticketbench.errors import EnvironmentFailure
from ticketbench.ledger_rows import Ack, LedgerRow
from ticketbench.storing.files import Damaged, read_table, write_atomically, write_table
from ticketbench.storing.histograms import HistogramRow, Histograms, read_histograms, write_histograms
from ticketbench.storing.keys import Keys
from ticketbench.storing.purchases import Acks, Ledger, read_acks, read_ledger, write_acks, write_ledger

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=5)
PURCHASES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.integers(-2, 2)), max_size=30)


def keys(purchases: list[tuple[str, int, int]]) -> Keys:
    numbers = np.array([p[1:] for p in purchases], dtype=np.int64).reshape(-1, 2)
    return Keys.of([p[0] for p in purchases]).with_(numbers[:, 0], numbers[:, 1])


@given(PURCHASES, PURCHASES)
def test_digests_count_as_sets_of_the_purchases_do(
    one: list[tuple[str, int, int]], other: list[tuple[str, int, int]]
) -> None:
    assert keys(one).distinct() == len(set(one))
    assert keys(one).missing_in(keys(other)) == len(set(one) - set(other))


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2))), st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)))
)
def test_half_a_digest_in_common_is_not_the_same(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    def of(pairs: list[tuple[int, int]]) -> Keys:
        halves = np.array(pairs, dtype=np.uint64).reshape(-1, 2)
        return Keys(halves[:, 0], halves[:, 1])

    assert of(one).distinct() == len(set(one))
    assert of(one).missing_in(of(other)) == len(set(one) - set(other))


def test_number_and_key_do_not_run_into_each_other() -> None:
    some = [("k", 1, 2), ("k", 2, 1), ("k1", 2, 2), ("k", 12, 0), ("k", 0, 12), ("", 1, 2), ("k", -1, 2), ("1", 0, 2)]
    assert keys(some).distinct() == len(some)


@given(st.lists(st.builds(Ack, st.floats(0, 2e9), st.integers(0, 9), TEXT, st.integers(0, 2**62)), max_size=20))
def test_acks_survive_the_file(tmp_path_factory: pytest.TempPathFactory, rows: list[Ack]) -> None:
    path = tmp_path_factory.getbasetemp() / "acks.csv.gz"
    assert write_acks(path, iter(rows)) == len(rows)
    read, direct = read_acks(path, "acks"), Acks.of(rows)
    later = sum(row.ticket_id == 0 for row in rows)  # accepted, and no more than that
    assert (read.purchases.distinct(), len(read)) == (direct.purchases.distinct(), len(rows) - later)
    assert (read.accepted.distinct(), len(read.accepted)) == (direct.accepted.distinct(), later)
    assert read.purchases.missing_in(direct.purchases) == direct.purchases.missing_in(read.purchases) == 0


@given(
    st.lists(
        st.builds(
            LedgerRow,
            st.sampled_from(["capacity", "stock", "ticket", "held", "redis_stock", "redis_taken", "queued", "refused"]),
            st.integers(0, 3),
            st.integers(0, 9),
            st.integers(0, 5),
            TEXT,
        ),
        max_size=30,
    )
)
def test_a_ledger_survives_the_file(tmp_path_factory: pytest.TempPathFactory, rows: list[LedgerRow]) -> None:
    path = tmp_path_factory.getbasetemp() / "ledger.csv.gz"
    write_ledger(path, iter(rows))
    for found in (read_ledger(path, "ledger"), Ledger.of(rows)):
        tickets = [row for row in rows if row.kind == "ticket"]
        taken = {(row.key, row.match_id) for row in rows if row.kind == "redis_taken"}
        assert found.sold == Counter(row.match_id for row in tickets)
        assert len(found.tickets) == len(tickets)
        assert len(found.ticket_keys) == sum(row.key != "" for row in tickets)
        assert found.ticket_keys.distinct() == len({row.key for row in tickets} - {""})
        held = [(row.key, row.match_id) for row in rows if row.kind == "held"]
        assert found.held == Counter(match for _, match in held)
        assert found.in_carts.distinct() == len(set(held))
        assert found.taken.missing_in(found.promised) == len(
            taken - ({(r.key, r.match_id) for r in tickets} | set(held))
        )
        assert found.taken.missing_in(found.buyers) == len(taken - {(row.key, row.match_id) for row in tickets})
        assert sum(found.capacity.values()) == sum(row.quantity for row in rows if row.kind == "capacity")
        assert found.stock == {row.match_id: row.quantity for row in rows if row.kind == "stock"}


def test_more_rows_than_one_piece(tmp_path: Path) -> None:
    rows = [LedgerRow("ticket", n % 7, 1, n, f"key-{n}") for n in range(230_000)]
    write_ledger(tmp_path / "l", [LedgerRow("capacity", 1, 5), *rows, LedgerRow("stock", 1, 3)])
    found = read_ledger(tmp_path / "l", "l")
    assert (len(found.tickets), found.tickets.distinct(), found.capacity, found.stock) == (
        230_000,
        230_000,
        {1: 5},
        {1: 3},
    )
    assert found.sold == Counter(row.match_id for row in rows)


def histogram_row(t: float, status: str, buckets: tuple[tuple[float, float, float], ...]) -> HistogramRow:
    return HistogramRow(t, "main", "a,b\"c'\n", "GET", status, status == "200", "", 3.5, 0.25, buckets)


def test_histograms_survive_the_file_whatever_the_layout(tmp_path: Path) -> None:
    rows = [
        histogram_row(1.0, "200", ((0.0, 0.001, 1.0), (0.1, 0.109, 2.5))),
        histogram_row(1.0, "503", ()),
        histogram_row(2.0, "200", ((0.1, 0.2, 1.0), (0.2, float("inf"), 1.0))),
    ]
    write_histograms(tmp_path / "h", rows)
    read = read_histograms(tmp_path / "h", "h")
    assert tuple(read) == tuple(rows) == tuple(Histograms.of(rows))
    assert tuple(read.having(lambda answer: answer.status == "200")) == (rows[0], rows[2])
    assert tuple(read.only(read.t > 1)) == (rows[2],)
    assert len(Histograms.of(())) == len(Histograms.of(()).having(lambda _: True)) == 0


def test_rows_that_fail_leave_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_table(path, ("a",), [("1",)])
    before = path.read_bytes()

    def failing():  # type: ignore[no-untyped-def]
        yield ("2",)
        raise EnvironmentFailure("the source is gone")

    with pytest.raises(EnvironmentFailure, match="the source is gone"):
        write_table(path, ("a",), failing())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("cut", [1, 10, -9, -1])
def test_a_cut_off_table_is_damaged_wherever_it_is_cut(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "f"
    write_table(path, ("a", "b"), ((n, f"text {n}") for n in range(3000)))
    assert gzip.decompress(path.read_bytes()).startswith(b"a,b\n0,text 0\n")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(Damaged, match="f is damaged: "):
        list(read_table(path, {"a": int, "b": object}, "f"))


def test_what_cannot_be_written_is_told_without_an_option_that_a_command_may_not_have(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFailure, match="Not a directory") as caught:
        write_atomically(tmp_path / "file" / "report.html", b"")
    assert caught.value.hint == "look at its folder and its disk"
