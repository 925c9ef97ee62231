"""The same measurement on the Docker stack and on the local one, in turn on this machine.

python -m benchmarks.stacks [--blocks 5] [--set FACTOR=LEVEL]... [--json FILE]

A block is the local stack and the Docker one, each once with either load, through the installed program, in an order
that turns round from block to block. What is printed are medians, and the ratio of the two stacks within a block with
its 95 % interval. The images are those that `ticketbench run --stack docker` takes (docs/docker.md).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.observer import Ratio, ratio_of

HERE: Final = Path(__file__).parent
STACKS: Final = ("local", "docker")
# Moderate: what a purchase costs. Saturated: how many there are at most.
LOADS: Final = {
    "moderate": (str(HERE / "purchases.js"), "--set", "rate=150", "--set", "duration=20"),
    "saturated": (str(HERE / "saturated.js"),),
}
# name: the load, and how its figure is read from a variant of analysis.json
FIGURES: Final[dict[str, tuple[str, Callable[[Any], float]]]] = {
    "app's CPU a purchase, ms": ("moderate", lambda of: 1000 * of["per_request"]["cpu_app_s"]),
    "PostgreSQL's CPU a purchase, ms": ("moderate", lambda of: 1000 * of["per_request"]["cpu_postgres_s"]),
    "Redis's CPU a purchase, ms": ("moderate", lambda of: 1000 * of["per_request"]["cpu_redis_s"]),
    "k6's CPU a purchase, ms": ("moderate", lambda of: 1000 * of["per_request"]["cpu_k6_s"]),
    "time in PostgreSQL a purchase, ms": ("moderate", lambda of: 1000 * of["per_request"]["db_s"]),
    "p50, ms": ("moderate", lambda of: 1000 * of["signals"]["latency_s"]["p50"]),
    "p95, ms": ("moderate", lambda of: 1000 * of["signals"]["latency_s"]["p95"]),
    "CPU by others, share of the machine": (
        "moderate",
        lambda of: of["signals"]["saturation"]["other_cpu"]["utilisation"],
    ),
    "purchases/s, saturated": ("saturated", lambda of: of["signals"]["traffic"]["goodput_per_s"]),
    "app's CPU a purchase, ms, saturated": ("saturated", lambda of: 1000 * of["per_request"]["cpu_app_s"]),
    "PostgreSQL's CPU a purchase, ms, saturated": (
        "saturated",
        lambda of: 1000 * of["per_request"]["cpu_postgres_s"],
    ),
    "CPU by others, share of the machine, saturated": (
        "saturated",
        lambda of: of["signals"]["saturation"]["other_cpu"]["utilisation"],
    ),
}
# A block in which other programs took more of the machine than this is not counted. The engine and its proxies are such
# as well: they take 0.02 to 0.03 of two cores.
MOST_BY_OTHERS: Final = 0.1


@dataclass(frozen=True)
class Arm:
    """One stack's part of a block: its figures by name, and what it ran on (part: version)."""

    stack: str
    figures: dict[str, float]
    versions: dict[str, str]

    @property
    def disturbed(self) -> bool:
        """Whether others took too much of the machine."""
        shares = [value for name, value in self.figures.items() if name.startswith("CPU by others")]
        return max(shares) > MOST_BY_OTHERS


def measure(stack: str, fixed: Sequence[str]) -> Arm:
    """Run both loads once. Raises SystemExit with the program's words where it fails."""
    judged: dict[str, dict[str, Any]] = {}
    versions: dict[str, str] = {}
    for load, arguments in LOADS.items():
        with tempfile.TemporaryDirectory() as folder:
            command = [
                str(Path(sys.executable).with_name("ticketbench")), "run", *arguments, "--stack", stack, "-o", folder,
                *(part for each in fixed for part in ("--set", each)),
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True)
            found = list(Path(folder).glob("*/analysis.json"))
            # 1: an SLO was missed; 3: on a busy machine it cannot be believed, which "CPU by others" shows
            if done.returncode not in (0, 1, 3) or not found:
                raise SystemExit(f"ticketbench ended with exit code {done.returncode}:\n{done.stderr}")
            judged[load] = json.loads(found[0].read_text())["variants"][0]
            record = json.loads(found[0].with_name("run.json").read_text())
            versions = {each["part"]: each["version"] for each in record["environment"]["binaries"]}
    return Arm(stack, {name: read(judged[load]) for name, (load, read) in FIGURES.items()}, versions)


def _table(blocks: Sequence[dict[str, Arm]]) -> str:
    lines = [f"{'figure':<48}{'local':>10}{'docker':>10}{'ratio':>8}  95 % interval"]
    for name in FIGURES:
        pairs = [(block["docker"].figures[name], block["local"].figures[name]) for block in blocks]
        docker, local = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratio: Ratio | None = ratio_of(name, pairs) if len(pairs) > 1 and all(min(pair) > 0 for pair in pairs) else None
        told = f"{ratio.ratio:>8.2f}  {ratio.low:.2f} to {ratio.high:.2f}" if ratio is not None else f"{'':>8}"
        lines.append(f"{name:<48}{local:>10.2f}{docker:>10.2f}{told}")
    lines += [
        f"{stack}: {', '.join(f'{part} {of}' for part, of in blocks[0][stack].versions.items())}" for stack in STACKS
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stacks", description=__doc__.partition("\n")[0])
    parser.add_argument("--blocks", type=int, default=5, help="how many blocks, 2.5 minutes each (5)")
    parser.add_argument("--set", action="append", default=[], metavar="FACTOR=LEVEL", help="a factor's level on both")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw figures there as well")
    options = parser.parse_args()
    if options.blocks < 1:
        parser.error(f"--blocks {options.blocks} is not possible: at least 1")
    blocks: list[dict[str, Arm]] = []
    for number in range(options.blocks):
        order = STACKS if number % 2 == 0 else STACKS[::-1]
        blocks.append({stack: measure(stack, options.set) for stack in order})
        print(f"block {number + 1} of {options.blocks} is done", file=sys.stderr, flush=True)
    counted = [block for block in blocks if not any(arm.disturbed for arm in block.values())]
    print(_table(counted or blocks))
    print(
        f"{len(counted)} of {len(blocks)} blocks count, in the rest others took over {MOST_BY_OTHERS:.0%} of the CPU"
        f"{'' if counted else ': shown are all of them'}; load average now {os.getloadavg()[0]:.1f}"
    )
    if options.json is not None:
        raw = [{stack: asdict(arm) for stack, arm in block.items()} for block in blocks]
        options.json.write_text(json.dumps(raw, indent=1) + "\n")


if __name__ == "__main__":
    main()
