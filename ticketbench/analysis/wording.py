"""Figures as words, for the sentences that the analysis concludes with."""

from collections.abc import Iterable


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
