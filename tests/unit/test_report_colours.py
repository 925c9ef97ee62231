"""Colours can be told from their ground in every scheme."""

import re
from importlib import resources

import pytest

from tests.unit.report_page import changed
from ticketbench.conclusions import (
    Validity,
)
from ticketbench.report import ReportInput, html


def _schemes() -> dict[str, dict[str, str]]:
    style = (resources.files("ticketbench.report") / "templates" / "style.css").read_text()
    blocks = [
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]+)", block)) for block in re.findall(r":root \{(.*?)\}", style, re.S)
    ]
    light, dark, paper = blocks
    return {"light": light, "dark": light | dark, "print": light | paper}


def _luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    digits = "".join(d * 2 for d in digits) if len(digits) == 3 else digits
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_colours_can_be_told_from_their_ground(scheme: str) -> None:
    """WCAG 2.2: 4.5 for text (1.4.3), 3 for the lines of a drawing (1.4.11)."""
    colours = _schemes()[scheme]
    for ground in ("page", "card", "head", "mark"):
        for text in ("ink", "soft", "good", "bad", "warn", "accent"):
            assert _contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for word in ("good", "bad"):
        assert _contrast(colours[word], colours[f"{word}-ground"]) >= 4.5, word
    for ground in ("card", "fig-shade"):
        assert _contrast(colours["fig-ink"], colours[ground]) >= 4.5
        for line in [f"s{n}" for n in range(1, 9)] + ["fig-slo", "fig-offered"]:
            assert _contrast(colours[line], colours[ground]) >= 3, (line, ground)


def test_figures_of_an_invalid_measurement_do_not_look_like_the_others(spike: ReportInput) -> None:
    def rows(data: ReportInput) -> list[str]:
        return re.findall(r'<tr class="([^"]*)">', html(data).decode().split("<tbody>")[1].split("</tbody>")[0])

    assert [row.split() for row in rows(spike)] == [["marked"], [], [], []]
    invalid = changed(spike, validity=Validity(status="invalid", reasons=("no",)))
    assert rows(invalid)[0].split() == ["marked", "doubted"]
