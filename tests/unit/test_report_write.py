"""A stored run, judged by the real analysis and written in every format."""

import json
import re
from pathlib import Path

import pytest

from tests.unit.synthetic import Trace, run_record, scenario, schedule
from ticketbench.conclusions import Analysis
from ticketbench.model import Slo
from ticketbench.report import FORMATS
from ticketbench.report.write import write
from ticketbench.store import RunDirectory, reserve, save_run

SMALL, LARGE = "pool_size=2", "pool_size=10"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    directory = reserve(tmp_path_factory.mktemp("reports"), "run")
    slos = (Slo(metric="http_req_duration{name:purchase}", expression="p(95)<200"),)
    run = run_record(
        [SMALL, LARGE], of=scenario(slos=slos), load=schedule(seconds=30, warmup_s=10, per_s=100, max_vus=50)
    )
    save_run(directory, run)
    for trial, per_s, latency_s in zip(run.plan.trials, (60, 100), (0.9, 0.02), strict=True):
        trace = Trace(
            seconds=30, warmup_s=10, variant=trial.variant, trial_id=trial.id, position=trial.position, repetition=1
        )
        trace.requests("purchase", per_s=per_s, latency_s=latency_s)
        trace.requests("purchase", per_s=50, latency_s=0.02, scenario="warmup", since_s=0, until_s=10)
        data = trace.build()
        directory.save_trial(
            data.record, series=data.series, histograms=data.histograms, acks=trace.acks(), ledger=trace.ledger()
        )
    return directory


def test_every_format_is_written_and_agrees(directory: RunDirectory) -> None:
    analysis, paths = write(directory, list(FORMATS))
    assert {path.name for path in paths} == {name for name, _ in FORMATS.values()}
    stored = Analysis.model_validate(json.loads((directory.path / "analysis.json").read_bytes()))
    assert stored == analysis
    assert json.loads((directory.path / "report.json").read_bytes()) == json.loads(
        (directory.path / "analysis.json").read_bytes()
    )
    page = (directory.path / "report.html").read_text()
    assert page.count('<svg class="plot"') >= 6
    assert "var(--fig-slo)" in page
    # Names that only the report and the analysis have in common: a renamed signal would be "not compared".
    assert "not compared" not in page
    assert re.search(r"[▲▼=?] (\d|\+)", page)
    assert "Requests waiting for a connection, in each second." in page


def test_nothing_of_this_machine_is_written(directory: RunDirectory) -> None:
    _, paths = write(directory, list(FORMATS))
    for path in paths:
        assert str(directory.path.parent) not in path.read_text()
        assert str(Path.home()) + "/" not in path.read_text()
