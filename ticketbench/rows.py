"""Rows of a plan: each its own scenario and levels, with what somebody expected of it; and how an expectation is held.

An expectation is the text as it was written, and checks over signals of the analysis: ``requests_per_s about 50``.
"""

import re
from typing import Final, Literal, get_args

from ticketbench.record import Record

Comparison = Literal["<", "<=", ">", ">=", "=", "about"]
COMPARISONS: Final[tuple[str, ...]] = get_args(Comparison)
# A table that says "about" has rounded: a tenth to either side is the same figure.
ABOUT: Final = 0.1

# Signals with a single figure; those below are of one resource each.
FIGURES: Final = (
    "offered_per_s", "achieved_per_s", "goodput_per_s", "requests_per_s", "error_ratio", "p50_s", "p95_s", "p99_s",
    "slos_missed", "oversold", "lost",
)  # fmt: skip
OF_RESOURCE: Final = ("utilisation", "queue")
RESOURCES: Final = (
    "db_pool", "event_loop", "app_cpu", "postgres_cpu", "redis_cpu", "host_cpu", "load_generator", "other_cpu",
    "row_lock", "pgbouncer", "pgbouncer_cpu", "haproxy", "haproxy_cpu", "queue_worker", "worker_cpu", "payment",
    "payment_cpu",
)  # fmt: skip
FORM: Final = "SIGNAL COMPARISON NUMBER"
_CHECK: Final = re.compile(
    r"(?P<signals>[a-z0-9_.]+(?:\s*\|\s*[a-z0-9_.]+)*)\s*(?P<is><=|>=|<|>|=|about\b)\s*(?P<value>[0-9]{1,9}(?:\.[0-9]{1,9})?)"
)


class Check(Record):
    """A signal held against a number; of several ``signals`` the highest counts (``utilisation.app_cpu``).

    Ratios are 0 to 1, times seconds. ``about`` leaves a tenth (:data:`ABOUT`) to either side.
    """

    signals: tuple[str, ...]
    comparison: Comparison
    value: float

    @property
    def text(self) -> str:
        """The check as it is written."""
        return f"{' | '.join(self.signals)} {self.comparison} {self.value:g}"

    def holds(self, measured: float) -> bool:
        """Tell whether a measured figure is as it is expected."""
        match self.comparison:
            case "<":
                return measured < self.value
            case "<=":
                return measured <= self.value
            case ">":
                return measured > self.value
            case ">=":
                return measured >= self.value
            case "=":
                return measured == self.value
            case "about":
                return abs(measured - self.value) <= ABOUT * self.value


class Expectation(Record):
    """What was expected, in the words of whoever did, and the ``checks`` of which all have to hold."""

    text: str
    checks: tuple[Check, ...]


class PlanRow(Record):
    """A row: a variant of the same name runs one scenario under ``levels`` (what the row sets; the rest is usual)."""

    name: str
    title: str = ""
    levels: dict[str, int | float | str]
    expect: tuple[Expectation, ...] = ()


def parse_check(where: str, text: str, problems: list[str]) -> Check | None:
    """Read ``SIGNAL COMPARISON NUMBER``; None with problems added, which begin ``where``."""
    matched = _CHECK.fullmatch(text.strip())
    if matched is None:
        problems.append(
            f"{where}: {text!r} is not of the form {FORM}, as in 'p95_s < 0.1': known are {', '.join(COMPARISONS)}"
        )
        return None
    signals = tuple(name.strip() for name in matched["signals"].split("|"))
    unknown = [name for name in signals if not known_signal(name)]
    problems += [f"{where}: there is no signal {name!r}: known are {_known()}" for name in unknown]
    if unknown:
        return None
    comparison: Comparison
    match matched["is"]:
        case "<" | "<=" | ">" | ">=" | "=" | "about" as comparison:
            return Check(signals=signals, comparison=comparison, value=float(matched["value"]))
        case _:
            raise AssertionError(matched["is"])  # the pattern has no other


def known_signal(name: str) -> bool:
    """Tell whether a check may ask for a signal."""
    kind, dot, resource = name.partition(".")
    return name in FIGURES or (bool(dot) and kind in OF_RESOURCE and bool(resource))


def _known() -> str:
    return f"{', '.join(FIGURES)}, and {' and '.join(f'{kind}.RESOURCE' for kind in OF_RESOURCE)}, as in queue.db_pool"
