"""Columns as increases and means: what is missing stays missing, what began inside the window began at zero."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ticketbench.analysis.resources import Machine, label, limits_of, saturation
from ticketbench.analysis.series import Series, parse_column

nan = float("nan")
WINDOW = np.array([10.0, 20.0])


def series(**columns: list[float]) -> Series:
    """Columns from second 5 on; two underscores stand for a dot."""
    length = len(next(iter(columns.values())))
    frame = pd.DataFrame(
        {name.replace("__", "."): values for name, values in columns.items()}, index=np.arange(5.0, 5 + length)
    )
    return Series(frame)


def test_columns_are_split_into_name_and_labels() -> None:
    column = "k6.requests{error=,expected=true,method=GET,route=/matches/{n},status=200}"
    assert parse_column(column) == (
        "k6.requests",
        {"error": "", "expected": "true", "method": "GET", "route": "/matches/{n}", "status": "200"},
    )
    assert parse_column("k6.vus") == ("k6.vus", {})
    assert parse_column("pg.wait_s{wait=idle in transaction}")[1] == {"wait": "idle in transaction"}


def test_a_total_is_the_difference_over_the_window() -> None:
    frame = pd.DataFrame({"cpu_s{component=app}": 100 + 0.5 * np.arange(20)}, index=np.arange(5.0, 25.0))
    assert Series(frame).increase("cpu_s", WINDOW)[0] == pytest.approx(5.0)
    assert Series(frame).increase("cpu_s", WINDOW + 0.5)[0] == pytest.approx(5.0)  # between two samples


def test_an_event_that_first_happened_inside_the_window_counts_from_zero() -> None:
    values = np.array([nan] * 8 + [7.0, 9.0] + [9.0] * 10)
    frame = pd.DataFrame({"app.requests{route=a}": values, "k6.dropped{scenario=x}": values}, index=np.arange(5.0, 25))
    assert Series(frame).increase("app.requests", WINDOW)[0] == 9.0
    assert Series(frame).increase("k6.dropped", WINDOW)[0] == 9.0


def test_a_total_that_was_first_scraped_inside_the_window_does_not() -> None:
    values = [nan] * 8 + [1000 + 2.0 * t for t in range(12)]  # from t = 13 on, two a second
    found = series(cpu_s=values).increase("cpu_s", WINDOW)[0]
    assert found == pytest.approx(20.0)  # 14 were seen in 7 s, and the three seconds before were no different


def test_gaps_at_the_edges_and_within_are_bridged() -> None:
    values = [3.0 * t for t in range(5, 25)]
    for at in (4, 5, 6, 10, 11, 15, 16):
        values[at] = nan
    assert series(pg__exec_s=values).increase("pg.exec_s", WINDOW)[0] == pytest.approx(30.0)


def test_a_source_that_died_early_is_unknown_and_not_idle() -> None:
    values = [2.0 * t for t in range(5, 14)] + [nan] * 11  # last seen at 13 of a window from 10 to 20
    assert np.isnan(series(cpu_s=values).increase("cpu_s", WINDOW)[0])
    assert np.isnan(series(cpu_s=values).increase("absent", WINDOW)[0])
    assert Series(None).total("cpu_s") is None


def test_a_scrape_that_one_worker_missed_is_no_restart() -> None:
    values = [1000.0 + 10 * t for t in range(20)]
    values[9] /= 2
    assert series(**{"app.loop_cpu_s": values}).increase("app.loop_cpu_s", WINDOW)[0] == pytest.approx(100.0)
    values[15] /= 2  # at the window's end
    grown = series(**{"app.loop_cpu_s": values}).increase("app.loop_cpu_s", WINDOW)[0]
    assert 85 <= grown <= 100


@given(st.lists(st.floats(0, 50), min_size=20, max_size=20), st.integers(11, 19))
def test_increases_of_parts_add_up(steps: list[float], cut: int) -> None:
    total = series(cpu_s=list(100 + np.cumsum(steps)))
    parts = total.increase("cpu_s", np.array([10.0, cut, 20.0]))
    assert parts.sum() == pytest.approx(total.increase("cpu_s", WINDOW)[0])
    assert (parts >= 0).all()


def test_gauges_are_means_of_the_samples_inside() -> None:
    values = [nan if t == 12 else float(t) for t in range(5, 25)]
    s = series(k6__vus=values)
    assert s.gauge("k6.vus", WINDOW)[0] == pytest.approx(np.mean([11, 13, 14, 15, 16, 17, 18, 19, 20]))
    assert np.isnan(s.gauge("k6.vus", np.array([11.5, 12.5]))[0])
    assert np.isnan(s.gauge("absent", WINDOW)[0])


def test_a_ratio_of_gauges_leaves_zero_divisors_out() -> None:
    s = series(a=[5.0] * 20, b=[0.0] * 10 + [10.0] * 10)
    assert s.ratio("a", "b", WINDOW)[0] == 0.5
    assert np.isnan(series(a=[5.0] * 20, b=[0.0] * 20).ratio("a", "b", WINDOW)[0])


def test_no_lock_wait_seen_is_zero_only_where_waits_were_sampled() -> None:
    machine = Machine(cores=2, workers=1, max_vus=10)
    sampled = pd.DataFrame({"pg.wait_s{wait=CPU}": np.arange(20.0)}, index=np.arange(5.0, 25.0))
    locked = sampled.assign(**{"pg.wait_s{wait=Lock:tuple}": [nan] * 8 + [3.0] * 12})
    assert saturation(Series(sampled), WINDOW, machine)["row_lock"].queue[0] == 0.0
    assert saturation(Series(locked), WINDOW, machine)["row_lock"].queue[0] == pytest.approx(0.3)
    assert np.isnan(saturation(Series(None), WINDOW, machine)["row_lock"].queue[0])


def test_workers_beyond_the_cores_share_them() -> None:
    frame = pd.DataFrame({"cpu_s{component=app}": 1.8 * np.arange(20)}, index=np.arange(5.0, 25.0))
    s = Series(frame)
    assert saturation(s, WINDOW, Machine(2, 1, 1))["app_cpu"].utilisation[0] == pytest.approx(1.8)
    assert saturation(s, WINDOW, Machine(2, 2, 1))["app_cpu"].utilisation[0] == pytest.approx(0.9)
    assert saturation(s, WINDOW, Machine(2, 8, 1))["app_cpu"].utilisation[0] == pytest.approx(0.9)
    assert s.increase("cpu_s", WINDOW, label(component="k6")).tolist() != [0.0]


def test_a_cpu_limit_is_the_capacity_and_tells_how_long_it_held_back() -> None:
    seconds = np.arange(20)
    columns = {
        "cpu_s{component=app}": 0.27 * seconds,
        "cpu_s{component=postgres}": 0.1 * seconds,
        "cpu_throttled_s{component=app}": 4.0 + 0.6 * seconds,
    }
    s = Series(pd.DataFrame(columns, index=np.arange(5.0, 25.0)))
    limits = limits_of({"app_cpus": 0.3, "postgres_cpus": 0, "redis_cpus": 4.0, "pool_size": 2})
    assert limits == {"app": 0.3, "redis": 4.0}
    found = saturation(s, WINDOW, Machine(2, 1, 1, limits))
    app, postgres, redis = (found[f"{name}_cpu"] for name in ("app", "postgres", "redis"))
    assert (app.utilisation[0], app.limit_cores) == (pytest.approx(0.9), 0.3)
    assert app.throttled is not None
    assert app.throttled[0] == pytest.approx(0.6)
    assert (postgres.utilisation[0], postgres.limit_cores, postgres.throttled) == (pytest.approx(0.05), None, None)
    assert redis.limit_cores == 4.0  # what nobody saw is not measured, and no zero
    assert redis.throttled is not None
    assert np.isnan(redis.throttled[0])
