import errno
import gzip
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from ticketbench import store
from ticketbench.errors import EnvironmentFailure, UsageError
from ticketbench.ledger_rows import Ack, LedgerRow
from ticketbench.model import (
    Environment,
    ExternalSystem,
    Plan,
    RunRecord,
    Scenario,
    Schedule,
    Trial,
    TrialRecord,
    Variant,
    Window,
)
from ticketbench.storing.histograms import HistogramRow

TRIAL = Trial(id="001", variant="default", repetition=1, position=1)


def run_record(run_id: str = "r") -> RunRecord:
    scenario = Scenario(
        name="rush", script="rush.js", sha256="", title="", asks="", shape="transient", goal=None, slos=(), levels={}
    )
    schedule = Schedule(window_start_s=0, window_end_s=1, total_s=1, offered=(), open_model=False, max_vus=1)
    plan = Plan(
        scenario=scenario,
        stack="local",
        variants=(Variant(name="default", levels={"pool_size": 2, "payment_ms": 2.5, "cache": "on"}),),
        reference="default",
        varied={},
        fixed={},
        trials=(TRIAL, Trial(id="002", variant="default", repetition=2, position=2)),
        schedules={"default": schedule},
        repetitions=2,
        seed=1,
    )
    environment = Environment(
        os="", kernel="", machine="", cpu_model="", cores=2, memory_bytes=1, python="", ticketbench=""
    )
    return RunRecord(run_id=run_id, created="", ticketbench="", plan=plan, environment=environment, command="")


def trial_record(status: str = "done") -> TrialRecord:
    return TrialRecord(
        trial=TRIAL,
        levels={"pool_size": 2},
        status=status,  # type: ignore[arg-type]
        reasons=(),
        started_s=1.0,
        ended_s=2.0,
        window=Window(start_s=1.0, end_s=2.0),
        load=None,
    )


@pytest.fixture
def directory(tmp_path: Path) -> store.RunDirectory:
    made = store.reserve(tmp_path / "reports", "r")
    store.save_run(made, run_record())
    return made


def test_what_is_saved_is_read_back(directory: store.RunDirectory) -> None:
    series = pd.DataFrame(
        {"app.requests{route=/m,status=201}": [1.0, None], "cpu_s{component=app}": [0.1, 0.123456789]},
        index=pd.Index([1.0, 2.0], name="t"),
    )
    histogram = HistogramRow(
        t=2.0,
        scenario="main",
        route="a,b\"c'\n",
        method="GET",
        status="200",
        expected=True,
        error="",
        count=3,
        sum_s=0.5,
        buckets=((0.1, 0.109, 2.0), (0.2, 0.218, 1.0)),
    )
    ack = Ack(at_s=1.123, match_id=1, key='k"1,\n', ticket_id=7)
    row = LedgerRow(kind="ticket", match_id=1, ticket_id=7, key='k"1,\n')
    directory.save_trial(
        trial_record(), summary={"a": 1}, series=series, histograms=[histogram], acks=[ack], ledger=[row]
    )
    (read,) = directory.load_trials()
    assert read.record == trial_record()
    assert read.histograms is not None
    assert tuple(read.histograms) == (histogram,)
    assert read.acks is not None
    assert read.acks.span_s == (ack.at_s, ack.at_s)
    assert read.ledger is not None
    assert (read.ledger.sold, read.acks.purchases.missing_in(read.ledger.tickets)) == ({1: 1}, 0)
    assert read.series is not None
    pd.testing.assert_frame_equal(read.series, series)
    assert directory.record() == run_record()


def test_what_was_not_measured_is_none_and_what_was_empty_is_empty(directory: store.RunDirectory) -> None:
    directory.save_trial(trial_record(), acks=[])
    (read,) = directory.load_trials()
    assert read.acks is not None
    assert len(read.acks) == 0
    assert (read.series, read.histograms, read.ledger) == (None, None, None)


def test_a_trial_without_its_record_does_not_count(directory: store.RunDirectory) -> None:
    assert not directory.has_trials()
    directory.logs_dir("001")
    assert not directory.has_trials()
    assert directory.trial_ids() == ()
    directory.save_trial(trial_record())
    assert directory.has_trials()
    assert directory.trial_ids() == ("001",)


def test_a_run_with_trials_is_never_discarded(directory: store.RunDirectory) -> None:
    directory.save_trial(trial_record())
    with pytest.raises(ValueError, match="holds trials"):
        directory.discard()
    assert directory.path.is_dir()


def test_a_run_that_came_to_nothing_is_discarded(directory: store.RunDirectory) -> None:
    directory.discard()
    assert not directory.path.exists()


def test_two_runs_of_one_second_get_folders_of_their_own(tmp_path: Path) -> None:
    wanted = store.run_id("a b/../c", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert wanted == "20260102T030405Z-a-b-..-c"
    first, second = store.reserve(tmp_path, wanted), store.reserve(tmp_path, wanted)
    assert first.path != second.path
    assert first.path.parent == second.path.parent == tmp_path


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    store.write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentFailure, match="No space left"):
        store.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_an_environment_failure() -> None:
    with pytest.raises(EnvironmentFailure, match="cannot make a folder"):
        store.reserve(Path("/dev/full/x"), "r")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "is not JSON"),
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[]", "is not a RunRecord"),
        (b'{"schema_version": 1}', "is not a RunRecord: run_id"),
        (b'{"schema_version": 99}', "schema version 99"),
    ],
)
def test_a_damaged_or_future_run_is_refused_in_words(
    directory: store.RunDirectory, content: bytes, message: str
) -> None:
    (directory.path / "run.json").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        store.open_run(directory.path)


def test_an_unknown_key_is_refused(directory: store.RunDirectory) -> None:
    path = directory.path / "run.json"
    raw = json.loads(path.read_text())
    raw["surprise"] = 1
    path.write_text(json.dumps(raw))
    with pytest.raises(UsageError, match="surprise"):
        store.open_run(directory.path)


DATA_FILES = [store.SERIES_FILE, store.ACKS_FILE, store.LEDGER_FILE, store.HISTOGRAMS_FILE]


def reasons_for(directory: store.RunDirectory, name: str, content: bytes) -> tuple[str, ...]:
    """Save a trial, put ``content`` in the place of one of its files, and return what reading it then says."""
    directory.save_trial(trial_record(), acks=[], ledger=[], histograms=[])
    (directory.path / "trials" / "001" / name).write_bytes(content)
    read = directory.load_trial("001")
    assert read.record.status == "damaged"
    assert (read.acks is None) == (name == store.ACKS_FILE)  # the others are kept
    assert (read.ledger is None) == (name == store.LEDGER_FILE)
    assert (read.histograms is None) == (name == store.HISTOGRAMS_FILE)
    assert read.series is None
    return read.record.reasons


@pytest.mark.parametrize("name", DATA_FILES)
@pytest.mark.parametrize(
    "content", [b"", b"not gzip", b"\x1f\x8b\x08\x00truncated", gzip.compress(b"a,b\n1,2\n", mtime=0)]
)
def test_a_damaged_data_file_costs_that_file_only(directory: store.RunDirectory, name: str, content: bytes) -> None:
    (reason,) = reasons_for(directory, name, content)
    assert reason.startswith(f"trials/001/{name} is damaged: ")
    assert "\n" not in reason


HISTOGRAMS_HEAD = "t,scenario,route,method,status,expected,error,count,sum_s,buckets\n"
LEDGER_HEAD = "kind,match_id,quantity,ticket_id,key\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (store.LEDGER_FILE, f"{LEDGER_HEAD}ticket,1\n"),
        (store.LEDGER_FILE, f"{LEDGER_HEAD}ticket,1,1,1,k,more\n"),
        (store.LEDGER_FILE, f"{LEDGER_HEAD}ticket,1,1,1,k\nticket,1,1,1,k,more\n"),
        (store.LEDGER_FILE, f"{LEDGER_HEAD}seat,1,1,1,k\n"),
        (store.LEDGER_FILE, f"{LEDGER_HEAD}ticket,x,1,1,k\n"),
        (store.LEDGER_FILE, f"{LEDGER_HEAD}ticket,1,1,{2**70},k\n"),
        (store.HISTOGRAMS_FILE, f"{HISTOGRAMS_HEAD}1,s,r,GET,200,1,,1,1,1:2\n"),
        (store.HISTOGRAMS_FILE, f"{HISTOGRAMS_HEAD}1,s,r,GET,200,1,,1,1,1:x:2\n"),
        (store.HISTOGRAMS_FILE, f"{HISTOGRAMS_HEAD}1,s,r,GET,200,1,,1,1,2:1:2\n"),
        (store.HISTOGRAMS_FILE, f"{HISTOGRAMS_HEAD}nan,s,r,GET,200,1,,1,1,1:2:2\n"),
        (store.SERIES_FILE, "t,a\n2,1\n1,1\n"),
        (store.SERIES_FILE, "t,a\n1,x\n"),
        (store.SERIES_FILE, "a,b\n"),
    ],
)  # fmt: skip
def test_a_table_that_was_tampered_with_is_told_in_a_line(directory: store.RunDirectory, name: str, text: str) -> None:
    (reason,) = reasons_for(directory, name, gzip.compress(text.encode()))
    assert reason.startswith(f"trials/001/{name} is damaged: ")
    assert "\n" not in reason


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON"),
        (b'{"schema_version": 99}', "schema version 99"),
        (b'{"schema_version": 1}', "is not a TrialRecord: trial"),
    ],
)
def test_a_trial_whose_record_is_lost_keeps_its_data(
    directory: store.RunDirectory, content: bytes, message: str
) -> None:
    directory.save_trial(trial_record(), acks=[Ack(1.0, 1, "k", 1)])
    (directory.path / "trials" / "001" / "trial.json").write_bytes(content)
    (read,) = directory.load_trials()
    assert (read.record.trial, read.record.status, read.record.window) == (TRIAL, "damaged", None)
    assert "trials/001/trial.json" in read.record.reasons[0]
    assert message in read.record.reasons[0]
    assert read.acks is not None


def test_another_trials_files_are_not_taken_for_its_own(directory: store.RunDirectory) -> None:
    directory.save_trial(trial_record())
    raw = json.loads((directory.path / "trials" / "001" / "trial.json").read_text())
    raw["trial"]["id"] = "002"
    (directory.path / "trials" / "001" / "trial.json").write_text(json.dumps(raw))
    assert directory.load_trial("001").record.reasons == ("trials/001/trial.json is of trial 002, not of 001",)
    series = pd.DataFrame({"a": [1.0, 2.0]}, index=pd.Index([900.0, 901.0], name="t"))
    directory.save_trial(trial_record(), series=series, acks=[Ack(901.0, 1, "k", 1)])
    read = directory.load_trial("001")
    assert (read.series, read.acks) == (None, None)
    assert read.record.reasons == (
        "trials/001/series.csv.gz is of another time than its trial",
        "trials/001/acks.csv.gz is of another time than its trial",
    )


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        store.open_run(tmp_path / "none")
    with pytest.raises(UsageError, match=r"holds no run\.json"):
        store.open_run(tmp_path)


def test_an_environment_of_before_the_machine_was_told_in_full_still_loads() -> None:
    old = {
        "os": "Debian", "kernel": "6.1", "machine": "x86_64", "cpu_model": "a CPU", "cores": 2, "memory_bytes": 1,
        "python": "3.11.2", "ticketbench": "0.1.0",
    }  # fmt: skip
    environment = Environment.model_validate(old)
    assert (environment.other_cpu, environment.cpu_quota_cores, environment.packages) == (None, None, {})
    assert environment.isolation.split is None


def test_a_run_of_before_plans_had_a_title_still_opens(tmp_path: Path) -> None:
    run = run_record()
    system = ExternalSystem(scheme="http", where="loopback", port=8000, path="", headers=("X-A",))
    content = run.model_copy(update={"plan": run.plan.model_copy(update={"external": system})}).model_dump(mode="json")
    del content["plan"]["title"]
    del content["plan"]["external"]["headers_from_variable"]
    (tmp_path / "run.json").write_text(json.dumps(content))
    plan = store.open_run(tmp_path).record().plan
    assert plan.title == ""
    assert plan.external is not None
    assert (plan.external.headers, plan.external.headers_from_variable) == (("X-A",), ())
