"""A full disk while a trial is stored: what fits is kept, what does not fit is said, and no half file is left."""

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.synthetic import Trace, run_record, scenario, schedule
from ticketbench import store
from ticketbench.analysis.analyse import exit_code
from ticketbench.errors import EXIT_ENVIRONMENT, EXIT_INVALID, EnvironmentFailure
from ticketbench.ledger_rows import Ack
from ticketbench.report import FORMATS
from ticketbench.report.write import judge, write

SIZE_KB = 700


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that is full soon."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_KB}k", "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def incompressible(count: int) -> Iterator[Ack]:
    draw = random.Random(1)
    for number in range(count):
        yield Ack(1_800_000_001.0, 1, f"{draw.getrandbits(256):x}", number)


def test_what_fits_is_kept_and_what_does_not_is_said(small_disk: Path) -> None:
    directory = store.reserve(small_disk / "reports", "run")
    run = run_record(["pool_size=2", "pool_size=10"], of=scenario(), load=schedule(seconds=12, per_s=40))
    store.save_run(directory, run)
    traces = [
        Trace(seconds=12, variant=t.variant, trial_id=t.id, position=t.position).requests("purchase", per_s=40)
        for t in run.plan.trials
    ]
    for trace in traces:
        data = trace.build()
        acks = trace.acks() if trace is traces[0] else incompressible(60_000)
        parts = {"series": data.series, "histograms": data.histograms, "acks": acks, "ledger": trace.ledger()}
        if trace is traces[0]:
            directory.save_trial(data.record, **parts)  # type: ignore[arg-type]
            continue
        with pytest.raises(
            EnvironmentFailure, match=r"cannot write .*acks\.csv\.gz: No space left on device"
        ) as caught:
            directory.save_trial(data.record, **parts)  # type: ignore[arg-type]
        assert caught.value.exit_code == EXIT_ENVIRONMENT
        assert caught.value.hint == "free some space on its disk"  # -o is an option of some commands only
    assert not [path for path in small_disk.rglob("*") if path.name.endswith(".tmp")]
    first, second = directory.load_trials()
    assert first.record.status == "done"
    assert second.record.status == "failed"
    assert second.record.reasons == ("acks.csv.gz could not be stored: No space left on device",)
    assert second.acks is None
    assert second.histograms is not None
    assert second.ledger is not None
    assert exit_code(judge(directory)[1]) == EXIT_INVALID
    _, paths = write(directory, list(FORMATS))
    assert all(path.stat().st_size for path in paths)


def test_a_disk_without_any_space_keeps_what_is_there(small_disk: Path) -> None:
    directory = store.reserve(small_disk / "reports", "run")
    run = run_record(of=scenario(), load=schedule(seconds=12, per_s=40))
    store.save_run(directory, run)
    before = (directory.path / store.RUN_FILE).read_bytes()
    directory.logs_dir("t01")
    with (small_disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space left"):
        while True:
            filler.write(bytes(4096))
    data = Trace(seconds=12).requests("purchase", per_s=40).build()
    with pytest.raises(EnvironmentFailure, match="No space left on device"):
        directory.save_trial(data.record, series=data.series)
    with pytest.raises(EnvironmentFailure, match="No space left on device"):
        store.save_run(directory, run)
    assert (directory.path / store.RUN_FILE).read_bytes() == before
    assert sorted(path.name for path in directory.path.rglob("*") if path.is_file()) == [store.RUN_FILE]
    assert directory.trial_ids() == ()
