"""The records of what is concluded: analysis.json, and what a comparison says. Frozen, units as in ``model``."""

from typing import Any, Literal

from pydantic import Field

from ticketbench.model import SCHEMA_VERSION, Level, Shape, SignalKind, TrialStatus
from ticketbench.record import Record

OutcomeStatus = Literal["pass", "slo_missed", "invalid", "integrity_violated"]
ValidityStatus = Literal["valid", "lower_bound", "invalid"]
# unknown: it should have been audited and could not be; not_audited: the system is not ours to look into.
IntegrityStatus = Literal["pass", "violated", "unknown", "not_audited"]
Verdict = Literal["regressed", "improved", "unchanged", "inconclusive"]


class Outcome(Record):
    """What became of the whole run, in one word and one sentence with its numbers."""

    status: OutcomeStatus
    sentence: str


class Validity(Record):
    """Whether the measurement can be believed. Each reason is a sentence that names a figure.

    ``lower_bound``: the figures bound the truth from one side only, and the reason says which.
    """

    status: ValidityStatus
    reasons: tuple[str, ...] = ()


class Latency(Record):
    """Quantiles in seconds, from merged histograms; None where nothing was measured."""

    p50: float | None
    p95: float | None
    p99: float | None
    mean: float | None = None
    count: int = 0


class Traffic(Record):
    """Rates over the window. ``offered`` and ``achieved`` are iterations, ``goodput`` successes of the goal."""

    offered_per_s: float | None
    achieved_per_s: float | None
    goodput_per_s: float | None
    requests_per_s: float | None = None
    dropped: int = 0
    good: int = 0


class Errors(Record):
    """Failed requests and other answers that sold nothing.

    ``ratio``: failed requests among all (a 409 after the sell-out is no failure). ``by_kind``: counts by status or
    transport error. ``answered``: right answers that sold nothing, by status.
    """

    ratio: float | None
    by_kind: dict[str, int]
    answered: dict[str, int] = Field(default_factory=dict)


class Saturation(Record):
    """One resource: busy fraction (0 to 1) and mean queued work (its unit in ``unit``); None where it has no series.

    ``limit_cores`` is a component's CPU limit, where it has one: its utilisation is the used part of that.
    ``throttled`` is for how many seconds of each second the limit kept it from running although it had work, with the
    waits on several cores added up.
    """

    utilisation: float | None
    queue: float | None
    unit: str = ""
    limit_cores: float | None = None
    throttled: float | None = None


class Signals(Record):
    """The four golden signals of a variant or a trial."""

    latency_s: Latency
    traffic: Traffic
    errors: Errors
    saturation: dict[str, Saturation]


class Route(Record):
    """The signals of one route: successful answers and failed ones have latencies of their own."""

    name: str
    requests: int
    failed: int
    by_status: dict[str, int]
    latency_s: Latency
    failed_latency_s: Latency


class Integrity(Record):
    """The ledger audit. Counts are tickets, ``None`` where they could not be known.

    ``lost``: acknowledged to the buyer and not in the database. ``duplicated``: keys with more than one ticket, counted
    in surplus tickets. ``stranded``: taken in Redis, and no ticket. ``reasons`` says why the status is unknown or what
    is violated.

    Of a trial with a payment provider, in payments: ``charged``, ``refunded``, ``double_charged`` (beyond the first for
    one key), ``unpaid`` (purchases with a ticket and no charge that stands), ``unrefunded`` (charges with neither a
    ticket nor a refund). None without one.
    """

    status: IntegrityStatus
    capacity: int | None = None
    sold: int | None = None
    oversold: int | None = None
    acknowledged: int | None = None
    lost: int | None = None
    duplicated: int | None = None
    stranded: int | None = None
    charged: int | None = None
    refunded: int | None = None
    double_charged: int | None = None
    unpaid: int | None = None
    unrefunded: int | None = None
    reasons: tuple[str, ...] = ()

    @property
    def wrongs(self) -> dict[str, int | None]:
        """What buyers can be wronged by, each count by the word for it."""
        return {
            "oversold": self.oversold,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "charged twice": self.double_charged,
            "unpaid": self.unpaid,
            "unrefunded": self.unrefunded,
        }


class SloResult(Record):
    """An SLO over the trials of a variant: missed if any trial missed it."""

    metric: str
    expression: str
    ok: bool
    values: tuple[float | None, ...]


class OwnSignal(Record):
    """A series that the system's own Prometheus gave, over the window: a counter per second, a gauge's mean.

    ``most`` is a gauge's highest sample, None for a counter. ``column`` is that of series.csv.gz, labels included.
    """

    column: str
    kind: SignalKind
    unit: str
    value: float | None
    most: float | None = None


class FaultEffect(Record):
    """A planned fault and the load. Times are seconds of the window, None for what did not come to pass.

    ``goodput_before_per_s``: the mean of up to 10 s before. ``goodput_worst_per_s`` and ``p95_worst_s``: of the second
    with the lowest goodput, and of the one with the slowest successful requests, until goodput was as before
    (analysis/fault_effects.py says what that is). ``failed``: requests that failed until then. ``problem``: what went
    wrong with the fault itself.
    """

    fault: str
    at_s: float | None
    undone_at_s: float | None
    answered_at_s: float | None
    goodput_before_per_s: float | None
    goodput_worst_per_s: float | None
    p95_worst_s: float | None
    failed: int | None
    recovered_at_s: float | None
    problem: str = ""


class TrialAnalysis(Record):
    """One trial, judged. ``sold_out_after_s``: seconds from the window's start to the first 409, None if none.

    ``thrown_ratio``: the share (0 to 1) of the iterations that count which ended with an exception of the script.
    """

    trial: str
    variant: str
    repetition: int
    position: int
    status: TrialStatus
    validity: Validity
    signals: Signals
    routes: tuple[Route, ...]
    integrity: Integrity
    slos: tuple[SloResult, ...]
    per_request: dict[str, float]
    sold_out_after_s: float | None = None
    window_s: float | None = None
    own: tuple[OwnSignal, ...] = ()
    thrown_ratio: float = 0.0
    faults: tuple[FaultEffect, ...] = ()


class VariantAnalysis(Record):
    """A variant over its trials: rates and ratios are means, quantiles come from the trials' merged histograms.

    ``per_request``: costs per request in seconds (``cpu_app_s``, ``cpu_postgres_s``, ``db_s``). ``own`` are the figures
    of somebody else's system in its own series: means over the trials, the highest of the highest.
    """

    variant: str
    levels: dict[str, Level]
    trials: int
    validity: Validity
    signals: Signals
    routes: tuple[Route, ...]
    integrity: Integrity
    slos: tuple[SloResult, ...]
    per_request: dict[str, float]
    sold_out_after_s: float | None = None
    diagnosis: dict[str, Any] | None = None
    own: tuple[OwnSignal, ...] = ()


class Finding(Record):
    """One signal compared.

    ``ratio`` is candidate / baseline (for ``errors.ratio`` and counts the difference is in ``difference``). ``gates``:
    whether the verdict may decide an exit code, or only informs.
    """

    signal: str
    baseline_variant: str
    candidate_variant: str
    baseline: float | None
    candidate: float | None
    ratio: float | None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    verdict: Verdict
    gates: bool
    reason: str


class Comparison(Record):
    """``ticketbench compare``: the findings, and what they come to."""

    schema_version: int = SCHEMA_VERSION
    baseline_run: str
    candidate_run: str
    verdict: Verdict
    sentence: str
    exit_code: int
    findings: tuple[Finding, ...]
    environment_differences: tuple[str, ...] = ()


ExpectationStatus = Literal["met", "not_met", "unknown"]


class CheckResult(Record):
    """A check of an expectation: as it is written, the signal that decided it, and that one's figure (base unit)."""

    check: str
    signal: str
    measured: float | None
    status: ExpectationStatus


class ExpectationResult(Record):
    """An expectation in the words it was written in. ``reason``: why it cannot be told, where it cannot."""

    text: str
    status: ExpectationStatus
    reason: str = ""
    checks: tuple[CheckResult, ...]


class RowAnalysis(Record):
    """A row of the plan, which is the variant of the same name, held against what was expected of it."""

    row: str
    title: str = ""
    scenario: str
    expectations: tuple[ExpectationResult, ...]


class Analysis(Record):
    """``analysis.json``: everything that a report shows, recomputed from the run directory at any time."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    scenario: str
    shape: Shape
    reference: str
    outcome: Outcome
    variants: tuple[VariantAnalysis, ...]
    comparison: tuple[Finding, ...]
    trials: tuple[TrialAnalysis, ...]
    trials_planned: int
    rows: tuple[RowAnalysis, ...] = ()
