"""The run directory: the only link between measuring and judging. Versioned, and every file is written atomically.

docs/files.md describes each file. Nothing here measures or judges.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ticketbench import paths
from ticketbench.conclusions import Analysis
from ticketbench.errors import EnvironmentFailure, UsageError
from ticketbench.ledger_rows import Ack, LedgerRow
from ticketbench.model import Level, RunRecord, Trial, TrialRecord
from ticketbench.storing.files import Damaged, write_atomically
from ticketbench.storing.records import parse_record, to_json

if TYPE_CHECKING:  # numpy and pandas, which no other command should wait for
    import pandas as pd

    from ticketbench.storing.histograms import HistogramRow, Histograms
    from ticketbench.storing.purchases import Acks, Ledger

RUN_FILE: Final = "run.json"
TRIAL_FILE: Final = "trial.json"
ANALYSIS_FILE: Final = "analysis.json"
SUMMARY_FILE: Final = "k6-summary.json"
SERIES_FILE: Final = "series.csv.gz"
HISTOGRAMS_FILE: Final = "histograms.csv.gz"
ACKS_FILE: Final = "acks.csv.gz"
LEDGER_FILE: Final = "ledger.csv.gz"
SUPERSEDED: Final = "superseded"  # the folder of what unfinished trials left, once they are measured anew

# k6's lag and the clock of a script that stamps its own purchases.
_CLOCKS_APART_S: Final = 2.0

T = TypeVar("T")


@dataclass(frozen=True)
class TrialData:
    """All that is stored of one trial. What is missing on disk is None here, never an empty stand-in.

    What is damaged is None too; the record then has the status ``damaged``, with the reasons, which name the files.
    """

    record: TrialRecord
    series: "pd.DataFrame | None"
    histograms: "Histograms | None"
    acks: "Acks | None"
    ledger: "Ledger | None"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.")[:60] or "run"


class RunDirectory:
    """One run on disk. Made with :func:`create` or :func:`open_run`; ``path`` is its folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _trial_dir(self, trial_id: str) -> Path:
        return self.path / "trials" / trial_id

    def logs_dir(self, trial_id: str) -> Path:
        """Return the folder for a trial's logs, made if need be."""
        folder = self._trial_dir(trial_id) / "logs"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentFailure(f"cannot make {folder}: {error.strerror}") from error
        return folder

    # writing

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for oneself while it is written. Raises UsageError where another ticketbench holds it.

        The lock is the kernel's, on the folder itself: it leaves no file, and ends with the process.
        """
        try:
            folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise EnvironmentFailure(f"cannot open {self.path}: {error.strerror}") from error
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(
                    f"RUN {str(self.path)!r} is being measured by another ticketbench",
                    hint="wait until it is done: `ticketbench status` lists what is up",
                ) from error
            yield
        finally:
            os.close(folder)

    def supersede(self, trial_id: str) -> None:
        """Move what an unfinished trial left to ``superseded/``, so that the trial can be measured anew.

        Nothing measured is deleted. Raises EnvironmentFailure.
        """
        folder = self._trial_dir(trial_id)
        if not folder.exists():
            return
        kept = self.path / SUPERSEDED
        try:
            kept.mkdir(exist_ok=True)
            attempt = 1
            while (kept / f"{trial_id}-{attempt}").exists():
                attempt += 1
            folder.rename(kept / f"{trial_id}-{attempt}")
        except OSError as error:
            raise EnvironmentFailure(f"cannot move {folder} aside: {error.strerror}") from error

    def save_trial(
        self,
        record: TrialRecord,
        *,
        summary: dict[str, Any] | None = None,
        series: "pd.DataFrame | None" = None,
        histograms: "Iterable[HistogramRow] | None" = None,
        acks: Iterable[Ack] | None = None,
        ledger: Iterable[LedgerRow] | None = None,
    ) -> None:
        """Store a trial; ``trial.json`` comes last, so a folder that has it is whole.

        What was stored of it before (:meth:`save_acks`, :meth:`save_ledger`) stays. A part that cannot be written (a
        full disk) does not cost the others: the trial is then stored as failed, which says what is not there, and
        EnvironmentFailure is raised.
        """
        from ticketbench.storing.histograms import write_histograms
        from ticketbench.storing.series import write_series

        folder = self.logs_dir(record.trial.id).parent
        steps: list[tuple[str, Callable[[], object] | None]] = [
            (SUMMARY_FILE, None if summary is None else partial(_write_json, folder / SUMMARY_FILE, summary)),
            (ACKS_FILE, None if acks is None else partial(self.save_acks, record.trial.id, acks)),
            (LEDGER_FILE, None if ledger is None else partial(self.save_ledger, record.trial.id, ledger)),
            (
                HISTOGRAMS_FILE,
                None if histograms is None else partial(write_histograms, folder / HISTOGRAMS_FILE, histograms),
            ),
            (SERIES_FILE, None if series is None else partial(write_series, folder / SERIES_FILE, series)),
        ]
        failures = []
        for name, step in steps:
            try:
                if step is not None:
                    step()
            except EnvironmentFailure as error:
                failures.append(error)
                why = f"{name} could not be stored: {getattr(error.__cause__, 'strerror', None) or 'see above'}"
                record = record.model_copy(update={"status": "failed", "reasons": (*record.reasons, why)})
        write_atomically(folder / TRIAL_FILE, to_json(record))
        if failures:
            raise failures[0]

    def save_acks(self, trial_id: str, acks: Iterable[Ack]) -> int:
        """Store a trial's acknowledged purchases as they come, and return how many. Raises EnvironmentFailure."""
        from ticketbench.storing.purchases import write_acks

        return write_acks(self.logs_dir(trial_id).parent / ACKS_FILE, acks)

    def save_ledger(self, trial_id: str, ledger: Iterable[LedgerRow]) -> int:
        """Store a trial's ledger as it comes, and return how many rows it has. Raises EnvironmentFailure.

        Where ``ledger`` itself raises, nothing is stored: half a ledger would be read as lost tickets.
        """
        from ticketbench.storing.purchases import write_ledger

        return write_ledger(self.logs_dir(trial_id).parent / LEDGER_FILE, ledger)

    def save_analysis(self, analysis: Analysis) -> Path:
        """Write ``analysis.json`` and return its path."""
        path = self.path / ANALYSIS_FILE
        write_atomically(path, to_json(analysis))
        return path

    def save_report(self, name: str, content: bytes) -> Path:
        """Write a rendered report beside the data and return its path."""
        path = self.path / name
        write_atomically(path, content)
        return path

    # reading

    def record(self) -> RunRecord:
        """Read ``run.json``. Raises UsageError."""
        path = self.path / RUN_FILE
        record = parse_record(RunRecord, _read(path), str(path))
        ids = [trial.id for trial in record.plan.trials]
        if odd := [each for each in ids if ids.count(each) > 1 or not each or "/" in each or each.startswith(".")]:
            raise UsageError(f"{path} is damaged: trial {odd[0]!r} cannot be the name of one folder")
        return record

    def has_run(self) -> bool:
        """Tell whether ``run.json`` is there: the plan is on disk, so the run can be resumed."""
        return (self.path / RUN_FILE).is_file()

    def has_trials(self) -> bool:
        """Tell whether a trial is stored; True only together with ``run.json``."""
        return self.has_run() and any((self.path / "trials").glob(f"*/{TRIAL_FILE}"))

    def has_superseded(self) -> bool:
        """Tell whether earlier attempts at trials were moved aside here."""
        return any((self.path / SUPERSEDED).glob("*"))

    def discard(self) -> None:
        """Remove the folder of a run that came to nothing. Raises ValueError if anything measured is in it."""
        if self.has_trials() or self.has_superseded():
            raise ValueError(f"{self.path} holds trials")
        shutil.rmtree(self.path, ignore_errors=True)

    def trial_ids(self) -> tuple[str, ...]:
        """Return the ids of the planned trials that are stored, in run order."""
        return tuple(
            trial.id for trial in self.record().plan.trials if (self._trial_dir(trial.id) / TRIAL_FILE).is_file()
        )

    def trial_records(self) -> tuple[TrialRecord, ...]:
        """Read the ``trial.json`` of each stored trial, in run order; one that cannot be read is ``damaged``."""
        plan, stored = self.record().plan, self.trial_ids()
        records = []
        for trial in (planned for planned in plan.trials if planned.id in stored):
            where = f"trials/{trial.id}/{TRIAL_FILE}"
            try:
                records.append(_read_trial(self._trial_dir(trial.id) / TRIAL_FILE, where, trial))
            except Damaged as error:
                records.append(_unreadable(trial, plan.variant(trial.variant).levels, str(error)))
        return tuple(records)

    def load_trial(self, trial_id: str) -> TrialData:
        """Read all that is stored of a planned trial.

        A file that cannot be read costs that file and the trial's validity, not the others and not the run: see
        :class:`TrialData`. Raises UsageError for a damaged ``run.json``, KeyError for a trial that is not planned.
        """
        from ticketbench.storing.histograms import read_histograms
        from ticketbench.storing.purchases import read_acks, read_ledger
        from ticketbench.storing.series import read_series

        plan = self.record().plan
        trial = {planned.id: planned for planned in plan.trials}[trial_id]
        reasons: list[str] = []

        def part(name: str, read: Callable[[Path, str], T]) -> T | None:
            path = self._trial_dir(trial_id) / name
            if not path.is_file():
                return None
            try:
                return read(path, f"trials/{trial_id}/{name}")
            except Damaged as error:
                reasons.append(str(error))
                return None

        record = part(TRIAL_FILE, lambda path, where: _read_trial(path, where, trial))
        read = TrialData(
            record=record or _unreadable(trial, plan.variant(trial.variant).levels),
            series=part(SERIES_FILE, read_series),
            histograms=part(HISTOGRAMS_FILE, read_histograms),
            acks=part(ACKS_FILE, read_acks),
            ledger=part(LEDGER_FILE, read_ledger),
        )
        if record is not None:
            read, foreign = _without_foreign(read)
            reasons += (f"trials/{trial_id}/{name} is of another time than its trial" for name in foreign)
        if not reasons:
            return read
        status = read.record.model_copy(update={"status": "damaged", "reasons": (*reasons, *read.record.reasons)})
        return replace(read, record=status)

    def load_trials(self) -> Iterator[TrialData]:
        """Yield the stored trials in run order, one in memory at a time."""
        for trial_id in self.trial_ids():
            yield self.load_trial(trial_id)


def run_id(scenario: str, now: datetime) -> str:
    """Return a run's id, which is also its folder's name: ``20261122T154042Z-spike``."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{_slug(scenario)}"


def reserve(parent: Path, wanted: str) -> RunDirectory:
    """Make a new, empty run folder below ``parent``; a taken name gets a number. Raises EnvironmentFailure."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, 1000):
            path = parent / (wanted if attempt == 1 else f"{wanted}-{attempt}")
            try:
                path.mkdir()
            except FileExistsError:
                continue
            return RunDirectory(path)
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot make a folder for the run below {parent}: {error.strerror}", "choose another folder with -o"
        ) from error
    raise EnvironmentFailure(f"{parent} already holds a thousand runs called {wanted}")


def save_run(directory: RunDirectory, record: RunRecord) -> None:
    """Write ``run.json``, once. Raises EnvironmentFailure."""
    write_atomically(directory.path / RUN_FILE, to_json(record))


def open_run(path: Path) -> RunDirectory:
    """Open a stored run. Raises UsageError where ``path`` is none."""
    if path.name == RUN_FILE:
        path = path.parent
    paths.require_reachable(path / RUN_FILE, "RUN")
    if not path.is_dir():
        raise UsageError(f"RUN {str(path)!r} is not a folder", hint="give the folder that `ticketbench run` printed")
    if not (path / RUN_FILE).is_file():
        raise UsageError(
            f"RUN {str(path)!r} holds no {RUN_FILE}, so it is no run", hint="runs are folders below reports/"
        )
    directory = RunDirectory(path)
    directory.record()
    return directory


# --- files ------------------------------------------------------------------------------------------------------------


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def _read_trial(path: Path, where: str, trial: Trial) -> TrialRecord:
    try:
        record = parse_record(TrialRecord, _read(path), where)
    except UsageError as error:
        raise Damaged(error.message) from error
    if record.trial != trial:
        raise Damaged(f"{where} is of trial {record.trial.id}, not of {trial.id}")
    return record


def _unreadable(trial: Trial, levels: dict[str, Level], *reasons: str) -> TrialRecord:
    """Return what is known of a trial whose record is lost: what was planned."""
    return TrialRecord(
        trial=trial, levels=levels, status="damaged", reasons=reasons, started_s=0, ended_s=0, window=None, load=None
    )


def _without_foreign(trial: TrialData) -> tuple[TrialData, list[str]]:
    """Return the trial without data that was not measured during it, and the names of the files that hold such.

    Trials follow one another, so what was measured in another one has its middle outside of this one.
    """
    early_s, late_s = sorted((trial.record.started_s, trial.record.ended_s))  # a clock may have been set back meanwhile
    spans: dict[str, tuple[str, tuple[float, float] | None]] = {}
    if trial.series is not None and len(trial.series):
        spans["series"] = SERIES_FILE, (float(trial.series.index[0]), float(trial.series.index[-1]))
    if trial.histograms is not None and len(trial.histograms):
        spans["histograms"] = HISTOGRAMS_FILE, (float(trial.histograms.t.min()), float(trial.histograms.t.max()))
    if trial.acks is not None:
        spans["acks"] = ACKS_FILE, trial.acks.span_s
    foreign = {
        part: name
        for part, (name, span) in spans.items()
        if span is not None and not early_s - _CLOCKS_APART_S <= (span[0] + span[1]) / 2 <= late_s + _CLOCKS_APART_S
    }
    kept = replace(
        trial,
        series=None if "series" in foreign else trial.series,
        histograms=None if "histograms" in foreign else trial.histograms,
        acks=None if "acks" in foreign else trial.acks,
    )
    return kept, list(foreign.values())


__all__ = [
    "RunDirectory", "TrialData", "open_run", "parse_record", "reserve", "run_id",
    "save_run",
    "write_atomically",
]  # fmt: skip
