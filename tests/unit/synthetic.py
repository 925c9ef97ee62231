"""Made-up trials with exactly the columns of docs/signals.md, consistent in themselves unless a test breaks them.

    trace = Trace(seconds=30)
    trace.requests("purchase", per_s=100, latency_s=0.020)
    trial = trace.build()                    # TrialData: series, histograms, acks and ledger agree with each other
    run = run_record(["pool_size=10"])       # the RunRecord that such trials belong to

Everything is deterministic: latencies are the quantiles of a lognormal distribution, counters grow evenly.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from ticketbench.ledger_rows import Ack, LedgerRow
from ticketbench.model import (
    BinaryVersion,
    Environment,
    LoadResult,
    OfferedSlope,
    Plan,
    RunRecord,
    Scenario,
    Schedule,
    Shape,
    Slo,
    Threshold,
    Trial,
    TrialRecord,
    TrialStatus,
    Variant,
    Window,
)
from ticketbench.store import TrialData
from ticketbench.storing.histograms import HistogramRow, Histograms
from ticketbench.storing.purchases import Acks, Ledger

T0 = 1_800_000_000.0  # Unix seconds at which k6 starts
GROWTH = 2 ** (1 / 8)  # k6's native histograms: schema 3
CORES = 2

Rate = float | Callable[[float], float]


def buckets_of(samples: Sequence[float], growth: float = GROWTH) -> tuple[tuple[float, float, float], ...]:
    """Put positive samples into the buckets (growth^(i-1), growth^i] that a native histogram would use."""
    counts: dict[int, int] = {}
    for sample in samples:
        index = math.ceil(math.log(sample, growth) - 1e-12)
        counts[index] = counts.get(index, 0) + 1
    return tuple((growth ** (i - 1), growth**i, float(n)) for i, n in sorted(counts.items()))


def lognormal(median_s: float, sigma: float, count: int) -> list[float]:
    """Return ``count`` evenly spaced quantiles of a lognormal distribution."""
    normal = NormalDist()
    return [median_s * math.exp(sigma * normal.inv_cdf((i + 0.5) / count)) for i in range(count)]


def schedule(
    *, seconds: float = 30, warmup_s: float = 0, per_s: float = 100, open_model: bool = True, max_vus: int = 500
) -> Schedule:
    """Return a constant offered rate: ``warmup_s`` seconds of k6's scenario `warmup`, then the window."""
    end = warmup_s + seconds
    return Schedule(
        window_start_s=warmup_s,
        window_end_s=end,
        total_s=end,
        offered=(OfferedSlope(start_s=warmup_s, end_s=end, from_per_s=per_s, to_per_s=per_s),) if open_model else (),
        open_model=open_model,
        max_vus=max_vus,
        warmup_scenarios=("warmup",),
    )


def scenario(
    *, name: str = "spike", shape: Shape = "transient", goal: str | None = "purchase", slos: Sequence[Slo] = ()
) -> Scenario:
    """Return what a bundled scenario says about itself."""
    return Scenario(
        name=name, script=f"{name}.js", sha256="a" * 64, title=name, asks="?", shape=shape, goal=goal,
        slos=tuple(slos), levels={},
    )  # fmt: skip


def environment(**changes: Any) -> Environment:
    """Return a machine of two cores on which k6 has one."""
    values: dict[str, Any] = {
        "os": "Linux", "kernel": "6.1", "machine": "x86_64", "cpu_model": "Example CPU", "cores": CORES,
        "memory_bytes": 8 << 30, "python": "3.11", "ticketbench": "0.1.0",
        "binaries": (BinaryVersion(part="postgres", version="18.6", source="package", sha256="b" * 64),),
        "settings": {"GOMAXPROCS": "1"},
    }  # fmt: skip
    return Environment(**{**values, **changes})


def run_record(
    variants: Sequence[str] = ("pool_size=10",),
    *,
    repetitions: int = 1,
    of: Scenario | None = None,
    load: Schedule | None = None,
    run_id: str = "20261122T120000Z-spike",
    stack: str = "local",
    **environment_changes: Any,
) -> RunRecord:
    """Return a run over ``variants`` (names like ``pool_size=2,cache=on``); trial ids are ``t01``, ``t02``, ..."""
    names = [(name, repetition) for repetition in range(1, repetitions + 1) for name in variants]
    plan = Plan(
        scenario=of or scenario(),
        stack=stack,
        variants=tuple(Variant(name=name, levels=levels_of(name)) for name in variants),
        reference=variants[0],
        varied={},
        fixed={},
        trials=tuple(
            Trial(id=f"t{at:02d}", variant=name, repetition=repetition, position=at)
            for at, (name, repetition) in enumerate(names, 1)
        ),
        schedules=dict.fromkeys(variants, load or schedule()),
        repetitions=repetitions,
        seed=1,
    )
    return RunRecord(
        run_id=run_id, created="2026-11-22T12:00:00Z", ticketbench="0.1.0", plan=plan,
        environment=environment(**environment_changes), command="ticketbench run spike",
    )  # fmt: skip


def levels_of(name: str) -> dict[str, int | float | str]:
    """Return the levels that a variant's name shows."""
    pairs = (part.split("=", 1) for part in name.split(",") if "=" in part)
    return {factor: int(level) if level.isdigit() else level for factor, level in pairs}


@dataclass(frozen=True)
class _Flow:
    route: str
    method: str
    status: str
    expected: bool
    error: str
    scenario: str
    latencies: tuple[tuple[float, ...], ...]  # of each second of k6's execution


@dataclass
class Trace:
    """A trial in the making: ``warmup_s`` + ``seconds`` of load, all times counted from k6's start at ``start_s``."""

    seconds: int = 30
    warmup_s: int = 0
    drain_s: int = 0
    start_s: float = T0
    variant: str = "pool_size=10"
    trial_id: str = "t01"
    repetition: int = 1
    position: int = 1
    workers: int = 1
    status: TrialStatus = "done"
    reasons: tuple[str, ...] = ()
    thresholds: tuple[Threshold, ...] = ()
    exit_code: int = 0
    capacity: int = 1_000_000
    flows: list[_Flow] = field(default_factory=list)
    extra: dict[str, "np.ndarray[Any, Any]"] = field(default_factory=dict)
    cpu: dict[str, float] = field(
        default_factory=lambda: {
            "k6": 0.2, "app": 0.6, "postgres": 0.2, "redis": 0.05, "prometheus": 0.02, "ticketbench": 0.03,
            "other": 0.05,
        }
    )  # fmt: skip
    dropped_per_s: float = 0.0
    steal: float = 0.0

    @property
    def total_s(self) -> int:
        """Seconds of k6's execution."""
        return self.warmup_s + self.seconds + self.drain_s

    @property
    def t(self) -> "np.ndarray[Any, Any]":
        """The rows of the series: from two seconds before k6's start to two seconds after its end."""
        return self.start_s + np.arange(-2, self.total_s + 3, dtype=float)

    def requests(
        self,
        route: str,
        *,
        per_s: Rate,
        latency_s: float = 0.020,
        sigma: float = 0.4,
        method: str = "POST",
        status: str = "201",
        expected: bool = True,
        error: str = "",
        scenario: str = "load",
        since_s: float | None = None,
        until_s: float | None = None,
    ) -> "Trace":
        """Add a stream of requests that all end alike; by default it fills the window, answers within a second.

        ``per_s`` is a rate, or a function of the second.
        """
        first = self.warmup_s if since_s is None else since_s
        last = self.warmup_s + self.seconds if until_s is None else until_s
        seconds = []
        for second in range(self.total_s):
            rate = (per_s(second) if callable(per_s) else per_s) if first <= second < last else 0
            seconds.append(tuple(lognormal(latency_s, sigma, round(rate))) if round(rate) else ())
        self.flows.append(_Flow(route, method, status, expected, error, scenario, tuple(seconds)))
        return self

    def counter(self, column: str, per_s: float, initial: float = 0.0) -> "Trace":
        """Set a counter's column that grows evenly from k6's start to its end."""
        self.extra[column] = initial + per_s * np.clip(self.t - self.start_s, 0, self.total_s)
        return self

    def gauge(self, column: str, value: float) -> "Trace":
        """Set a gauge's column to a constant."""
        self.extra[column] = np.full(len(self.t), value)
        return self

    def build(self, *, series: bool = True, histograms: bool = True, **changes: Any) -> TrialData:
        """Return the trial. ``changes`` replace fields of TrialData (``acks=None``)."""
        values: dict[str, Any] = {
            "record": self._record(),
            "series": self._series() if series else None,
            "histograms": Histograms.of(self.histograms()) if histograms else None,
            "acks": Acks.of(self.acks()),
            "ledger": Ledger.of(self.ledger()),
        }
        return TrialData(**{**values, **changes})

    # what it is made of

    def _counts(self, flow: _Flow) -> "np.ndarray[Any, Any]":
        """Requests seen up to each row of the series."""
        done = np.concatenate([[0, 0, 0], np.cumsum([len(second) for second in flow.latencies]), [0, 0]])
        done[-2:] = done[-3]
        return done.astype(float)

    def _all_latencies(self) -> list[float]:
        return sorted(x for flow in self.flows for second in flow.latencies for x in second)

    def _record(self) -> TrialRecord:
        start = self.start_s + self.warmup_s
        samples = self._all_latencies()
        count = len(samples)
        p95 = samples[min(count - 1, math.ceil(0.95 * count) - 1)] * 1000 if samples else 0.0
        dropped = round(self.dropped_per_s * self.seconds)
        return TrialRecord(
            trial=Trial(id=self.trial_id, variant=self.variant, repetition=self.repetition, position=self.position),
            levels=levels_of(self.variant),
            status=self.status,
            reasons=self.reasons,
            started_s=self.start_s - 3,
            ended_s=self.start_s + self.total_s + 3,
            window=Window(start_s=start, end_s=start + self.seconds + self.drain_s),
            load=LoadResult(
                exit_code=self.exit_code, started_s=self.start_s, ended_s=self.start_s + self.total_s,
                requests=count, iterations=count,
                dropped_iterations=dropped, vus_max=50, thresholds=self.thresholds,
                trends_ms={"http_req_duration": {"p(95)": p95}}, version="1.1.0", gomaxprocs=1,
            ),
        )  # fmt: skip

    def _series(self) -> pd.DataFrame:
        columns: dict[str, np.ndarray[Any, Any]] = {}
        self._k6_columns(columns)
        self._app_columns(columns)
        elapsed = self.t - self.t[0]
        for component, cores in self.cpu.items():
            columns[f"cpu_s{{component={component}}}"] = 100.0 + cores * elapsed
            columns[f"run_delay_s{{component={component}}}"] = 3.0 + 0.02 * cores * elapsed
            columns[f"memory_bytes{{component={component}}}"] = np.full(len(elapsed), 5e7)
        busy = sum(self.cpu.values()) - self.steal
        for mode, cores in (("user", busy), ("steal", self.steal), ("idle", CORES - busy - self.steal)):
            columns[f"host_cpu_s{{mode={mode}}}"] = 5000.0 + cores * elapsed
        columns["pg.wait_s{wait=CPU}"] = 0.1 * elapsed
        columns["pg.exec_s"] = 7.0 + 0.15 * elapsed
        columns["sampler.ticks{what=proc}"] = 10 * elapsed
        columns["sampler.late_s"] = 0.001 * elapsed
        columns["sampler.push_failures"] = np.zeros(len(elapsed))
        columns.update(self.extra)
        return pd.DataFrame(columns, index=pd.Index(self.t, name="t"))

    def _k6_columns(self, columns: "dict[str, np.ndarray[Any, Any]]") -> None:
        running = (self.t >= self.start_s) & (self.t <= self.start_s + self.total_s)
        iterations: dict[str, np.ndarray[Any, Any]] = {}
        for flow in self.flows:
            done = self._counts(flow)
            name = _column(
                "k6.requests", error=flow.error, expected=str(flow.expected).lower(), method=flow.method,
                route=flow.route, scenario=flow.scenario, status=flow.status,
            )  # fmt: skip
            seen = np.where(running & (done > 0), done, np.nan)  # k6 sends no first zero, and a stale marker at its end
            columns[name] = np.nansum([columns[name], seen], axis=0) if name in columns else seen
            iterations[flow.scenario] = iterations.get(flow.scenario, 0) + done
        for of, done in iterations.items():
            columns[f"k6.iterations{{scenario={of}}}"] = np.where(running & (done > 0), done, np.nan)
        if self.dropped_per_s:
            into = np.clip(self.t - self.start_s - self.warmup_s, 0, self.seconds)
            columns["k6.dropped{scenario=load}"] = np.where(into > 0, self.dropped_per_s * into, np.nan)
        columns["k6.vus"] = np.where(running, 20.0, np.nan)
        columns["k6.vus_max"] = np.where(running, 50.0, np.nan)
        spent = [np.cumsum([sum(second) for second in flow.latencies]) for flow in self.flows]
        total = np.sum(spent, axis=0) if spent else np.zeros(self.total_s)
        columns["k6.duration_s"] = np.concatenate([[0, 0, 0], total, [total[-1]] * 2])

    def _app_columns(self, columns: "dict[str, np.ndarray[Any, Any]]") -> None:
        for flow in self.flows:
            if flow.status == "0":
                continue
            name = _column("app.requests", method=flow.method, route=f"/{flow.route}", status=flow.status)
            columns[name] = columns.get(name, 11.0) + self._counts(flow)
        elapsed = self.t - self.t[0]
        columns["app.up"] = np.full(len(elapsed), float(self.workers))
        columns["app.pool_max"] = np.full(len(elapsed), 10.0)
        columns["app.pool_checked_out"] = np.full(len(elapsed), 4.0)
        columns["app.pool_waiters"] = np.full(len(elapsed), 0.5)
        columns["app.loop_cpu_s"] = 2.0 + 0.5 * elapsed
        columns["app.loop_lag_s"] = 0.02 * elapsed
        columns["app.loop_lag_samples"] = 10.0 * elapsed

    def histograms(self) -> tuple[HistogramRow, ...]:
        """Return k6's durations second by second."""
        rows = []
        for flow in self.flows:
            for second, samples in enumerate(flow.latencies):
                if samples:
                    rows.append(
                        HistogramRow(
                            t=self.start_s + second + 1, scenario=flow.scenario, route=flow.route, method=flow.method,
                            status=flow.status, expected=flow.expected, error=flow.error, count=float(len(samples)),
                            sum_s=sum(samples), buckets=buckets_of(samples),
                        )
                    )  # fmt: skip
        return tuple(sorted(rows, key=lambda row: row.t))

    def acks(self) -> tuple[Ack, ...]:
        """Return a purchase for each 201."""
        acks: list[Ack] = []
        for flow in self.flows:
            if flow.status != "201":
                continue
            for second, samples in enumerate(flow.latencies):
                for _ in samples:
                    number = len(acks) + 1
                    acks.append(
                        Ack(
                            at_s=self.start_s + second + 0.5,
                            match_id=1,
                            key=f"{self.trial_id}-key-{number}",
                            ticket_id=number,
                        )
                    )
        return tuple(acks)

    def ledger(self) -> tuple[LedgerRow, ...]:
        """Return the books of one match that sold what was acknowledged."""
        tickets = [LedgerRow(kind="ticket", match_id=1, ticket_id=a.ticket_id, key=a.key) for a in self.acks()]
        return (
            LedgerRow(kind="capacity", match_id=1, quantity=self.capacity),
            LedgerRow(kind="stock", match_id=1, quantity=self.capacity - len(tickets)),
            *tickets,
        )


def _column(name: str, **labels: str) -> str:
    return f"{name}{{{','.join(f'{key}={labels[key]}' for key in sorted(labels))}}}"


def without(data: TrialData, *prefixes: str) -> TrialData:
    """Return the trial with every column that starts with one of ``prefixes`` taken away."""
    assert data.series is not None
    kept = [column for column in data.series.columns if not column.startswith(prefixes)]
    return TrialData(data.record, data.series[kept], data.histograms, data.acks, data.ledger)


def spike(trial_id: str = "t01", variant: str = "pool_size=10", **options: Any) -> Trace:
    """Return the usual trial: 100 purchases a second, all of them good, and the machine quiet."""
    trace = Trace(trial_id=trial_id, variant=variant, **options)
    trace.requests("purchase", per_s=100, latency_s=0.020)
    return trace
