"""Open files are looked at before a run, for each part and the variant that asks most of it."""

import resource
from typing import Any

import pytest

from tests.unit.synthetic import run_record, schedule
from ticketbench import descriptors
from ticketbench.errors import EnvironmentFailure
from ticketbench.model import Plan


def plan(vus: int, **levels: Any) -> Plan:
    made = run_record(load=schedule(seconds=5, per_s=2).model_copy(update={"max_vus": vus})).plan
    (variant,) = made.variants
    more = variant.model_copy(update={"levels": {**variant.levels, "max_overflow": 0, "workers": 1, **levels}})
    return made.model_copy(update={"variants": (more,)})


def allow(monkeypatch: pytest.MonkeyPatch, hard: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (min(hard, 1024), hard))


def test_enough_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    most = max(descriptors.needs(plan(1500)).values())
    for hard in (most, most + 1, resource.RLIM_INFINITY):
        allow(monkeypatch, hard)
        descriptors.require(plan(1500))


def test_each_part_that_falls_short_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, 1024)
    with pytest.raises(EnvironmentFailure) as failure:
        descriptors.require(plan(1500, pool_size=20, workers=2))
    message = "this machine allows a process 1024 open files, and this run needs more: k6 1600, the sale 1620"
    assert failure.value.message == message
    assert "ulimit -Hn 1620" in failure.value.hint


def test_the_sampler_follows_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, 300)
    with pytest.raises(EnvironmentFailure, match=r"more: the sampler \d+$"):
        descriptors.require(plan(10, pool_size=50, workers=4))


def test_the_variant_that_asks_most_decides() -> None:
    one = plan(10)
    big = one.variants[0].model_copy(update={"name": "big", "levels": {**one.variants[0].levels, "pool_size": 150}})
    both = one.model_copy(update={"variants": (*one.variants, big)})
    assert descriptors.needs(both)["the sale"] == 10 + 150 + descriptors.OTHER_FILES


def test_somebody_elses_system_is_not_ours_to_count() -> None:
    assert list(descriptors.needs(plan(10).model_copy(update={"external": object()}))) == ["k6"]
