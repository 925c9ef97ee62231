"""Those who buy tickets of the hot match: pgbench straight from PostgreSQL, and k6 from the target."""

import json
import os
import re
import resource
import subprocess
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy.dialects import postgresql

from target_app import queries
from ticketbench.binaries import Binaries
from ticketbench.errors import EnvironmentFailure
from ticketbench.sampling.proc import parse_stat
from ticketbench.stack.protocol import Endpoints

P95_LIMIT_MS: Final = 200.0
SCRIPT: Final = Path(__file__).with_name("target_speed.js")
WARMUP_S: Final = 1
PROBE_S: Final = 4
# On one core k6 needs half the CPU for a request, and falls behind where it gets to more than this (measured).
ONE_CORE_BELOW_PER_S: Final = 1500
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


# --- pgbench ----------------------------------------------------------------------------------------------------------


class PgbenchRunner:
    """pgbench with the target's purchase and its settings of a connection, as the stack's superuser."""

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


class Load:
    """k6 on the hot match."""

    def __init__(self, endpoints: Endpoints, folder: Path) -> None:
        self._endpoints = endpoints
        self._trees = {part.name: part.pid for part in endpoints.components}
        self._summary = folder / "summary.json"

    def probe(self, rate_per_s: int) -> Probe:
        """Offer purchases at one rate. Raises EnvironmentFailure."""
        before = {name: cpu_s(pid) for name, pid in self._trees.items()}
        threads = "1" if rate_per_s < ONE_CORE_BELOW_PER_S else str(cores())
        own, busy, began = _children_s(), _machine_busy_s(), time.monotonic()
        k6 = subprocess.run(
            [
                *self._endpoints.k6_command, "run", "--quiet", "--no-usage-report", "--log-output=stderr",
                f"--summary-export={self._summary}", "--address=", "-e", f"BASE_URL={self._endpoints.base_url}",
                "-e", f"TRIAL={uuid.uuid4().hex}", "-e", f"RATE={rate_per_s}", "-e", f"WARMUP={WARMUP_S}",
                "-e", f"DURATION={PROBE_S}", str(SCRIPT),
            ],
            env={**os.environ, "GOMAXPROCS": threads}, check=False, capture_output=True, text=True, timeout=120,
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


def cores() -> int:
    """Return how many cores all of this shares."""
    return len(os.sched_getaffinity(0))


def _machine_busy_s() -> float:
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
