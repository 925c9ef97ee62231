"""Figures as words, for the sentences that the analysis concludes with."""

from collections.abc import Iterable

# Below it no answer has crossed even the loopback: k6 counts a microsecond for what it does not send.
SHORTEST_LATENCY_S = 1e-5


def number(value: float) -> str:
    """Return three significant digits without an exponent: 0.0123, 1.23, 123, 12300."""
    if value == 0:
        return "0"
    digits = f"{value:.3g}"
    return f"{float(digits):.0f}" if "e+" in digits else f"{float(digits):.10f}".rstrip("0").rstrip(".") or "0"


def percent(ratio: float) -> str:
    """Return a ratio as a percentage; one that is small, or nearly all, keeps a decimal and is never rounded away."""
    value = ratio * 100
    if 0 < value < 0.01:
        return "less than 0.01 %"
    if 0 < value < 1:
        return f"{value:.2g} %"
    if value < 10 and round(value, 1) != round(value):
        return f"{value:.1f} %"
    if 99 <= value < 100:
        return f"{min(value, 99.9):.1f} %"
    return f"{value:.0f} %"


def borne(value: float) -> str:
    """Return as many digits as a histogram bears: two, three where the first is a 1. No exponent, no thousands.

    k6's buckets grow by a tenth, so a digit that stands for less than a hundredth would be made up.
    """
    digits = 3 if f"{abs(value):.2e}"[0] == "1" else 2
    rounded = float(f"{value:.{digits - 1}e}")
    exponent = int(f"{rounded:e}".partition("e")[2])
    return "0" if rounded == 0 else f"{rounded:.{max(0, digits - 1 - exponent)}f}"


def latency(seconds: float) -> str:
    """Return a quantile of a histogram, or a mean of such figures: 24 ms, 1.41 s, 4.4 s.

    A request that fails before it is sent takes nothing, which k6's histograms place in their lowest bucket (1e-38 s).
    """
    if 0 < seconds < SHORTEST_LATENCY_S:
        return f"<{SHORTEST_LATENCY_S * 1000:g} ms"
    in_ms = borne(seconds * 1000)
    return f"{in_ms} ms" if float(in_ms) < 1000 else f"{borne(seconds)} s"


def times(ratio: float) -> str:
    """Return a ratio as a factor: 0.97x, 1.64x, 31x; two digits of a large or small one, which no two trials repeat."""
    return (
        f"{ratio:.2f}x" if 0.095 <= ratio < 1.995 else f"{ratio:.1f}x" if 1.995 <= ratio < 9.95 else f"{_two(ratio)}x"
    )


def _two(value: float) -> str:
    return number(float(f"{value:.1e}"))


def duration(seconds: float) -> str:
    """Return seconds in the unit that reads best: 850 us, 41 ms, 1.23 s."""
    if seconds < 0.001:
        return f"{number(seconds * 1e6)} us"
    return f"{number(seconds * 1000)} ms" if seconds < 1 else f"{number(seconds)} s"


def signed_percent(change: float) -> str:
    """Return a relative change with its sign: +12 %, -3.1 %."""
    sign = "-" if change < 0 else "+"
    return f"{sign}{percent(abs(change))}"


def listed(parts: Iterable[str], most: int = 5) -> str:
    """Return parts in a row; beyond ``most`` only how many more there are."""
    every = list(parts)
    shown = ", ".join(every[:most])
    return shown if len(every) <= most else f"{shown} and {len(every) - most} more"
