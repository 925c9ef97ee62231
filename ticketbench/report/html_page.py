"""The report as one HTML file that needs nothing else: no request of any kind leaves it."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ticketbench.report.input import ReportInput
from ticketbench.report.view import run_view
from ticketbench.report.wording import clean

if TYPE_CHECKING:
    from jinja2 import Environment


def _finalize(value: object) -> object:
    """Clean every string that a template shows; our own SVG is Markup and passes."""
    return clean(value) if type(value) is str else value


@functools.cache
def _templates() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("ticketbench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["drawing"] = Markup  # only for charts.draw and charts.swatch: no outside text in either
    return environment


def render(inputs: Sequence[ReportInput]) -> bytes:
    """Return one page over one or more runs, in the order given. Raises ValueError without any."""
    if not inputs:
        raise ValueError("a report needs a run")
    single = len(inputs) == 1
    runs = [run_view(data, "" if single else f"r{n}-") for n, data in enumerate(inputs, 1)]
    return _templates().get_template("report.html").render(runs=runs).encode()


def html(data: ReportInput) -> bytes:
    """Return the page of one run."""
    return render([data])
