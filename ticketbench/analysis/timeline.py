"""A trial second by second: what the report's figures draw."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Timeline:
    """Per-second figures of one trial; all lists have the length of ``t_s``, None where nothing was measured.

    ``t_s`` counts from the window's start (warm-up is negative). Latencies are of successful answers in seconds,
    quantiles of each second's own histogram. Rates are per second, ratios 0 to 1. ``utilisation`` and ``queue`` are
    keyed like ``Signals.saturation``.
    """

    trial: str
    variant: str
    window_s: float
    t_s: list[float]
    offered_per_s: list[float | None]
    achieved_per_s: list[float | None]
    goodput_per_s: list[float | None]
    p50_s: list[float | None]
    p95_s: list[float | None]
    p99_s: list[float | None]
    error_ratio: list[float | None]
    utilisation: dict[str, list[float | None]] = field(default_factory=dict)
    queue: dict[str, list[float | None]] = field(default_factory=dict)
