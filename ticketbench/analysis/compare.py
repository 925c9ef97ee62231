"""Two stored runs, held against each other (METHOD.md, section 5, last lines).

Two runs that were not measured side by side differ by the machine's mood. What does not depend on it much may gate, on
the same machine: CPU and statement seconds per request, errors, integrity. Latency and goodput inform; where they alone
say "worse", nothing is settled (exit code 3), because the same code does so in a third of such comparisons. A side that
is only a lower bound, or cannot be believed, settles nothing either. A ledger that is violated in the candidate is
exit code 5 whatever else was measured.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from ticketbench import errors
from ticketbench.analysis.findings import INTEGRITY, compare_variants, finding, usable
from ticketbench.analysis.sentences import integrity_text
from ticketbench.analysis.verdict import Judged
from ticketbench.analysis.wording import listed, number
from ticketbench.conclusions import Analysis, Comparison, Finding, Integrity, VariantAnalysis, Verdict
from ticketbench.errors import UsageError
from ticketbench.factors import CATALOGUE
from ticketbench.levels import variant_words
from ticketbench.model import Environment, ExternalSystem, Plan, RunRecord

Side = tuple[RunRecord, Analysis]

_NOT_KNOWN: Final = ("unknown", "not_audited")
# The kernel's own share of the memory varies with its version; a machine with another amount differs by far more.
MEMORY_APART: Final = 0.02
# What is seeded is load too where it decides how much can be sold.
_LOAD_FACTORS: Final = frozenset(name for name, factor in CATALOGUE.items() if factor.scope == "load") | {"stock"}


def compare(
    baseline: Side,
    candidate: Side,
    baseline_variant: str | None = None,
    candidate_variant: str | None = None,
    *,
    force: bool = False,
) -> Comparison:
    """Compare a variant of one stored run with one of another (default: each run's reference variant).

    Raises UsageError for an unknown variant, for a variant against itself, and for runs whose machine, programs,
    scenario or load differ, listing each difference. With ``force`` those are compared all the same: nothing gates, and
    the exit code is 3 at best.
    """
    before = _variant(baseline, baseline_variant, "BASELINE")
    after = _variant(candidate, candidate_variant, "CANDIDATE")
    same_run = baseline[0].run_id == candidate[0].run_id
    if same_run and before.variant == after.variant:
        raise UsageError(
            f"BASELINE and CANDIDATE are the same variant {before.variant!r} of the same run",
            hint="name two variants, or two runs",
        )
    unlike = tuple(differences(baseline[0], candidate[0], before, after))
    if unlike and not force:
        raise UsageError(
            *(f"BASELINE and CANDIDATE are unlike: {difference}" for difference in unlike),
            hint="measure both on one machine under one load, or use --force to see the figures without a verdict",
        )
    doubts = tuple(_doubts(before, after, unlike))
    functional = baseline[0].plan.scenario_of(before.variant).shape == "functional"
    findings = (
        _integrity(before, after),
        *(
            compare_variants(
                (before, after),
                (usable(baseline[1].trials, before.variant), usable(candidate[1].trials, after.variant)),
                same_run=same_run,
                may_gate=not doubts,
            )
            if not functional
            else ()
        ),
    )
    if baseline[0].plan.external is not None and candidate[0].plan.external is not None:
        # a cost that neither side's series tell is no part of what is compared
        findings = tuple(
            one if (one.baseline, one.candidate) != (None, None) else one.model_copy(update={"gates": False})
            for one in findings
        )
    verdict, why, code = _conclude(findings, doubts, functional=functional)
    if after.integrity.status == "violated":
        code = errors.EXIT_INTEGRITY
        verdict = verdict if before.integrity.status == "violated" else "regressed"
        why = f"integrity is violated in the candidate: {integrity_text(after.integrity)}"
    return Comparison(
        baseline_run=baseline[0].run_id,
        candidate_run=candidate[0].run_id,
        verdict=verdict,
        sentence=_sentence(baseline[0], candidate[0], before, after, why),
        exit_code=code,
        findings=findings,
        environment_differences=unlike,
    )


# --- what is compared -------------------------------------------------------------------------------------------------


def _variant(side: Side, name: str | None, argument: str) -> VariantAnalysis:
    wanted = side[1].reference if name is None else name
    for variant in side[1].variants:
        if variant.variant == wanted:
            return variant
    known = ", ".join(variant.variant for variant in side[1].variants)
    raise UsageError(f"{argument} {side[0].run_id} has no variant {wanted!r}: known are {known}")


def differences(
    baseline: RunRecord, candidate: RunRecord, before: VariantAnalysis, after: VariantAnalysis
) -> Iterator[str]:
    """Yield what makes two runs unlike; what is under test (the target, its settings, ticketbench) is no difference.

    Another address of somebody else's system is one: whether it is the same system there, nobody can tell.
    """
    yield from machine_differences(baseline.environment, candidate.environment)
    ours, theirs = baseline.plan, candidate.plan
    yield from _place_differences(ours, theirs)
    first, second = ours.scenario_of(before.variant), theirs.scenario_of(after.variant)
    if (first.name, first.sha256) != (second.name, second.sha256):
        if first.name != second.name:
            yield f"scenario {first.name} and {second.name}"
        else:
            yield f"scenario {first.name} changed ({first.sha256[:8]} and {second.sha256[:8]})"
    if first.shape != second.shape:
        yield f"shape {first.shape} and {second.shape}"
    if ours.faults != theirs.faults:
        planned, other_planned = (listed(fault.text for fault in plan.faults) or "none" for plan in (ours, theirs))
        yield f"planned faults {planned} and {other_planned}"
    for factor in sorted(_LOAD_FACTORS):
        level, other = before.levels.get(factor), after.levels.get(factor)
        if level != other:
            yield f"load {factor}={_level(level)} and {factor}={_level(other)}"


def _place_differences(ours: Plan, theirs: Plan) -> Iterator[str]:
    if ours.stack != theirs.stack:
        yield f"stack {ours.stack} and {theirs.stack}"
    elif ours.external is not None and theirs.external is not None:
        if ours.external.where != theirs.external.where:
            yield f"system on {ours.external.where} and {theirs.external.where}"
        elif (here := _place(ours.external)) != (there := _place(theirs.external)):
            yield f"system at {here} and {there}"


def _place(system: ExternalSystem) -> str:
    """Return where a system is, as far as it is written down: two of them at one place cannot be told apart."""
    return f"{system.scheme} port {system.port}{f' {system.path}' if system.path else ''}"


def _level(level: int | float | str | None) -> str:
    return "(not set)" if level is None else str(level)


def machine_differences(ours: Environment, theirs: Environment) -> Iterator[str]:
    """Yield what makes two machines, or the server programs on them, unlike."""
    for field in ("os", "kernel", "machine", "cpu_model", "cores", "virtualised", "python"):
        one, other = getattr(ours, field), getattr(theirs, field)
        if one != other:
            yield f"{field} {one or '(none)'} and {other or '(none)'}"
    most = max(ours.memory_bytes, theirs.memory_bytes)
    if abs(ours.memory_bytes - theirs.memory_bytes) > MEMORY_APART * most:
        yield f"memory {number(ours.memory_bytes / 2**30)} GiB and {number(theirs.memory_bytes / 2**30)} GiB"
    versions = [{binary.part: binary.version for binary in side.binaries} for side in (ours, theirs)]
    for part in sorted(versions[0].keys() | versions[1].keys()):
        one, other = versions[0].get(part, "(none)"), versions[1].get(part, "(none)")
        if one != other:
            yield f"{part} {one} and {other}"


def _doubts(before: VariantAnalysis, after: VariantAnalysis, unlike: Sequence[str]) -> Iterator[str]:
    """Yield why the measurements cannot settle anything."""
    if unlike:
        yield f"unlike runs, compared by force ({'; '.join(unlike)})"
    for side, variant in (("baseline", before), ("candidate", after)):
        if variant.validity.status != "valid":
            word = "cannot be believed" if variant.validity.status == "invalid" else "is a lower bound only"
            because = f": {variant.validity.reasons[0]}" if variant.validity.reasons else ""
            yield f"the {side} {word}{because}"


# --- integrity --------------------------------------------------------------------------------------------------------


def _wronged(integrity: Integrity) -> float | None:
    known = [count for count in integrity.wrongs.values() if count is not None]
    return float(sum(known)) if known else None


def _integrity(before: VariantAnalysis, after: VariantAnalysis) -> Finding:
    """Return the ledger's finding. It gates wherever the candidate is violated, or known less well than before."""
    old, new = before.integrity.status, after.integrity.status
    text = integrity_text(after.integrity)
    if new == "violated":
        verdict: Verdict = "unchanged" if old == "violated" else "regressed"
        reason = f"violated in both: {text}" if old == "violated" else f"violated in the candidate: {text}"
    elif new in _NOT_KNOWN:
        verdict, reason = "inconclusive", f"the candidate's {text}"
    elif old == "violated":
        verdict, reason = "improved", f"violated in the baseline only; now {text}"
    else:
        verdict, reason = "unchanged", text if old == "pass" else f"{text}; the baseline's is unknown"
    values = (_wronged(before.integrity), _wronged(after.integrity))
    difference = None if values[0] is None or values[1] is None else values[1] - values[0]
    # Where neither side can be audited (somebody else's system), integrity is no part of what is compared.
    gates = not (old in _NOT_KNOWN and new in _NOT_KNOWN)
    judged = Judged(verdict, reason, None, difference)
    return finding(INTEGRITY, (before.variant, after.variant), values, judged, gates=gates)


# --- what it comes to -------------------------------------------------------------------------------------------------


def _conclude(findings: Sequence[Finding], doubts: Sequence[str], *, functional: bool) -> tuple[Verdict, str, int]:
    """Return (verdict, why, exit code). A regression that gates is one, whatever else stays open."""
    if doubts:
        return "inconclusive", doubts[0], errors.EXIT_INVALID
    gating = [one for one in findings if one.gates]
    if regressed := [one for one in gating if one.verdict == "regressed"]:
        return "regressed", _named(regressed), errors.EXIT_SLO_MISSED
    if open_ := [one for one in gating if one.verdict == "inconclusive"]:
        return "inconclusive", _named(open_), errors.EXIT_INVALID
    if worse := [one for one in findings if not one.gates and one.verdict == "regressed"]:
        why = f"{_named(worse)}; two stored runs cannot settle this: measure both in one run, side by side"
        return "inconclusive", why, errors.EXIT_INVALID
    if not gating:
        return "inconclusive", "nothing that could decide was measured", errors.EXIT_INVALID
    if better := [one for one in gating if one.verdict == "improved"]:
        return "improved", _named(better), errors.EXIT_OK
    if functional:
        return "unchanged", f"{gating[0].reason}; a functional scenario makes no performance claim", errors.EXIT_OK
    return "unchanged", "no signal that may decide is worse by more than its margin", errors.EXIT_OK


def _named(findings: Sequence[Finding]) -> str:
    shown = "; ".join(f"{one.signal} {one.reason}" for one in findings[:2])
    return shown if len(findings) <= 2 else f"{shown}; and {len(findings) - 2} more"


def _sentence(ours: RunRecord, theirs: RunRecord, before: VariantAnalysis, after: VariantAnalysis, why: str) -> str:
    if before.variant != after.variant:
        sides = f"{variant_words(after.variant)} against {variant_words(before.variant)}"
    else:
        sides = f"{theirs.run_id} against {ours.run_id}"
    return f"{sides}: {why}"
