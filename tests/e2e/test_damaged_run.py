"""The commands on a stored run of which something can no longer be read."""

import shutil
from pathlib import Path

import pytest
from program import Program

from tests.unit.synthetic import Trace, run_record, scenario, schedule
from ticketbench import store


@pytest.fixture
def stored(program: Program) -> Path:
    directory = store.reserve(program.folder / "reports", "run")
    run = run_record(of=scenario(), load=schedule(seconds=12, per_s=40))
    store.save_run(directory, run)
    trace = Trace(seconds=12).requests("purchase", per_s=40)
    data = trace.build()
    directory.save_trial(
        data.record, series=data.series, histograms=data.histograms, acks=trace.acks(), ledger=trace.ledger()
    )
    return directory.path


def test_a_damaged_table_is_exit_3_and_named_by_each_command(program: Program, stored: Path) -> None:
    assert program("report", str(stored)).code == 0
    sound = shutil.copytree(stored, stored.with_name("sound"))
    record = sound / store.RUN_FILE
    record.write_text(record.read_text().replace("20261122T120000Z-spike", "20261122T110000Z-spike"))
    table = stored / "trials" / "t01" / store.SERIES_FILE
    table.write_bytes(table.read_bytes()[:-20])
    told = f"trials/t01/{store.SERIES_FILE} is damaged"
    reported = program("report", str(stored))
    assert (reported.code, reported.err.count("\n")) == (3, 1)
    assert told in reported.err
    assert told in (stored / "report.md").read_text()
    shown = program("show", str(stored), COLUMNS="400")
    assert (shown.code, shown.err) == (3, "")
    assert told in shown.out
    compared = program("compare", str(sound), str(stored))
    assert (compared.code, compared.err) == (3, "")
    audited = program("audit", str(stored))
    assert (audited.code, audited.err) == (0, "")  # acknowledgements and ledger are whole


def test_a_damaged_run_record_is_exit_2_and_one_message(program: Program, stored: Path) -> None:
    record = stored / store.RUN_FILE
    record.write_bytes(record.read_bytes()[:-20])
    for command in (
        ("report", str(stored)),
        ("show", str(stored)),
        ("audit", str(stored)),
        ("compare", str(stored), "."),
    ):
        done = program(*command)
        assert (done.code, done.out) == (2, "")
        assert f"{store.RUN_FILE} is not JSON" in done.err
        assert "Traceback" not in done.err
