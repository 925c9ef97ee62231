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
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy.dialects import postgresql

from target_app import queries
from ticketbench import factors, interrupts
from ticketbench.binaries import Binaries, provide
from ticketbench.errors import EnvironmentFailure, TicketbenchError
from ticketbench.sampling.proc import parse_stat
from ticketbench.stack.local import LocalStack
from ticketbench.stack.protocol import Endpoints

P95_LIMIT_MS: Final = 200.0
SCRIPT: Final = Path(__file__).with_name("target_speed.js")
# Enough tickets for every block together; the hot match never sells out.
ALWAYS: Final = {"stock": "5000000"}
VARIANTS: Final = ("",)
CLIENTS: Final = (1, 2, 4, 8)
PGBENCH_TRIAL_S: Final = 2
PGBENCH_S: Final = 4
WARMUP_S: Final = 1
PROBE_S: Final = 4
MOST_PROBES: Final = 7
STEP: Final = 1.2  # between two rates of the search, while it has not passed and failed once each
CLOSE_ENOUGH: Final = 1.05  # highest rate that passed and lowest that failed
ACHIEVED: Final = 0.97  # share of the offered requests that must have been sent and sold


@dataclass(frozen=True)
class Pgbench:
    """One run of pgbench; CPU in milliseconds for each transaction."""

    clients: int
    per_s: float
    own_cpu_ms: float
    postgres_cpu_ms: float


@dataclass(frozen=True)
class Probe:
    """One run of k6 at one rate; CPU in milliseconds for each purchase, of k6 with the making of its users."""

    rate_per_s: int
    achieved_per_s: float
    sold_per_s: float
    p95_ms: float
    app_cpu_ms: float
    k6_cpu_ms: float
    postgres_cpu_ms: float
    other_cores: float

    @property
    def cpu_ms(self) -> float:
        """CPU of all that take part, for one purchase."""
        return self.app_cpu_ms + self.k6_cpu_ms + self.postgres_cpu_ms

    @property
    def passed(self) -> bool:
        """Whether the target kept up with the rate."""
        return self.sold_per_s >= ACHIEVED * self.rate_per_s and self.p95_ms < P95_LIMIT_MS


@dataclass(frozen=True)
class Block:
    """pgbench and the target, side by side. ``best`` is the fastest probe that passed, None where none did."""

    pgbench: Pgbench
    probes: tuple[Probe, ...]

    @property
    def best(self) -> Probe | None:
        """The probe with the highest rate among those that passed."""
        return max((probe for probe in self.probes if probe.passed), key=lambda probe: probe.rate_per_s, default=None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    options = _options(arguments)
    try:
        variants = {text: _levels(text) for text in options.variant or VARIANTS}
        with interrupts.raised():
            measured = _measure(variants, options.blocks, options.rate)
    except TicketbenchError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(_table(measured))
    if options.json:
        raw = {name: [asdict(block) for block in blocks] for name, blocks in measured.items()}
        options.json.write_text(json.dumps({"cores": _cores(), "variants": raw}, indent=1) + "\n")
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
        levels[name] = factors.get(name).parse(level)
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
                bench = _PgbenchRunner(binaries, endpoints, levels, Path(folder))
                if name not in clients:
                    tried = [bench.run(count, PGBENCH_TRIAL_S) for count in CLIENTS]
                    clients[name] = max(tried, key=lambda each: each.per_s).clients
                reference = bench.run(clients[name], PGBENCH_S)
                load = _Load(endpoints, Path(folder))
                if rate is not None:
                    probes = [load.probe(rate)]
                else:
                    earlier = [block.best.rate_per_s for block in measured[name] if block.best]
                    probes = list(_search(load.probe, earlier[-1] if earlier else round(reference.per_s / 2)))
                block = Block(reference, tuple(probes))
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


# --- pgbench ----------------------------------------------------------------------------------------------------------


class _PgbenchRunner:
    """pgbench with the target's purchase, as the target's user and with its settings of a connection."""

    def __init__(self, binaries: Binaries, endpoints: Endpoints, levels: Mapping[str, Any], folder: Path) -> None:
        self._program = binaries.postgres.with_name("pgbench")
        self._where = urlsplit(endpoints.own_access.postgres_dsn)
        self._trees = {part.name: part.pid for part in endpoints.components}
        self._script = folder / "purchase.sql"
        self._script.write_text(purchase_script(levels))
        self._synchronous_commit = levels["synchronous_commit"]

    def run(self, clients: int, seconds: int) -> Pgbench:
        """Run it. Raises EnvironmentFailure with what it said."""
        where = self._where
        env = {
            **os.environ,
            "PGPASSWORD": where.password or "",
            "PGOPTIONS": f"-c jit=off -c lock_timeout=2s -c synchronous_commit={self._synchronous_commit}",
        }
        before, own = cpu_s(self._trees["postgres"]), _children_s()
        ran = subprocess.run(
            [
                str(self._program), "--no-vacuum", "--protocol=prepared", f"--file={self._script}",
                f"--client={clients}", f"--jobs={min(clients, 2)}", f"--time={seconds}",
                f"--host={where.hostname}", f"--port={where.port}", f"--username={where.username}",
                where.path.removeprefix("/"),
            ],
            env=env, check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        if ran.returncode:
            raise EnvironmentFailure(f"pgbench failed ({ran.returncode}): {ran.stderr[-500:]}")
        used_s, own_s = cpu_s(self._trees["postgres"]) - before, _children_s() - own
        done = int(_found(r"number of transactions actually processed: (\d+)", ran.stdout))
        per_s = float(_found(r"^tps = ([\d.]+)", ran.stdout))
        return Pgbench(clients, per_s, own_s / done * 1000, used_s / done * 1000)


def purchase_script(levels: Mapping[str, Any]) -> str:
    """Return what a purchase sends, as a script of pgbench. Raises ValueError where pgbench cannot do the same."""
    if levels["round_trips"] == "fewest":
        sent = [_as_sql(queries.sell_at_once)]
    else:
        sent = [_as_sql(queries.purchase_view), "BEGIN", _as_sql(queries.sell), "COMMIT"]
    chosen = [r"\set for_match 1", r"\set number random(1, 1000000000000000000)"]
    return "\n".join([*chosen, *(f"{statement};" for statement in sent)]) + "\n"


# What k6 and the target put into a purchase, as SQL over pgbench's one random number.
_VALUES: Final = {
    "for_match": "cast(:for_match AS integer)",
    "for_buyer": "cast(:number AS text)",
    "with_key": "cast(:number AS text)",
    "with_code": "'T-' || cast(:number AS text)",
    "at_price": "2750",
    "at_most": "4",
}


def _as_sql(statement: Any) -> str:
    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]
    compiled = statement.compile(dialect=dialect)
    return " ".join(re.sub(r"(?<!:):(\w+)", lambda match: _VALUES[match[1]], str(compiled)).split())


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise ValueError(f"pgbench does not say {pattern!r}: {text}")
    return match[1]


# --- k6 ---------------------------------------------------------------------------------------------------------------


class _Load:
    """k6 on the hot match."""

    def __init__(self, endpoints: Endpoints, folder: Path) -> None:
        self._endpoints = endpoints
        self._trees = {part.name: part.pid for part in endpoints.components}
        self._summary = folder / "summary.json"

    def probe(self, rate_per_s: int) -> Probe:
        """Offer purchases at one rate. Raises EnvironmentFailure."""
        before = {name: cpu_s(pid) for name, pid in self._trees.items()}
        own, busy, began = _children_s(), _machine_busy_s(), time.monotonic()
        k6 = subprocess.run(
            [
                *self._endpoints.k6_command, "run", "--quiet", "--no-usage-report", "--log-output=stderr",
                f"--summary-export={self._summary}", "--address=", "-e", f"BASE_URL={self._endpoints.base_url}",
                "-e", f"TRIAL={uuid.uuid4().hex}", "-e", f"RATE={rate_per_s}", "-e", f"WARMUP={WARMUP_S}",
                "-e", f"DURATION={PROBE_S}", str(SCRIPT),
            ],
            env={**os.environ, "GOMAXPROCS": "1"}, check=False, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        if k6.returncode:
            raise EnvironmentFailure(f"k6 failed ({k6.returncode}): {k6.stderr[-500:]}")
        elapsed_s = time.monotonic() - began
        used = {name: cpu_s(pid) - before[name] for name, pid in self._trees.items()}
        k6_s = _children_s() - own
        others_s = max(0.0, _machine_busy_s() - busy - sum(used.values()) - k6_s)
        metrics = json.loads(self._summary.read_bytes())["metrics"]
        purchases = metrics["http_reqs"]["count"]
        return Probe(
            rate_per_s=rate_per_s,
            achieved_per_s=metrics["http_reqs{phase:main}"]["count"] / PROBE_S,
            sold_per_s=metrics["sold{phase:main}"]["count"] / PROBE_S,
            p95_ms=metrics["http_req_duration{phase:main}"]["p(95)"],
            app_cpu_ms=used["app"] / purchases * 1000,
            k6_cpu_ms=k6_s / purchases * 1000,
            postgres_cpu_ms=used["postgres"] / purchases * 1000,
            other_cores=others_s / elapsed_s,
        )


# --- CPU --------------------------------------------------------------------------------------------------------------


def cpu_s(root: int) -> float:
    """Return the CPU seconds of a process and all below it, those that have ended and were waited for included."""
    stats = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stats[int(entry.name)] = parse_stat((entry / "stat").read_bytes())
            except (OSError, ValueError):
                continue  # it ended meanwhile
    tree, total = {root}, 0.0
    for pid in sorted(stats):  # servers' children have higher ids than they
        if pid in tree or stats[pid].ppid in tree:
            tree.add(pid)
            total += stats[pid].own_s + stats[pid].reaped_s
    return total


def _children_s() -> float:
    """Return the CPU seconds of the programs that we have run to their end."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _machine_busy_s() -> float:
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


# --- what is said -----------------------------------------------------------------------------------------------------


def _progress(name: str, number: int, block: Block) -> None:
    best = block.best
    found = (
        f"no rate passed: {block.probes}"
        if best is None
        else f"{best.rate_per_s}/s at {best.app_cpu_ms:.2f} ms of app CPU"
    )
    sys.stderr.write(
        f"block {number + 1}, {name or 'defaults'}: pgbench {block.pgbench.per_s:.0f}/s"
        f" ({block.pgbench.clients} clients), target {found}\n"
    )


def _table(measured: Mapping[str, Sequence[Block]]) -> str:
    lines = []
    for name, blocks in measured.items():
        passed = [(block.pgbench, block.best) for block in blocks if block.best is not None]
        lines.append(f"{name or 'defaults'} ({len(passed)} of {len(blocks)} blocks)")
        if not passed:
            continue
        rows: dict[str, list[float]] = {
            "pgbench, transactions/s": [bench.per_s for bench, _ in passed],
            "pgbench, PostgreSQL ms CPU each": [bench.postgres_cpu_ms for bench, _ in passed],
            "pgbench, its own ms CPU each": [bench.own_cpu_ms for bench, _ in passed],
            "target, purchases/s": [best.sold_per_s for _, best in passed],
            "ratio": [best.sold_per_s / bench.per_s for bench, best in passed],
            "p95, ms": [best.p95_ms for _, best in passed],
            "app, ms CPU a purchase": [best.app_cpu_ms for _, best in passed],
            "PostgreSQL, ms CPU a purchase": [best.postgres_cpu_ms for _, best in passed],
            "k6, ms CPU a purchase": [best.k6_cpu_ms for _, best in passed],
            "these three, cores": [best.sold_per_s * best.cpu_ms / 1000 for _, best in passed],
            "what the machine allows, purchases/s": [_cores() * 1000 / best.cpu_ms for _, best in passed],
            "others, cores": [best.other_cores for _, best in passed],
        }
        lines += [
            f"  {title:37} {statistics.median(values):9.2f}  ({min(values):.2f} to {max(values):.2f})"
            for title, values in rows.items()
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
