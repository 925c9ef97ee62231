"""What machines read of a report: JSON and JUnit."""

import json
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace

from tests.unit.report_page import changed
from ticketbench.conclusions import (
    Analysis,
    Integrity,
    Validity,
)
from ticketbench.report import ReportInput, json_, junit


def test_json_is_the_analysis(spike: ReportInput) -> None:
    assert Analysis.model_validate(json.loads(json_(spike))) == spike.analysis


def _cases(content: bytes) -> dict[tuple[str, str], tuple[str, str]]:
    root = ET.fromstring(content)  # noqa: S314 - our own
    found = {}
    for case in root.iter("testcase"):
        child = next(iter(case), None)
        found[case.get("classname", ""), case.get("name", "")] = (
            (child.tag, child.get("message") or child.text or "") if child is not None else ("", "")
        )
    kinds = Counter(kind for kind, _ in found.values())
    assert root.get("tests") == str(len(found))
    assert root.get("failures") == str(kinds["failure"])
    assert root.get("errors") == str(kinds["error"])
    assert root.get("skipped") == str(kinds["skipped"])
    return found


def test_junit_fails_what_failed_and_only_that(spike: ReportInput) -> None:
    cases = _cases(junit(spike))
    small, large = "spike.pool_size=2,cache=on", "spike.pool_size=10,cache=on"
    slo = "http_req_duration{name:purchase} p(95)<200"
    assert cases[small, slo] == ("failure", f"{slo} missed: 4.38 s")
    assert cases[large, slo] == ("", "")
    assert cases[small, "validity"][0] == "system-out"
    assert cases[small, "integrity"] == ("", "")
    assert cases["spike", "every planned trial is stored"] == ("", "")


def test_junit_tells_broken_from_missed(spike: ReportInput) -> None:
    broken = changed(
        spike,
        validity=Validity(status="invalid", reasons=("no series",)),
        integrity=Integrity(status="violated", oversold=17, lost=0, reasons=("match 1 sold 117 of 100",)),
    )
    cases = _cases(junit(broken))
    small = "spike.pool_size=2,cache=on"
    assert cases[small, "validity"] == ("error", "no series")
    assert cases[small, "integrity"] == ("failure", "17 oversold; match 1 sold 117 of 100")
    unknown = changed(spike, integrity=Integrity(status="unknown", reasons=("no ledger",)))
    assert _cases(junit(unknown))[small, "integrity"] == ("skipped", "no ledger")


def test_junit_misses_trials_that_are_not_there(spike: ReportInput) -> None:
    last = spike.analysis.trials[-1].model_copy(update={"status": "interrupted"})
    analysis = spike.analysis.model_copy(update={"trials": (*spike.analysis.trials[:-1], last), "trials_planned": 6})
    cases = _cases(junit(replace(spike, analysis=analysis)))
    assert cases["spike", "every planned trial is stored"] == ("error", "4 of 6 planned trials stored")
    assert cases["spike.pool_size=10,cache=off", f"trial {last.trial}"][0] == "error"
