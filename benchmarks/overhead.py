"""What a run takes beyond the scenario's own scheduled time, and in which phase; and what `up` and `down` take.

python -m benchmarks.overhead [--stack local|docker] [--times 5] [--variants 3] [--json FILE]

Runs the installed program on a load of ten seconds, seven of them warm-up, with as many variants as asked for. The
phases are timed by when their progress lines arrive. What happens once a run (its beginning, starting and stopping the
servers, the report) is booked on the first variant. Before each run a stack is brought up by hand, asked once and taken
down again: whole commands, from their start to the first answer and to their end.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import httpx

STACKS: Final = ("local", "docker")
# By stack; a row that has none here is not held to anything.
GOALS_S: Final = {
    "local": {"first variant, in all": 8.0, "each further one, in all": 3.0},
    "docker": {"up, to the first answer": 10.0, "down": 2.0, "further: reset": 4.0},
}
PROGRAM: Final = str(Path(sys.executable).with_name("ticketbench"))
SCRIPT: Final = Path(__file__).with_name("short.js")
LINE: Final = re.compile(
    r"^\s*[\d.]+ s  (?:\[(?P<trial>\d+)/\d+\] )?(?P<phase>start|reset|warm-up|window|drain|audit|collect|stop)\b"
)
LOAD: Final = ("warm-up", "window", "drain")
# Once a run. "begin" is from the start of the program to its first phase: imports, programs, the plan. "stop" is until
# the program's end, so the report is in it.
ONCE: Final = ("begin", "start", "stop")
# Once a trial. "reset" goes on until k6 has begun; "load" is what its execution took beyond its schedule.
EACH: Final = ("reset", "load", "audit", "collect")


@dataclass(frozen=True)
class Overhead:
    """One run: seconds of each phase that comes once, and of each phase of each trial, less the scheduled load.

    ``up_s`` and ``down_s`` are a stack's that was brought up by hand before it.
    """

    up_s: float
    down_s: float
    once_s: dict[str, float]
    trials_s: tuple[dict[str, float], ...]

    @property
    def first_s(self) -> float:
        """What the first variant took beyond its load, with all that is done once."""
        return sum(self.once_s.values()) + sum(self.trials_s[0].values())

    @property
    def further_s(self) -> tuple[float, ...]:
        """What each further one took."""
        return tuple(sum(trial.values()) for trial in self.trials_s[1:])


@dataclass(frozen=True)
class _Mark:
    at_s: float
    phase: str
    trial: int


def measure(stack: str, variants: int) -> Overhead:
    """Bring a stack up and down, then run once. Raises SystemExit with the program's words where it fails."""
    levels = ",".join(str(5 + number) for number in range(variants))
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "TICKETBENCH_STATE": str(Path(folder) / "state"), "NO_COLOR": "1"}
        by_hand_s = _up_and_down(stack, environment)
        command = [PROGRAM, "run", str(SCRIPT), "--stack", stack, "--vary", f"pool_size={levels}", "-o", folder]
        began_s = time.monotonic()
        said: list[str] = []
        marks = [_Mark(began_s, "begin", 0)]
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
        ) as process:
            for line in process.stderr or ():
                said.append(line)
                if found := LINE.match(line):
                    marks.append(_Mark(time.monotonic(), found["phase"], int(found["trial"] or 0)))
        ended_s = time.monotonic()
        records = list(Path(folder).glob("*/run.json"))
        # 3: on a busy machine the measurement cannot be believed, which is nothing to the time it took
        if process.returncode not in (0, 3) or not records:
            raise SystemExit(f"ticketbench ended with exit code {process.returncode}:\n{''.join(said)}")
        plan = json.loads(records[0].read_text())["plan"]
    scheduled_s = [plan["schedules"][trial["variant"]]["total_s"] for trial in plan["trials"]]
    return _overhead(by_hand_s, marks, ended_s, scheduled_s)


def _up_and_down(stack: str, environment: dict[str, str]) -> tuple[float, float]:
    """Return how long `up` took until the sale's first answer, and how long `down` took."""

    def call(*words: str) -> str:
        done = subprocess.run([PROGRAM, *words], env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"ticketbench {words[0]} ended with exit code {done.returncode}:\n{done.stderr}")
        return done.stdout

    began_s = time.monotonic()
    base_url = json.loads(call("up", "--stack", stack, "--json"))["access"]["base_url"]
    try:
        httpx.get(f"{base_url}/matches", trust_env=False).raise_for_status()
        answered_s = time.monotonic()
    finally:
        asked_s = time.monotonic()
        call("down")
    return answered_s - began_s, time.monotonic() - asked_s


def _overhead(
    by_hand_s: tuple[float, float], marks: Sequence[_Mark], ended_s: float, scheduled_s: Sequence[float]
) -> Overhead:
    once_s = dict.fromkeys(ONCE, 0.0)
    trials_s = [dict.fromkeys(EACH, 0.0) for _ in scheduled_s]
    ends_s = [mark.at_s for mark in marks[1:]] + [ended_s]
    for mark, end_s in zip(marks, ends_s, strict=True):
        phase = "load" if mark.phase in LOAD else mark.phase
        if mark.trial:
            trials_s[mark.trial - 1][phase] += end_s - mark.at_s
        else:
            once_s[phase] += end_s - mark.at_s
    for trial_s, planned_s in zip(trials_s, scheduled_s, strict=True):
        trial_s["load"] -= planned_s
    return Overhead(*by_hand_s, once_s, tuple(trials_s))


def _rows(runs: Sequence[Overhead]) -> Iterable[tuple[str, list[float]]]:
    yield "up, to the first answer", [run.up_s for run in runs]
    yield "down", [run.down_s for run in runs]
    for phase in ONCE:
        yield f"once: {phase}", [run.once_s[phase] for run in runs]
    for phase in EACH:
        yield f"first: {phase}", [run.trials_s[0][phase] for run in runs]
    further_s = [trial for run in runs for trial in run.trials_s[1:]]
    for phase in EACH if further_s else ():
        yield f"further: {phase}", [trial[phase] for trial in further_s]
    yield "first variant, in all", [run.first_s for run in runs]
    if further_s:
        yield "each further one, in all", [taken_s for run in runs for taken_s in run.further_s]


def _table(stack: str, runs: Sequence[Overhead]) -> str:
    lines = [f"{'phase':<28}{'median s':>10}{'lowest':>10}{'highest':>10}{'goal':>8}"]
    for name, found in _rows(runs):
        goal = f"{GOALS_S[stack][name]:g}" if name in GOALS_S[stack] else ""
        lines.append(f"{name:<28}{statistics.median(found):>10.2f}{min(found):>10.2f}{max(found):>10.2f}{goal:>8}")
    return "\n".join(lines)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__.partition("\n")[0])
    parser.add_argument("--stack", choices=STACKS, default=STACKS[0], help="where (local)")
    parser.add_argument("--times", type=int, default=5, help="how many runs (5)")
    parser.add_argument("--variants", type=int, default=3, help="variants of a run (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw figures there as well")
    options = parser.parse_args()
    for name, value in (("times", options.times), ("variants", options.variants)):
        if value < 1:
            parser.error(f"--{name} {value} is not possible: at least 1")
    runs: list[Overhead] = []
    for number in range(options.times):
        runs.append(measure(options.stack, options.variants))
        if options.json is not None:
            options.json.write_text(json.dumps([asdict(run) for run in runs], indent=1) + "\n")
        sys.stderr.write(f"{number + 1} of {options.times} runs\n")
    print(_table(options.stack, runs))
    what = f"{options.times} runs of {options.variants} variants on the {options.stack} stack"
    print(f"{what}; load averages now {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
