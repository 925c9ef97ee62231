"""Planned faults: what is done to which component at which second of the window, as it is asked for and recorded.

Written ``pause redis at 10 for 3``, or as a table ``[[fault]]`` of a plan file with the same words as keys.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, get_args

from ticketbench.errors import UsageError
from ticketbench.record import Record
from ticketbench.toml_file import tables, unknown_keys

Action = Literal["pause", "kill", "restart", "disconnect", "cpu"]
ACTIONS: Final[tuple[str, ...]] = get_args(Action)
# What a fault may be done to: the system under test, and the provider that it asks for its money. Whoever offers the
# load or measures it is left alone.
SALES: Final = ("app", *(f"app-{number}" for number in range(2, 9)))
COMPONENTS: Final = (*SALES, "postgres", "redis", "pgbouncer", "haproxy", "worker", "payment")
FORM: Final = "ACTION COMPONENT [to CORES] at SECONDS [for SECONDS]"
# Those that go on until they are undone; a restart is over by itself.
LASTING: Final = ("pause", "disconnect", "cpu")
MOST_FAULTS: Final = 50
MOST_S: Final = 86_400.0
MOST_CORES: Final = 1024.0

_WORDS: Final = re.compile(
    r"\s*(?P<do>\S+)\s+(?P<component>\S+)(?:\s+to\s+(?P<to>\S+))?\s+at\s+(?P<at>\S+)(?:\s+for\s+(?P<for>\S+))?\s*"
)
_KEYS: Final = ("do", "component", "to", "at", "for")


class PlannedFault(Record):
    """One fault: ``at_s`` counts from the window's begin, ``for_s`` until it is undone.

    ``pause``: every process of the component stands still. ``kill``: SIGKILL, and after ``for_s`` it is started again.
    ``restart``: it is asked to end, and started again. ``disconnect``: its network is unplugged. ``cpu``: it gets no
    more than ``cores`` (None for the others).
    """

    action: Action
    component: str
    at_s: float
    for_s: float = 0.0
    cores: float | None = None

    @property
    def text(self) -> str:
        """The fault as it is typed."""
        to = "" if self.cores is None else f" to {self.cores:g}"
        lasting = f" for {self.for_s:g}" if self.for_s else ""
        return f"{self.action} {self.component}{to} at {self.at_s:g}{lasting}"

    @property
    def end_s(self) -> float:
        """When it is undone, in seconds of the window."""
        return self.at_s + self.for_s


class CarriedFault(Record):
    """A planned fault as it was carried out: Unix seconds, None for what did not come to pass.

    ``began_s``: it was done. ``ended_s``: it was undone (let go on, started again, plugged in). ``answered_s``: the
    component gave a real answer again. ``problem`` says why not, where something went wrong.
    """

    fault: PlannedFault
    began_s: float | None = None
    ended_s: float | None = None
    answered_s: float | None = None
    problem: str = ""


def parse_faults(options: Sequence[str]) -> tuple[PlannedFault, ...]:
    """Read ``--fault`` options. Raises UsageError listing every fault of theirs."""
    problems: list[str] = []
    found = []
    for option in options:
        where = f"--fault {option!r}"
        matched = _WORDS.fullmatch(option)
        if matched is None:
            problems.append(f"{where} is not of the form {FORM}, as in 'pause redis at 10 for 3'")
        elif (fault := _fault(where, matched.groupdict(), problems)) is not None:
            found.append(fault)
    problems += _too_many("--fault", found)
    if problems:
        raise UsageError(*problems)
    return tuple(found)


def read_faults(raw: object, where: str, problems: list[str]) -> tuple[PlannedFault, ...]:
    """Read a plan file's ``[[fault]]`` tables; ``where`` names the file. What has a problem is left out."""
    found = []
    for number, table in enumerate(tables(raw, where, "fault", "[[fault]]", problems), 1):
        named = f"{where}: fault {number}"
        unknown = unknown_keys(table, _KEYS, named)
        problems += unknown
        missing = [key for key in ("do", "component", "at") if key not in table]
        problems += [f"{named} lacks {key}, as in {key} = {_EXAMPLE[key]}" for key in missing]
        if not unknown and not missing and (fault := _fault(named, table, problems)) is not None:
            found.append(fault)
    problems += _too_many(f"{where}: fault", found)
    return tuple(found)


_EXAMPLE: Final = {"do": '"pause"', "component": '"redis"', "at": "10"}


def _too_many(where: str, found: Sequence[PlannedFault]) -> list[str]:
    if len(found) > MOST_FAULTS:
        return [f"{where}: {len(found)} faults are more than {MOST_FAULTS} in one run"]
    return []


def _fault(where: str, said: Mapping[str, Any], problems: list[str]) -> PlannedFault | None:
    before = len(problems)
    action, component = said["do"], said["component"]
    if action not in ACTIONS:
        problems.append(f"{where}: {action!r} is no fault: known are {', '.join(ACTIONS)}")
    if component not in COMPONENTS:
        problems.append(f"{where}: {component!r} is no component that a fault is done to: known are {_known()}")
    at_s = _number(f"{where}: at", said["at"], 0.0, MOST_S, "seconds", problems)
    for_s = _length(where, action, said.get("for"), problems)
    cores = _cores(where, action, said.get("to"), problems)
    if len(problems) > before:
        return None
    return PlannedFault(action=action, component=component, at_s=at_s or 0.0, for_s=for_s, cores=cores)


def _known() -> str:
    return "app (app-2 to app-8 where there are replicas), " + ", ".join(
        name for name in COMPONENTS if not name.startswith("app")
    )


def _length(where: str, action: object, raw: object, problems: list[str]) -> float:
    if raw is None:
        if action in LASTING:
            problems.append(f"{where}: {action} needs for SECONDS: it is undone after that")
        return 0.0
    if action == "restart":
        problems.append(f"{where}: restart takes no for: it is over when the component is up again")
        return 0.0
    return _number(f"{where}: for", raw, 0.1, MOST_S, "seconds", problems) or 0.0


def _cores(where: str, action: object, raw: object, problems: list[str]) -> float | None:
    if action == "cpu" and raw is None:
        problems.append(f"{where}: cpu needs to CORES, as in 'cpu postgres to 0.25 at 10 for 5'")
    if raw is None:
        return None
    if action != "cpu":
        problems.append(f"{where}: only cpu takes to CORES")
        return None
    return _number(f"{where}: to", raw, 0.01, MOST_CORES, "cores", problems)


def _number(where: str, raw: object, low: float, high: float, unit: str, problems: list[str]) -> float | None:
    value = math.nan
    if (isinstance(raw, (int, float)) and not isinstance(raw, bool)) or (
        isinstance(raw, str) and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", raw)
    ):
        value = float(raw)
    if low <= value <= high:
        return value
    problems.append(f"{where} {raw!r} is not possible: it takes {unit} from {low:g} to {high:g}")
    return None
