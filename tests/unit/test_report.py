"""The page: every figure right, every gap said."""

import itertools
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from tests.unit import report_data
from tests.unit.report_page import Page, changed, measured
from ticketbench.conclusions import Errors as ErrorCounts
from ticketbench.conclusions import (
    Finding,
    Integrity,
    Latency,
    Saturation,
    Signals,
    SloResult,
    Traffic,
    Validity,
    VariantAnalysis,
)
from ticketbench.model import ExternalSystem, Slo
from ticketbench.report import FORMATS, ReportInput, html, junit, markdown, render
from ticketbench.report.about import command_notes
from ticketbench.report.figures import phase_marks, slo_limits

# --- the page is whole, and alone -------------------------------------------------------------------------------------


def test_it_reaches_for_nothing(spike: ReportInput, page: Page) -> None:
    text = html(spike).decode()
    assert not re.search(
        r"""(?:src|href|action|data|srcset)\s*=\s*["']?(?!["']?#)""", re.sub(r"<code>.*?</code>", "", text)
    )
    assert not re.search(r"url\((?!#)|@import|https?://", text)
    assert "default-src 'none'" in page.values("content")[0]
    for tag in ("script", "link", "img", "iframe", "object", "base", "form"):
        assert page.tags[tag] == 0


def test_anchors_lead_somewhere_and_ids_are_unique(page: Page) -> None:
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    targets = [value[1:] for name in ("href", "xlink:href") for value in page.values(name)]
    targets += [ref for value in page.values("aria-labelledby") for ref in value.split()]
    targets += [value.removeprefix("url(#").removesuffix(")") for value in page.values("clip-path")]
    assert targets
    assert set(targets) <= set(ids)


def test_headings_do_not_skip_a_level(page: Page, spike: ReportInput) -> None:
    levels = [int(n) for n in re.findall(r"<h([1-6])[ >]", html(spike).decode())]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert page.values("lang") == ["en"]


def test_every_drawing_has_words(page: Page) -> None:
    drawings = [attribute for attribute in page.attributes if attribute[1:] == ("role", "img")]
    labels = [value for tag, name, value in page.attributes if name == "aria-label" and value.startswith("Line chart")]
    assert len(drawings) == len(labels) >= 6
    assert all("pool_size=10, cache=off: " in label for label in labels)


def test_what_never_changed_is_said_once(page: Page) -> None:
    labels = [value for tag, name, value in page.attributes if name == "aria-label" and value.startswith("Line chart")]
    (errors,) = (label for label in labels if "Errors, share of requests" in label)
    assert "pool_size=10, cache=on: 0 %;" in errors
    assert re.search(r"pool_size=2, cache=on: 0 % to \d+ %;", errors)


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_run_gives_the_same_bytes(name: str) -> None:
    assert FORMATS[name][1](report_data.spike()) == FORMATS[name][1](report_data.spike())


def test_the_title_of_a_plan_is_the_heading_and_the_scenarios_own_stays_beside_it(spike: ReportInput) -> None:
    def titled(title: str) -> ReportInput:
        return replace(
            spike, run=spike.run.model_copy(update={"plan": spike.run.plan.model_copy(update={"title": title})})
        )

    own = spike.run.plan.scenario.title
    text = html(titled("my <shop>")).decode()
    assert "<title>SLO missed: my &lt;shop&gt; · ticketbench</title>" in text
    assert "<span>my &lt;shop&gt;</span>" in text
    assert f"transient scenario spike: {own}" in text
    assert "\n\nmy shop. " in markdown(titled("my shop")).decode()
    assert f"<span>{own}</span>" in html(titled("")).decode()


def test_what_has_to_be_put_into_the_command_is_said(spike: ReportInput) -> None:
    def notes(command: str, *headers: str) -> tuple[str, ...]:
        system = ExternalSystem(
            scheme="http", where="remote", port=80, path="", headers=headers, headers_from_variable=headers
        )
        plan = spike.run.plan.model_copy(update={"external": system})
        return command_notes(replace(spike, run=spike.run.model_copy(update={"plan": plan, "command": command})))

    assert notes("ticketbench run --plan p.toml") == ()
    assert notes("ticketbench run x.js --target http://HOST:80 --header 'X-A: <value>'") == (
        "HOST and <value> stand for what a run does not write down: put it in.",
    )
    assert notes("ticketbench run x.js --target http://127.0.0.1:80 --header 'X-HOST: 1'", "X-B", "X-C") == (
        "TICKETBENCH_HEADERS gave X-B and X-C: set it first.",
    )
    assert command_notes(spike) == ()


def test_several_runs_share_a_page(spike: ReportInput) -> None:
    both = Page(render([spike, spike]))
    assert both.tags["article"] == 2
    assert len(both.values("id")) == len(set(both.values("id")))
    with pytest.raises(ValueError, match="needs a run"):
        render([])


# --- figures ----------------------------------------------------------------------------------------------------------


def test_the_table_of_variants_says_what_the_analysis_says(page: Page, spike: ReportInput) -> None:
    head, *rows = page.tables["The variants compared"]
    assert [title.split(" /")[0] for title in head[:7]] == [
        "Variant", "Goodput", "Offered", "p50", "p95", "p99", "Errors",
    ]  # fmt: skip
    assert len(rows) == len(spike.analysis.variants)
    for row, v in zip(rows, spike.analysis.variants, strict=True):
        signals = v.signals
        assert row[0].replace(", ", ",").startswith(v.variant)
        offered, achieved = row[2].split(" / ")
        busiest = re.search(r"([\d.]+ %)", row[9])
        assert busiest
        expected = (
            (row[1], signals.traffic.goodput_per_s),
            (offered, signals.traffic.offered_per_s),
            (achieved, signals.traffic.achieved_per_s),
            (row[6], signals.errors.ratio),
        )
        quantiles = (signals.latency_s.p50, signals.latency_s.p95, signals.latency_s.p99)
        for shown, bucketed in zip(row[3:6], quantiles, strict=True):
            assert measured(shown) == pytest.approx(bucketed, rel=0.05), shown
        for shown, exact in expected:
            assert measured(shown) == pytest.approx(exact, rel=0.005), shown
        own = [s.utilisation or 0 for name, s in signals.saturation.items() if name in ("db_pool", "event_loop")]
        assert measured(busiest[1]) == pytest.approx(max(own), abs=0.01)
        assert v.validity.status.replace("_", " ") in row[8]
        assert v.integrity.status in row[7]


def test_effects_are_told_in_symbol_and_word(page: Page) -> None:
    rows = page.tables["The variants compared"][1:]
    assert "reference" in rows[0][0]
    assert "? 0.97x, not settled" in rows[1][1]
    assert "▲ 1.64x, better" in rows[2][1]
    assert "▲ 58x lower, better" in rows[2][4]


def test_an_interval_is_shown_only_where_there_is_one(spike: ReportInput) -> None:
    assert b"interval 1" not in html(spike)
    first = spike.analysis.comparison[2].model_copy(update={"interval": (1.51, 1.79), "verdict": "improved"})
    analysis = spike.analysis.model_copy(update={"comparison": (first,)})
    shown = Page(html(replace(spike, analysis=analysis))).tables["The variants compared"][3][1]
    assert "interval 1.51x to 1.79x" in shown


def test_every_effect_has_its_reason_below(page: Page, spike: ReportInput) -> None:
    head, *rows = page.tables["Reference: pool_size=2, cache=on"]
    assert head[:2] == ["Variant", "Signal"]
    assert len(rows) == len(spike.analysis.comparison)
    assert rows[1][1:] == [
        "latency, p95",
        "4.4 s",
        "4.7 s",
        "? 1.08x, not settled",
        spike.analysis.comparison[1].reason,
    ]


def test_an_effect_that_could_not_be_had_is_no_figure(spike: ReportInput) -> None:
    nothing = spike.analysis.comparison[0].model_copy(update={"ratio": None, "reason": "no data"})
    tables = Page(html(replace(spike, analysis=spike.analysis.model_copy(update={"comparison": (nothing,)})))).tables
    assert tables["The variants compared"][2][1] == "78.9not compared"
    assert tables["Reference: pool_size=2, cache=on"][1][4:] == ["not measured", "no data"]  # the reason once


def test_one_trial_is_said_to_be_one(spike: ReportInput) -> None:
    assert b"One trial each" in html(spike)
    assert b"One trial each" in markdown(spike)
    assert b"One trial each" not in html(report_data.spike(repetitions=2))


def test_spread_needs_repetition(page: Page) -> None:
    caption = "Spread between the trials of a variant"
    assert caption not in page.tables
    row = Page(html(report_data.spike(repetitions=3))).tables[caption][1]
    assert row[2] == "81.2 to 83.2"


def test_integrity_tells_the_worst_variant(spike: ReportInput) -> None:
    assert "0 oversold, 0 lost of 19,480 acknowledged" in html(spike).decode()
    worst = Integrity(status="violated", capacity=100, sold=117, oversold=17, acknowledged=120, lost=3, duplicated=0)
    text = html(changed(spike, integrity=worst)).decode()
    assert "pool_size=2, cache=on: 17 oversold, 3 lost of 120 acknowledged (1 of 4 variants violated)" in text
    unknown = Integrity(status="unknown", reasons=("the ledger was not taken",))
    text = html(changed(spike, integrity=unknown)).decode()
    assert "not audited, no count is known" in text
    assert "the ledger was not taken" in text


def test_functional_runs_claim_no_performance(spike: ReportInput) -> None:
    analysis = spike.analysis.model_copy(update={"shape": "functional"})
    assert b"makes no performance claim" in html(replace(spike, analysis=analysis))


def test_a_report_of_many_long_trials_stays_small() -> None:
    big = report_data.spike(repetitions=4, seconds=900)
    assert len(html(big)) < 3_000_000


# --- what is missing --------------------------------------------------------------------------------------------------

NOTHING = Signals(
    latency_s=Latency(p50=None, p95=None, p99=None),
    traffic=Traffic(offered_per_s=None, achieved_per_s=None, goodput_per_s=None),
    errors=ErrorCounts(ratio=None, by_kind={}),
    saturation={},
)


def test_missing_figures_are_said_with_their_reason(spike: ReportInput) -> None:
    invalid = Validity(status="invalid", reasons=("Prometheus answered nothing",))
    shown = Page(html(changed(spike, signals=NOTHING, validity=invalid))).tables["The variants compared"][1]
    for cell in (*shown[1:7], shown[9]):
        assert cell.startswith("not measured"), cell
    assert shown[1] == "not measuredPrometheus answered nothing"
    line = next(row for row in markdown(changed(spike, signals=NOTHING)).decode().splitlines() if "reference, 1" in row)
    assert line.count("not measured") == 7


def test_nan_is_missing_too(spike: ReportInput) -> None:
    broken = spike.analysis.variants[0].signals.model_copy(
        update={"latency_s": Latency(p50=float("nan"), p95=float("inf"), p99=1.0, count=5)}
    )
    row = Page(html(changed(spike, signals=broken))).tables["The variants compared"][1]
    assert row[3].startswith("not measured")
    assert row[4].startswith("not measured")


def test_a_closed_model_offers_nothing_and_says_so(spike: ReportInput) -> None:
    plan = spike.run.plan
    closed = {
        name: schedule.model_copy(update={"open_model": False, "offered": ()})
        for name, schedule in plan.schedules.items()
    }
    run = spike.run.model_copy(update={"plan": plan.model_copy(update={"schedules": closed})})
    traffic = spike.analysis.variants[0].signals.traffic.model_copy(update={"offered_per_s": None})
    signals = spike.analysis.variants[0].signals.model_copy(update={"traffic": traffic})
    row = Page(html(replace(changed(spike, signals=signals), run=run))).tables["The variants compared"][1]
    assert "closed model" in row[2]


def test_without_any_series_the_page_says_so(spike: ReportInput) -> None:
    text = html(replace(spike, timelines=())).decode()
    assert "no trial has a stored series" in text
    assert '<svg class="plot"' not in text


def test_a_figure_without_values_says_so_and_a_missing_trial_is_named(spike: ReportInput) -> None:
    lines = [replace(t, error_ratio=[None] * len(t.t_s)) for t in spike.timelines[1:]]
    text = html(replace(spike, timelines=tuple(lines))).decode()
    assert "<b>Not measured</b><span>no request was counted</span>" in text
    assert f"Not drawn, for want of stored series: {spike.timelines[0].trial}." in text


def test_a_run_that_measured_nothing_still_has_a_report(spike: ReportInput) -> None:
    outcome = spike.analysis.outcome.model_copy(update={"status": "invalid", "sentence": "nothing was measured"})
    empty = spike.analysis.model_copy(update={"variants": (), "trials": (), "comparison": (), "outcome": outcome})
    data = ReportInput(spike.run, empty, ())
    Page(html(data))
    assert b"no variant was measured" in html(data)
    assert b"no variant was measured" in markdown(data)
    root = ET.fromstring(junit(data))  # noqa: S314 - our own
    assert root.get("errors") == "1"


# --- SLO lines and phases ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "expression", "limits"),
    [
        ("http_req_duration{name:purchase}", "p(95)<200", (0.2,)),
        ("http_req_duration{name:purchase,expected_response:true}", "p(95) <= 1500.5", (1.5005,)),
        ("http_req_duration", "p(95)<200", (0.2,)),
        ("http_req_duration{name:matches}", "p(95)<200", ()),
        ("http_req_duration{name:purchase}", "p(99)<200", ()),
        ("http_req_duration{status:200}", "p(95)<200", ()),
        ("http_req_waiting{name:purchase}", "p(95)<200", ()),
        ("http_req_failed", "rate<0.01", ()),
    ],
)
def test_only_a_p95_of_the_goal_is_drawn_as_slo(metric: str, expression: str, limits: tuple[float, ...]) -> None:
    assert slo_limits([Slo(metric=metric, expression=expression)], "purchase") == pytest.approx(limits)


def test_phases_are_times_of_the_window(spike: ReportInput) -> None:
    schedule = spike.run.plan.schedules["pool_size=2,cache=on"]
    assert phase_marks(schedule.offered, schedule.window_start_s, schedule.window_end_s) == (15, 20, 45, 50)


def test_slos_are_shown_trial_by_trial(spike: ReportInput) -> None:
    slo = SloResult(metric="http_req_failed", expression="rate<0.01", ok=False, values=(0.0, None, 0.25))
    drops = SloResult(metric="dropped_iterations{scenario:main}", expression="count<1", ok=False, values=(1.0, 12.0))
    caption = "Service level objectives: the scenario's own k6 thresholds"
    _, row, counted, *_ = Page(html(changed(spike, slos=(slo, drops)))).tables[caption]
    assert row[3] == "0 % · not measured · 25.0 %"
    assert "missed" in row[4]
    assert counted[3] == "1 · 12"


def test_the_system_comes_before_what_is_around_it(spike: ReportInput) -> None:
    around = {
        "load_generator": Saturation(utilisation=1.0, queue=None),
        "db_pool": Saturation(utilisation=0.97, queue=41.0, unit="requests waiting for a connection"),
        "row_lock": Saturation(utilisation=None, queue=8.2, unit="sessions waiting for a row"),
    }
    signals = spike.analysis.variants[0].signals.model_copy(update={"saturation": around})
    cell = Page(html(changed(spike, signals=signals))).tables["The variants compared"][1][9]
    assert cell.startswith("DB pool 97 %")
    assert "41 requests waiting for a connection" in cell
    assert "row lock: 8.2 sessions waiting for a row" in cell
    assert "load generator 100 %" in cell


def test_a_diagnosis_is_shown_once_there_is_one(spike: ReportInput) -> None:
    diagnosis = {
        "cause": "db_pool",
        "confidence": 0.87,
        "evidence": [{"text": f"figure {n}", "signal": "x", "value": n} for n in range(5)],
        "suggestion": {"factor": "pool_size", "level": 10},
    }
    text = html(changed(spike, diagnosis=diagnosis)).decode()
    assert "What limits it" in text
    assert "try pool_size=10" in text
    assert "figure 2" in text
    assert "figure 3" not in text
    assert "What limits it" not in html(spike).decode()


def test_findings_of_unknown_variants_are_not_mixed_up(spike: ReportInput) -> None:
    finding = Finding(
        signal="goodput_per_s", baseline_variant="pool_size=2,cache=on", candidate_variant="elsewhere", baseline=1,
        candidate=2, ratio=2, verdict="improved", gates=False, reason="",
    )  # fmt: skip
    analysis = spike.analysis.model_copy(update={"comparison": (finding,)})
    rows = Page(html(replace(spike, analysis=analysis))).tables["The variants compared"]
    assert all("not compared" in row[1] for row in rows[2:])
    assert isinstance(analysis.variants[0], VariantAnalysis)
