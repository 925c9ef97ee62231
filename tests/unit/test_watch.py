"""When a load must not go on because Prometheus does not scrape the sale."""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from ticketbench.errors import EnvironmentFailure
from ticketbench.sampler_process import SamplerProcess
from ticketbench.stack import Endpoints
from ticketbench.watch import TrialWatch


@dataclass
class Sampler:
    """A sampler that lives."""

    pid: int = os.getpid()

    def alive(self) -> bool:
        return True


class Prometheus:
    """Answers what it was told to; ``asked`` is set once it has answered with the newest."""

    def __init__(self) -> None:
        self.missing = "not yet 127.0.0.1:1"
        self.error: str | None = None
        self.asked = threading.Event()

    def unscraped(self) -> str:
        missing, error = self.missing, self.error
        self.asked.set()
        if error is not None:
            raise EnvironmentFailure(error)
        return missing

    def answer(self, missing: str = "", error: str | None = None) -> None:
        """Change the answer, and wait until it was given twice: after that it has been taken notice of."""
        self.missing, self.error = missing, error
        for _ in range(2 if missing or error else 1):
            self.asked.clear()
            assert self.asked.wait(10)


def watch(unscraped: Callable[[], str], dead: Callable[[], dict[str, str]] = dict) -> TrialWatch:
    endpoints = Endpoints(
        base_url="", prometheus_url="", access=None, components=(), app_metrics=(), k6_command=(), binaries=(),
        settings={}, logs={"app": Path()}, dead=dead, unscraped=unscraped,
    )  # fmt: skip
    return TrialWatch(endpoints, cast("SamplerProcess", Sampler()))


def test_a_sale_that_is_not_scraped_is_a_fault_from_the_window_on() -> None:
    prometheus = Prometheus()
    with watch(prometheus.unscraped) as trial:
        prometheus.answer("not yet 127.0.0.1:1")
        assert trial.accident() is None
        trial.window_begins()
        accident = trial.accident()
        assert accident is not None
        assert "had not scraped" in accident
        assert "not yet 127.0.0.1:1" in accident


def test_a_sale_that_was_found_in_the_warm_up_is_not_asked_about_again() -> None:
    prometheus = Prometheus()
    with watch(prometheus.unscraped) as trial:
        prometheus.answer("")
        for thread in threading.enumerate():
            if thread.name == "scrapes":
                thread.join(10)  # it ends with the answer
        prometheus.missing = "not yet 127.0.0.1:1"
        trial.window_begins()
        assert trial.accident() is None


def test_a_prometheus_that_does_not_answer_by_then_is_named() -> None:
    prometheus = Prometheus()
    with watch(prometheus.unscraped) as trial:
        prometheus.answer(error="Prometheus does not answer")
        trial.window_begins()
        assert "Prometheus does not answer" in (trial.accident() or "")


def test_a_component_that_died_is_the_only_fault() -> None:
    prometheus = Prometheus()
    with watch(prometheus.unscraped, dead=lambda: {"app": "exit status 1"}) as trial:
        trial.window_begins()
        assert trial.accident() == "app died in mid-trial: exit status 1"


def test_waiting_ends_with_the_first_scrape_or_with_a_death() -> None:
    answers = iter(["not yet", "not yet", ""])
    trial = watch(lambda: next(answers))
    trial.await_scraped()
    assert list(answers) == []
    with trial:
        trial.window_begins()
        assert trial.accident() is None  # nobody asks again: the answers are used up
    with pytest.raises(EnvironmentFailure, match="app died in mid-trial: exit status 1"):
        watch(lambda: "not yet", dead=lambda: {"app": "exit status 1"}).await_scraped()
