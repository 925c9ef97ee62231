"""A run whose files are damaged one by one: never a traceback, never a pass, and nothing else is lost with them."""

import contextlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.synthetic import T0, Trace, run_record, scenario, schedule
from ticketbench import store
from ticketbench.analysis.analyse import exit_code
from ticketbench.conclusions import Analysis
from ticketbench.errors import EXIT_INTEGRITY, EXIT_INVALID, EXIT_OK, UsageError
from ticketbench.report import FORMATS
from ticketbench.report.write import judge, write

PACKED = (store.SERIES_FILE, store.HISTOGRAMS_FILE, store.ACKS_FILE, store.LEDGER_FILE)
TRIALS = ("t01", "t02")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sound trials, one after the other."""
    directory = store.reserve(tmp_path_factory.mktemp("reports"), "run")
    run = run_record(["pool_size=2", "pool_size=10"], of=scenario(), load=schedule(seconds=12, per_s=40))
    store.save_run(directory, run)
    for at, trial in enumerate(run.plan.trials):
        trace = Trace(
            seconds=12, variant=trial.variant, trial_id=trial.id, position=trial.position, start_s=T0 + 100 * at
        )
        trace.requests("purchase", per_s=40)
        data = trace.build()
        directory.save_trial(
            data.record, series=data.series, histograms=data.histograms, acks=trace.acks(), ledger=trace.ledger(),
            summary={"metrics": {}},
        )  # fmt: skip
    assert exit_code(judge(directory)[1]) == EXIT_OK
    return directory.path


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> store.RunDirectory:
    return store.RunDirectory(Path(shutil.copytree(whole, tmp_path / "run")))


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]


def damages(content: bytes) -> Iterator[bytes]:
    yield b""
    yield content[: len(content) // 2]
    yield content[:-1]
    yield content + b"more"
    for part in range(24):
        yield flipped(content, part * (len(content) - 1) // 23)


def without_reasons(analysis: Analysis, trial: str) -> Analysis:
    kept = tuple(each for each in analysis.trials if each.trial != trial)
    return analysis.model_copy(update={"trials": kept, "variants": (), "outcome": None, "comparison": ()})


@pytest.mark.parametrize("name", PACKED)
def test_a_damaged_file_makes_its_trial_invalid_and_no_other(run: store.RunDirectory, name: str) -> None:
    sound = judge(run)[1]
    path = run.path / "trials" / "t02" / name
    content = path.read_bytes()
    found = 0
    for damaged in damages(content):
        path.write_bytes(damaged)
        analysis = judge(run)[1]
        if analysis == sound:  # a bit of the header that says nothing: time, operating system, flags
            assert damaged[10:] == content[10:]
            continue
        found += 1
        assert exit_code(analysis) == EXIT_INVALID
        (trial,) = (each for each in analysis.trials if each.trial == "t02")
        assert trial.validity.status == "invalid"
        assert f"trials/t02/{name} is damaged: " in trial.validity.reasons[0]
        assert f"trials/t02/{name}" in analysis.outcome.sentence
        assert without_reasons(analysis, "t02") == without_reasons(sound, "t02")
    assert found > 20


@pytest.mark.parametrize("name", PACKED)
def test_a_file_of_another_trial_or_kind_is_not_believed(run: store.RunDirectory, name: str) -> None:
    folder = run.path / "trials"
    for other in (folder / "t01" / name, *(folder / "t02" / each for each in PACKED if each != name)):
        own = (folder / "t02" / name).read_bytes()
        (folder / "t02" / name).write_bytes(other.read_bytes())
        # Another trial's ledger is a whole one: all it says is that this trial's purchases are not in it.
        assert exit_code(judge(run)[1]) in {EXIT_INVALID, EXIT_INTEGRITY}
        (folder / "t02" / name).write_bytes(own)
    assert exit_code(judge(run)[1]) == EXIT_OK


def test_a_damaged_trial_record_is_told_and_what_is_beside_it_is_kept(run: store.RunDirectory) -> None:
    path = run.path / "trials" / "t02" / store.TRIAL_FILE
    content = path.read_bytes()
    versions = (content.replace(b'"schema_version": 1', b'"schema_version": %d' % n) for n in (0, 2, 99))
    for damaged in (*damages(content), *versions, (run.path / "trials" / "t01" / store.TRIAL_FILE).read_bytes()):
        path.write_bytes(damaged)
        analysis = judge(run)[1]
        (trial,) = (each for each in analysis.trials if each.trial == "t02")
        if trial.status == "damaged":
            assert exit_code(analysis) == EXIT_INVALID
            assert f"trials/t02/{store.TRIAL_FILE}" in trial.validity.reasons[0]
            assert (trial.integrity.status, trial.integrity.lost) == ("pass", 0)


def test_a_damaged_run_record_is_one_message(run: store.RunDirectory) -> None:
    path = run.path / store.RUN_FILE
    content = path.read_bytes()
    version = content.replace(b'"schema_version": 1', b'"schema_version": 99')
    refused = []
    for damaged in (*damages(content), version, (run.path / "trials" / "t01" / store.TRIAL_FILE).read_bytes()):
        path.write_bytes(damaged)
        with contextlib.suppress(UsageError):  # a digit of a figure may have become another one: that is a sound file
            judge(store.open_run(run.path))
            continue
        with pytest.raises(UsageError) as caught:
            store.open_run(run.path)
        refused.append(caught.value.message)
    assert len(refused) > 5
    assert all(store.RUN_FILE in message and "\n" not in message for message in refused)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("reference", "pool_size=3", "there is no variant 'pool_size=3'"),
        ("schedules", {}, "variant 'pool_size=10' has no schedule"),
        ("trials", [{"id": "../..", "variant": "pool_size=2", "repetition": 1, "position": 1}], "trial '../..' cannot"),
        ("trials", [{"id": "a", "variant": "none", "repetition": 1, "position": 1}], "there is no variant 'none'"),
    ],
)
def test_a_plan_whose_parts_do_not_belong_together_is_refused(
    run: store.RunDirectory, key: str, value: Any, says: str
) -> None:
    path = run.path / store.RUN_FILE
    raw = json.loads(path.read_bytes())
    raw["plan"][key] = value
    path.write_text(json.dumps(raw))
    with pytest.raises(UsageError, match=re.escape(says)):
        store.open_run(run.path)


def test_a_report_is_written_of_what_is_left(run: store.RunDirectory) -> None:
    for name in PACKED:
        (run.path / "trials" / "t01" / name).write_bytes(b"")
    analysis, paths = write(run, list(FORMATS))
    assert exit_code(analysis) == EXIT_INVALID
    assert len(paths) == len(FORMATS)
    page = (run.path / "report.html").read_text()
    for name in PACKED:
        assert f"trials/t01/{name} is damaged" in page
    assert str(run.path) not in page
