"""Cases of parts: each server, the sampler and k6 killed and stopped at each moment."""

import signal
import time
from collections.abc import Iterator
from typing import Final

from tests.faults.case import Case, Wanted, strike
from tests.faults.scene import After, Scene

COMPONENTS: Final = ("postgres", "backend", "redis", "app", "worker", "prometheus", "k6", "sampler")
# How each may be called in a message.
CALLED: Final = {
    "postgres": "postgres", "backend": "postgres", "redis": "redis", "app": "app|the sale", "worker": "app|the sale",
    "prometheus": "prometheus", "k6": "k6", "sampler": "sampler",
}  # fmt: skip
MOMENTS: Final = ("set-up", "warm-up", "window", "tear-down")


def reach(scene: Scene, part: str, moment: str) -> int:
    """Start a run, wait for the moment, and return the pid of the part. Raises AssertionError where it never comes."""
    scene.start()
    if moment == "set-up":
        return scene.await_process(lambda: scene.component(part))
    lines = {"warm-up": " warm-up", "window": " window", "tear-down": " drain" if part == "k6" else " audit"}
    scene.await_line(lines[moment])
    if moment in ("warm-up", "window"):
        time.sleep(1.0)  # well inside of it
    return scene.await_process(lambda: scene.component(part))


def _part_case(part: str, moment: str, signum: signal.Signals) -> Case:
    def play(scene: Scene) -> After:
        strike(scene, reach(scene, part, moment), signum)
        return scene.end()

    # what is hit while or after the ledger is read may no longer matter: a whole trial is then as good as a failed one
    late = moment == "tear-down"
    measured = moment in ("warm-up", "window", "tear-down")
    wanted = Wanted(
        # an ended backend or worker of a server that lives is noticed by what it spoils, or does not spoil
        codes=(4, 0, 3, 1) if late else (4,),
        names="" if late else CALLED[part],
        trial=measured,
        report=measured,
        acks=moment in ("window", "tear-down"),
        ledger=measured and part not in ("postgres", "redis"),
        series=moment in ("window", "tear-down") and part != "prometheus",
    )
    return Case(part, moment, signum.name, play, wanted)


def part_cases() -> Iterator[Case]:
    """Yield each part's death and standstill at each moment."""
    for part in COMPONENTS:
        for moment in MOMENTS:
            if part == "backend" and moment == "set-up":
                continue  # none is there for long enough to be hit
            for signum in (signal.SIGKILL, signal.SIGSTOP):
                yield _part_case(part, moment, signum)
