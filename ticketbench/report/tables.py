"""The tables of a report: what an analysis says, in words and rounded figures, a reason wherever one is missing."""

from dataclasses import replace

from ticketbench.conclusions import Latency, SloResult, TrialAnalysis
from ticketbench.model import Schedule
from ticketbench.report import wording
from ticketbench.report.cells import (
    Judged,
    busiest_cell,
    errors_cell,
    integrity_cell,
    latency_cell,
    reason_for,
    validity_cell,
)
from ticketbench.report.comparison import effect, value
from ticketbench.report.input import ReportInput
from ticketbench.report.table import Cell, Column, Row, Table, Tone, figure


def _offered(judged: Judged, schedule: Schedule | None) -> Cell:
    traffic = judged.signals.traffic
    achieved = wording.number(traffic.achieved_per_s)
    if traffic.offered_per_s is None and schedule is not None and not schedule.open_model:
        why = "closed model"
    else:
        why = reason_for(judged, "no schedule")
    offered = wording.number(traffic.offered_per_s)
    dropped = f"{traffic.dropped:,} dropped" if traffic.dropped else ""
    if offered is None and achieved is None:
        return figure(None, reason_for(judged, "no iterations were counted"))
    if offered is None:
        return Cell(f"none / {achieved}", why)
    return Cell(f"{offered} / {achieved or wording.MISSING}", dropped, "warn" if dropped else "")


def _effect_on(data: ReportInput, variant: str, signal: str) -> Cell:
    """Return the effect of this variant on the first compared signal whose name holds ``signal``; empty for none."""
    if variant == data.analysis.reference or data.run.plan.apart:
        return Cell("")
    for finding in data.analysis.comparison:
        if finding.candidate_variant == variant and signal in finding.signal:
            return effect(finding)
    return Cell("not compared")


def _with_effect(cell: Cell, change: Cell) -> Cell:
    """Return a figure with its effect against the reference below it; a missing figure keeps its reason instead."""
    if cell.tone == "missing" or not change.text:
        return cell
    if change.tone == "missing":
        return replace(cell, note="not compared")  # why stands in the table of effects
    interval = f"\n{change.note}" if change.note else ""
    return replace(cell, note=f"{change.text}{interval}", tone=change.tone)


def _reasons_once(cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
    """Return a row in which one reason for several missing figures stands below the first of them only."""
    told: set[str] = set()
    row = []
    for cell in cells:
        repeated = cell.tone == "missing" and cell.note in told
        if cell.tone == "missing":
            told.add(cell.note)
        row.append(replace(cell, note="") if repeated else cell)
    return tuple(row)


def variants_table(data: ReportInput, swatches: dict[str, str]) -> Table:
    """Return the first screen's table: one row a variant, the reference first, effects below their figures."""
    analysis = data.analysis
    alike = () if data.run.plan.apart else analysis.variants  # such rows do different things
    best = max((v.signals.traffic.goodput_per_s or 0 for v in alike), default=0)
    several = len(alike) > 1
    rows = []
    for v in sorted(analysis.variants, key=lambda v: v.variant != analysis.reference):
        signals, is_reference = v.signals, v.variant == analysis.reference
        goodput = signals.traffic.goodput_per_s
        share = goodput / best if goodput is not None and best > 0 else None
        sells = figure(wording.number(goodput), reason_for(v, "no goal request was counted"), share=share)
        trials = wording.plural(v.trials, "trial")
        cells = (
            Cell(wording.variant(v.variant), f"reference, {trials}" if is_reference and several else trials),
            _with_effect(sells, _effect_on(data, v.variant, "goodput")),
            _offered(v, data.run.plan.schedules.get(v.variant)),
            latency_cell(v, signals.latency_s.p50),
            _with_effect(latency_cell(v, signals.latency_s.p95), _effect_on(data, v.variant, "p95")),
            latency_cell(v, signals.latency_s.p99),
            errors_cell(v),
            integrity_cell(v.integrity),
            validity_cell(v.validity),
            busiest_cell(v),
        )
        rows.append(
            Row(
                _reasons_once(cells),
                marked=is_reference and several,
                doubted=v.validity.status == "invalid",
                swatch=swatches.get(v.variant, ""),
            )
        )
    columns = (
        Column("variant", "Variant", numeric=False),
        Column("goodput_per_s", "Goodput", unit="/s"),
        Column("offered_achieved_per_s", "Offered / achieved", unit="/s"),
        Column("p50", "p50"),
        Column("p95", "p95"),
        Column("p99", "p99"),
        Column("errors", "Errors"),
        Column("integrity", "Integrity", numeric=False),
        Column("validity", "Validity", numeric=False),
        Column("busiest", "Busiest resource", numeric=False),
    )
    caption = "The variants compared" if several else "What was measured"
    return Table(caption, columns, tuple(rows), empty="no variant was measured")


def effects_table(data: ReportInput) -> Table:
    """Return every compared signal of every variant against the reference, with the reason of its verdict."""
    rows = tuple(
        Row(
            (
                Cell(wording.variant(f.candidate_variant)),
                Cell(wording.signal(f.signal)),
                figure(value(f.signal, f.baseline), "no figure"),
                figure(value(f.signal, f.candidate), "no figure"),
                replace(change, note="") if (change := effect(f)).note == f.reason else change,
                Cell(f.reason),
            )
        )
        for f in data.analysis.comparison
    )
    columns = (
        Column("variant", "Variant", numeric=False),
        Column("signal", "Signal", numeric=False),
        Column("reference", "Reference"),
        Column("value", "Variant's"),
        Column("effect", "Effect", numeric=False),
        Column("reason", "Why", numeric=False),
    )
    caption = f"Reference: {wording.variant(data.analysis.reference)}"
    return Table(caption, columns, rows, empty="nothing could be compared")


def slo_value(metric: str, value: float | None) -> str | None:
    """Return a threshold's value as k6 means it: its trends of time are in milliseconds, its rates are ratios.

    What is whole is a count, and has no digits behind a point.
    """
    name = metric.split("{", 1)[0]
    if name in ("http_req_failed", "checks"):
        return wording.percent(value)
    if name.startswith(("http_req_", "iteration_duration", "group_duration")):
        return wording.seconds(None if value is None else value / 1000)
    return wording.count(int(value)) if value is not None and float(value).is_integer() else wording.number(value)


def slo_cell(slo: SloResult) -> Cell:
    """Return whether an SLO was met, in symbol and word."""
    return Cell("✓ met", "", "good") if slo.ok else Cell("▼ missed", "", "bad")


def slo_table(data: ReportInput) -> Table:
    """Return every SLO of every variant with the value that each trial saw."""
    rows = []
    for v in data.analysis.variants:
        for slo in v.slos:
            seen = [slo_value(slo.metric, value) or wording.MISSING for value in slo.values]
            saw = figure(" · ".join(seen) or None, "k6 reported no value")
            cells = (Cell(wording.variant(v.variant)), Cell(slo.metric), Cell(slo.expression), saw, slo_cell(slo))
            rows.append(Row(cells))
    columns = (
        Column("variant", "Variant", numeric=False),
        Column("metric", "Metric", numeric=False),
        Column("expression", "Target", numeric=False),
        Column("values", "Seen in each trial"),
        Column("met", "Met", numeric=False),
    )
    return Table(
        "Service level objectives: the scenario's own k6 thresholds",
        columns,
        tuple(rows),
        notes=(
            "An SLO is missed by a variant if any of its trials missed it. Targets state durations in ms, as k6 does.",
        ),
        empty="the scenario states no SLO",
    )


def errors_table(data: ReportInput) -> Table:
    """Return failed requests by kind, and right answers that sold nothing, per variant."""
    rows = []
    for v in data.analysis.variants:
        errors = v.signals.errors
        kinds = [(kind, n, "failed", "bad") for kind, n in errors.by_kind.items() if n]
        answers = [(kind, n, "answered, sold nothing", "") for kind, n in errors.answered.items() if n]
        for kind, n, meaning, tone in sorted(kinds, key=lambda k: -k[1]) + sorted(answers, key=lambda k: -k[1]):
            cells = (
                Cell(wording.variant(v.variant)),
                Cell(kind),
                Cell(f"{n:,}"),
                Cell(meaning, "", "bad" if tone else ""),
            )
            rows.append(Row(cells))
    columns = (
        Column("variant", "Variant", numeric=False),
        Column("kind", "Status or transport error", numeric=False),
        Column("count", "Requests"),
        Column("meaning", "Counts as", numeric=False),
    )
    unmeasured = [wording.variant(v.variant) for v in data.analysis.variants if v.signals.errors.ratio is None]
    empty = "no request failed in any variant"
    if unmeasured:
        empty = f"errors were not measured for {wording.listing(unmeasured)}; no failed request was seen elsewhere"
    return Table("Errors by kind", columns, tuple(rows), empty=empty)


def _quantiles(latency: Latency, why: str) -> list[Cell]:
    return [figure(wording.latency(value), why) for value in (latency.p50, latency.p95, latency.p99)]


def routes_table(data: ReportInput) -> Table:
    """Return each route's requests, answers and latencies, failures apart."""
    rows = []
    for v in data.analysis.variants:
        for route in v.routes:
            statuses = ", ".join(f"{status}: {n:,}" for status, n in sorted(route.by_status.items()))
            failed_p95 = (
                Cell("none failed") if route.failed == 0 else _quantiles(route.failed_latency_s, "no histogram")[1]
            )
            rows.append(
                Row(
                    (
                        Cell(wording.variant(v.variant)),
                        Cell(route.name),
                        Cell(f"{route.requests:,}"),
                        Cell(f"{route.failed:,}", "", "bad" if route.failed else ""),
                        *_quantiles(route.latency_s, "no successful answer"),
                        failed_p95,
                        figure(statuses or None, "no answer was counted"),
                    )
                )
            )
    columns = (
        Column("variant", "Variant", numeric=False),
        Column("route", "Route", numeric=False),
        Column("requests", "Requests"),
        Column("failed", "Failed"),
        Column("p50", "p50"),
        Column("p95", "p95"),
        Column("p99", "p99"),
        Column("failed_p95", "p95 of failures"),
        Column("by_status", "Answers", numeric=False),
    )
    return Table("Routes", columns, tuple(rows), empty="no request of any route was counted")


def _sold_out(trial: TrialAnalysis) -> Cell:
    """Return when the first buyer was told that all is sold: histograms tell it to the second."""
    after_s = trial.sold_out_after_s
    return Cell("not sold out" if after_s is None else f"{after_s:.0f} s")


def trials_table(data: ReportInput) -> Table:
    """Return every trial in run order."""
    rows = []
    for trial in sorted(data.analysis.trials, key=lambda t: t.position):
        signals = trial.signals
        status: Tone = "" if trial.status == "done" else "bad"
        rows.append(
            Row(
                (
                    Cell(trial.trial),
                    Cell(wording.variant(trial.variant), f"repetition {trial.repetition}"),
                    Cell(trial.status, "", status),
                    figure(wording.seconds(trial.window_s), reason_for(trial, "no window")),
                    figure(
                        wording.number(signals.traffic.goodput_per_s), reason_for(trial, "no goal request was counted")
                    ),
                    latency_cell(trial, signals.latency_s.p95),
                    errors_cell(trial),
                    busiest_cell(trial),
                    _sold_out(trial),
                    validity_cell(trial.validity),
                    integrity_cell(trial.integrity),
                )
            )
        )
    columns = (
        Column("trial", "Trial", numeric=False),
        Column("variant", "Variant", numeric=False),
        Column("status", "Status", numeric=False),
        Column("window_s", "Window"),
        Column("goodput_per_s", "Goodput", unit="/s"),
        Column("p95", "p95"),
        Column("errors", "Errors"),
        Column("busiest", "Busiest resource", numeric=False),
        Column("sold_out_after_s", "Sold out after"),
        Column("validity", "Validity", numeric=False),
        Column("integrity", "Integrity", numeric=False),
    )
    planned, have = data.analysis.trials_planned, len(data.analysis.trials)
    notes = () if have == planned else (f"{planned - have} of {planned} planned trials are not there.",)
    return Table("Trials, in the order in which they ran", columns, tuple(rows), notes, empty="no trial is stored")


def spread_table(data: ReportInput) -> Table:
    """Return the lowest and highest figure among each variant's trials; none without repetition."""
    rows = []
    for v in data.analysis.variants:
        trials = [t for t in data.analysis.trials if t.variant == v.variant]
        if len(trials) < 2:
            continue
        goodput = [t.signals.traffic.goodput_per_s for t in trials]
        p95 = [t.signals.latency_s.p95 for t in trials]
        why = "not measured in any trial"
        rates = [x for x in goodput if x is not None]
        tails = [x for x in p95 if x is not None]
        rate_span = f"{wording.number(min(rates))} to {wording.number(max(rates))}" if rates else None
        tail_span = f"{wording.latency(min(tails))} to {wording.latency(max(tails))}" if tails else None
        ratio = wording.times(max(rates) / min(rates)) if rates and min(rates) > 0 else None
        rows.append(
            Row(
                (
                    Cell(wording.variant(v.variant)),
                    Cell(f"{len(trials)}"),
                    figure(rate_span, why),
                    figure(ratio, "a trial without goodput"),
                    figure(tail_span, why),
                )
            )
        )
    columns = (
        Column("variant", "Variant", numeric=False),
        Column("trials", "Trials"),
        Column("goodput_span", "Goodput, lowest to highest", unit="/s"),
        Column("goodput_ratio", "Highest / lowest"),
        Column("p95_span", "p95, lowest to highest"),
    )
    empty = "one trial a variant: there is no spread to show"
    return Table("Spread between the trials of a variant", columns, tuple(rows), empty=empty)


def cost_table(data: ReportInput) -> Table:
    """Return what one request costs each part of the system: independent of the load, so the steadiest figure."""
    variants = data.analysis.variants
    keys = sorted({key for v in variants for key in v.per_request})
    rows = [
        Row(
            (
                Cell(wording.variant(v.variant)),
                *(figure(wording.latency(v.per_request.get(key)), reason_for(v, "no series")) for key in keys),
            )
        )
        for v in variants
        if keys
    ]
    columns = (
        Column("variant", "Variant", numeric=False),
        *(Column(key, wording.cost(key)) for key in keys),
    )
    notes = ("Seconds of work divided by the answered requests of the window.",)
    return Table("Cost of one request", columns, tuple(rows), notes, empty="no cost per request was measured")
