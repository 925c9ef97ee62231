"""k6's request durations by second and kind of answer, as columns: an hour is a few ten megabytes and not gigabytes."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ticketbench.storing.files import Damaged, damaged, read_table, write_table

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

_TYPES: Final = {
    "t": float, "scenario": object, "route": object, "method": object, "status": object, "expected": object,
    "error": object, "count": float, "sum_s": float, "buckets": object,
}  # fmt: skip
_LABELS: Final = ("scenario", "route", "method", "status", "expected", "error")
_ROWS_AT_A_TIME: Final = 5000  # some 300 000 buckets, whose text is what costs memory


@dataclass(frozen=True)
class Answer:
    """What tells requests apart: all that a row of the histograms says beside when and how long.

    ``scenario`` is k6's, which tells warm-up from window; ``status`` is the HTTP status, ``0`` without an answer;
    ``expected`` is False for a failed request; ``error`` is k6's error code.
    """

    scenario: str
    route: str
    method: str
    status: str
    expected: bool
    error: str


@dataclass(frozen=True)
class HistogramRow:
    """The requests of one second, one route and one answer: how many took how long.

    ``t`` is the second's end (Unix seconds); the labels are those of :class:`Answer`. ``buckets`` are (lower, upper,
    count) in seconds, lower exclusive, with fractional counts possible.
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


@dataclass(frozen=True, eq=False)
class Histograms:
    """Rows as columns: row ``i`` is ``answers[answer[i]]`` in the second that ends at ``t[i]``.

    Its buckets are ``bucket[starts[i]:starts[i + 1]]``, which number rows of ``bounds`` (lower, upper; seconds), with
    ``inside`` requests each. ``t`` need not be sorted.
    """

    answers: tuple[Answer, ...]
    answer: Ints
    t: Floats
    count: Floats
    sum_s: Floats
    starts: Ints
    bounds: Floats
    bucket: Ints
    inside: Floats
    lengths: Ints = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengths", np.diff(self.starts))

    def __len__(self) -> int:
        return len(self.t)

    def __iter__(self) -> Iterator[HistogramRow]:
        """Yield the rows one by one: for tests and for whoever writes them down again."""
        for at in range(len(self)):
            of = slice(int(self.starts[at]), int(self.starts[at + 1]))
            label = self.answers[self.answer[at]]
            bounds = self.bounds[self.bucket[of]]
            yield HistogramRow(
                float(self.t[at]), label.scenario, label.route, label.method, label.status, label.expected, label.error,
                float(self.count[at]), float(self.sum_s[at]),
                tuple((float(b[0]), float(b[1]), float(n)) for b, n in zip(bounds, self.inside[of], strict=True)),
            )  # fmt: skip

    @classmethod
    def of(cls, rows: Iterable[HistogramRow]) -> "Histograms":
        """Return rows as columns."""
        builder = _Builder()
        kept = list(rows)
        flat = np.array([value for row in kept for bucket in row.buckets for value in bucket], dtype=np.float64)
        labels = [Answer(r.scenario, r.route, r.method, r.status, r.expected, r.error) for r in kept]
        builder.add(
            labels,
            np.array([row.t for row in kept], dtype=np.float64),
            np.array([row.count for row in kept], dtype=np.float64),
            np.array([row.sum_s for row in kept], dtype=np.float64),
            np.array([len(row.buckets) for row in kept], dtype=np.int64),
            flat.reshape(-1, 3),
        )
        return builder.built()

    @classmethod
    def joined(cls, parts: Iterable["Histograms"]) -> "Histograms":
        """Return the rows of several, one after the other."""
        builder = _Builder()
        for part in parts:
            buckets = np.column_stack([part.bounds[part.bucket], part.inside]).reshape(-1, 3)
            labels = [part.answers[at] for at in part.answer.tolist()]
            builder.add(labels, part.t, part.count, part.sum_s, part.lengths, buckets)
        return builder.built()

    def only(self, rows: Mask) -> "Histograms":
        """Return the rows that ``rows`` (one truth each) keeps."""
        buckets = np.repeat(rows, self.lengths)
        return Histograms(
            self.answers,
            self.answer[rows],
            self.t[rows],
            self.count[rows],
            self.sum_s[rows],
            np.concatenate([[0], np.cumsum(self.lengths[rows])]).astype(np.int64),
            self.bounds,
            self.bucket[buckets],
            self.inside[buckets],
        )

    def where(self, wanted: Callable[[Answer], bool]) -> Mask:
        """Return for each row whether its answer is wanted."""
        chosen = np.array([wanted(answer) for answer in self.answers], dtype=bool)
        return np.asarray(chosen[self.answer] if len(chosen) else np.zeros(0, dtype=bool), dtype=np.bool_)

    def having(self, wanted: Callable[[Answer], bool]) -> "Histograms":
        """Return the rows whose answer is wanted."""
        return self.only(self.where(wanted))


class _Builder:
    """Collects pieces of rows; labels and bounds are numbered in the order in which they first appear."""

    def __init__(self) -> None:
        self._answers: dict[Answer, int] = {}
        self._bounds: dict[tuple[float, float], int] = {}
        self._rows: list[tuple[Ints, Floats, Floats, Floats, Ints]] = []
        self._buckets: list[tuple[Ints, Floats]] = []

    def add(
        self, labels: list[Answer], t: Floats, count: Floats, sum_s: Floats, lengths: Ints, buckets: Floats
    ) -> None:
        """Add rows; ``buckets`` are those of all rows, one after the other, as (lower, upper, count)."""
        numbers = [self._answers.setdefault(label, len(self._answers)) for label in labels]
        self._rows.append((np.array(numbers, dtype=np.int64), t, count, sum_s, lengths))
        # Hashing thrice is exact, and many times as fast as sorting pairs.
        low, lows = pd.factorize(buckets[:, 0])
        high, highs = pd.factorize(buckets[:, 1])
        pair, pairs = pd.factorize(low.astype(np.int64) * len(highs) + high)
        number = [
            self._bounds.setdefault((float(lows[p // len(highs)]), float(highs[p % len(highs)])), len(self._bounds))
            for p in pairs.tolist()
        ]
        self._buckets.append((np.array(number, dtype=np.int32)[pair], buckets[:, 2].copy()))  # type: ignore[arg-type]

    def built(self) -> Histograms:
        """Return all that was added."""

        def joined(kind: type, parts: list[NDArray[np.generic]]) -> NDArray[np.generic]:
            return np.concatenate([np.zeros(0, dtype=kind), *parts]).astype(kind, copy=False)

        lengths = joined(np.int64, [row[4] for row in self._rows])
        return Histograms(
            tuple(self._answers),
            joined(np.int64, [row[0] for row in self._rows]),  # type: ignore[arg-type]
            joined(np.float64, [row[1] for row in self._rows]),  # type: ignore[arg-type]
            joined(np.float64, [row[2] for row in self._rows]),  # type: ignore[arg-type]
            joined(np.float64, [row[3] for row in self._rows]),  # type: ignore[arg-type]
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            np.array(list(self._bounds), dtype=np.float64).reshape(-1, 2),
            joined(np.int32, [of for of, _ in self._buckets]),  # type: ignore[arg-type]
            joined(np.float64, [inside for _, inside in self._buckets]),  # type: ignore[arg-type]
        )


# --- the file ---------------------------------------------------------------------------------------------------------


def write_histograms(path: Path, rows: Iterable[HistogramRow]) -> None:
    """Write rows as they come. Raises EnvironmentFailure."""
    write_table(path, tuple(_TYPES), map(_to_fields, rows))


def _to_fields(row: HistogramRow) -> tuple[object, ...]:
    buckets = " ".join(f"{low:.6g}:{high:.6g}:{count:g}" for low, high, count in row.buckets)
    return (
        f"{row.t:.3f}", row.scenario, row.route, row.method, row.status, int(row.expected), row.error,
        f"{row.count:g}", f"{row.sum_s:.9g}", buckets,
    )  # fmt: skip


def read_histograms(path: Path, where: str) -> Histograms:
    """Read the file. Raises Damaged, which calls it ``where``."""
    builder = _Builder()
    known: dict[tuple[str, ...], Answer] = {}
    for table in read_table(path, _TYPES, where):
        for first in range(0, len(table), _ROWS_AT_A_TIME):
            _add_piece(builder, known, table.iloc[first : first + _ROWS_AT_A_TIME], where)
    return builder.built()


def _add_piece(builder: _Builder, known: dict[tuple[str, ...], Answer], piece: pd.DataFrame, where: str) -> None:
    texts: list[str] = piece["buckets"].tolist()
    joined = " ".join(texts)
    lengths = np.array([text.count(":") for text in texts], dtype=np.int64)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # numpy's word for text that is no number
            numbers = np.fromstring(joined.replace(":", " "), sep=" ") if joined.strip() else np.zeros(0)
    except (ValueError, DeprecationWarning) as error:
        raise damaged(where, error) from error
    if (lengths % 2).any() or len(numbers) * 2 != lengths.sum() * 3:
        raise Damaged(f"{where} is damaged: a bucket is not lower:upper:count")
    buckets = numbers.reshape(-1, 3)
    t = piece["t"].to_numpy(dtype=np.float64)
    if not np.isfinite(t).all() or not (buckets[:, 0] < buckets[:, 1]).all() or not (buckets[:, 2] >= 0).all():
        raise Damaged(f"{where} is damaged: a bucket or a time is out of range")
    labels = []
    for key in zip(*(piece[name].tolist() for name in _LABELS), strict=True):
        if key not in known:
            known[key] = Answer(key[0], key[1], key[2], key[3], key[4] == "1", key[5])
        labels.append(known[key])
    count, sum_s = (piece[name].to_numpy(dtype=np.float64) for name in ("count", "sum_s"))
    builder.add(labels, t, count, sum_s, lengths // 2, buckets)
