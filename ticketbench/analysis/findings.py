"""Which signals two variants are compared by, with the margin of each, from their trials as replicates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ticketbench.analysis.verdict import Judged, Sample, compare_ratio, compare_risk
from ticketbench.conclusions import Finding, TrialAnalysis, VariantAnalysis

Judgeable = TrialAnalysis | VariantAnalysis

# METHOD.md section 5: what is held to be a change worth a verdict, for each signal.
MARGIN_P95: Final = 0.05
MARGIN_P99: Final = 0.10
MARGIN_GOODPUT: Final = 0.03
MARGIN_COST: Final = 0.03
MARGIN_ERRORS: Final = 0.001

CPU_PARTS: Final = ("cpu_app_s", "cpu_postgres_s", "cpu_redis_s")


@dataclass(frozen=True)
class _Signal:
    """A signal that is compared as a ratio. ``gates``: whether two stored runs may gate on it (METHOD.md, end of 5)."""

    name: str
    value: Callable[[Judgeable], float | None]
    margin: float
    lower_is_better: bool
    gates: bool


def cpu_per_request(of: Judgeable) -> float | None:
    """Return the CPU seconds of app, PostgreSQL and Redis per answered request; None unless all are known."""
    parts = [of.per_request.get(name) for name in CPU_PARTS]
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


_SIGNALS: Final = (
    _Signal(
        "traffic.goodput_per_s",
        lambda t: t.signals.traffic.goodput_per_s,
        MARGIN_GOODPUT,
        lower_is_better=False,
        gates=False,
    ),
    _Signal("latency_s.p95", lambda t: t.signals.latency_s.p95, MARGIN_P95, lower_is_better=True, gates=False),
    _Signal("latency_s.p99", lambda t: t.signals.latency_s.p99, MARGIN_P99, lower_is_better=True, gates=False),
    _Signal("per_request.cpu_s", cpu_per_request, MARGIN_COST, lower_is_better=True, gates=True),
    _Signal("per_request.db_s", lambda t: t.per_request.get("db_s"), MARGIN_COST, lower_is_better=True, gates=True),
)
ERRORS: Final = "errors.ratio"
INTEGRITY: Final = "integrity"


def usable(trials: Sequence[TrialAnalysis], variant: str) -> tuple[TrialAnalysis, ...]:
    """Return a variant's trials that may be compared, by repetition: done, and not invalid."""
    chosen = (t for t in trials if t.variant == variant and t.status == "done" and t.validity.status != "invalid")
    return tuple(sorted(chosen, key=lambda trial: trial.repetition))


def compare_variants(
    variants: tuple[VariantAnalysis, VariantAnalysis],
    trials: tuple[Sequence[TrialAnalysis], Sequence[TrialAnalysis]],
    *,
    same_run: bool,
    may_gate: bool,
) -> tuple[Finding, ...]:
    """Return a finding for each signal of (baseline, candidate).

    The figures shown are the variants' (quantiles of merged histograms); the verdicts come from their ``trials`` as
    replicates, which pair up by repetition within one run, because a block ran them side by side.
    """
    names = (variants[0].variant, variants[1].variant)
    baseline, candidate = trials
    if same_run:
        shared = {t.repetition for t in baseline} & {t.repetition for t in candidate}
        if shared:
            baseline = [t for t in baseline if t.repetition in shared]
            candidate = [t for t in candidate if t.repetition in shared]
    findings = []
    for signal in _SIGNALS:
        ours, theirs = _values(baseline, signal), _values(candidate, signal)
        paired = same_run and len(ours) == len(baseline) and len(theirs) == len(candidate)
        judged = compare_ratio(
            ours, theirs, margin=signal.margin, lower_is_better=signal.lower_is_better, paired=paired
        )
        shown = (signal.value(variants[0]), signal.value(variants[1]))
        findings.append(finding(signal.name, names, shown, judged, gates=signal.gates and may_gate))
    judged = compare_risk(_risks(baseline), _risks(candidate), margin=MARGIN_ERRORS)
    shown = (variants[0].signals.errors.ratio, variants[1].signals.errors.ratio)
    findings.append(finding(ERRORS, names, shown, judged, gates=may_gate))
    return tuple(findings)


def finding(
    signal: str, names: tuple[str, str], values: tuple[float | None, float | None], judged: Judged, *, gates: bool
) -> Finding:
    """Return the record of a judged signal."""
    return Finding(
        signal=signal,
        baseline_variant=names[0],
        candidate_variant=names[1],
        baseline=values[0],
        candidate=values[1],
        ratio=judged.ratio,
        difference=judged.difference,
        interval=judged.interval,
        verdict=judged.verdict,
        gates=gates,
        reason=judged.reason,
    )


def _values(trials: Sequence[TrialAnalysis], signal: _Signal) -> list[float]:
    return [value for value in map(signal.value, trials) if value is not None]


def _risks(trials: Sequence[TrialAnalysis]) -> list[Sample]:
    samples = []
    for trial in trials:
        ratio = trial.signals.errors.ratio
        if ratio is not None:
            samples.append(Sample(ratio, sum(route.requests for route in trial.routes)))
    return samples
