"""The report for programs: the analysis as JSON, the verdicts as JUnit XML."""

import json
import xml.etree.ElementTree as ET

from ticketbench.conclusions import TrialAnalysis, VariantAnalysis
from ticketbench.report import wording
from ticketbench.report.input import ReportInput
from ticketbench.report.tables import slo_value


def json_(data: ReportInput) -> bytes:
    """Return the analysis, figures unrounded: the same keys as ``analysis.json``."""
    dump = data.analysis.model_dump(mode="json")
    return (json.dumps(dump, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _case(suite: ET.Element, classname: str, name: str, seconds: float = 0.0) -> ET.Element:
    attributes = {"classname": wording.clean(classname), "name": wording.clean(name), "time": f"{seconds:.3f}"}
    return ET.SubElement(suite, "testcase", attributes)


def _mark(case: ET.Element, kind: str, category: str, text: str) -> None:
    child = ET.SubElement(case, kind, {"type": category, "message": wording.clean(text)})
    child.text = wording.clean(text)


def _variant_suite(root: ET.Element, scenario: str, v: VariantAnalysis, trials: list[TrialAnalysis]) -> None:
    name = v.variant or "as configured"
    suite = ET.SubElement(root, "testsuite", {"name": wording.clean(f"{scenario} {name}")})
    classname = f"{scenario}.{name}"
    length = sum(t.window_s or 0.0 for t in trials)

    case = _case(suite, classname, "validity", length)
    why = "; ".join(v.validity.reasons) or "no reason is given"
    if v.validity.status == "invalid":
        _mark(case, "error", "invalid", why)
    elif v.validity.status == "lower_bound":
        ET.SubElement(case, "system-out").text = wording.clean(f"lower bound: {why}")

    case = _case(suite, classname, "integrity")
    integrity = v.integrity
    if integrity.status == "violated":
        text = (
            "; ".join([f"{n} {word}" for word, n in integrity.wrongs.items() if n] + list(integrity.reasons))
            or "violated"
        )
        _mark(case, "failure", "integrity_violated", text)
    elif integrity.status in ("unknown", "not_audited"):
        text = "; ".join(integrity.reasons) or "the ledger could not be audited"
        # Nothing is known to be wrong, and nothing is known to be right: a pass would claim the second.
        ET.SubElement(case, "skipped", {"message": wording.clean(text)})

    for slo in v.slos:
        case = _case(suite, classname, f"{slo.metric} {slo.expression}")
        if not slo.ok:
            seen = ", ".join(slo_value(slo.metric, value) or wording.MISSING for value in slo.values) or wording.MISSING
            _mark(case, "failure", "slo_missed", f"{slo.metric} {slo.expression} missed: {seen}")

    for trial in trials:
        if trial.status != "done":
            case = _case(suite, classname, f"trial {trial.trial}")
            _mark(case, "error", trial.status, "; ".join(trial.validity.reasons) or trial.status)
    _count(suite)


def _count(suite: ET.Element) -> None:
    kinds = {"failures": "failure", "errors": "error", "skipped": "skipped"}
    suite.set("tests", str(len(suite.findall("testcase"))))
    for attribute, tag in kinds.items():
        suite.set(attribute, str(len(suite.findall(f"testcase/{tag}"))))


def junit(data: ReportInput) -> bytes:
    """Return the verdicts as JUnit XML, one suite a variant.

    A missed SLO and violated integrity are failures; an invalid measurement, a trial that did not end and a planned
    trial that is not there are errors; integrity that could not be audited is skipped. No performance figure is a test.
    """
    analysis = data.analysis
    root = ET.Element("testsuites", {"name": wording.clean(analysis.run_id)})
    for v in analysis.variants:
        trials = [t for t in analysis.trials if t.variant == v.variant]
        _variant_suite(root, analysis.scenario, v, trials)
    suite = ET.SubElement(root, "testsuite", {"name": wording.clean(f"{analysis.scenario} run")})
    case = _case(suite, analysis.scenario, "every planned trial is stored")
    if len(analysis.trials) < analysis.trials_planned or not analysis.trials:
        text = f"{len(analysis.trials)} of {wording.plural(analysis.trials_planned, 'planned trial')} stored"
        _mark(case, "error", "incomplete", text)
    _count(suite)
    for attribute in ("tests", "failures", "errors", "skipped"):
        root.set(attribute, str(sum(int(child.get(attribute, "0")) for child in root)))
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"
