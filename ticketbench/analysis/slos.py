"""k6 thresholds in words: ``http_req_duration{scenario:main,name:home} p(95)<500`` is the p95 latency of home."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ticketbench.analysis.wording import duration, number, percent
from ticketbench.conclusions import SloResult

_METRIC: Final = re.compile(r"(?P<name>[^{]+)(?:\{(?P<tags>.*)\})?", re.DOTALL)
_EXPRESSION: Final = re.compile(
    r"(?P<of>count|rate|value|avg|min|max|med|p\((?P<percentile>[\d.]+)\))\s*"
    r"(?P<sign><=|>=|===?|!=|<|>)\s*(?P<limit>-?\d+(?:\.\d+)?)"
)
_SIGNS: Final = {
    "<": "below ", "<=": "at most ", ">": "above ", ">=": "at least ", "==": "", "===": "", "!=": "other than ",
}  # fmt: skip
_AGGREGATES: Final = {"avg": "mean ", "min": "lowest ", "max": "highest ", "med": "median "}
_TIMES: Final = {"http_req_duration": "latency", "iteration_duration": "duration of a journey"}
_RATES: Final = {"http_req_failed": "share of failed requests", "checks": "share of checks that held"}
_COUNTS: Final = {"dropped_iterations": "number of dropped iterations"}
# What scripts call the k6 scenario that is measured: all that counts belongs to it, so it tells a reader nothing.
_MEASURED: Final = ("main", "window")


@dataclass(frozen=True)
class Said:
    """A threshold in words: what it is about, and what is allowed. ``p95`` where it is a p95 of the latency."""

    what: str
    allowed: str
    p95: bool
    time: bool
    rate: bool

    def value(self, seen: float) -> str:
        """Return a value that k6 saw, in the unit that the threshold means (k6 counts time in milliseconds)."""
        if self.time:
            return duration(seen / 1000)
        return percent(seen) if self.rate else number(seen)


def said(metric: str, expression: str) -> Said | None:
    """Return a threshold in words, None for one that is of no known form."""
    matched, about = _EXPRESSION.fullmatch(expression.strip()), _METRIC.fullmatch(metric)
    if matched is None or about is None:
        return None
    name, of = about["name"], matched["of"]
    rate = of == "rate"
    time = (name in _TIMES or name.startswith("http_req_")) and of not in ("rate", "count", "value")
    aggregate = f"p{matched['percentile']} " if matched["percentile"] else _AGGREGATES.get(of, "")
    noun = {**_TIMES, **_RATES, **_COUNTS}.get(name, name)
    words = Said(
        what=f"{aggregate}{noun}{_whose(about['tags'] or '', requests=name in _TIMES or name in _RATES)}",
        allowed="",
        p95=name == "http_req_duration" and matched["percentile"] == "95",
        time=time,
        rate=rate,
    )
    bound = float(matched["limit"])
    exactly = f"{number(bound * 100)} %" if rate else words.value(bound)  # a limit of 99 % was not measured as 99.0 %
    return replace(words, allowed=f"{_SIGNS[matched['sign']]}{exactly}")


def _whose(tags: str, *, requests: bool) -> str:
    """Return which requests a threshold's tags leave: ``of home``; nothing where they leave all."""
    pairs = [(key.strip(), value.strip()) for key, _, value in (tag.partition(":") for tag in tags.split(",") if tag)]
    names = [value for key, value in pairs if key == "name"]
    others = [
        f"{key} {value}" for key, value in pairs if key != "name" and (key != "scenario" or value not in _MEASURED)
    ]
    of = f" of {names[0]}" if requests and names else f" ({names[0]})" if names else ""
    return of + (f" ({', '.join(others)})" if others else "")


def slo_text(slo: SloResult) -> str:
    """Return a missed SLO with the values that k6 saw: p95 latency of home was 834 ms, not below 500 ms."""
    words = said(slo.metric, slo.expression)
    values = [value for value in slo.values if value is not None]
    if words is None:
        return f"{slo.metric} {slo.expression} was {_over(values, number) or 'not measured'}"
    if not values:
        return f"{words.what} was not measured (it has to be {words.allowed})"
    return f"{words.what} was {_over(values, words.value)}, not {words.allowed}"


def _over(values: Sequence[float], in_words: Callable[[float], str]) -> str:
    """Return the value of one trial, or the lowest and the highest of several."""
    ends = dict.fromkeys(in_words(of(values)) for of in (min, max)) if values else {}
    return " to ".join(ends) + (f" over {len(values)} trials" if len(values) > 1 else "")
