"""The one sentence that a run comes to: who is fastest, by how much, whether the ledger agrees."""

from collections.abc import Sequence
from typing import Final

from ticketbench.analysis.audit import NOT_OURS
from ticketbench.analysis.expectations import rows_of
from ticketbench.analysis.slos import said, slo_text
from ticketbench.analysis.wording import latency, listed, number, percent, times
from ticketbench.conclusions import FaultEffect, Integrity, OutcomeStatus, TrialAnalysis, VariantAnalysis
from ticketbench.levels import variant_words
from ticketbench.model import Plan

# Up to this many variants are all named; of more, the reference, the best and the worst.
NAMED_VARIANTS = 3
# So many missed SLOs are told in the sentence itself.
NAMED_SLOS = 2
# The usual SLO allows 1 % of failures: from there on they belong beside the figures that they qualify.
WORTH_SAYING = 0.01


def outcome_sentence(
    status: OutcomeStatus, plan: Plan, variants: Sequence[VariantAnalysis], trials: Sequence[TrialAnalysis]
) -> str:
    """Return the outcome with its numbers: first what decided it, then what was measured."""
    reference = next((v for v in variants if v.variant == plan.reference), None)
    figures = _capital(_figures(plan, variants))
    if status == "integrity_violated":
        return f"{_violated(plan, variants)}; {figures}"
    if status == "invalid":
        doubted = next((v for v in variants if plan.rows and v.validity.status == "invalid"), reference)
        return _why_invalid(plan, doubted, trials)  # that it is invalid is said by whoever shows the status
    if plan.rows:
        return _rows_sentence(plan, variants, figures)
    if status == "slo_missed" and reference is not None:
        missed = [slo for slo in reference.slos if not slo.ok]
        # k6's p95 and the merged histograms' differ a little: one of them is enough in a sentence.
        told = any((words := said(slo.metric, slo.expression)) and words.p95 for slo in missed[:NAMED_SLOS])
        figures = _figures(plan, variants, p95_told_of=reference if told else None)
        texts = ", and ".join(slo_text(slo) for slo in missed[:NAMED_SLOS])  # each has a comma of its own
        more = f" (and {len(missed) - NAMED_SLOS} more)" if len(missed) > NAMED_SLOS else ""
        return f"{_capital(_name(plan, reference))} missed its SLO: {texts}{more}. {_capital(figures)}"
    return figures if plan.scenario.slos else f"{figures}; the script sets no SLO that it could miss"


def _rows_sentence(plan: Plan, variants: Sequence[VariantAnalysis], figures: str) -> str:
    """Return how many expectations were met, which rows missed an SLO of their scenario, and the figures of all.

    Where the rows can be compared, their figures are the news and come first.
    """
    results = [one for row in rows_of(plan, variants) for one in row.expectations]
    told = [f"{sum(one.status == 'met' for one in results)} of {len(results)} expectations were met"] if results else []
    missed = [v.variant for v in variants if any(not slo.ok for slo in v.slos)]
    if missed:
        told.append(f"{len(missed)} of {len(variants)} rows missed an SLO ({listed(missed, most=NAMED_VARIANTS)})")
    parts = [", ".join(told), figures] if plan.apart else [figures, ", ".join(told)]
    if not missed and not all(plan.scenario_of(v.variant).slos for v in variants):
        parts.append("not all rows have SLOs")
    return "; ".join(part for part in parts if part)


_MONEY: Final = ("charged twice", "unpaid", "unrefunded")


def integrity_text(integrity: Integrity) -> str:
    """Return the ledger audit in a clause: 0 oversold, 0 lost of 3041 acknowledged."""
    if integrity.status == "unknown":
        return f"integrity unknown: {integrity.reasons[0] if integrity.reasons else 'nothing was audited'}"
    if integrity.status == "not_audited":
        own = (reason for reason in integrity.reasons if reason != NOT_OURS)
        return "; ".join(("integrity not audited: the system is external", *own))
    if integrity.acknowledged == 0 and not integrity.lost:
        return f"{_count(integrity.oversold)} oversold, no purchase was acknowledged"
    of = f" of {integrity.acknowledged} acknowledged" if integrity.acknowledged is not None else ""
    counts = f"{_count(integrity.oversold)} oversold, {_count(integrity.lost)} lost{of}"
    further = {"sold twice": integrity.duplicated, **{word: integrity.wrongs[word] for word in _MONEY}}
    return ", ".join([counts, *(f"{count} {word}" for word, count in further.items() if count)])


def _count(value: int | None) -> str:
    return "unknown" if value is None else str(value)


def _name(plan: Plan, variant: VariantAnalysis) -> str:
    if len(plan.variants) > 1 and variant.variant:
        return variant_words(variant.variant)
    return plan.scenario.name if plan.external is None else "the system"


def _capital(text: str) -> str:
    """Return a sentence's beginning; the names of variants and scenarios stay as they are."""
    return f"The{text.removeprefix('the')}" if text.startswith("the system") else text


def _violated(plan: Plan, variants: Sequence[VariantAnalysis]) -> str:
    broken = [v for v in variants if v.integrity.status == "violated"]
    parts = [f"{_name(plan, v)}: {integrity_text(v.integrity)} ({v.integrity.reasons[0]})" for v in broken]
    return f"Integrity is violated in {len(broken)} of {len(variants)} variants: {listed(parts, most=2)}"


def _why_invalid(plan: Plan, reference: VariantAnalysis | None, trials: Sequence[TrialAnalysis]) -> str:
    if reference is not None and reference.validity.status == "invalid":
        what = "row" if plan.rows else "reference"
        variant = f" ({what} {variant_words(reference.variant)})" if len(plan.variants) > 1 else ""
        return f"{reference.validity.reasons[0] if reference.validity.reasons else 'nothing was measured'}{variant}"
    return why_incomplete(plan, trials) or "nothing was measured"


def fault_sentence(effect: FaultEffect) -> str:
    """Return what a planned fault did to the load, as far as it is known."""
    if effect.problem:
        return effect.problem
    if effect.at_s is None:
        return f"{effect.fault}: the load ended before"
    before, worst = effect.goodput_before_per_s, effect.goodput_worst_per_s
    parts = []
    if worst is not None:
        was = "" if before is None else f"{number(before)}/s before, "
        parts.append(f"goodput {was}{number(worst)}/s in its worst second")
    if effect.p95_worst_s is not None:
        parts.append(f"p95 up to {latency(effect.p95_worst_s)}")
    if effect.recovered_at_s is not None and effect.undone_at_s is not None:
        parts.append(f"as before {max(0.0, effect.recovered_at_s - effect.undone_at_s):.1f} s after it was undone")
    elif before:
        parts.append("not as before until the window's end")
    if effect.failed is not None:
        parts.append(f"{effect.failed} request{'s' * (effect.failed != 1)} failed")
    return f"{effect.fault}: {', '.join(parts) or 'nothing was stored of it'}"


def why_incomplete(plan: Plan, trials: Sequence[TrialAnalysis]) -> str:
    """Return why the plan was not measured as a whole, or nothing where it was."""
    for trial in trials:
        if trial.status != "done":
            return f"trial {trial.trial} of {variant_words(trial.variant)}: {listed(trial.validity.reasons, most=1)}"
        # without either side of the books nobody knows what was lost; a script that logs none has an empty one
        if None in (trial.integrity.oversold, trial.integrity.acknowledged) and plan.stack != "external":
            why = listed(trial.integrity.reasons, most=1)
            return f"trial {trial.trial} of {variant_words(trial.variant)} could not be audited: {why}"
    if len(trials) < len(plan.trials):
        return f"{len(plan.trials) - len(trials)} of {len(plan.trials)} planned trials are missing"
    return ""


def _figures(plan: Plan, variants: Sequence[VariantAnalysis], *, p95_told_of: VariantAnalysis | None = None) -> str:
    integrity = _audited(variants)
    if plan.scenario.shape == "functional":
        return f"{_answers(plan, variants)}; {integrity}" if integrity else _answers(plan, variants)
    reference = next((v for v in variants if v.variant == plan.reference), None)
    measured = [v for v in variants if v.signals.traffic.goodput_per_s is not None]
    if reference is None or not measured:
        return f"Nothing was measured; {integrity}" if integrity else "Nothing was measured"
    shown = (
        measured
        if plan.apart
        else [v for v in _shown(reference, measured) if v.signals.traffic.goodput_per_s is not None]
    )
    parts = [_performance(plan, v, reference, p95_told=v is p95_told_of) for v in shown]
    hidden = len(variants) - len(shown)
    more = f" ({hidden} more {'variant lies' if hidden == 1 else 'variants lie'} between)" if hidden else ""
    bounds = [v for v in shown if v.validity.status != "valid"]
    doubt = f"; believe with care: {bounds[0].validity.reasons[0]}" if bounds and bounds[0].validity.reasons else ""
    return f"{', '.join(parts)}{more}; {integrity}{doubt}"


def _shown(reference: VariantAnalysis, measured: Sequence[VariantAnalysis]) -> list[VariantAnalysis]:
    others = [v for v in measured if v is not reference]
    if len(others) + 1 > NAMED_VARIANTS:
        ranked = sorted(others, key=lambda v: v.signals.traffic.goodput_per_s or 0.0)
        others = [ranked[-1], ranked[0]]
    return [reference, *others]


def _performance(plan: Plan, variant: VariantAnalysis, reference: VariantAnalysis, *, p95_told: bool) -> str:
    goodput = variant.signals.traffic.goodput_per_s or 0.0
    sells = (variant.integrity.sold or 0) > 0
    what = f"{number(goodput)} {'tickets' if sells else 'requests'}/s"
    p95 = variant.signals.latency_s.p95
    base = reference.signals.traffic.goodput_per_s
    about = [times(goodput / base)] if variant is not reference and base and not plan.apart else []
    if not p95_told:
        about.append(f"p95 {latency(p95)}" if p95 is not None else "no latency")
    failed = variant.signals.errors.ratio or 0.0
    if failed >= WORTH_SAYING:
        about.append(f"{percent(failed)} of its requests failed")
    verb = "sells" if sells else "answers"
    return f"{_name(plan, variant)} {verb} {what}" + (f" ({', '.join(about)})" if about else "")


def _answers(plan: Plan, variants: Sequence[VariantAnalysis]) -> str:
    requests = sum(route.requests for v in variants for route in v.routes)
    failed = sum(route.failed for v in variants for route in v.routes)
    if not requests:
        return f"{plan.scenario.name} sent no request"
    if not failed:
        return f"{plan.scenario.name}: all {requests} requests were answered as expected"
    return f"{plan.scenario.name}: {failed} of {requests} requests failed ({percent(failed / requests)})"


def _audited(variants: Sequence[VariantAnalysis]) -> str:
    audits = [v.integrity for v in variants]
    unknown = [one for one in audits if one.status in ("unknown", "not_audited")]
    if unknown:
        return integrity_text(unknown[0])

    def total(counts: Sequence[int | None]) -> int | None:
        known = [count for count in counts if count is not None]
        return sum(known) if known else None

    return integrity_text(
        Integrity(
            status="violated" if any(one.status == "violated" for one in audits) else "pass",
            oversold=total([one.oversold for one in audits]),
            lost=total([one.lost for one in audits]),
            acknowledged=total([one.acknowledged for one in audits]),
            duplicated=total([one.duplicated for one in audits]),
            double_charged=total([one.double_charged for one in audits]),
            unpaid=total([one.unpaid for one in audits]),
            unrefunded=total([one.unrefunded for one in audits]),
        )
    )
