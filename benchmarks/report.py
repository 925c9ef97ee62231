"""Time and memory of ``ticketbench report`` over long runs that are made up (:mod:`benchmarks.synthesise`).

    python -m benchmarks.report [--repetitions 3] [--json FILE]

Two runs: 16 variants of 10 minutes at 200 purchases a second, and one trial of an hour at 500 a second with some 1.8
million acknowledged purchases. Each is reported on as a user would, by the installed program in a process of its own,
whose CPU time and largest resident memory the kernel tells when it ends.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

CASES: Final = (
    ("16 variants x 10 min at 200/s", ("--variants", "16", "--seconds", "600", "--per-s", "200")),
    ("1 trial x 60 min at 500/s", ("--variants", "1", "--seconds", "3600", "--per-s", "500")),
)
_PROGRAM: Final = str(Path(sys.executable).with_name("ticketbench"))


@dataclass(frozen=True)
class Cost:
    """What one process took: wall and CPU seconds, largest resident memory in MB."""

    wall_s: float
    cpu_s: float
    memory_mb: float


def cost_of(command: Sequence[str]) -> Cost:
    """Run a command to its end, output thrown away. Raises RuntimeError where it fails."""
    nowhere = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    begun_s = time.monotonic()
    pid = os.posix_spawn(command[0], list(command), os.environ, file_actions=nowhere)
    _, status, used = os.wait4(pid, 0)
    wall_s = time.monotonic() - begun_s
    if code := os.waitstatus_to_exitcode(status):
        raise RuntimeError(f"{' '.join(command)} ended with {code}")
    return Cost(wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def spread(values: Sequence[float], digits: int) -> str:
    """Return a median with its lowest and highest value."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw figures too")
    asked = parser.parse_args()
    raw: dict[str, object] = {}
    print(f"{'':32}{'wall s':>22}{'CPU s':>22}{'memory MB':>20}{'report.html kB':>16}{'files MB':>10}")
    with tempfile.TemporaryDirectory(prefix="ticketbench-report-") as folder:
        for name, size in CASES:
            # In a process of its own: a child's largest memory would begin with that of whoever started it.
            made = subprocess.run(
                [sys.executable, "-m", "benchmarks.synthesise", folder, *size],
                check=True,
                capture_output=True,
                text=True,
            )
            run = Path(made.stdout.strip())
            costs = [cost_of([_PROGRAM, "report", str(run)]) for _ in range(asked.repetitions)]
            html_kb = (run / "report.html").stat().st_size / 1000
            files_mb = sum(path.stat().st_size for path in run.rglob("*") if path.is_file()) / 1e6
            raw[name] = {"costs": [asdict(cost) for cost in costs], "html_kb": html_kb, "files_mb": files_mb}
            print(
                f"{name:32}{spread([c.wall_s for c in costs], 1):>22}{spread([c.cpu_s for c in costs], 1):>22}"
                f"{spread([c.memory_mb for c in costs], 0):>20}{html_kb:>16.0f}{files_mb:>10.0f}"
            )
    if asked.json:
        asked.json.write_text(json.dumps(raw, indent=1) + "\n")


if __name__ == "__main__":
    main()
