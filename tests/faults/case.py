"""What a case is: what is broken, when, what must follow, and how its end is judged."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tests.faults.scene import After, Scene

# The longest patience that ticketbench has with a part that is stopped is that of its clients and of its endings; one
# that is dead is noticed at once. Every case must be over by then, counted from the fault.
BOUND_S: Final = 60.0

# Of a run that nothing broke. On a machine that others keep busy its figures may miss an SLO or not be believed.
WHOLE: Final = (0, 1, 3)


class NotHereError(Exception):
    """The case cannot be tried on this machine; the text says why."""


@dataclass
class Wanted:
    """What must follow. ``codes``: allowed exit codes. ``names``: a pattern that the message must hold."""

    codes: tuple[int, ...]
    names: str = ""
    trial: bool = False
    report: bool = False
    series: bool = False
    ledger: bool = False
    acks: bool = False
    left: bool = False
    messages: int | None = None  # None: one, unless the code says that nothing failed
    bound_s: float = BOUND_S


@dataclass
class Case:
    """A fault: ``part``, ``moment`` and ``fault`` are the row's first columns; ``play`` does it and returns the end."""

    part: str
    moment: str
    fault: str
    play: Callable[[Scene], After]
    wanted: Wanted
    checks: list[Callable[[Scene, After], str | None]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What it is selected by: ``postgres/window/SIGKILL``."""
        return f"{self.part}/{self.moment}/{self.fault}".replace(" ", "-")


def judge(case: Case, after: After) -> list[str]:
    """Return what was not as it must be; empty where all was."""
    wanted = case.wanted
    wrong = []
    if after.code is None:
        wrong.append("it never ended")
    elif after.code not in wanted.codes:
        wrong.append(f"exit code {after.code}, not {' or '.join(map(str, wanted.codes))}")
    if after.seconds > wanted.bound_s:
        wrong.append(f"it took {after.seconds:.0f} s to end")
    if "Traceback" in after.err:
        wrong.append("a traceback")
    messages = wanted.messages if wanted.messages is not None else int(after.code not in (0, 1, 3))
    if len(after.messages) != messages:
        wrong.append(f"{len(after.messages)} messages")
    told = " ".join(after.messages).lower()
    if wanted.names and not _matches(wanted.names, told):
        wrong.append(f"the message does not name {wanted.names}")
    if after.left and not wanted.left:
        wrong.append(f"left behind: {'; '.join(after.left)}")
    wrong += _lost(wanted, after)
    return wrong


def _matches(pattern: str, text: str) -> bool:
    return any(word in text for word in pattern.lower().split("|"))


def _lost(wanted: Wanted, after: After) -> list[str]:
    """Return what should have been kept and was not."""
    lost = []
    if wanted.trial and not after.trials:
        lost.append("no trial was kept")
    if wanted.report and not any(name.endswith("report.html") for name in after.reports):
        lost.append("no report was written")
    for wish, name in ((wanted.series, "series"), (wanted.ledger, "ledger"), (wanted.acks, "acks")):
        if wish and not any(name in files for files in after.kept.values()):
            lost.append(f"no {name} were kept")
    return lost


def strike(scene: Scene, pid: int, signum: signal.Signals) -> None:
    """Send the signal and note the time."""
    scene.fault_s = time.monotonic()
    os.kill(pid, signum)
