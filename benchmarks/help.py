"""CPU time of the commands that do next to nothing: what a user waits for before anything begins.

python -m benchmarks.help [--times 20] [--json FILE]
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

COMMANDS: Final = (("--help",), ("status",), ("scenarios", "list"), ("run", "--help"))
GOAL_S: Final = 0.25  # of CPU, for --help


@dataclass(frozen=True)
class Cost:
    """What one command took, each time: CPU seconds (user and system, its children's included) and wall seconds."""

    command: str
    cpu_s: tuple[float, ...]
    wall_s: tuple[float, ...]


def measure(command: tuple[str, ...], times: int) -> Cost:
    """Run the installed program so many times, after one that fills the caches. Raises CalledProcessError."""
    program = [str(Path(sys.executable).with_name("ticketbench")), *command]
    cpu_s: list[float] = []
    wall_s: list[float] = []
    with tempfile.TemporaryDirectory() as state:
        environment = {**os.environ, "TICKETBENCH_STATE": state}  # no stack runs in it, so status has little to tell
        for number in range(times + 1):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            began_s = time.perf_counter()
            subprocess.run(program, check=True, capture_output=True, env=environment)
            took_s = time.perf_counter() - began_s
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            if number:
                cpu_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
                wall_s.append(took_s)
    return Cost(" ".join(("ticketbench", *command)), tuple(cpu_s), tuple(wall_s))


def main() -> None:
    """Measure all commands and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.help", description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=20, help="how often each command is run (20)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw figures there as well")
    options = parser.parse_args()
    if options.times < 1:
        parser.error(f"--times {options.times} is not possible: at least 1")
    costs = [measure(command, options.times) for command in COMMANDS]
    print(f"{'command':<28}{'CPU s, median':>16}{'lowest':>10}{'highest':>10}{'wall s, median':>17}")
    for cost in costs:
        print(
            f"{cost.command:<28}{statistics.median(cost.cpu_s):>16.3f}{min(cost.cpu_s):>10.3f}{max(cost.cpu_s):>10.3f}"
            f"{statistics.median(cost.wall_s):>17.3f}"
        )
    print(f"{options.times} times each; the goal is {GOAL_S} s of CPU for `ticketbench --help`")
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(cost) for cost in costs], indent=1) + "\n")


if __name__ == "__main__":
    main()
