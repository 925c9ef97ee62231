"""Every string from outside is inert, whatever the report is rendered as."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Any

import pytest
from markdown_it import MarkdownIt

from tests.unit.report_page import Page
from ticketbench.conclusions import (
    Analysis,
)
from ticketbench.model import RunRecord
from ticketbench.report import ReportInput, html, junit, markdown

HOSTILE = (
    "</style></title></script><script>alert(1)</script><img src=x onerror=alert(1)>\" onload='x' "
    "| a | `b` **c** [d](https://evil.example) ![e](//evil.example/f.png) <!-- ]]> &lt; {{ 7 * 7 }} {% raw %} "
    "$\\frac{x}$ @everyone #1 www.evil.example \x00\x1b[31m\u202e\u0085\r\n# heading\n---"
)


ENUMERATED = {"status", "shape", "verdict", "created"}
NAMED_BY_OTHERS = {
    "by_kind", "answered", "by_status", "saturation", "per_request", "settings", "varied", "fixed", "levels",
    "schedules",
}  # fmt: skip


def poisoned(value: Any, key: str = "") -> Any:
    """Return a record's content with hostile text behind every string that is not an enumerated word."""
    if isinstance(value, str):
        return value if key in ENUMERATED else value + HOSTILE
    if isinstance(value, dict):
        keys = HOSTILE if key in NAMED_BY_OTHERS else ""
        return {name + keys: poisoned(item, name) for name, item in value.items()}
    return [poisoned(item, key) for item in value] if isinstance(value, list | tuple) else value


@pytest.fixture(scope="module")
def hostile(spike: ReportInput) -> ReportInput:
    lines = tuple(
        replace(
            t,
            trial=t.trial + HOSTILE,
            variant=t.variant + HOSTILE,
            utilisation={name + HOSTILE: values for name, values in t.utilisation.items()},
            queue={name + HOSTILE: values for name, values in t.queue.items()},
        )
        for t in spike.timelines
    )
    run = RunRecord.model_validate(poisoned(spike.run.model_dump()))
    return ReportInput(run, Analysis.model_validate(poisoned(spike.analysis.model_dump())), lines)


def test_hostile_text_adds_no_tag_and_no_attribute(hostile: ReportInput, page: Page) -> None:
    content = html(hostile)
    evil = Page(content)
    assert evil.tags == page.tags
    assert {(tag, name) for tag, name, _ in evil.attributes} == {(tag, name) for tag, name, _ in page.attributes}
    assert "7 * 7" in "".join(evil.text)
    for unfit in ("\x00", "\x1b", "\u202e", "\u0085"):
        assert unfit not in content.decode()


def test_hostile_text_stays_text_in_markdown(hostile: ReportInput, spike: ReportInput) -> None:
    def tokens(content: bytes) -> list[Any]:
        blocks = MarkdownIt("commonmark").enable("table").parse(content.decode())
        return blocks + [child for token in blocks for child in token.children or []]

    evil, tame = tokens(markdown(hostile)), tokens(markdown(spike))
    assert {t.content for t in evil if t.type == "html_inline"} == {"<br>", "<sub>", "</sub>"}
    assert [t.type for t in evil if t.type.endswith("_open")] == [t.type for t in tame if t.type.endswith("_open")]
    assert not {"link_open", "image", "html_block", "code_inline"} & {t.type for t in evil}
    text = markdown(hostile).decode()
    prose = text.split("```")[0]
    assert "@everyone" not in prose
    assert "www.evil" not in prose
    assert "://" not in prose


def test_a_command_cannot_leave_its_fence(spike: ReportInput) -> None:
    run = spike.run.model_copy(update={"command": "a\n````\n# out\n```"})
    blocks = MarkdownIt("commonmark").parse(markdown(replace(spike, run=run)).decode())
    assert "a\n````\n# out\n```\n" in [t.content for t in blocks if t.type == "fence"]


def test_hostile_text_stays_text_in_junit(hostile: ReportInput) -> None:
    root = ET.fromstring(junit(hostile))  # noqa: S314 - our own
    assert {e.tag for e in root.iter()} <= {"testsuites", "testsuite", "testcase", "failure", "system-out"}
