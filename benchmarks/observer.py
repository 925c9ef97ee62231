"""What observing costs, and what it does to what is observed.

    python -m benchmarks.observer [cost|effect] [--long] [--json FILE]

cost: the CPU of each part that observes, at two rates, in % of one core. effect: the same load with everything that
observes on and off, in turn, and the ratios of latency and CPU per request with their 95 % intervals. Without a word
both, in 8 minutes at most.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from scipy import stats

from benchmarks.observed import EVERYTHING, NOTHING, Arm, Bed, Watching
from ticketbench import interrupts
from ticketbench.binaries import provide
from ticketbench.errors import EXIT_OK, TicketbenchError

GOAL_SHARE: Final = 0.03  # of one core: sampler, scrapes and remote write together
COST_RATES_PER_S: Final = (100.0, 300.0)
EFFECT_RATE_PER_S: Final = 100.0

SCRAPES: Final = Watching("scrapes", scraping=True)
SAMPLED: Final = Watching("scrapes and sampler", scraping=True, sampling=True)
PUSHED: Final = Watching("scrapes, sampler and remote write", scraping=True, sampling=True, remote_write=True)
LADDER: Final = (NOTHING, SCRAPES, SAMPLED, PUSHED, EVERYTHING)


@dataclass(frozen=True)
class Size:
    """How much is measured: windows in seconds, how often the ladder is climbed at each rate, pairs of the effect."""

    ladder_s: float
    ladders: int
    window_s: float
    pairs: int


SHORT: Final = Size(ladder_s=7, ladders=1, window_s=15, pairs=8)
LONG: Final = Size(ladder_s=15, ladders=5, window_s=20, pairs=24)


@dataclass(frozen=True)
class Ratio:
    """A figure with observation on, relative to off: the geometric mean over pairs with its 95 % interval."""

    name: str
    ratio: float
    low: float
    high: float
    pairs: int


# --- measuring --------------------------------------------------------------------------------------------------------


def climb(bed: Bed, rate_per_s: float, size: Size) -> list[Arm]:
    """Measure each step of the ladder; every second climb goes down, so that a drift does not favour one end."""
    arms: list[Arm] = []
    for number in range(size.ladders):
        for watching in LADDER if number % 2 == 0 else reversed(LADDER):
            arms.append(bed.arm(watching, rate_per_s, size.ladder_s))
            _progress(arms[-1])
    return arms


def alternate(bed: Bed, size: Size) -> list[tuple[Arm, Arm]]:
    """Measure pairs (on, off); the first of a pair changes from pair to pair: on, off, off, on, on, off, ..."""
    pairs: list[tuple[Arm, Arm]] = []
    for number in range(size.pairs):
        order = (EVERYTHING, NOTHING) if number % 2 == 0 else (NOTHING, EVERYTHING)
        arms = {}
        for watching in order:
            arms[watching.name] = bed.arm(watching, EFFECT_RATE_PER_S, size.window_s)
            _progress(arms[watching.name])
        pairs.append((arms[EVERYTHING.name], arms[NOTHING.name]))
    return pairs


def _progress(arm: Arm) -> None:
    print(
        f"  {arm.offered_per_s:g}/s, {arm.watching}: {arm.requests} requests, p95 {1000 * arm.p95_s:.1f} ms, "
        f"app {1000 * arm.per_request_s('app'):.2f} ms CPU a request",
        file=sys.stderr,
        flush=True,
    )


# --- the effect -------------------------------------------------------------------------------------------------------


def ratio_of(name: str, pairs: Sequence[tuple[float, float]]) -> Ratio:
    """Return the paired ratio: mean of the log ratios and Student's interval about it."""
    logs = [math.log(on / off) for on, off in pairs]
    interval = stats.ttest_1samp(logs, 0.0).confidence_interval(0.95)
    return Ratio(
        name, math.exp(statistics.fmean(logs)), math.exp(float(interval.low)), math.exp(float(interval.high)), len(logs)
    )


_EFFECTS: Final[tuple[tuple[str, Callable[[Arm], float]], ...]] = (
    ("p50", lambda arm: arm.p50_s),
    ("p95", lambda arm: arm.p95_s),
    ("CPU per request, app", lambda arm: arm.per_request_s("app")),
    ("CPU per request, app, PostgreSQL and Redis", lambda arm: arm.per_request_s("app", "postgres", "redis")),
    ("CPU per request, k6", lambda arm: arm.per_request_s("k6")),
)


def effects(pairs: Sequence[tuple[Arm, Arm]]) -> list[Ratio]:
    """Return the ratios of everything that observation may change."""
    return [ratio_of(name, [(of(on), of(off)) for on, off in pairs]) for name, of in _EFFECTS]


# --- the cost ---------------------------------------------------------------------------------------------------------


def costs(arms: Iterable[Arm]) -> list[tuple[str, list[float], bool]]:
    """Return each part's name, its shares of one core (one for each climb), and whether the goal counts it.

    What runs in a process of its own is read from that process. The rest is the difference of two steps of one climb.
    """
    steps: dict[str, list[Arm]] = {}
    for arm in arms:
        steps.setdefault(arm.watching, []).append(arm)
    _, scrapes, sampled, pushed, everything = (steps[step.name] for step in LADDER)

    def of(chosen: Sequence[Arm], part: str) -> list[float]:
        return [arm.share(part) for arm in chosen]

    def added(upper: Sequence[Arm], lower: Sequence[Arm], part: str) -> list[float]:
        return [high - low for high, low in zip(of(upper, part), of(lower, part), strict=True)]

    own = [
        ("sampler: its process", of(pushed, "sampler"), True),
        ("sampler: PostgreSQL's backend for it", of(pushed, "sampler's backend"), True),
        ("sampler: INFO in Redis", of(pushed, "redis: INFO"), True),
        ("scrapes: /metrics in the app", of(pushed, "app: metrics"), True),
        ("scrapes: Prometheus, nothing pushed", of(scrapes, "prometheus"), True),
        ("remote write: Prometheus, from the sampler", added(sampled, scrapes, "prometheus"), True),
        ("remote write: Prometheus, from k6", added(pushed, sampled, "prometheus"), True),
        ("remote write: k6's output, at most", _k6_output((pushed, everything)), True),
    ]
    total = [sum(parts) for parts in zip(*(shares for _, shares, _ in own), strict=True)]
    return [
        *own,
        ("together", total, True),
        ("live figures: Prometheus", added(everything, pushed, "prometheus"), False),
        ("the command line program: watching k6, asking", of(everything, "ticketbench"), False),
    ]


def _k6_output(pushing: Sequence[Sequence[Arm]]) -> list[float]:
    """Return for each climb what the output takes of k6 at most (95 %): its share of k6's profile times k6's CPU.

    Not a difference of steps: k6's own CPU varies by more from step to step than the output takes. It is in one sample
    of a hundred, so its count is a Poisson one and the bound is the exact one for that.
    """
    found = []
    for arms in zip(*pushing, strict=True):
        below = sum(arm.k6_profile.below for arm in arms)
        samples = sum(arm.k6_profile.samples for arm in arms)
        at_most = float(stats.chi2.ppf(0.95, 2 * (below + 1))) / 2
        found.append(at_most / samples * statistics.fmean(arm.share("k6") for arm in arms))
    return found


# --- telling ----------------------------------------------------------------------------------------------------------


def _percent(shares: Sequence[float]) -> str:
    text = f"{100 * statistics.median(shares):>8.2f}"
    return text + (f"  ({100 * min(shares):.2f} to {100 * max(shares):.2f})" if len(shares) > 1 else "")


def _print_costs(arms: Sequence[Arm]) -> None:
    for rate in sorted({arm.offered_per_s for arm in arms}):
        print(f"\nCPU in % of one core at {rate:g} purchases a second: median (lowest to highest)")
        for name, shares, counted in costs(arm for arm in arms if arm.offered_per_s == rate):
            note = "" if counted else "  not counted"
            if name == "together":
                note = f"  goal: at most {100 * GOAL_SHARE:g}"
            print(f"  {name:<44}{_percent(shares)}{note}")


def _print_effects(pairs: Sequence[tuple[Arm, Arm]]) -> None:
    on, off = pairs[0]
    print(f"\non / off at {on.offered_per_s:g} purchases a second, {len(pairs)} pairs of {off.span_s:.0f} s")
    print(f"  {'':<44}{'ratio':>8}  95 % interval")
    for effect in effects(pairs):
        print(f"  {effect.name:<44}{effect.ratio:>8.3f}  {effect.low:.3f} to {effect.high:.3f}")
    output = _k6_output([[arm] for arm, _ in pairs])[0]
    print(f"  k6's remote-write output in these pairs, % of one core at most: {100 * output:.2f}")
    observing = [arm.share("sampler") + arm.share("prometheus") for arm, _ in pairs]
    print(f"  sampler and Prometheus in these pairs, % of one core: {_percent(observing).strip()}")


def main() -> int:
    """Measure what was asked for and print the tables; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.observer",
        description=(__doc__ or "").partition("\n")[0],
        epilog="cost: CPU of each observing part; effect: latency and CPU per request, on against off; nothing: both",
    )
    parser.add_argument("what", nargs="?", choices=("cost", "effect"))
    parser.add_argument("--long", action="store_true", help="more and longer windows: 35 minutes instead of 8")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw figures there as well")
    options = parser.parse_args()
    size = LONG if options.long else SHORT
    arms: list[Arm] = []
    pairs: list[tuple[Arm, Arm]] = []
    began_s = time.monotonic()
    try:
        with interrupts.raised(), tempfile.TemporaryDirectory() as folder, Bed(provide(), Path(folder)) as bed:
            bed.arm(EVERYTHING, COST_RATES_PER_S[0], size.ladder_s)  # caches, connections and plans: not counted
            if options.what != "effect":
                for rate in COST_RATES_PER_S:
                    arms += climb(bed, rate, size)
            if options.what != "cost":
                pairs = alternate(bed, size)
    except TicketbenchError as error:
        print(f"{parser.prog}: {error.message}", file=sys.stderr)
        return error.exit_code
    if arms:
        _print_costs(arms)
    if pairs:
        _print_effects(pairs)
    print(f"\ntook {(time.monotonic() - began_s) / 60:.1f} minutes")
    if options.json is not None:
        raw: dict[str, Any] = {
            "cost": [asdict(arm) for arm in arms],
            "effect": [{"on": asdict(on), "off": asdict(off)} for on, off in pairs],
            "ratios": [asdict(ratio) for ratio in effects(pairs)] if pairs else [],
        }
        options.json.write_text(json.dumps(raw, indent=1) + "\n")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
