"""The page's view model: every string that the templates show. They hold no arithmetic and no rounding."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final

from ticketbench.analysis.reasons import said_once
from ticketbench.conclusions import Integrity, VariantAnalysis
from ticketbench.model import Plan
from ticketbench.report import cells, charts, figures, tables, wording
from ticketbench.report.about import about_tables, command_notes, files, method
from ticketbench.report.audit_tables import audit_tables
from ticketbench.report.differed import differed
from ticketbench.report.expected import expected_table
from ticketbench.report.faults import faults_table
from ticketbench.report.input import ReportInput
from ticketbench.report.limits import limits_table
from ticketbench.report.own_tables import own_tables
from ticketbench.report.table import Table, Tone

_OUTCOMES: Final[dict[str, tuple[str, str, Tone]]] = {
    "pass": ("✓", "Pass", "good"),
    "slo_missed": ("▼", "SLO missed", "bad"),
    "invalid": ("✕", "Measurement invalid", "bad"),
    "integrity_violated": ("✕", "Integrity violated", "bad"),
}
_VALIDITY_MEANS: Final = {
    "valid": "the figures can be taken as they stand",
    "lower_bound": "the figures bound the truth from one side only",
    "invalid": "do not rely on these figures",
}
_WORST_VALIDITY: Final = ("invalid", "lower_bound", "valid")
_WORST_INTEGRITY: Final = ("violated", "unknown", "not_audited", "pass")
_EVIDENCE: Final = 3


@dataclass(frozen=True)
class Stamp:
    """A verdict of the first screen: symbol, word and what it means, with its ``reasons`` (whose, why)."""

    label: str
    symbol: str
    word: str
    tone: Tone
    says: str
    reasons: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Bottleneck:
    """A diagnosis: whose, what it blames, how sure, and its strongest figures."""

    variant: str
    cause: str
    confidence: str
    evidence: tuple[str, ...]
    suggestion: str


@dataclass(frozen=True)
class Drawn:
    """A figure with its SVG; ``svg`` is our own and safe, all else is text."""

    figure: figures.Figure
    svg: str


@dataclass(frozen=True)
class Section:
    """A part of the page below the first screen."""

    key: str
    title: str
    tables: tuple[Table, ...]


@dataclass(frozen=True)
class Legend:
    """A variant's line sample (our own SVG) and name."""

    swatch: str
    name: str


@dataclass(frozen=True)
class RunView:
    """Everything of one run, ready to be shown. ``prefix`` makes its anchors unique among the runs of a page."""

    prefix: str
    run_id: str
    title: str
    asks: str
    facts: tuple[str, ...]
    outcome: Stamp
    lead: str
    rest: str
    validity: Stamp
    integrity: Stamp
    expected: Table
    variants: Table
    reading: tuple[str, ...]
    bottlenecks: tuple[Bottleneck, ...]
    differed: Table
    held: str
    command: str
    command_notes: tuple[str, ...]
    legend: tuple[Legend, ...]
    drawn: tuple[Drawn, ...]
    drawn_note: str
    sections: tuple[Section, ...]
    method: tuple[tuple[str, str], ...]
    files: tuple[tuple[str, str], ...]


def _outcome(data: ReportInput) -> Stamp:
    symbol, word, tone = _OUTCOMES[data.analysis.outcome.status]
    return Stamp("Outcome", symbol, word, tone, data.analysis.outcome.sentence)


def _validity(variants: Sequence[VariantAnalysis]) -> Stamp:
    """Return the worst validity of all variants; equal reasons are told once, with whose they are."""
    if not variants:
        return Stamp("Validity", "✕", "invalid", "bad", "nothing was measured")
    worst = min((v.validity.status for v in variants), key=_WORST_VALIDITY.index)
    symbol, word, tone = cells.VALIDITY[worst]
    ordered = sorted(variants, key=lambda v: _WORST_VALIDITY.index(v.validity.status))
    told = said_once([(wording.variant(v.variant), v.validity.reasons) for v in ordered])
    reasons = tuple((_of(names, len(variants)), reason) for names, reason in told)
    hit = sum(v.validity.status == worst for v in variants)
    says = _VALIDITY_MEANS[worst]
    if hit < len(variants):
        says += f" ({hit} of {wording.plural(len(variants), 'variant')}; the table says which)"
    return Stamp("Validity", symbol, word, tone, says, reasons)


def _of(names: Sequence[str], of: int) -> str:
    if of == 1:
        return ""
    if len(names) == of:
        return "both variants" if of == 2 else f"all {of} variants"
    return wording.listing(names)


def _counts(integrity: Integrity) -> str:
    if integrity.status == "not_audited":
        return "somebody else's system: neither a pass nor a fault"

    def say(n: int | None, word: str) -> str:
        return f"{n:,} {word}" if n is not None else f"{word} {wording.MISSING}"

    if all(n is None for n in (integrity.oversold, integrity.lost, integrity.acknowledged)):
        return "not audited, no count is known"
    parts = [say(integrity.oversold, "oversold"), say(integrity.lost, "lost")]
    further = {**integrity.wrongs, "stranded": integrity.stranded}
    parts += [f"{n:,} {word}" for word, n in further.items() if n and word not in ("oversold", "lost")]
    if integrity.acknowledged == 0 and not integrity.lost:
        return f"{', '.join([parts[0], *parts[2:]])}, no purchase was acknowledged"
    acknowledged = wording.count(integrity.acknowledged)
    total = f"of {acknowledged} acknowledged" if acknowledged else "of an unknown number acknowledged"
    return f"{', '.join(parts)} {total}"


def _damage(integrity: Integrity) -> int:
    return sum(n or 0 for n in (*integrity.wrongs.values(), integrity.stranded))


def _integrity(variants: Sequence[VariantAnalysis]) -> Stamp:
    """Return the worst variant's integrity with its counts, and how many variants share its status."""
    if not variants:
        return Stamp("Integrity", "?", "unknown", "warn", "no ledger was audited")
    worst = min(variants, key=lambda v: (_WORST_INTEGRITY.index(v.integrity.status), -_damage(v.integrity)))
    symbol, word, tone = cells.INTEGRITY[worst.integrity.status]
    says = _counts(worst.integrity)
    reasons = tuple(("", reason) for reason in worst.integrity.reasons)
    if len(variants) > 1:
        hit = sum(v.integrity.status == worst.integrity.status for v in variants)
        name = wording.variant(worst.variant)
        if worst.integrity.status == "not_audited" and hit == len(variants):
            told = said_once([(wording.variant(v.variant), v.integrity.reasons) for v in variants])
            reasons = tuple((_of(names, len(variants)), reason) for names, reason in told)
        elif worst.integrity.status == "pass":
            acknowledged = [v.integrity.acknowledged for v in variants]
            known = sum(n for n in acknowledged if n is not None)
            lost = f"0 lost of {known:,} acknowledged" if known else "no purchase was acknowledged"
            says = f"0 oversold, {lost}, over all {len(variants)} variants"
        else:
            says = f"{name}: {says} ({hit} of {len(variants)} variants {word})"
            reasons = tuple((name, reason) for _, reason in reasons)
    return Stamp("Integrity", symbol, word, tone, says, reasons)


def _reading(data: ReportInput) -> tuple[str, ...]:
    """Return the sentences that keep a reader from concluding too much."""
    analysis = data.analysis
    notes = []
    if analysis.shape == "functional":
        notes.append("A functional scenario makes no performance claim: its rates and latencies only orientate.")
    trials = [v.trials for v in analysis.variants]
    if trials and max(trials) == 1 and analysis.shape != "functional":
        again = " Repeat with --trials 5 to have intervals." if len(trials) > 1 and not data.run.plan.apart else ""
        notes.append(
            "One trial each: this is what happened once, so there is no interval. On a shared machine equal settings "
            f"can differ by tens of percent from one trial to the next; a small difference settles nothing.{again}"
        )
    if any(f.interval and f.ratio is not None for f in analysis.comparison):
        notes.append("Effects are candidate / reference; the interval is the range that fits the spread of the trials.")
    elif data.run.plan.apart:
        notes.append(
            "Each row runs a scenario of its own, so rows are not compared with each other: a ratio of their figures"
            " would say nothing."
        )
    elif len(analysis.variants) > 1:
        notes.append("Effects are ratios to the reference variant: ▲ better, ▼ worse, = about the same, ? not settled.")
    if not data.run.plan.apart and (look_at := data.run.plan.scenario.look_at):
        notes.append(f"What to look at: {look_at}")
    stored = len(analysis.trials)
    if stored < analysis.trials_planned:
        missing = analysis.trials_planned - stored
        notes.append(
            f"{missing} of {wording.plural(analysis.trials_planned, 'planned trial')} did not run to a record."
        )
    return tuple(notes)


def _bottlenecks(data: ReportInput) -> tuple[Bottleneck, ...]:
    found = []
    for v in data.analysis.variants:
        if not v.diagnosis:
            continue
        confidence = v.diagnosis.get("confidence")
        evidence = [str(item.get("text", "")) for item in v.diagnosis.get("evidence", ()) if isinstance(item, dict)]
        wanted = v.diagnosis.get("suggestion") or {}
        suggestion = f"try {wanted['factor']}={wanted['level']}" if {"factor", "level"} <= set(wanted) else ""
        found.append(
            Bottleneck(
                variant=wording.variant(v.variant),
                cause=str(v.diagnosis.get("cause", "unknown")).replace("_", " "),
                confidence=wording.percent(confidence) or wording.MISSING,
                evidence=tuple(text for text in evidence if text)[:_EVIDENCE],
                suggestion=suggestion,
            )
        )
    return tuple(found)


def _created(text: str) -> str:
    """Return a stored time of day for people; what is not ISO 8601 is shown as it is."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{at:%Y-%m-%d %H:%M:%S}{' UTC' if at.utcoffset() == timedelta() else f' {at:%z}'}".rstrip()


def _where(plan: Plan) -> str:
    """Return what was measured, and where; no host's name is known."""
    system = plan.external
    if system is None:
        return f"{plan.stack} stack"
    where = "this machine" if system.where == "loopback" else "another machine"
    return f"an external system on {where} ({system.scheme}, port {system.port}{system.path})"


def _scenario_fact(plan: Plan) -> str:
    """Return which scenario it was, with its own title where the plan's one is the heading."""
    if plan.rows:
        return f"{wording.plural(len(plan.rows), 'row')}, scenarios {plan.scenario_names}"
    named = f"{plan.scenario.shape} scenario {plan.scenario.name}"
    return f"{named}: {plan.scenario.title}" if plan.title and plan.scenario.title else named


def _facts(data: ReportInput) -> tuple[str, ...]:
    run, plan = data.run, data.run.plan
    windows = sorted({t.window_s for t in data.analysis.trials if t.window_s is not None})
    length = ""
    if windows:
        low, high = wording.seconds(windows[0]), wording.seconds(windows[-1])
        length = f"window {low}" if low == high else f"windows {low} to {high}"
    machine = run.environment
    return tuple(
        fact
        for fact in (
            _created(run.created),
            _scenario_fact(plan),
            f"{wording.plural(len(plan.variants), 'variant')}, {wording.plural(len(data.analysis.trials), 'trial')}",
            length,
            _where(plan),
            f"{wording.plural(machine.cores, 'core')}, {wording.size_bytes(machine.memory_bytes)}",
        )
        if fact
    )


def _drawn_note(data: ReportInput, drawings: Sequence[charts.Drawing]) -> str:
    """Say which trials the figures show, and which they cannot show."""
    repeated = [name for name, group in groupby(sorted(t.variant for t in data.timelines)) if len(list(group)) > 1]
    have = {t.trial for t in data.timelines}
    missing = [t.trial for t in data.analysis.trials if t.trial not in have]
    notes = ["Grey ground is outside of the window: warm-up before it, the last answers after it."]
    if any(drawing.marks for drawing in drawings):
        notes.append("Dotted upright lines are where the offered rate changes its course.")
    if any(drawing.faults for drawing in drawings):
        notes.append("Tinted ground is a planned fault, from its begin until the component answered again.")
    longest = max((len(line.t_s) for drawing in drawings for line in drawing.lines), default=0)
    if longest > charts.MAX_POINTS:
        notes.append(
            f"{longest:,} seconds are more than a line can show: of every few it has the lowest and the highest one,"
            " and gaps stay gaps. Nothing is averaged."
        )
    if repeated:
        faint = len(data.analysis.variants) <= figures.FAINT_UP_TO
        rest = "the others are the thin lines" if faint else "the others are in the table of trials"
        notes.append(f"Each variant's line is its trial of middle goodput; {rest}.")
    if missing:
        notes.append(f"Not drawn, for want of stored series: {wording.listing(missing)}.")
    return " ".join(notes)


def _sections(data: ReportInput) -> tuple[Section, ...]:
    several = len(data.analysis.variants) > 1
    several = several and not data.run.plan.apart
    against = (Section("effects", "Every variant against the reference", (tables.effects_table(data),)),)
    audited = (Section("integrity", "Ledger audit", audit_tables(data)),)
    return (
        *(against if several else ()),
        *((Section("faults", "Planned faults", (planned,)),) if (planned := faults_table(data)).rows else ()),
        Section("slos", "Service level objectives", (tables.slo_table(data),)),
        Section("errors", "Errors by kind", (tables.errors_table(data),)),
        Section("routes", "Routes", (tables.routes_table(data),)),
        *((Section("own", "The system's own series", own),) if (own := own_tables(data)) else ()),
        Section("trials", "Trials and their spread", (tables.spread_table(data), tables.trials_table(data))),
        *(audited if data.run.plan.external is None else ()),
        *((Section("limits", "CPU limits", (limited,)),) if (limited := limits_table(data)).rows else ()),
        Section("cost", "Cost of one request", (tables.cost_table(data),)),
        Section("environment", "Environment and versions", about_tables(data)),
    )


def _asks(plan: Plan) -> str:
    return "Is each row of the table as it was expected?" if plan.apart else plan.scenario.asks


def run_view(data: ReportInput, prefix: str = "", *, draw: bool = True) -> RunView:
    """Return everything that a report shows of a run. Without ``draw`` there are no figures (Markdown has none)."""
    style = figures.styles(data)
    samples = {name: charts.swatch(n) for name, n in style.items()}
    drawn = figures.golden_signals(data, prefix or "fig-") if draw else ()
    table, held = differed(data)
    plan, scenario = data.run.plan, data.run.plan.scenario
    # The first clause is the news; what follows a semicolon qualifies it, and would bury it at the same size.
    lead, _, rest = data.analysis.outcome.sentence.partition("; ")
    return RunView(
        prefix=prefix,
        run_id=data.run.run_id,
        title=data.run.plan.title or (data.analysis.scenario if plan.rows else scenario.title or scenario.name),
        asks=_asks(plan),
        facts=_facts(data),
        outcome=_outcome(data),
        lead=lead,
        rest=rest,
        validity=_validity(data.analysis.variants),
        integrity=_integrity(data.analysis.variants),
        expected=expected_table(data),
        variants=tables.variants_table(data, samples),
        reading=_reading(data),
        bottlenecks=_bottlenecks(data),
        differed=table,
        held=held,
        command=data.run.command,
        command_notes=command_notes(data),
        legend=tuple(Legend(samples[name], wording.variant(name)) for name in style),
        drawn=tuple(Drawn(f, "" if f.missing else charts.draw(f.drawing)) for f in drawn),
        drawn_note=_drawn_note(data, [f.drawing for f in drawn]),
        sections=_sections(data),
        method=method(data),
        files=files(data),
    )
