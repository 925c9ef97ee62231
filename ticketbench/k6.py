"""What k6 leaves behind, in either of its formats, turned into our records: log, summary, acknowledged purchases.

Nothing here starts k6 or judges what it says.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ticketbench.ledger_rows import Ack
from ticketbench.model import Slo, Threshold, Thrown

# https://github.com/grafana/k6/blob/master/errext/exitcodes/codes.go
EXIT_THRESHOLDS: Final = 99
EXIT_INTERRUPTED: Final = 105
EXIT_PORT_BUSY: Final = 106
EXIT_SCRIPT_ABORTED: Final = 108
# 100 and 101: setup() or teardown() took too long; 107: the script threw; 108: it called test.abort()
EXITS_OF_A_SCRIPT: Final = frozenset({100, 101, 107, EXIT_SCRIPT_ABORTED})

# What k6 writes as the source of an exception that ended an iteration. It counts that iteration as any other, and its
# exit code tells nothing of it: only one outside of an iteration (in setup, say) is EXITS_OF_A_SCRIPT's 107.
_THROWN: Final = "stacktrace"

# The REST API's states (k6's lib.ExecutionStatus).
STATUS_RUNNING: Final = 7

LONGEST_LOG_BYTES: Final = 1_000_000  # kept of what was said: a dead target makes a line for each request
MAX_KINDS: Final = 1000  # of messages that differ in more than numbers
_LARGEST_ID: Final = 2**63
MAX_MESSAGES: Final = 12  # distinct ones; a dead target makes one line for each request

_LOCATION: Final = re.compile(r"(?:file://)?(?:/[^\s/:'\"()]+)+/(?=[^\s/:'\"()]+\.(?:js|mjs|ts|json|tar)\b)")
_NUMBER: Final = re.compile(r"\d+")
_PREFIX: Final = re.compile(r"^(?:GoError|Error|Uncaught \(in promise\) Error): ")
_CROSSED: Final = re.compile(r"thresholds on metrics '(.*)' have been crossed")
_FILTER: Final = re.compile(r"^(?P<aggregate>[a-z]+(?:\([0-9.]+\))?)\s*[<>=!]")


@dataclass(frozen=True)
class LogLine:
    """A line of k6's own log: ``text`` is its first line, without folders of this machine.

    ``thrown_in`` is the k6 scenario of which the line's exception ended an iteration, None for any other line.
    """

    level: str
    text: str
    thrown_in: str | None = None

    @property
    def serious(self) -> bool:
        """Whether it is a warning or worse."""
        return self.level in {"warning", "error", "fatal", "panic"}


def without_folders(text: str) -> str:
    """Return ``text`` with the folders in front of script names cut off: a report travels, and folders name people."""
    return _LOCATION.sub("", text)


def read_log(lines: Iterable[str]) -> Iterator[LogLine]:
    """Parse what k6 wrote with ``--log-format json``. A line that is no JSON (a Go panic) counts as an error."""
    for line in lines:
        if not line.strip():
            continue
        try:
            raw = json.loads(line)
            level, message, detail = str(raw["level"]), str(raw["msg"]), str(raw.get("error", ""))
            thrown_in = str(raw.get("scenario", "")) if raw.get("source") == _THROWN else None
        except (ValueError, KeyError, TypeError):
            level, message, detail, thrown_in = "error", line, "", None
        text = _first_line(message)
        yield LogLine(level, f"{text}: {_first_line(detail)}" if detail else text, thrown_in)


def _first_line(message: str) -> str:
    lines = [line.strip(" \t-") for line in without_folders(message).splitlines() if line.strip()]
    if not lines:
        return ""
    # "There were problems with ...:" is followed by the problems themselves.
    head = " ".join(lines) if lines[0].endswith(":") else lines[0]
    return _PREFIX.sub("", head).strip()


class Log:
    """What was said, taken in line by line: a dead target makes millions of lines, and they are of a few kinds.

    Memory is bounded by ``longest_bytes`` of text and by MAX_KINDS of messages, however much is said.
    """

    def __init__(self, lines: Iterable[LogLine] = (), longest_bytes: int = LONGEST_LOG_BYTES) -> None:
        self.kinds: dict[str, tuple[str, int]] = {}  # what it says but for its numbers: first said so, how often
        self.others = 0  # serious lines of still more kinds
        self.crossed: set[str] = set()  # metrics whose thresholds are named as crossed
        self._thrown: dict[str, tuple[str, int]] = {}  # k6 scenario: the first exception, how many
        self._first_line = ""
        self._first_error = ""
        self._text = bytearray()
        self._longest_bytes = longest_bytes
        self._cut = False
        for line in lines:
            self.add(line)

    def add(self, line: LogLine) -> None:
        """Take in a line."""
        self._first_line = self._first_line or line.text
        if line.level in {"error", "fatal", "panic"}:
            self._first_error = self._first_error or line.text
        if match := _CROSSED.search(line.text):
            self.crossed |= {name.strip() for name in _split_metrics(match.group(1))}
        if line.thrown_in is not None:
            first, count = self._thrown.get(line.thrown_in, (line.text, 0))
            self._thrown[line.thrown_in] = (first, count + 1)
        if line.serious:
            self._count(line.text)
        said = f"{line.level}: {line.text}\n".encode()
        self._cut = self._cut or len(self._text) + len(said) > self._longest_bytes
        if not self._cut:
            self._text += said

    def _count(self, text: str) -> None:
        key = _NUMBER.sub("#", text)
        first, count = self.kinds.get(key, (text, 0))
        if count or len(self.kinds) < MAX_KINDS:
            self.kinds[key] = (first, count + 1)
        else:
            self.others += 1

    def first_error(self) -> str:
        """Return the first error's text, or the first line's, or an empty text."""
        return self._first_error or self._first_line

    def thrown(self) -> tuple[Thrown, ...]:
        """Return the iterations that an exception ended, by k6 scenario."""
        return tuple(
            Thrown(scenario=scenario, iterations=count, first=first)
            for scenario, (first, count) in self._thrown.items()
        )

    def content(self) -> bytes:
        """Return the lines from the first one on, as many as are kept, and whether more were said."""
        return bytes(self._text) + (b"(cut off here)\n" if self._cut else b"")


def messages(*logs: Log, limit: int = MAX_MESSAGES) -> tuple[str, ...]:
    """Return the distinct warnings and errors, first come first, each with how often it was said.

    Lines that differ in numbers only (addresses, ids, durations) are one message.
    """
    kinds: dict[str, tuple[str, int]] = {}
    for log in logs:
        for key, (text, count) in log.kinds.items():
            first, before = kinds.get(key, (text, 0))
            kinds[key] = (first, before + count)
    said = [text if count == 1 else f"{text} ({count} times)" for text, count in kinds.values()]
    if len(said) > limit:
        more = "at least " if any(log.others for log in logs) else ""
        said = [*said[:limit], f"and {more}{len(said) - limit} more kinds of messages"]
    return tuple(said)


# --- the summary ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """The figures of k6's end-of-test summary. Counts are of the whole execution; trends in milliseconds."""

    requests: int
    iterations: int
    dropped_iterations: int
    vus_max: int
    thresholds: tuple[Threshold, ...]
    trends_ms: dict[str, dict[str, float]]
    version: str = ""


def parse_summary(raw: Mapping[str, Any], slos: Sequence[Slo], crossed: frozenset[str] | None = None) -> Summary:
    """Read a summary in any of k6's three formats.

    ``--summary-export`` says of each threshold whether it *failed*; the format of ``handleSummary`` says whether it is
    ``ok``; the machine-readable format of k6 2.x has no thresholds, so that ``crossed``, the metrics that k6's log
    names as crossed, stands in: every SLO of such a metric counts as missed. ``slos`` are those of the script. A
    threshold that no source says anything about is missed: missing data is never a pass. Raises ValueError for
    anything else.
    """
    metrics, version = _metrics(raw)
    thresholds: dict[tuple[str, str], Threshold] = {}
    for name, metric in metrics.items():
        for expression, ok in metric.verdicts.items():
            thresholds[name, expression] = Threshold(
                metric=name, expression=expression, ok=ok, value=_value(metric.values, expression)
            )
    machine_readable = "results" in raw
    for slo in slos:
        key = (slo.metric, slo.expression)
        if key not in thresholds:
            ok = machine_readable and crossed is not None and slo.metric not in crossed
            values = metrics[slo.metric].values if slo.metric in metrics else {}
            value = _value(values, slo.expression)
            thresholds[key] = Threshold(metric=slo.metric, expression=slo.expression, ok=ok, value=value)
    return Summary(
        requests=_count(metrics, "http_reqs", "count"),
        iterations=_count(metrics, "iterations", "count"),
        dropped_iterations=_count(metrics, "dropped_iterations", "count"),
        vus_max=_count(metrics, "vus_max", "max"),
        thresholds=tuple(thresholds.values()),
        trends_ms={name: metric.values for name, metric in metrics.items() if "avg" in metric.values},
        version=version,
    )


def crossed_metrics(log: Log, exit_code: int) -> frozenset[str] | None:
    """Return the metrics whose thresholds k6's log names as crossed; None where k6 did not come to a verdict."""
    return frozenset(log.crossed) if exit_code == 0 or log.crossed else None


def _split_metrics(text: str) -> list[str]:
    return re.split(r",\s*(?![^{}]*\})", text)  # a tag filter holds commas of its own


@dataclass(frozen=True)
class _Metric:
    values: dict[str, float]
    verdicts: dict[str, bool]  # threshold's expression -> ok


def _metrics(raw: Mapping[str, Any]) -> tuple[dict[str, _Metric], str]:
    if isinstance(results := raw.get("results"), dict):
        listed = list(results.get("metrics") or [])
        listed += (results.get("checks") or {}).get("metrics") or []
        version = str((raw.get("metadata") or {}).get("k6Version", ""))
        return {str(each["name"]): _Metric(_numbers(each.get("values") or {}), {}) for each in listed}, version
    metrics = raw.get("metrics")
    if metrics is None:
        raise ValueError("it has neither `metrics` nor `results`")
    return {str(name): _metric(metric) for name, metric in metrics.items()}, ""


def _metric(metric: Mapping[str, Any]) -> _Metric:
    nested = metric.get("values")
    verdicts: dict[str, bool] = {}
    for expression, verdict in (metric.get("thresholds") or {}).items():
        verdicts[str(expression)] = bool(verdict["ok"]) if isinstance(verdict, dict) else not verdict
    return _Metric(_numbers(nested if isinstance(nested, dict) else metric), verdicts)


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        str(name): float(value)
        for name, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }


def _count(metrics: Mapping[str, _Metric], name: str, key: str) -> int:
    return round(metrics[name].values.get(key, 0)) if name in metrics else 0


def _value(values: Mapping[str, float], expression: str) -> float | None:
    match = _FILTER.match(expression.strip())
    if match is None:
        return None
    # The exported summary calls a Rate's share "value", and every format calls p(50) "med".
    other = {"rate": "value", "p(50)": "med"}
    aggregate = match["aggregate"]
    for name in (aggregate, other.get(aggregate)):
        if name is not None and name in values:
            return values[name]
    return None


# --- the console ------------------------------------------------------------------------------------------------------


# What almost every line of a long run is; what does not look exactly like it takes the slow road through two parsers.
_ACK_LINE: Final = re.compile(
    r'\{"level":"info","msg":"ACK \{\\"at\\":(\d{1,17}),\\"match\\":(\d{1,17}),\\"key\\":\\"([^"\\]*)\\",'
    r'\\"ticket\\":(\d{1,17})\}","source":"console","time":"[^"\\]*"\}\n?'
)


class Console:
    """What the script printed, read line by line: purchases are passed on, everything else is noted.

    ``malformed`` counts the lines that say ACK and cannot be read; ``said`` is the rest. Both are complete once
    :meth:`acks` is exhausted.
    """

    def __init__(self) -> None:
        self.malformed = 0
        self.said = Log()

    def acks(self, lines: Iterable[str]) -> Iterator[Ack]:
        """Yield the acknowledged purchases of a ``--console-output`` file in the format of ``--log-format json``."""
        for line in lines:
            if match := _ACK_LINE.fullmatch(line):
                at, match_id, key, ticket = match.groups()
                yield Ack(int(at) / 1000, int(match_id), key, int(ticket))
            elif line.strip() and (ack := self._other(line)) is not None:
                yield ack

    def _other(self, line: str) -> Ack | None:
        try:
            entry = json.loads(line)
            level, text = str(entry["level"]), str(entry["msg"])
        except (ValueError, KeyError, TypeError):
            self.malformed += "ACK " in line  # torn off where k6 was killed
            return None
        if not text.startswith("ACK "):
            self.said.add(LogLine(level, without_folders(text)))
            return None
        try:
            raw = json.loads(text[4:])
            ack = Ack(float(raw["at"]) / 1000, int(raw["match"]), str(raw["key"]), int(raw["ticket"]))
        except (ValueError, KeyError, TypeError, OverflowError):
            self.malformed += 1
            return None
        if max(abs(ack.match_id), abs(ack.ticket_id)) >= _LARGEST_ID:
            self.malformed += 1
            return None
        return ack
