from pathlib import Path

import pytest

from ticketbench.errors import UsageError
from ticketbench.mapping import (
    DEFAULT_MAPPING,
    SeriesSource,
    bundled_mappings,
    check_selector,
    find_mapping,
    read_mapping,
)

GOOD = """
title = "a shop"
samples = 'requests_total{$selector}'

[[signal]]
column = "app.requests"
query = 'sum by (code) (requests_total{$selector})'
labels = { status = "code" }

[[signal]]
column = "cpu_s"
component = "postgres"
optional = true
query = 'sum(pg_cpu{$selector})'

[[resource]]
name = "seats"
used = 'sum(sold{$selector})'
capacity = 50
queue = 'sum(waiting)'
unit = "buyers waiting"
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "shop.toml"
    path.write_text(text)
    return path


def problems(tmp_path: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(UsageError) as caught:
        read_mapping(write(tmp_path, text))
    return caught.value.problems


def test_a_mapping_gives_a_query_for_each_column(tmp_path: Path) -> None:
    mapping = read_mapping(write(tmp_path, GOOD))
    assert mapping.name == "shop.toml"
    assert [(signal.column, signal.kind) for signal in mapping.signals()] == [
        ("app.requests", "counter"),
        ("cpu_s{component=postgres}", "counter"),
        ("resource.used{resource=seats}", "gauge"),
        ("resource.queue{resource=seats}", "gauge"),
        ("resource.capacity{resource=seats}", "gauge"),
    ]
    assert mapping.queries[0].labels == {"status": "code"}
    assert mapping.queries[-1].constant == 50
    assert [query.name for query in mapping.queries if query.optional] == ["cpu_s"]


def test_what_is_recorded_holds_no_query(tmp_path: Path) -> None:
    mapping = read_mapping(write(tmp_path, GOOD))
    assert not any("sum" in signal.model_dump_json() for signal in mapping.signals())


def test_the_selector_takes_its_place(tmp_path: Path) -> None:
    source = SeriesSource("http://127.0.0.1:9090", read_mapping(write(tmp_path, GOOD)), 'job="a"', components_here=True)
    assert source.expanded(source.mapping.samples) == 'requests_total{job="a"}'


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    text = """
sample = "x"

[[signal]]
column = "app.request"
query = "x"

[[signal]]
column = "app.inflight"
kind = "counter"
query = 'x{$job}'
labels = { route = "handler" }

[[signal]]
column = "memory_bytes"
component = "kafka"
optional = "yes"

[[resource]]
name = "Seats left"
used = "x"
"""
    told = problems(tmp_path, text)
    for part in (
        "no key 'sample': known are title, samples, signal, resource",
        "samples is missing",
        "signal 1: column = 'app.request' is not known: known are app.requests",
        "signal 2: kind = 'counter' is not possible: app.inflight is a gauge",
        "signal 2: query has the placeholder $job: known is $selector",
        "signal 2: label 'route' is not possible: app.inflight takes none",
        "signal 3: query is missing",
        "signal 3: component = 'kafka' is not known: known are app, postgres, redis",
        "signal 3: optional = 'yes' is not possible: known are true, false",
        "resource 1: name = 'Seats left' is not possible",
        "resource 1: used and capacity belong together",
    ):
        assert any(part in line for line in told), part
    assert all(line.startswith("mapping shop.toml") for line in told)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("samples = 'x'", "maps nothing"),
        ("samples = ", "is not TOML"),
        ("samples = 'x'\nsignal = 3", "signal is not a list of tables"),
        ("samples = 'x'\n[[resource]]\nname = 'a'", "give used"),
        ("samples = 'x'\n[[resource]]\nname = 'a'\nused = 'x'\ncapacity = 0", "capacity = 0 is not possible"),
        ("samples = 'x'\n[[resource]]\nname = 'a'\nused = 'x'\ncapacity = inf", "capacity = inf is not possible"),
        (f"samples = 'x'\n[[resource]]\nname = 'a'\nused = 'x'\ncapacity = 1{'0' * 400}", "it takes a number above 0"),
        ("samples = 'x'\n[[resource]]\nname = 'a'\nused = 'x'\ncapacity = true", "capacity is not text"),
    ],
)
def test_other_faults(tmp_path: Path, text: str, why: str) -> None:
    assert why in problems(tmp_path, text)[0]


def test_a_column_is_mapped_once(tmp_path: Path) -> None:
    again = GOOD + '\n[[signal]]\ncolumn = "app.requests"\nquery = "x"\n'
    assert problems(tmp_path, again) == ("mapping shop.toml: app.requests is mapped twice",)


def test_the_bundled_mappings_can_be_read() -> None:
    assert DEFAULT_MAPPING in bundled_mappings()
    for name in bundled_mappings():
        assert read_mapping(find_mapping("--prometheus-mapping", name)).name == name


def test_an_unknown_mapping_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match=rf"'nothing' is neither a file .*: bundled are .*{DEFAULT_MAPPING}"):
        find_mapping("--prometheus-mapping", "nothing")


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("", ""),
        ('job="shop"', 'job="shop"'),
        ('{job="shop", instance=~"web.+"}', 'job="shop", instance=~"web.+"'),
        ('job!="a\\"b",', 'job!="a\\"b"'),
    ],
)
def test_a_selector_is_a_list_of_matchers(text: str, inner: str) -> None:
    told: list[str] = []
    assert check_selector("--prometheus-selector", text, told) == inner
    assert told == []


@pytest.mark.parametrize("text", ["shop", "job=shop", 'job="a"} or up{', 'job="a" or b', 'job=="a"'])
def test_anything_else_is_no_selector(text: str) -> None:
    told: list[str] = []
    check_selector("--prometheus-selector", text, told)
    assert "is not a list of label matchers" in told[0]
