"""How fast the target sells one hot match, against pgbench running the same transaction on the same PostgreSQL.

Brings up a local stack of its own and, for each variant in turn, lets pgbench and then k6 buy tickets of match 1 in
short blocks, over and over: the ratio of two neighbours means something on a machine that is busy, either figure alone
does not. pgbench sends what the target sends (the statements are taken from ``target_app.queries``), in the same
transactions, with the best of a few client counts. For the target the highest rate is searched at which k6's p95 stays
below 200 ms and nothing is refused or dropped. Asserts nothing.

    .venv/bin/python -m benchmarks.target_speed [--json FILE] [--blocks N] [--variant NAME=LEVEL,...]... [--rate R]
"""

import argparse
import json
import statistics
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.buyers import Load, Pgbench, PgbenchRunner, Probe, cores
from ticketbench import factors, interrupts
from ticketbench.binaries import provide
from ticketbench.errors import TicketbenchError, UsageError
from ticketbench.stack.local import LocalStack

# Enough tickets for every block together; the hot match never sells out.
ALWAYS: Final = {"stock": "5000000"}
# The plain target, and its best setting.
BEST: Final = "data_layer=asyncpg,round_trips=fewest,purchase_route=lean,pool_size=2"
VARIANTS: Final = ("", BEST)
CLIENTS: Final = (1, 2, 4, 8)
PGBENCH_TRIAL_S: Final = 2
PGBENCH_S: Final = 3
MOST_PROBES: Final = 6
STEP: Final = 1.3  # between two rates of the search, while it has not passed and failed once each
CLOSE_ENOUGH: Final = 1.05  # highest rate that passed and lowest that failed


@dataclass(frozen=True)
class Block:
    """pgbench, where it was asked for, and the target, side by side."""

    pgbench: tuple[Pgbench, ...]
    probes: tuple[Probe, ...]

    @property
    def pgbench_per_s(self) -> float:
        """The mean of pgbench's runs before and after the probes."""
        return statistics.fmean(each.per_s for each in self.pgbench)

    @property
    def best(self) -> Probe | None:
        """The probe with the highest rate among those that passed, None where none did."""
        return max((probe for probe in self.probes if probe.passed), key=lambda probe: probe.rate_per_s, default=None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    options = _options(arguments)
    try:
        variants = {text: _levels(text) for text in options.variant or VARIANTS}
        with interrupts.raised():
            measured = _measure(variants, options.blocks, options.rate)
    except TicketbenchError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(_table(measured))
    if options.json:
        raw = {name: [asdict(block) for block in blocks] for name, blocks in measured.items()}
        options.json.write_text(json.dumps({"cores": cores(), "variants": raw}, indent=1) + "\n")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.target_speed", description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=3, help="repetitions of each variant (default: %(default)s)")
    parser.add_argument(
        "--variant",
        action="append",
        metavar="F=L,F=L",
        help="levels that differ from the defaults; may be repeated (default: the plain target, and its best setting)",
    )
    parser.add_argument("--rate", type=int, help="one probe at this rate instead of the search: what a purchase costs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    return parser.parse_args(arguments)


def _levels(text: str) -> dict[str, Any]:
    levels = dict(factors.defaults())
    for pair in filter(None, text.split(",")):
        name, _, level = pair.partition("=")
        try:
            levels[name] = factors.get(name).parse(level)
        except ValueError as error:
            raise UsageError(str(error)) from None
    return levels | {name: factors.get(name).parse(level) for name, level in ALWAYS.items()}


def _measure(variants: Mapping[str, Mapping[str, Any]], blocks: int, rate: int | None) -> dict[str, list[Block]]:
    binaries = provide()
    measured: dict[str, list[Block]] = {name: [] for name in variants}
    clients: dict[str, int] = {}
    stack = LocalStack(f"target-speed-{uuid.uuid4().hex[:8]}", binaries)
    with tempfile.TemporaryDirectory() as folder, _stopping(stack):
        stack.start()
        for number in range(blocks):
            for name, levels in variants.items():
                endpoints = stack.apply(levels)
                load = Load(endpoints, Path(folder))
                if rate is not None:
                    block = Block((), (load.probe(rate),))
                else:
                    bench = PgbenchRunner(binaries, endpoints, levels, Path(folder))
                    if name not in clients:
                        tried = [bench.run(count, PGBENCH_TRIAL_S) for count in CLIENTS]
                        clients[name] = max(tried, key=lambda each: each.per_s).clients
                    # Before and after, so that neither side alone has a busier machine.
                    first = bench.run(clients[name], PGBENCH_S)
                    earlier = [each.best.rate_per_s for each in measured[name] if each.best]
                    probes = tuple(_search(load.probe, earlier[-1] if earlier else round(first.per_s / 3)))
                    block = Block((first, bench.run(clients[name], PGBENCH_S)), probes)
                measured[name].append(block)
                _progress(name, number, block)
    return measured


@contextmanager
def _stopping(stack: LocalStack) -> Iterator[None]:
    try:
        yield
    finally:
        stack.stop()


def _search(probe: Callable[[int], Probe], start: int) -> Iterator[Probe]:
    """Yield probes that close in on the highest rate that passes, at most MOST_PROBES."""
    low: float | None = None
    high: float | None = None
    rate = float(start)
    for _ in range(MOST_PROBES):
        probed = probe(round(rate))
        yield probed
        if probed.passed:
            low = rate
        else:
            high = rate
        if low is None:
            rate /= STEP
        elif high is None:
            rate *= STEP
        elif high / low < CLOSE_ENOUGH:
            return
        else:
            rate = (low * high) ** 0.5


# --- what is said -----------------------------------------------------------------------------------------------------


def _progress(name: str, number: int, block: Block) -> None:
    said = ", ".join(
        [
            *(f"pgbench {each.per_s:.0f}/s ({each.clients} clients)" for each in block.pgbench),
            *(
                f"k6 {each.rate_per_s}/s {'passed' if each.passed else 'failed'} (p95 {each.p95_ms:.0f} ms, others"
                f" {each.other_cores:.1f} cores)"
                for each in block.probes
            ),
        ]
    )
    print(f"block {number + 1}, {_title(name)}: {said}", file=sys.stderr, flush=True)


def _title(name: str) -> str:
    return name or "defaults"


def _table(measured: Mapping[str, Sequence[Block]]) -> str:
    lines = []
    for name, blocks in measured.items():
        sides = [block for block in blocks if block.pgbench]
        found = [(block, block.best or block.probes[0]) for block in blocks if block.best or not block.pgbench]
        rows: dict[str, list[float]] = {
            "pgbench, purchases/s": [block.pgbench_per_s for block in sides],
            "pgbench, PostgreSQL's CPU, ms": [each.postgres_cpu_ms for block in sides for each in block.pgbench],
            "pgbench, its own CPU, ms": [each.own_cpu_ms for block in sides for each in block.pgbench],
            "target, purchases/s": [best.sold_per_s for _, best in found],
            "target / pgbench": [best.sold_per_s / block.pgbench_per_s for block, best in found if block.pgbench],
            "p95, ms": [best.p95_ms for _, best in found],
            "app's CPU, ms": [best.app_cpu_ms for _, best in found],
            "PostgreSQL's CPU, ms": [best.postgres_cpu_ms for _, best in found],
            "k6's CPU, ms": [best.k6_cpu_ms for _, best in found],
            "the three together, cores": [best.sold_per_s * best.cpu_ms / 1000 for _, best in found],
            "the machine's limit, purchases/s": [cores() * 1000 / best.cpu_ms for _, best in found],
            "others, cores": [best.other_cores for _, best in found],
        }
        lines.append(f"{_title(name)}: {len(found)} of {len(blocks)} blocks; CPU is for each purchase")
        lines += [
            f"  {title:34} {statistics.median(values):9.2f}  ({min(values):.2f} to {max(values):.2f})"
            for title, values in rows.items()
            if values
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
