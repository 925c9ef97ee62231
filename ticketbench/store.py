"""The run directory: the only link between measuring and judging. Versioned, and every file is written atomically.

docs/files.md describes each file. Nothing here measures or judges.
"""

import contextlib
import csv
import fcntl
import gzip
import io
import json
import os
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import ValidationError

from ticketbench.conclusions import Analysis
from ticketbench.errors import EnvironmentFailure, UsageError
from ticketbench.model import SCHEMA_VERSION, Ack, LedgerRow, Record, RunRecord, TrialRecord

if TYPE_CHECKING:
    import pandas as pd

RUN_FILE: Final = "run.json"
TRIAL_FILE: Final = "trial.json"
ANALYSIS_FILE: Final = "analysis.json"
SUMMARY_FILE: Final = "k6-summary.json"
SERIES_FILE: Final = "series.csv.gz"
HISTOGRAMS_FILE: Final = "histograms.csv.gz"
ACKS_FILE: Final = "acks.csv.gz"
LEDGER_FILE: Final = "ledger.csv.gz"
SUPERSEDED: Final = "superseded"  # the folder of what unfinished trials left, once they are measured anew

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class HistogramRow:
    """The requests of one second, one route and one answer: how many took how long.

    ``t`` is the second's end (Unix seconds); ``scenario`` is k6's, which tells warm-up from window; ``status`` is the
    HTTP status, ``0`` without an answer; ``expected`` is False for a failed request; ``error`` is k6's error code.
    ``buckets`` are (lower, upper, count) in seconds, lower exclusive, with fractional counts possible.
    """

    t: float
    scenario: str
    route: str
    method: str
    status: str
    expected: bool
    error: str
    count: float
    sum_s: float
    buckets: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class TrialData:
    """All that is stored of one trial. What is missing on disk is None here, never an empty stand-in."""

    record: TrialRecord
    series: "pd.DataFrame | None"
    histograms: tuple[HistogramRow, ...] | None
    acks: tuple[Ack, ...] | None
    ledger: tuple[LedgerRow, ...] | None


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside ``path``, flush to disk, rename. A reader sees the old file or the new one, never a half.

    Raises EnvironmentFailure (disk full, not writable).
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise EnvironmentFailure(
            f"cannot write {path}: {error.strerror or error}", "free some space, or choose another folder with -o"
        ) from error


def _gzip(text: str) -> bytes:
    return gzip.compress(text.encode(), compresslevel=6, mtime=0)


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return _gzip(out.getvalue())


def _to_json(record: Record) -> bytes:
    return (json.dumps(record.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.")[:60] or "run"


def parse_record(kind: type[R], content: bytes, where: str) -> R:
    """Read a record from JSON. Raises UsageError for text that is no such record, or one from a newer ticketbench."""
    try:
        raw = json.loads(content)
    except (ValueError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{where} is not JSON: {error}", hint="the file is damaged; restore it or measure again"
        ) from error
    if not isinstance(raw, dict):
        raise UsageError(f"{where} is not a {kind.__name__}")
    version = raw.get("schema_version")
    if type(version) is not int or version < 1:
        raise UsageError(f"{where} has no schema version that this ticketbench knows, but {version!r}")
    if version > SCHEMA_VERSION:
        raise UsageError(
            f"{where} has schema version {version}, and this ticketbench knows up to {SCHEMA_VERSION}",
            hint="it was written by a newer ticketbench: upgrade",
        )
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{where} is not a {kind.__name__}: {at}: {first['msg']}") from error


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
        histograms: Iterable[HistogramRow] | None = None,
        acks: Iterable[Ack] | None = None,
        ledger: Iterable[LedgerRow] | None = None,
    ) -> None:
        """Store a trial; ``trial.json`` comes last, so a folder that has it is whole. Raises EnvironmentFailure."""
        folder = self.logs_dir(record.trial.id).parent
        if summary is not None:
            write_atomically(folder / SUMMARY_FILE, (json.dumps(summary, indent=1) + "\n").encode())
        if series is not None:
            text = series.to_csv(index_label="t", float_format="%.15g", lineterminator="\n")
            write_atomically(folder / SERIES_FILE, _gzip(text))
        if histograms is not None:
            write_atomically(folder / HISTOGRAMS_FILE, _csv(_HISTOGRAM_HEADER, map(_histogram_to_row, histograms)))
        if acks is not None:
            rows = ((f"{a.at_s:.3f}", a.match_id, a.key, a.ticket_id) for a in acks)
            write_atomically(folder / ACKS_FILE, _csv(_ACK_HEADER, rows))
        if ledger is not None:
            lines = ((r.kind, r.match_id, r.quantity, r.ticket_id, r.key) for r in ledger)
            write_atomically(folder / LEDGER_FILE, _csv(_LEDGER_HEADER, lines))
        write_atomically(folder / TRIAL_FILE, _to_json(record))

    def save_analysis(self, analysis: Analysis) -> Path:
        """Write ``analysis.json`` and return its path."""
        path = self.path / ANALYSIS_FILE
        write_atomically(path, _to_json(analysis))
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
        return parse_record(RunRecord, _read(path), str(path))

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
        """Read the ``trial.json`` of each stored trial, in run order. Raises UsageError for a damaged one."""
        paths = [self._trial_dir(trial_id) / TRIAL_FILE for trial_id in self.trial_ids()]
        return tuple(parse_record(TrialRecord, _read(path), str(path)) for path in paths)

    def load_trial(self, trial_id: str) -> TrialData:
        """Read all that is stored of a trial. Raises UsageError for a damaged file."""
        folder = self._trial_dir(trial_id)
        path = folder / TRIAL_FILE
        record = parse_record(TrialRecord, _read(path), str(path))
        acks = _read_rows(folder / ACKS_FILE, _ACK_HEADER)
        ledger = _read_rows(folder / LEDGER_FILE, _LEDGER_HEADER)
        histograms = _read_rows(folder / HISTOGRAMS_FILE, _HISTOGRAM_HEADER)
        try:
            return TrialData(
                record=record,
                series=_read_series(folder / SERIES_FILE),
                histograms=None if histograms is None else tuple(map(_histogram_from_row, histograms)),
                acks=None if acks is None else tuple(map(_ack_from_row, acks)),
                ledger=None if ledger is None else tuple(map(_ledger_from_row, ledger)),
            )
        except (KeyError, ValueError) as error:
            first = str(error).splitlines()[:2]  # pydantic's goes on for lines
            raise UsageError(f"{folder} holds a file that cannot be read: {' '.join(first)}") from error

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
    write_atomically(directory.path / RUN_FILE, _to_json(record))


def open_run(path: Path) -> RunDirectory:
    """Open a stored run. Raises UsageError where ``path`` is none."""
    if path.name == RUN_FILE:
        path = path.parent
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

_ACK_HEADER: Final = ("at_s", "match_id", "key", "ticket_id")
_LEDGER_HEADER: Final = ("kind", "match_id", "quantity", "ticket_id", "key")
_HISTOGRAM_HEADER: Final = (
    "t", "scenario", "route", "method", "status", "expected", "error", "count", "sum_s", "buckets",
)  # fmt: skip


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _read_rows(path: Path, header: Sequence[str]) -> list[dict[str, str]] | None:
    if not path.is_file():
        return None
    try:
        reader = csv.DictReader(io.StringIO(gzip.decompress(path.read_bytes()).decode(), newline=""), strict=True)
        columns, rows = tuple(reader.fieldnames or ()), list(reader)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is damaged: {error}") from error
    if columns != tuple(header):  # an empty file is no empty ledger
        raise UsageError(f"{path} is damaged: its columns are {list(columns)}, not {list(header)}")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise UsageError(f"{path} is damaged: line {number} has not {len(header)} fields")
    return rows


def _read_series(path: Path) -> "pd.DataFrame | None":
    if not path.is_file():
        return None
    import pandas as pd  # heavy

    try:
        frame = pd.read_csv(path, compression="gzip", dtype=float)
        return frame.set_index("t")
    except (OSError, EOFError, ValueError, KeyError, zlib.error, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is damaged: {error}") from error


def _histogram_to_row(row: HistogramRow) -> tuple[object, ...]:
    buckets = " ".join(f"{low:.6g}:{high:.6g}:{count:g}" for low, high, count in row.buckets)
    return (
        f"{row.t:.3f}", row.scenario, row.route, row.method, row.status, int(row.expected), row.error,
        f"{row.count:g}", f"{row.sum_s:.9g}", buckets,
    )  # fmt: skip


def _bucket(text: str) -> tuple[float, float, float]:
    low, high, count = text.split(":")
    return float(low), float(high), float(count)


def _histogram_from_row(row: dict[str, str]) -> HistogramRow:
    return HistogramRow(
        t=float(row["t"]),
        scenario=row["scenario"],
        route=row["route"],
        method=row["method"],
        status=row["status"],
        expected=row["expected"] == "1",
        error=row["error"],
        count=float(row["count"]),
        sum_s=float(row["sum_s"]),
        buckets=tuple(_bucket(text) for text in row["buckets"].split()),
    )


def _ack_from_row(row: dict[str, str]) -> Ack:
    return Ack(at_s=float(row["at_s"]), match_id=int(row["match_id"]), key=row["key"], ticket_id=int(row["ticket_id"]))


def _ledger_from_row(row: dict[str, str]) -> LedgerRow:
    return LedgerRow.model_validate(
        {
            "kind": row["kind"],
            "match_id": int(row["match_id"]),
            "quantity": int(row["quantity"]),
            "ticket_id": int(row["ticket_id"]),
            "key": row["key"],
        }
    )


__all__ = [
    "HistogramRow", "RunDirectory", "TrialData", "open_run", "parse_record", "reserve", "run_id",
    "save_run", "write_atomically",
]  # fmt: skip
