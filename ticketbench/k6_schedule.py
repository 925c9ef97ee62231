"""From k6's options to the load that they offer: when, and how much."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ticketbench.errors import EnvironmentFailure, UsageError
from ticketbench.model import OfferedSlope, Schedule

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)")
_UNIT_S: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DEFAULT_MAX_DURATION_S: Final = 600.0  # k6's own, of the executors that count iterations


@dataclass(frozen=True)
class _Piece:
    """One k6 scenario: when it runs, and what it offers; ``slopes`` is None for a closed model."""

    start_s: float
    end_s: float
    slopes: tuple[OfferedSlope, ...] | None


def schedule(script: str, options: Mapping[str, Any], warmup: tuple[str, ...]) -> Schedule:
    """Return what ``options`` (``k6 inspect --execution-requirements``) schedule; ``script`` is named in errors.

    ``warmup`` are the k6 scenarios outside of the window. A gracefulStop is no part of any length: nothing is offered
    in it. Raises UsageError for an executor whose load cannot be known beforehand, or where nothing is measured.
    """
    scenarios = options.get("scenarios") or {"default": {"executor": "per-vu-iterations"}}  # k6's own default
    pieces = {name: _piece(script, name, raw) for name, raw in scenarios.items()}
    window = {name: piece for name, piece in pieces.items() if name not in warmup}
    if not window:
        raise UsageError(f"{script}: every k6 scenario is a warm-up, so there is nothing to measure")
    open_model = all(piece.slopes is not None for piece in window.values())
    slopes = [slope for piece in window.values() for slope in piece.slopes or ()]
    return Schedule(
        window_start_s=min(piece.start_s for piece in window.values()),
        window_end_s=max(piece.end_s for piece in window.values()),
        total_s=max(piece.end_s for piece in pieces.values()),
        offered=tuple(sorted(slopes, key=lambda slope: (slope.start_s, slope.end_s))) if open_model else (),
        open_model=open_model,
        max_vus=int(options.get("maxVUs") or 1),
        warmup_scenarios=warmup,
    )


def _piece(script: str, name: str, raw: Mapping[str, Any]) -> _Piece:
    executor = str(raw.get("executor"))
    start_s = _seconds(raw.get("startTime"), 0.0)
    stages = [(float(each["target"]), _seconds(each["duration"], 0.0)) for each in raw.get("stages") or ()]
    match executor:
        case "constant-arrival-rate":
            rate = float(raw["rate"]) / _seconds(raw.get("timeUnit"), 1.0)
            end_s = start_s + _seconds(raw["duration"], 0.0)
            slope = OfferedSlope(start_s=start_s, end_s=end_s, from_per_s=rate, to_per_s=rate)
            return _Piece(start_s, end_s, (slope,))
        case "ramping-arrival-rate":
            unit_s = _seconds(raw.get("timeUnit"), 1.0)
            slopes = _ramps(start_s, float(raw.get("startRate") or 0) / unit_s, [(t / unit_s, d) for t, d in stages])
            return _Piece(start_s, start_s + sum(duration for _, duration in stages), slopes)
        case "constant-vus":
            return _Piece(start_s, start_s + _seconds(raw["duration"], 0.0), None)
        case "ramping-vus":
            return _Piece(start_s, start_s + sum(duration for _, duration in stages), None)
        case "per-vu-iterations" | "shared-iterations":
            return _Piece(start_s, start_s + _seconds(raw.get("maxDuration"), _DEFAULT_MAX_DURATION_S), None)
    raise UsageError(
        f"{script}: k6 scenario {name!r} has executor {executor!r}, whose load is not known beforehand",
        hint="constant-arrival-rate and ramping-arrival-rate offer a known load",
    )


def _ramps(start_s: float, rate: float, stages: Iterable[tuple[float, float]]) -> tuple[OfferedSlope, ...]:
    slopes: list[OfferedSlope] = []
    for target, duration_s in stages:
        if duration_s > 0:  # a stage of no length is a jump
            end_s = start_s + duration_s
            slopes.append(OfferedSlope(start_s=start_s, end_s=end_s, from_per_s=rate, to_per_s=target))
            start_s = end_s
        rate = target
    return tuple(slopes)


def _seconds(text: object, default: float) -> float:
    """Return a Go duration (``1m2.5s``) in seconds; ``default`` for None."""
    if text is None:
        return default
    parts = _DURATION.findall(str(text))
    if "".join(number + unit for number, unit in parts) != str(text):
        if text in {"0", 0}:
            return 0.0
        raise EnvironmentFailure(f"k6 inspect wrote a duration that is none: {text!r}", "check the version of k6")
    return sum(float(number) * _UNIT_S[unit] for number, unit in parts)
