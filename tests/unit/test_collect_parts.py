"""The collector's parts by themselves: names, routes, native histograms and rows."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ticketbench.analysis.series import parse_column
from ticketbench.collecting.naming import MOST_ROUTES, column, route, routes_of, sampler_column, target_column
from ticketbench.collecting.native import Histogram
from ticketbench.collecting.series import Frame, add_counters, add_sampler, add_target, continued, forward
from ticketbench.model import OTHER_ROUTE

BASE = "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("purchase", "purchase"),
        ("a name with 17 in it", "a name with 17 in it"),
        (f"{BASE}/matches/17?page=2", "/matches/{n}"),
        (f"{BASE}/matches/17/tickets/4f6c1f3e-9a64-4b06-8f3c-0d2ab1c9be11", "/matches/{n}/tickets/{n}"),
        (f"{BASE}/codes/9f86d081884c7d65", "/codes/{n}"),
        (f"{BASE}/orders/01ARZ3NDEKTSV4RRFFQ69G5FAV#top", "/orders/{n}"),
        (f"{BASE}/internationalisation-guide", "/internationalisation-guide"),
        (f"{BASE}/deadbeef/v2", "/deadbeef/v2"),
        (BASE, "/"),
        (f"{BASE}/", "/"),
        (f"{BASE}?a=1", "/"),
        ("http://127.0.0.1:80001/matches/3", "http://127.0.0.1:80001/matches/{n}"),
        ("/matches/3", "/matches/{n}"),
    ],
)
def test_routes(name: str, expected: str) -> None:
    assert route(name, BASE) == expected
    assert route(name, BASE + "/") == expected


def test_a_base_url_with_a_path_is_cut_off_whole() -> None:
    assert route("https://shop.example/api/matches/3", "https://shop.example/api") == "/matches/{n}"


def test_too_many_routes_keep_the_most_asked_for() -> None:
    counts = [(f"{BASE}/page-{chr(97 + i % 26)}{chr(97 + i // 26)}", float(i)) for i in range(200)]
    mapping = routes_of(counts, BASE)
    assert len(mapping) == 200
    assert len(set(mapping.values())) == MOST_ROUTES
    assert OTHER_ROUTE not in {mapping[name] for name, count in counts if count > 200 - MOST_ROUTES}
    assert sum(path == OTHER_ROUTE for path in mapping.values()) == 200 - (MOST_ROUTES - 1)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("target_requests_total", "app.requests"),
        ("target_pool_waiters", "app.pool_waiters"),
        ("target_pool_wait_seconds_total", "app.pool_wait_s"),
        ("target_loop_lag_max_seconds", "app.loop_lag_max_s"),
        ("target_request_seconds_sum", "app.request_s_sum"),
        ("process_cpu_seconds_total", "app.process_cpu_s"),
    ],
)
def test_columns_of_the_app(metric: str, expected: str) -> None:
    assert target_column(metric) == expected


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("tb_cpu_seconds_total", "cpu_s"),
        ("tb_memory_bytes", "memory_bytes"),
        ("tb_pg_wait_seconds_total", "pg.wait_s"),
        ("tb_pg_wal_bytes_total", "pg.wal_bytes"),
        ("tb_redis_command_seconds_total", "redis.command_s"),
        ("tb_sampler_late_seconds_total", "sampler.late_s"),
        ("tb_sampler_clock_step_seconds_total", "sampler.clock_step_s"),
        ("tb_cpu_throttled_seconds_total", "cpu_throttled_s"),
    ],
)
def test_columns_of_the_sampler(metric: str, expected: str) -> None:
    assert sampler_column(metric) == expected


@given(st.text(st.characters(exclude_categories=("Cs",))), st.text("abc,={}"))
def test_the_analysis_reads_columns_back(route_: str, status: str) -> None:
    labels = {"route": route_, "status": status, "method": "GET"}
    name, read = parse_column(column("k6.requests", labels))
    assert name == "k6.requests"
    assert read == {label: value.replace(",", ";") for label, value in labels.items()}
    assert parse_column(column("k6.vus", {})) == ("k6.vus", {})


# --- native histograms ------------------------------------------------------------------------------------------------

Counts = dict[int, int]


def bound(index: int, schema: int) -> float:
    return 2.0 ** (index / 2**schema)


def histogram(counts: Counts, schema: int = 3) -> Histogram:
    """Return what Prometheus would answer for requests in the buckets of ``counts``, as it would write it."""
    buckets = [[0, repr(bound(i - 1, schema)), repr(bound(i, schema)), str(n)] for i, n in counts.items()]
    total = sum(counts.values())
    return Histogram.parse({"count": str(total), "sum": str(total * 0.5), "buckets": buckets})


def coarser(counts: Counts, by: int) -> Counts:
    merged: Counts = {}
    for index, n in counts.items():
        at = math.ceil(index / 2**by)
        merged[at] = merged.get(at, 0) + n
    return merged


increments = st.lists(st.dictionaries(st.integers(-80, 30), st.integers(1, 50), max_size=8), min_size=1, max_size=6)


@given(increments)
def test_increments_give_back_what_came_in_each_second(seconds: list[Counts]) -> None:
    total: Counts = {}
    earlier = Histogram()
    for second in seconds:
        for index, n in second.items():
            total[index] = total.get(index, 0) + n
        now = histogram(dict(sorted(total.items())))
        increment = now.since(earlier)
        assert increment.buckets == histogram(dict(sorted(second.items()))).buckets
        assert increment.count == sum(second.values())
        earlier = now


@given(increments, st.integers(1, 3), st.data())
def test_a_change_to_coarser_buckets_loses_nothing(seconds: list[Counts], by: int, data: st.DataObject) -> None:
    change = data.draw(st.integers(0, len(seconds) - 1))
    total: Counts = {}
    earlier = Histogram()
    for at, second in enumerate(seconds):
        for index, n in second.items():
            total[index] = total.get(index, 0) + n
        ordered = dict(sorted(total.items()))
        now = histogram(ordered) if at < change else histogram(dict(sorted(coarser(ordered, by).items())), 3 - by)
        increment = now.since(earlier)
        expected = dict(sorted(second.items()))
        if at >= change:
            expected = dict(sorted(coarser(expected, by).items()))
        wanted = histogram(expected, 3 if at < change else 3 - by)
        assert increment.count == wanted.count
        assert [count for _, _, count in increment.buckets] == [count for _, _, count in wanted.buckets]
        assert np.allclose([b[:2] for b in increment.buckets], [b[:2] for b in wanted.buckets])
        earlier = now


def test_counting_that_began_anew_is_all_new() -> None:
    assert histogram({3: 2}).since(histogram({3: 50})).count == 2


def test_what_took_no_time_stays_in_the_lowest_bucket() -> None:
    parsed = Histogram.parse({"count": "3", "sum": "0", "buckets": [[3, "-2.9e-39", "2.9e-39", "3"]]})
    assert parsed.buckets == ((0.0, 2.9e-39, 3.0),)


def test_label_sets_add_up_across_resolutions() -> None:
    fine, coarse = histogram({-8: 1, -7: 2, 5: 1}), histogram(coarser({-8: 4, -2: 1}, 2), 1)
    both = fine.plus(coarse)
    assert both.count == 9
    assert sum(count for _, _, count in both.buckets) == 9
    assert len(both.buckets) == 4
    assert coarse.plus(fine).buckets == both.buckets


# --- rows -------------------------------------------------------------------------------------------------------------


def answer(values: dict[int, float], **labels: str) -> dict[str, object]:
    return {"metric": labels, "values": [[100 + row, str(value)] for row, value in values.items()]}


def test_a_sample_belongs_to_the_first_row_that_knows_it() -> None:
    frame = Frame(100.0, 5, 1.0, 0.3)
    values = frame.samples([(99.0, 1.0), (100.25, 2.0), (100.3, 3.0), (100.31, 4.0), (103.9, 9.0)])
    assert values.tolist()[:2] == [3.0, 4.0]
    assert np.isnan(values[2:4]).all()
    assert values[4] == 9.0
    assert frame.time(4) == 104.0


def test_one_workers_late_scrape_does_not_make_the_sum_fall() -> None:
    frame = Frame(100.0, 5, 1.0, 0.0)
    up = dict.fromkeys(range(5), 1.0)
    add_target(
        frame,
        [
            answer({0: 5, 1: 6, 2: 7, 3: 8}, __name__="target_conflicts_total", instance="a", job="app"),
            answer({0: 10, 2: 30}, __name__="target_conflicts_total", instance="b", job="app"),
            answer({0: 2, 1: 2, 2: 2, 3: 2}, __name__="target_inflight", instance="a", job="app"),
            answer({0: 1, 2: 4}, __name__="target_inflight", instance="b", job="app"),
            answer(up, __name__="up", instance="a", job="app"),
            answer({**up, 1: 0.0}, __name__="up", instance="b", job="app"),
            answer(up, __name__="up", instance="other", job="app"),
        ],
        "app",
    )
    found = frame.pandas()
    assert found["app.conflicts"].tolist()[:4] == [15, 16, 37, 38]
    assert math.isnan(found["app.conflicts"].iloc[4])  # nothing was scraped any more: nothing is known
    assert found["app.inflight"].tolist()[:4] == [3, 2, 6, 2]
    assert found["app.up"].tolist() == [2, 1, 2, 2, 2]


def test_what_each_worker_tells_of_the_whole_queue_is_not_summed() -> None:
    frame = Frame(100.0, 3, 1.0, 0.0)
    told = [
        answer({0: 7, 1: 5, 2: 2}, __name__="target_queue_length", instance="a", job="worker"),
        answer({0: 7, 1: 6}, __name__="target_queue_length", instance="b", job="worker"),
        answer({0: 3, 1: 3, 2: 1}, __name__="target_queue_busy", instance="a", job="worker"),
        answer({0: 2, 1: 3, 2: 1}, __name__="target_queue_busy", instance="b", job="worker"),
        answer({0: 4, 1: 9}, __name__="target_queue_tasks_total", outcome="sold", instance="a", job="worker"),
    ]
    add_target(frame, told, "worker")
    found = frame.pandas()
    assert found["worker.queue_length"].tolist() == [7, 6, 2]
    assert found["worker.queue_busy"].tolist() == [5, 6, 2]
    assert found["worker.queue_tasks{outcome=sold}"].tolist()[:2] == [4, 9]


def test_a_component_that_a_variant_has_not_is_left_out() -> None:
    frame = Frame(100.0, 2, 1.0, 0.0)
    cpu = [
        answer({0: 1, 1: 2}, __name__="tb_cpu_seconds_total", component=name, job="sampler")
        for name in ("app", "worker")
    ]
    add_sampler(frame, cpu, [answer({0: 100, 1: 101}, job="sampler")], absent=("worker",))
    assert list(frame.columns) == ["cpu_s{component=app}"]


def test_a_restarted_worker_goes_on_counting() -> None:
    assert continued(np.array([5.0, np.nan, 7.0, 1.0, 2.0])).tolist()[2:] == [7.0, 8.0, 9.0]


def test_nothing_is_known_before_the_first_sample_and_after_the_last() -> None:
    filled = forward(np.array([np.nan, 1.0, np.nan, 2.0, np.nan]), 3)
    assert filled.tolist()[1:4] == [1.0, 1.0, 2.0]
    assert np.isnan(filled[[0, 4]]).all()


def test_empty_columns_are_left_out_and_series_of_one_name_add_up() -> None:
    frame = Frame(100.0, 2, 1.0, 0.0)
    add_counters(frame, [("a", np.array([1.0, 2.0])), ("a", np.array([np.nan, 5.0])), ("b", np.full(2, np.nan))])
    found = frame.pandas()
    assert list(found.columns) == ["a"]
    assert found["a"].tolist() == [1.0, 7.0]
