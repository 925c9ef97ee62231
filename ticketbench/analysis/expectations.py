"""Rows held against what was expected of them: from the signals of their variants alone, whatever a sentence says."""

from collections.abc import Sequence

from ticketbench.analysis.wording import duration, latency, number, percent
from ticketbench.conclusions import CheckResult, ExpectationResult, ExpectationStatus, RowAnalysis, VariantAnalysis
from ticketbench.model import Plan
from ticketbench.rows import Check, Expectation


def rows_of(plan: Plan, variants: Sequence[VariantAnalysis]) -> tuple[RowAnalysis, ...]:
    """Return each row of the plan with its expectations judged; nothing for a plan without rows."""
    by_name = {variant.variant: variant for variant in variants}
    return tuple(
        RowAnalysis(
            row=row.name,
            title=row.title,
            scenario=plan.scenario_of(row.name).name,
            expectations=tuple(_expectation(one, by_name[row.name]) for one in row.expect),
        )
        for row in plan.rows
    )


def _expectation(expectation: Expectation, variant: VariantAnalysis) -> ExpectationResult:
    """Return the judgement: not met where one check fails, cannot be told where one has no figure, else met."""
    checks = tuple(_check(check, variant) for check in expectation.checks)
    kinds = {check.status for check in checks}
    status: ExpectationStatus = "not_met" if "not_met" in kinds else "unknown" if "unknown" in kinds else "met"
    reason = ""
    if variant.validity.status == "invalid":  # what cannot be believed settles nothing, either way
        why = variant.validity.reasons[0] if variant.validity.reasons else "nothing was measured"
        status, reason = "unknown", f"the measurement is invalid: {why}"
    elif status == "unknown":
        lacking = " and ".join(check.check.partition(" ")[0] for check in checks if check.status == "unknown")
        reason = f"there is no figure of {lacking}"
    return ExpectationResult(text=expectation.text, status=status, reason=reason, checks=checks)


def _check(check: Check, variant: VariantAnalysis) -> CheckResult:
    figures = {name: value for name in check.signals if (value := signal_of(variant, name)) is not None}
    if not figures:
        return CheckResult(check=check.text, signal=check.signals[0], measured=None, status="unknown")
    signal = max(figures, key=lambda name: figures[name])
    status: ExpectationStatus = "met" if check.holds(figures[signal]) else "not_met"
    return CheckResult(check=check.text, signal=signal, measured=figures[signal], status=status)


def signal_of(variant: VariantAnalysis, name: str) -> float | None:
    """Return a signal of a variant by the name that a check has for it (rows.py); None where it was not measured."""
    kind, _, resource = name.partition(".")
    if kind in ("utilisation", "queue"):
        usage = variant.signals.saturation.get(resource)
        return None if usage is None else usage.utilisation if kind == "utilisation" else usage.queue
    traffic, latency_s = variant.signals.traffic, variant.signals.latency_s
    figures: dict[str, float | None] = {
        "offered_per_s": traffic.offered_per_s,
        "achieved_per_s": traffic.achieved_per_s,
        "goodput_per_s": traffic.goodput_per_s,
        "requests_per_s": traffic.requests_per_s,
        "error_ratio": variant.signals.errors.ratio,
        "p50_s": latency_s.p50,
        "p95_s": latency_s.p95,
        "p99_s": latency_s.p99,
        "slos_missed": sum(not slo.ok for slo in variant.slos) if variant.slos else None,
        "oversold": variant.integrity.oversold,
        "lost": variant.integrity.lost,
    }
    return figures.get(name)


# --- in words ---------------------------------------------------------------------------------------------------------

_NAMES = {
    "offered_per_s": "offered", "achieved_per_s": "started", "goodput_per_s": "goodput", "requests_per_s": "requests",
    "error_ratio": "errors", "p50_s": "p50", "p95_s": "p95", "p99_s": "p99", "slos_missed": "SLOs missed",
    "oversold": "oversold", "lost": "lost",
}  # fmt: skip


def measured_text(result: CheckResult) -> str:
    """Return what a check measured: ``requests 49.8/s``, ``db_pool queue 37``, or that nothing was."""
    return f"{signal_words(result.signal)} {value_text(result.signal, result.measured)}"


def signal_words(signal: str) -> str:
    """Return a signal's name for people."""
    kind, _, resource = signal.partition(".")
    return f"{resource} {kind}" if resource else _NAMES.get(signal, signal)


def value_text(signal: str, value: float | None) -> str:
    """Return a figure in the unit that its signal's name says."""
    if value is None:
        return "not measured"
    if signal.endswith("_per_s"):
        return f"{number(value)}/s"
    if signal in ("p50_s", "p95_s", "p99_s"):
        return latency(value)
    if signal == "error_ratio" or signal.startswith("utilisation."):
        return percent(value)
    return duration(value) if signal.endswith("_s") else number(value)


STATUS_WORDS: dict[ExpectationStatus, str] = {"met": "met", "not_met": "not met", "unknown": "cannot be told"}


def row_lines(rows: Sequence[RowAnalysis]) -> list[str]:
    """Return a line for each expectation: whose, what was expected, whether it is so, and the figures."""
    return [
        f"{row.row}: expected {one.text}: {STATUS_WORDS[one.status]}"
        f" ({', '.join(measured_text(check) for check in one.checks)}{f'; {one.reason}' if one.reason else ''})"
        for row in rows
        for one in row.expectations
    ]
