"""What the tests of the report share: one report, and its page."""

import pytest

from tests.unit import report_data
from tests.unit.report_page import Page
from ticketbench.report import ReportInput, html


@pytest.fixture(scope="session")
def spike() -> ReportInput:
    return report_data.spike()


@pytest.fixture(scope="session")
def page(spike: ReportInput) -> Page:
    return Page(html(spike))
