"""Writes a run directory as long and as wide as asked for, without measuring anything.

    python -m benchmarks.synthesise DIR [--variants 16] [--seconds 600] [--per-s 200] [--seed 1]

The run is valid and consistent in itself: histograms, series, k6's totals, acknowledged purchases and ledger are of the
same made-up requests, so that every command accepts it and concludes a pass. It has the shape of a real one: ten kinds
of answers a second with 40 to 70 buckets each where there are that many requests, and some 160 columns of series.
"""

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import pandas as pd

from ticketbench import store
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
    Slo,
    Threshold,
    Trial,
    TrialRecord,
    Variant,
    Window,
)
from ticketbench.storing.histograms import HistogramRow

T0: Final = 1_790_000_000.0  # Unix seconds: when the first trial's k6 starts
GROWTH: Final = 2 ** (1 / 8)  # the native histograms of k6
WARMUP_S: Final = 10
PAUSE_S: Final = 30  # between two trials
MATCHES: Final = 50
CORES: Final = 2
BUCKETS: Final = np.arange(-90, 40)  # of bound GROWTH ** index: 0.4 ms to 30 s
SLO: Final = Slo(metric="http_req_duration{name:purchase}", expression="p(95)<500")


@dataclass(frozen=True)
class Flow:
    """Requests that end alike: ``per_purchase`` of them for each purchase that is offered, lognormal in duration."""

    scenario: str
    route: str
    method: str
    status: str
    error: str
    per_purchase: float
    median_s: float
    sigma: float = 0.7

    @property
    def expected(self) -> bool:
        """Whether k6 would have counted it as a success."""
        return not self.error


FLOWS: Final = (
    Flow("main", "purchase", "POST", "201", "", 1.0, 0.020),
    Flow("main", "match", "GET", "200", "", 1.1, 0.006),
    Flow("main", "matches", "GET", "200", "", 0.4, 0.009),
    Flow("main", "validate", "POST", "200", "", 0.2, 0.050),
    Flow("main", "purchase", "POST", "409", "", 0.05, 0.004),
    Flow("main", "purchase", "POST", "503", "1503", 0.01, 2.0, 0.1),
    Flow("main", "match", "GET", "404", "1404", 0.002, 0.003),
    Flow("main", "purchase", "POST", "0", "1050", 0.001, 5.0, 0.02),
    Flow("warmup", "purchase", "POST", "201", "", 0.3, 0.020),
    Flow("warmup", "match", "GET", "200", "", 0.3, 0.006),
)


def synthesise(parent: Path, *, variants: int, seconds: int, per_s: float, seed: int = 1) -> Path:
    """Write a run of ``variants`` trials, each with a window of ``seconds`` and ``per_s`` purchases a second.

    Returns its folder, a new one below ``parent``.
    """
    run = _run_record(variants, seconds, per_s, seed)
    directory = store.reserve(parent, run.run_id)
    store.save_run(directory, run)
    for trial in run.plan.trials:
        _Synthetic(trial, seconds, per_s, seed).save(directory)
    return directory.path


def draw(rng: np.random.Generator, flow: Flow, per_s: float, seconds: int) -> "np.ndarray[Any, Any]":
    """Return how many requests of a flow end in each second and bucket, at ``per_s`` purchases a second."""
    edges = np.log(GROWTH) * np.concatenate([[BUCKETS[0] - 1], BUCKETS])
    normal = NormalDist(math.log(flow.median_s), flow.sigma)
    share = np.diff([normal.cdf(edge) for edge in edges])
    return rng.poisson(per_s * flow.per_purchase * share[None, :] * np.ones((seconds, 1)))


class _Synthetic:
    """One trial: the counts of each flow, second and bucket, and everything that follows from them."""

    def __init__(self, trial: Trial, seconds: int, per_s: float, seed: int) -> None:
        self.trial = trial
        self.seconds = seconds
        self.total_s = WARMUP_S + seconds
        self.start_s = T0 + (trial.position - 1) * (self.total_s + PAUSE_S)
        self._rng = np.random.default_rng([seed, trial.position])
        warm = np.arange(self.total_s) < WARMUP_S
        self.counts = [draw(self._rng, flow, per_s, self.total_s) for flow in FLOWS]  # (second, bucket) each
        for flow, counts in zip(FLOWS, self.counts, strict=True):
            counts[warm != (flow.scenario == "warmup")] = 0
        self.t = self.start_s + np.arange(-2, self.total_s + 3, dtype=float)

    def save(self, directory: store.RunDirectory) -> None:
        """Write the trial as a run would."""
        directory.save_trial(
            self._record(),
            summary={"metrics": {"http_reqs": {"count": self._requests()}}},
            series=self._series(),
            histograms=self._histograms(),
            acks=self._acks(),
            ledger=self._ledger(),
        )

    def _requests(self) -> int:
        return int(sum(counts.sum() for counts in self.counts))

    def _sold(self) -> "np.ndarray[Any, Any]":
        """Tickets that were sold in each second."""
        kept = [counts for flow, counts in zip(FLOWS, self.counts, strict=True) if flow.status == "201"]
        return np.asarray(np.sum([counts.sum(axis=1) for counts in kept], axis=0))

    def _key(self, number: int) -> str:
        return f"20261122T154042Z-synthetic-{self.trial.id}-main-{number}"

    def _acks(self) -> Iterator[Ack]:
        number = 0
        for second, sold in enumerate(self._sold()):
            for n in range(int(sold)):
                number += 1
                at_s = round(self.start_s + second + n / sold, 3)
                yield Ack(at_s=at_s, match_id=number % MATCHES + 1, key=self._key(number), ticket_id=number)

    def _ledger(self) -> Iterator[LedgerRow]:
        total = int(self._sold().sum())
        of_match = np.bincount(np.arange(1, total + 1) % MATCHES + 1, minlength=MATCHES + 1)
        for match in range(1, MATCHES + 1):
            yield LedgerRow(kind="capacity", match_id=match, quantity=10_000_000)
            yield LedgerRow(kind="stock", match_id=match, quantity=10_000_000 - int(of_match[match]))
        for number in range(1, total + 1):
            yield LedgerRow(kind="ticket", match_id=number % MATCHES + 1, ticket_id=number, key=self._key(number))

    def _histograms(self) -> Iterator[HistogramRow]:
        bounds = [(GROWTH ** (int(i) - 1), GROWTH ** int(i)) for i in BUCKETS]
        for second in range(self.total_s):
            for flow, counts in zip(FLOWS, self.counts, strict=True):
                of = counts[second]
                held = np.flatnonzero(of)
                if not len(held):
                    continue
                yield HistogramRow(
                    t=self.start_s + second + 1,
                    scenario=flow.scenario,
                    route=flow.route,
                    method=flow.method,
                    status=flow.status,
                    expected=flow.expected,
                    error=flow.error,
                    count=float(of.sum()),
                    sum_s=float(sum(of[i] * bounds[i][1] for i in held)),
                    buckets=tuple((*bounds[i], float(of[i])) for i in held),
                )

    def _series(self) -> pd.DataFrame:
        elapsed = self.t - self.t[0]
        columns: dict[str, np.ndarray[Any, Any]] = {}
        iterations = np.zeros(len(self.t))
        for flow, counts in zip(FLOWS, self.counts, strict=True):
            done = np.concatenate([[0, 0, 0], np.cumsum(counts.sum(axis=1)), [0, 0]])
            done[-2:] = done[-3]
            name = (
                f"k6.requests{{error={flow.error},expected={str(flow.expected).lower()},method={flow.method},"
                f"route={flow.route},scenario={flow.scenario},status={flow.status}}}"
            )
            columns[name] = np.where(done > 0, done, np.nan)
            answered = f"app.requests{{method={flow.method},route=/{flow.route},status={flow.status}}}"
            if flow.status != "0":
                columns[answered] = columns.get(answered, np.zeros(len(self.t))) + done
            iterations += done if flow.route == "purchase" else 0
        columns["k6.iterations{scenario=main}"] = iterations
        for name, level in (("k6.vus", 20.0), ("k6.vus_max", 50.0), ("app.up", 1.0), ("app.pool_max", 10.0)):
            columns[name] = np.full(len(self.t), level)
        for component, cores in (("k6", 0.3), ("app", 0.6), ("postgres", 0.2), ("redis", 0.05), ("other", 0.02)):
            columns[f"cpu_s{{component={component}}}"] = self._counter(elapsed, cores)
            columns[f"run_delay_s{{component={component}}}"] = self._counter(elapsed, cores / 50)
            columns[f"memory_bytes{{component={component}}}"] = np.round(5e7 + 1e5 * self._rng.random(len(self.t)))
        for mode, cores in (("user", 0.9), ("system", 0.25), ("idle", CORES - 1.15), ("steal", 0.0)):
            columns[f"host_cpu_s{{mode={mode}}}"] = self._counter(elapsed, cores)
        for name, per_s in (("app.pool_hold_s", 3.0), ("app.pool_wait_s", 0.2), ("app.loop_cpu_s", 0.5)):
            columns[name] = self._counter(elapsed, per_s)
        for name, per_s in (("app.loop_lag_s", 0.02), ("app.loop_lag_samples", 10.0), ("pg.exec_s", 0.15)):
            columns[name] = self._counter(elapsed, per_s)
        for wait in ("CPU", "Lock:transactionid", "LWLock:WALWrite", "idle in transaction", "idle"):
            columns[f"pg.wait_s{{wait={wait}}}"] = self._counter(elapsed, 0.1)
        for n in range(90):
            columns[f"app.request_s_sum{{route=/r{n}}}"] = self._counter(elapsed, 0.01 * (n + 1))
        return pd.DataFrame(columns, index=pd.Index(self.t, name="t"))

    def _counter(self, elapsed: "np.ndarray[Any, Any]", per_s: float) -> "np.ndarray[Any, Any]":
        """Return a counter with digits as a real one has them."""
        noise = np.cumsum(self._rng.uniform(0.9, 1.1, len(elapsed)) * per_s)
        return 1000.0 + noise

    def _record(self) -> TrialRecord:
        start_s, end_s = self.start_s, self.start_s + self.total_s
        everything = np.sum([counts.sum(axis=0) for counts in self.counts], axis=0)
        p95_at = int(np.searchsorted(np.cumsum(everything), 0.95 * everything.sum()))
        purchases = [c for flow, c in zip(FLOWS, self.counts, strict=True) if flow.route == "purchase"]
        return TrialRecord(
            trial=self.trial,
            levels={"pool_size": self.trial.position, "workers": 1},
            status="done",
            reasons=(),
            started_s=start_s - 5,
            ended_s=end_s + 5,
            window=Window(start_s=start_s + WARMUP_S, end_s=end_s),
            load=LoadResult(
                exit_code=0,
                started_s=start_s,
                ended_s=end_s,
                requests=self._requests(),
                iterations=int(sum(counts.sum() for counts in purchases)),
                dropped_iterations=0,
                vus_max=50,
                thresholds=(Threshold(metric=SLO.metric, expression=SLO.expression, ok=True, value=70.0),),
                trends_ms={"http_req_duration": {"p(95)": 1000 * GROWTH ** (float(BUCKETS[p95_at]) - 0.5)}},
                version="1.1.0",
                gomaxprocs=1,
            ),
        )


def _run_record(variants: int, seconds: int, per_s: float, seed: int) -> RunRecord:
    total_s = float(WARMUP_S + seconds)
    schedule = Schedule(
        window_start_s=WARMUP_S,
        window_end_s=total_s,
        total_s=total_s,
        offered=(OfferedSlope(start_s=WARMUP_S, end_s=total_s, from_per_s=per_s, to_per_s=per_s),),
        open_model=True,
        max_vus=500,
        warmup_scenarios=("warmup",),
    )
    levels = tuple(range(1, variants + 1))
    names = [f"pool_size={level}" for level in levels]
    plan = Plan(
        scenario=Scenario(
            name="purchase",
            script="purchase.js",
            sha256="a" * 64,
            title="a synthetic sale",
            asks="How long does a report take?",
            shape="steady",
            goal="purchase",
            slos=(SLO,),
            levels={},
        ),
        stack="local",
        variants=tuple(
            Variant(name=name, levels={"pool_size": level}) for name, level in zip(names, levels, strict=True)
        ),
        reference=names[0],
        varied={"pool_size": levels},
        fixed={},
        trials=tuple(
            Trial(id=f"{at:03d}", variant=name, repetition=1, position=at) for at, name in enumerate(names, start=1)
        ),
        schedules=dict.fromkeys(names, schedule),
        repetitions=1,
        seed=seed,
    )
    return RunRecord(
        run_id=f"20261122T154042Z-synthetic-{variants}x{seconds}s",
        created="2026-11-22T15:40:42+00:00",
        ticketbench="0",
        plan=plan,
        environment=Environment(
            os="Linux",
            kernel="6.1",
            machine="x86_64",
            cpu_model="made up",
            cores=CORES,
            memory_bytes=8 << 30,
            python="3.11",
            ticketbench="0",
            binaries=(BinaryVersion(part="k6", version="1.1.0", source="made up", sha256="b" * 64),),
        ),
        command="python -m benchmarks.synthesise",
    )


def main() -> None:
    """Write one run and print its folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.synthesise", description=__doc__)
    parser.add_argument("parent", type=Path, metavar="DIR")
    parser.add_argument("--variants", type=int, default=16)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--per-s", type=float, default=200.0)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    print(synthesise(asked.parent, variants=asked.variants, seconds=asked.seconds, per_s=asked.per_s, seed=asked.seed))


if __name__ == "__main__":
    main()
