"""What the conclusions say: thresholds in words, and reasons once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ticketbench.analysis import wording
from ticketbench.analysis.reasons import said_once
from ticketbench.analysis.slos import slo_text
from ticketbench.conclusions import SloResult


def text(metric: str, expression: str, *values: float | None) -> str:
    return slo_text(SloResult(metric=metric, expression=expression, ok=False, values=values))


@pytest.mark.parametrize(
    ("metric", "expression", "value", "said"),
    [
        ("http_req_duration{scenario:window}", "p(95)<500", 834.2, "p95 latency was 834 ms, not below 500 ms"),
        (
            "http_req_duration{scenario:main,name:home}", "p(99)<=1500", 2210.0,
            "p99 latency of home was 2.21 s, not at most 1.5 s",
        ),
        (
            "http_req_duration{name:a,status:200}", "med < 5", 7,
            "median latency of a (status 200) was 7 ms, not below 5 ms",
        ),
        ("http_req_failed{scenario:main}", "rate<0.01", 0.032, "share of failed requests was 3.2 %, not below 1 %"),
        ("http_req_failed{name:buy}", "rate<0.01", 0.5, "share of failed requests of buy was 50 %, not below 1 %"),
        ("http_req_waiting", "avg<100", 120, "mean http_req_waiting was 120 ms, not below 100 ms"),
        ("checks", "rate>0.99", 0.8, "share of checks that held was 80 %, not above 99 %"),
        ("dropped_iterations{scenario:main}", "count<1", 23, "number of dropped iterations was 23, not below 1"),
        ("sold_of_match_1", "count<=50", 53, "sold_of_match_1 was 53, not at most 50"),
        ("http_req_duration{scenario:late}", "max<9", 10, "highest latency (scenario late) was 10 ms, not below 9 ms"),
        ("my_trend", "p(90)>=3", 2, "p90 my_trend was 2, not at least 3"),
        ("odd{", "nonsense", 2, "odd{ nonsense was 2"),
    ],
)  # fmt: skip
def test_a_missed_threshold_is_told_in_words(metric: str, expression: str, value: float, said: str) -> None:
    assert text(metric, expression, value) == said


def test_a_threshold_over_several_trials_and_over_none() -> None:
    assert (
        text("http_req_duration", "p(95)<30", 31, None, 45)
        == "p95 latency was 31 ms to 45 ms over 2 trials, not below 30 ms"
    )
    assert text("http_req_duration", "p(95)<30", 31, 31) == "p95 latency was 31 ms over 2 trials, not below 30 ms"
    assert text("http_req_duration", "p(95)<30", None) == "p95 latency was not measured (it has to be below 30 ms)"
    assert text("odd", "nonsense", None) == "odd nonsense was not measured"


def test_a_reason_is_said_once_with_whose_it_is() -> None:
    told = said_once([("1", ["a", "b"]), ("2", ["b", "c"]), ("3", ["b"])])
    assert told == [(("1",), "a"), (("1", "2", "3"), "b"), (("2",), "c")]


def test_reasons_that_differ_in_percentages_are_one_with_the_range() -> None:
    told = said_once([("1", ["took 12 % (of 2)"]), ("2", ["took 9.5 % (of 2)"]), ("3", ["took 11 % (of 2)"])])
    assert told == [(("1", "2", "3"), "took 9.5 % to 12 % (of 2)")]


def test_ranges_of_trials_become_one_of_variants() -> None:
    trials = [said_once([("1", ["took 9 % of 50 %"]), ("2", ["took 11 % of 50 %"])])[0][1], "took 8 % of 50 %"]
    assert said_once([("a", trials[:1]), ("b", trials[1:])]) == [(("a", "b"), "took 8 % to 11 % of 50 %")]


def test_other_numbers_are_names_and_are_not_merged() -> None:
    told = said_once([("1", ["match 1 sold 53"]), ("2", ["match 2 sold 53"])])
    assert told == [(("1",), "match 1 sold 53"), (("2",), "match 2 sold 53")]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.lists(st.sampled_from(["x", "y 1 %", "y 2 %", "z 0.5 %"])))))
def test_no_reason_and_no_name_is_lost(parts: list[tuple[str, list[str]]]) -> None:
    told = said_once(parts)
    assert {name for names, _ in told for name in names} == {name for name, reasons in parts if reasons}
    assert {reason[0] for _, reason in told} == {reason[0] for _, reasons in parts for reason in reasons}
    assert len({reason for _, reason in told}) == len(told)


def test_what_took_no_time_has_no_digits() -> None:
    assert wording.latency(2.8e-38) == "<0.01 ms"
    assert wording.latency(0.0) == "0 ms"
    assert wording.latency(0.000123) == "0.123 ms"
