"""From a stored run to its analysis: measure, judge and audit each trial, then each variant, then the run."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ticketbench import errors
from ticketbench.analysis.audit import audit, not_audited, total
from ticketbench.analysis.expectations import rows_of
from ticketbench.analysis.findings import compare_variants, usable
from ticketbench.analysis.histogram import EMPTY, Histogram, merge
from ticketbench.analysis.reasons import said_once
from ticketbench.analysis.sentences import outcome_sentence, why_incomplete
from ticketbench.conclusions import (
    Analysis,
    Errors,
    Finding,
    Integrity,
    Latency,
    Outcome,
    OutcomeStatus,
    OwnSignal,
    Route,
    Saturation,
    Signals,
    SloResult,
    Traffic,
    TrialAnalysis,
    Validity,
    VariantAnalysis,
)
from ticketbench.model import Plan, RunRecord, Variant

if TYPE_CHECKING:
    from ticketbench.analysis.signals import Measurement
    from ticketbench.store import TrialData

_EXIT_CODES: Final[dict[OutcomeStatus, int]] = {
    "pass": errors.EXIT_OK,
    "slo_missed": errors.EXIT_SLO_MISSED,
    "invalid": errors.EXIT_INVALID,
    "integrity_violated": errors.EXIT_INTEGRITY,
}
_NOTHING: Final = Signals(
    latency_s=Latency(p50=None, p95=None, p99=None),
    traffic=Traffic(offered_per_s=None, achieved_per_s=None, goodput_per_s=None),
    errors=Errors(ratio=None, by_kind={}),
    saturation={},
)


def analyse(run: RunRecord, trials: "Iterable[TrialData]") -> Analysis:
    """Return everything that can be concluded from a run's stored trials; one trial is in memory at a time.

    A variant's quantiles come from the merged histograms of its trials, its rates and ratios are means over them.
    Trials that cannot be believed are left out of its figures where others remain; their reasons stay in its validity.
    """
    parts = tuple(_judged(trial, run) for trial in trials)
    analyses = tuple(part.analysis for part in parts)
    variants = tuple(_variant(variant, [p for p in parts if p.analysis.variant == variant.name], run.plan)
                     for variant in run.plan.variants)  # fmt: skip
    status = _status(run.plan, variants, analyses)
    return Analysis(
        run_id=run.run_id,
        scenario=run.plan.scenario_names,
        shape=run.plan.scenario.shape,
        reference=run.plan.reference,
        outcome=Outcome(status=status, sentence=outcome_sentence(status, run.plan, variants, analyses)),
        variants=variants,
        comparison=tuple(_comparison(run.plan, variants, analyses)),
        trials=analyses,
        trials_planned=len(run.plan.trials),
        rows=rows_of(run.plan, variants),
    )


def exit_code(analysis: Analysis) -> int:
    """Return the exit code that a run's outcome stands for: 0, 1, 3 or 5 (see errors.py)."""
    return _EXIT_CODES[analysis.outcome.status]


# --- a trial ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """A judged trial with the histograms that its variant merges."""

    analysis: TrialAnalysis
    latency: Histogram
    routes: dict[str, tuple[Histogram, Histogram]]


def _judged(trial: "TrialData", run: RunRecord) -> _Part:
    from ticketbench.analysis.fault_effects import fault_effects
    from ticketbench.analysis.own import own_signals
    from ticketbench.analysis.signals import measure  # numpy, which no other command should wait for
    from ticketbench.analysis.thrown import thrown_ratio
    from ticketbench.analysis.validity import judge

    measured = measure(trial, run)
    record = trial.record
    analysis = TrialAnalysis(
        trial=record.trial.id,
        variant=record.trial.variant,
        repetition=record.trial.repetition,
        position=record.trial.position,
        status=record.status,
        validity=judge(trial, run, measured),
        signals=measured.signals if measured else _NOTHING,
        routes=_routes(measured),
        integrity=_integrity(trial, run.plan),
        slos=_slos(trial),
        per_request=measured.per_request if measured else {},
        sold_out_after_s=measured.sold_out_after_s if measured else None,
        window_s=measured.window_s if measured else None,
        own=own_signals(trial, run.plan.external),
        thrown_ratio=thrown_ratio(trial, run),
        faults=fault_effects(trial, run) if record.faults else (),
    )
    return _Part(
        analysis=analysis,
        latency=measured.latency if measured else EMPTY,
        routes={f"{of.method} {of.name}": (of.good, of.bad) for of in measured.routes} if measured else {},
    )


def _integrity(trial: "TrialData", plan: Plan) -> Integrity:
    if plan.external is None:
        return audit(trial.acks, trial.ledger)
    from ticketbench.analysis.own import beyond_capacity

    return not_audited(trial.acks, beyond_capacity(trial))


def _routes(measured: "Measurement | None") -> tuple[Route, ...]:
    return tuple(
        Route(
            name=f"{of.method} {of.name}",
            requests=of.requests,
            failed=of.failed,
            by_status=of.by_status,
            latency_s=of.good.latency(),
            failed_latency_s=of.bad.latency(),
        )
        for of in (measured.routes if measured else ())
    )


def _slos(trial: "TrialData") -> tuple[SloResult, ...]:
    """Return k6's verdicts; one over no data is none, whatever k6 says."""
    from ticketbench.analysis.crosscheck import has_data

    results = []
    for threshold in trial.record.load.thresholds if trial.record.load else ():
        seen = has_data(threshold, trial)
        results.append(
            SloResult(
                metric=threshold.metric,
                expression=threshold.expression,
                ok=threshold.ok and seen,
                values=(threshold.value if seen else None,),
            )
        )
    return tuple(results)


# --- a variant --------------------------------------------------------------------------------------------------------


def _variant(variant: Variant, parts: Sequence[_Part], plan: Plan) -> VariantAnalysis:
    believed = [p for p in parts if p.analysis.validity.status != "invalid"] or list(parts)
    trials = [part.analysis for part in believed]
    named = [(part.analysis.trial, part.analysis.integrity) for part in parts]
    return VariantAnalysis(
        variant=variant.name,
        levels=variant.levels,
        trials=len(parts),
        validity=_validity(variant, parts, believed, plan),
        signals=_signals(trials, merge(part.latency for part in believed)),
        routes=_merged_routes(believed),
        integrity=total(named) if named else Integrity(status="unknown", reasons=("no trial was measured",)),
        slos=_merged_slos(trials),
        per_request=_means([trial.per_request for trial in trials]),
        sold_out_after_s=_mean([trial.sold_out_after_s for trial in trials]),
        own=_own([trial.own for trial in trials]),
    )


def _own(trials: list[tuple[OwnSignal, ...]]) -> tuple[OwnSignal, ...]:
    from ticketbench.analysis.own import merged

    return merged(trials)


def _validity(variant: Variant, parts: Sequence[_Part], believed: Sequence[_Part], plan: Plan) -> Validity:
    """Return the worst validity of the trials: a variant is no better known than its worst trial, only better shown.

    What all trials say alike is said once, without a trial's name.
    """
    from ticketbench.analysis.validity import worst

    ordered = sorted(parts, key=lambda part: part.analysis.validity.status != "invalid")
    reasons = [
        reason if len(names) == len(parts) else f"{', '.join(names)}: {reason}"
        for names, reason in said_once([(part.analysis.trial, part.analysis.validity.reasons) for part in ordered])
    ]
    planned = sum(trial.variant == variant.name for trial in plan.trials)
    if len(parts) < planned:
        reasons.append(f"{planned - len(parts)} of {planned} planned trials were not measured")
    if len(believed) < len(parts):
        reasons.append(f"the figures are of the {len(believed)} of {len(parts)} trials that can be believed")
    return Validity(status=worst(part.analysis.validity.status for part in parts), reasons=tuple(reasons))


def _signals(trials: Sequence[TrialAnalysis], latency: Histogram) -> Signals:
    traffic = [trial.signals.traffic for trial in trials]
    return Signals(
        latency_s=latency.latency(),
        traffic=Traffic(
            offered_per_s=_mean([one.offered_per_s for one in traffic]),
            achieved_per_s=_mean([one.achieved_per_s for one in traffic]),
            goodput_per_s=_mean([one.goodput_per_s for one in traffic]),
            requests_per_s=_mean([one.requests_per_s for one in traffic]),
            dropped=sum(one.dropped for one in traffic),
            good=sum(one.good for one in traffic),
        ),
        errors=Errors(
            ratio=_mean([trial.signals.errors.ratio for trial in trials]),
            by_kind=_sums(trial.signals.errors.by_kind for trial in trials),
            answered=_sums(trial.signals.errors.answered for trial in trials),
        ),
        saturation=_saturation([trial.signals.saturation for trial in trials]),
    )


def _saturation(trials: Sequence[dict[str, Saturation]]) -> dict[str, Saturation]:
    resources: dict[str, list[Saturation]] = {}
    for trial in trials:
        for name, usage in trial.items():
            resources.setdefault(name, []).append(usage)
    return {
        name: Saturation(
            utilisation=_mean([usage.utilisation for usage in usages]),
            queue=_mean([usage.queue for usage in usages]),
            unit=usages[0].unit,
            limit_cores=usages[0].limit_cores,
            throttled=_mean([usage.throttled for usage in usages]),
        )
        for name, usages in resources.items()
    }


def _merged_routes(parts: Sequence[_Part]) -> tuple[Route, ...]:
    merged = []
    for name in sorted({name for part in parts for name in part.routes}):
        routes = [route for part in parts for route in part.analysis.routes if route.name == name]
        merged.append(
            Route(
                name=name,
                requests=sum(route.requests for route in routes),
                failed=sum(route.failed for route in routes),
                by_status=_sums(route.by_status for route in routes),
                latency_s=merge(part.routes[name][0] for part in parts if name in part.routes).latency(),
                failed_latency_s=merge(part.routes[name][1] for part in parts if name in part.routes).latency(),
            )
        )
    return tuple(merged)


def _merged_slos(trials: Sequence[TrialAnalysis]) -> tuple[SloResult, ...]:
    """Return each SLO over the trials: missed if any missed it, or did not come so far as to tell.

    k6 sums them up in an order of its own each time; here all variants have the same.
    """
    merged = []
    for metric, expression in sorted({(slo.metric, slo.expression) for trial in trials for slo in trial.slos}):
        results = [s for t in trials for s in t.slos if (s.metric, s.expression) == (metric, expression)]
        merged.append(
            SloResult(
                metric=metric,
                expression=expression,
                ok=all(one.ok for one in results),
                values=tuple(value for one in results for value in one.values),
            )
        )
    return tuple(merged)


# --- the run ----------------------------------------------------------------------------------------------------------


def _status(plan: Plan, variants: Sequence[VariantAnalysis], trials: Sequence[TrialAnalysis]) -> OutcomeStatus:
    """Return the outcome: an audit that fails anywhere outweighs all; the reference decides the rest.

    A trial that failed, was interrupted or is missing makes the run invalid whichever variant it belongs to: the matrix
    was not measured as planned. So does a ledger that could not be had: nobody knows then whether it was oversold.
    Of rows each stands for itself, so each of them decides as a reference does.
    """
    deciding = [v for v in variants if plan.rows or v.variant == plan.reference]
    if any(v.integrity.status == "violated" for v in variants):
        return "integrity_violated"
    if any(v.validity.status == "invalid" for v in deciding) or why_incomplete(plan, trials):
        return "invalid"
    return "pass" if all(slo.ok for v in deciding for slo in v.slos) else "slo_missed"


def _comparison(plan: Plan, variants: Sequence[VariantAnalysis], trials: Sequence[TrialAnalysis]) -> Iterator[Finding]:
    """Compare each variant with the reference. Within one run nothing gates: that variants differ is what is asked.

    Rows that run different scenarios are not compared: a ratio of the two would say nothing.
    """
    if plan.apart or plan.scenario.shape == "functional":
        return
    reference = next(v for v in variants if v.variant == plan.reference)
    for variant in variants:
        if variant.variant != plan.reference:
            yield from compare_variants(
                (reference, variant),
                (usable(trials, reference.variant), usable(trials, variant.variant)),
                same_run=True,
                may_gate=False,
            )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _means(records: Sequence[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for record in records for name in record)
    means = {name: _mean([record.get(name) for record in records]) for name in names}
    return {name: value for name, value in means.items() if value is not None}


def _sums(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for count in counts:
        for kind, number in count.items():
            sums[kind] = sums.get(kind, 0) + number
    return dict(sorted(sums.items(), key=lambda item: -item[1]))
