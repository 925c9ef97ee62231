"""Plan files: what a TOML file asks for, read and checked. Nothing is started here."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from ticketbench import paths
from ticketbench.errors import UsageError
from ticketbench.fault_plan import PlannedFault, read_faults
from ticketbench.levels import parse_levels, toml_text
from ticketbench.model import Level
from ticketbench.row_file import AskedRow, read_rows
from ticketbench.row_plan import beside_rows
from ticketbench.toml_file import read_toml

MAX_REPETITIONS: Final = 100
MAX_SEED: Final = 2**31 - 1

_EXTERNAL_KEYS: Final = ("target", "prometheus", "prometheus_mapping", "prometheus_selector")
_KEYS: Final = (
    "scenario",
    "trials",
    "seed",
    "stack",
    *_EXTERNAL_KEYS,
    "headers",
    "vary",
    "set",
    "title",
    "fault",
    "row",
)


@dataclass(frozen=True)
class PlanFile:
    """A plan file's content; what it does not say is None or empty. ``headers`` may be secrets.

    ``title`` is one line, whatever blanks it was written with.
    """

    scenario: str | None
    varied: dict[str, tuple[Level, ...]]
    fixed: dict[str, Level]
    repetitions: int | None
    seed: int | None
    stack: str | None
    target: str | None = None
    prometheus: str | None = None
    prometheus_mapping: str | None = None
    prometheus_selector: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    title: str = ""
    faults: tuple[PlannedFault, ...] = ()
    rows: tuple[AskedRow, ...] = ()


def bundled_plans() -> tuple[str, ...]:
    """Return the names of the plans that come with ticketbench."""
    folder = paths.data_dir("scenarios") / "plans"
    return tuple(sorted(path.stem for path in folder.glob("*.toml")))


def find_plan(text: str) -> Path:
    """Return the plan file that ``text`` names: a bundled name, or a path. Raises UsageError."""
    if text in bundled_plans():
        return paths.data_dir("scenarios") / "plans" / f"{text}.toml"
    known = ", ".join(bundled_plans()) or "none"
    if not text.strip():
        raise UsageError(f"--plan {text!r} names no plan: bundled are {known}, or give a .toml file")
    path = Path(text)
    paths.require_reachable(path, "--plan")
    if path.is_file():
        return path
    raise UsageError(f"--plan {text!r} is neither a file nor a bundled plan: bundled are {known}")


def read_plan_file(path: Path) -> tuple[PlanFile, tuple[str, ...]]:
    """Read a TOML plan; return what could be read of it, and every fault found, each naming file, key and value.

    A scenario given as a relative path is looked for beside the plan. Raises UsageError for what is no TOML at all.
    """
    raw, _ = read_toml(path, f"--plan {str(path)!r}")
    where = f"plan {path.name}"
    problems = [f"{where}: there is no key {key!r}: known are {', '.join(_KEYS)}" for key in raw if key not in _KEYS]
    vary = _table(raw, "vary", where, problems)
    fixed = _table(raw, "set", where, problems)
    varied = {
        name: levels
        for name, value in vary.items()
        if (levels := _file_levels(f"{where}: vary.{name}", name, value, many=True, problems=problems))
    }
    chosen = {
        name: levels[0]
        for name, value in fixed.items()
        if (levels := _file_levels(f"{where}: set.{name}", name, value, many=False, problems=problems))
    }
    scenario = _typed(raw, "scenario", str, where, problems)
    repetitions = _typed(raw, "trials", int, where, problems)
    if repetitions is not None and not 1 <= repetitions <= MAX_REPETITIONS:
        problems.append(f"{where}: trials = {repetitions} is not possible: a whole number from 1 to {MAX_REPETITIONS}")
    seed = _typed(raw, "seed", int, where, problems)
    if seed is not None and not 0 <= seed <= MAX_SEED:
        problems.append(f"{where}: seed = {seed} is not possible: a whole number from 0 to {MAX_SEED}")
    stack = _typed(raw, "stack", str, where, problems)
    title = " ".join((_typed(raw, "title", str, where, problems) or "").split())
    external = {key: _typed(raw, key, str, where, problems) for key in _EXTERNAL_KEYS}
    headers = _file_headers(raw, where, problems)
    if scenario is not None and scenario.endswith(".js"):
        scenario = _beside(path, scenario)
    if (mapping := external["prometheus_mapping"]) is not None and mapping.endswith(".toml"):
        external["prometheus_mapping"] = _beside(path, mapping)
    faults = read_faults(raw.get("fault", []), where, problems)
    rows = tuple(
        replace(asked, scenario=_beside(path, asked.scenario)) if asked.scenario.endswith(".js") else asked
        for asked in read_rows(raw.get("row", []), where, problems)
    )
    if raw.get("row"):
        problems += beside_rows(
            where, {"scenario": "scenario" in raw, "[vary]": "vary" in raw, "[[fault]]": "fault" in raw}
        )
    file = PlanFile(
        scenario, varied, chosen, repetitions, seed, stack, **external, headers=headers, title=title, faults=faults,
        rows=rows,
    )  # fmt: skip
    return file, tuple(problems)


def _beside(plan: Path, name: str) -> str:
    return name if Path(name).is_absolute() else str(plan.parent / name)


def _file_headers(raw: Mapping[str, Any], where: str, problems: list[str]) -> dict[str, str]:
    """Return the headers of a plan file, ``{ env = "NAME" }`` replaced; no message holds a value."""
    table = raw.get("headers", {})
    if not isinstance(table, dict):
        problems.append(f"{where}: headers is not a table of names and values")
        return {}
    headers: dict[str, str] = {}
    for name, value in table.items():
        if isinstance(value, str):
            headers[name] = value
        elif isinstance(value, dict) and value.keys() == {"env"} and isinstance(value["env"], str):
            if (found := os.environ.get(value["env"])) is None:
                problems.append(f"{where}: headers.{name} takes the variable {value['env']}, which is not set")
            else:
                headers[name] = found
        else:
            problems.append(f'{where}: headers.{name} is neither text nor {{ env = "VARIABLE" }}')
    return headers


def _table(raw: Mapping[str, Any], key: str, where: str, problems: list[str]) -> dict[str, Any]:
    value = raw.get(key, {})
    if isinstance(value, dict):
        return value
    problems.append(f"{where}: {key} = {value!r} is not a table of factors")
    return {}


def _typed(raw: Mapping[str, Any], key: str, kind: type, where: str, problems: list[str]) -> Any:
    value = raw.get(key)
    if value is None or (isinstance(value, kind) and not isinstance(value, bool)):
        return value
    problems.append(f"{where}: {key} = {value!r} is not {'text' if kind is str else 'a whole number'}")
    return None


def _file_levels(where: str, name: str, value: object, *, many: bool, problems: list[str]) -> tuple[Level, ...] | None:
    values = value if many and isinstance(value, list) else [value]
    if (many and not isinstance(value, list)) or not values:
        problems.append(f"{where} = {value!r} is not a list of levels")
        return None
    texts = []
    for item in values:
        if (text := toml_text(item)) is None:
            problems.append(f"{where} holds {item!r}, which is no level")
            return None
        texts.append(text)
    return parse_levels(where, name, texts, None, problems)
