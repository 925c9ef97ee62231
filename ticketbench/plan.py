"""From what was asked to a frozen, seeded, ordered Plan. Nothing is started here, and every error is told at once."""

import itertools
import math
import os
import random
import shlex
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from ticketbench import factors, paths
from ticketbench.errors import UsageError
from ticketbench.events import Planned, PlannedTrial
from ticketbench.model import ExternalSystem, Level, Plan, Scenario, Schedule, Trial, Variant

MAX_TRIALS: Final = 1000  # of a whole plan: a month of work is a typing error
MAX_REPETITIONS: Final = 100
MAX_SEED: Final = 2**31 - 1
# The stacks' PostgreSQL takes 300 connections; the sampler, the ledger and the superuser's reserve need some of them.
MAX_CONNECTIONS_OF_TARGET: Final = 280
# For the estimate that is printed, measured on two cores (benchmarks.overhead). What a trial takes beyond its schedule:
# reset, fresh target and k6's start 2.1 s, last answers 0.3 s, audit 0.1 s, collecting 0.9 s.
OVERHEAD_PER_TRIAL_S: Final = 3.4
# What the first trial waits for beside that: servers 1.2 s, and Prometheus to find its targets 2.6 s.
START_S: Final = 4.0
# Taking the stack down, judging and reporting.
CONCLUDE_S: Final = 1.5

FACTORS_HINT: Final = "factors and their levels: ticketbench scenarios show SCENARIO"

# Reads a script under some load parameters: what it says of itself and what it will offer.
Inspect = Callable[[Mapping[str, str]], tuple[Scenario, Schedule]]
LoadEnv = Callable[[Mapping[str, Level]], dict[str, str]]


@dataclass(frozen=True)
class Request:
    """What the user asked for, parsed: one record, however it was said (flags, environment, plan file)."""

    scenario: str
    varied: dict[str, tuple[Level, ...]] = field(default_factory=dict)
    fixed: dict[str, Level] = field(default_factory=dict)
    repetitions: int = 1
    seed: int = 1
    stack: str = "local"
    external: ExternalSystem | None = None


@dataclass(frozen=True)
class PlanFile:
    """A plan file's content; what it does not say is None or empty. ``headers`` may be secrets."""

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


def parse_varied(options: Sequence[str], stack: str | None = None) -> dict[str, tuple[Level, ...]]:
    """Parse ``--vary factor=a,b`` options. Raises UsageError listing every fault."""
    problems: list[str] = []
    varied: dict[str, tuple[Level, ...]] = {}
    for option in options:
        name, equals, text = option.partition("=")
        name = name.strip()
        if not equals or not text.strip():
            problems.append(f"--vary {option!r} is not of the form FACTOR=LEVEL,LEVEL")
        elif name in varied:
            problems.append(f"--vary names factor {name!r} twice")
        elif levels := _levels(f"--vary {option!r}", name, text.split(","), stack, problems):
            varied[name] = levels
    _raise(problems)
    return varied


def parse_fixed(options: Sequence[str], stack: str | None = None) -> dict[str, Level]:
    """Parse ``--set factor=level`` options. Raises UsageError listing every fault."""
    problems: list[str] = []
    fixed: dict[str, Level] = {}
    for option in options:
        name, equals, text = option.partition("=")
        name = name.strip()
        if not equals or not text.strip():
            problems.append(f"--set {option!r} is not of the form FACTOR=LEVEL")
        elif name in fixed:
            problems.append(f"--set names factor {name!r} twice")
        elif levels := _levels(f"--set {option!r}", name, [text], stack, problems):
            fixed[name] = levels[0]
    _raise(problems)
    return fixed


def _levels(
    where: str, name: str, texts: Sequence[str], stack: str | None, problems: list[str]
) -> tuple[Level, ...] | None:
    try:
        factor = factors.get(name, stack)
        levels = tuple(factor.parse(text) for text in texts)
    except UsageError as error:
        problems.append(f"{where}: {error.message}")
    except ValueError as error:
        problems.append(f"{where}: {error}")
    else:
        if len(set(levels)) == len(levels):
            return levels
        problems.append(f"{where} names a level twice")
    return None


def _raise(problems: Sequence[str]) -> None:
    if problems:
        raise UsageError(*problems, hint=FACTORS_HINT)


# --- plan files -------------------------------------------------------------------------------------------------------

_EXTERNAL_KEYS: Final = ("target", "prometheus", "prometheus_mapping", "prometheus_selector")
_KEYS: Final = ("scenario", "trials", "seed", "stack", *_EXTERNAL_KEYS, "headers", "vary", "set", "title")


def bundled_plans() -> tuple[str, ...]:
    """Return the names of the plans that come with ticketbench."""
    folder = paths.data_dir("scenarios") / "plans"
    return tuple(sorted(path.stem for path in folder.glob("*.toml")))


def find_plan(text: str) -> Path:
    """Return the plan file that ``text`` names: a bundled name, or a path. Raises UsageError."""
    if text in bundled_plans():
        return paths.data_dir("scenarios") / "plans" / f"{text}.toml"
    path = Path(text)
    if path.is_file():
        return path
    known = ", ".join(bundled_plans()) or "none"
    raise UsageError(f"--plan {text!r} is neither a file nor a bundled plan: bundled are {known}")


def read_plan_file(path: Path) -> tuple[PlanFile, tuple[str, ...]]:
    """Read a TOML plan; return what could be read of it, and every fault found, each naming file, key and value.

    A scenario given as a relative path is looked for beside the plan. Raises UsageError for what is no TOML at all.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--plan {str(path)!r} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"--plan {str(path)!r} is not TOML: {error}") from error
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
    _typed(raw, "title", str, where, problems)
    external = {key: _typed(raw, key, str, where, problems) for key in _EXTERNAL_KEYS}
    headers = _file_headers(raw, where, problems)
    if scenario is not None and scenario.endswith(".js"):
        scenario = _beside(path, scenario)
    if (mapping := external["prometheus_mapping"]) is not None and mapping.endswith(".toml"):
        external["prometheus_mapping"] = _beside(path, mapping)
    return PlanFile(scenario, varied, chosen, repetitions, seed, stack, **external, headers=headers), tuple(problems)


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
        if isinstance(item, bool):
            texts.append("on" if item else "off")
        elif isinstance(item, (str, int, float)):
            texts.append(str(item))
        else:
            problems.append(f"{where} holds {item!r}, which is no level")
            return None
    return _levels(where, name, texts, None, problems)


# --- building ---------------------------------------------------------------------------------------------------------


def level_text(level: Level) -> str:
    """Return a level as it is typed: ``2``, ``0.5``, ``on``."""
    return f"{level:g}" if isinstance(level, float) else str(level)


def variant_name(levels: Mapping[str, Level]) -> str:
    """Return a variant's name from its varied levels; ``default`` when nothing varies."""
    return ",".join(f"{name}={level_text(level)}" for name, level in levels.items()) or "default"


def build(request: Request, inspect: Inspect, load_env: LoadEnv) -> Plan:
    """Build the plan: every combination of the varied levels, repeated in randomised complete blocks.

    A block holds each variant once, in an order drawn with the seed, so that what drifts over a run (a warming or a
    busier machine) spreads over all variants instead of falling on the last one. Raises UsageError.
    """
    problems = contradictions(request)
    _raise(problems)
    combinations = [
        dict(zip(request.varied, levels, strict=True)) for levels in itertools.product(*request.varied.values())
    ]
    variants: list[Variant] = []
    schedules: dict[str, Schedule] = {}
    inspected: dict[tuple[tuple[str, str], ...], tuple[Scenario, Schedule]] = {}

    def look(levels: Mapping[str, Level]) -> tuple[Scenario, Schedule]:
        env = load_env(levels)
        key = tuple(sorted(env.items()))
        if key not in inspected:
            inspected[key] = inspect(env)
        return inspected[key]

    scenario, _ = look(request.fixed)
    # A level that the stack cannot set is no part of the variant: it would be a claim.
    base = {
        name: level
        for name, level in {**factors.defaults(), **scenario.levels, **request.fixed}.items()
        if request.stack in factors.CATALOGUE[name].stacks
    }
    for combination in combinations:
        levels = {**base, **combination}
        variant = Variant(name=variant_name(combination), levels=levels)
        problems += _impossible(variant)
        variants.append(variant)
        schedules[variant.name] = look(levels)[1]
    _raise(problems)
    return Plan(
        scenario=scenario,
        stack=request.stack,
        variants=tuple(variants),
        reference=variants[0].name,
        varied=request.varied,
        fixed=request.fixed,
        trials=_ordered([variant.name for variant in variants], request.repetitions, request.seed),
        schedules=schedules,
        repetitions=request.repetitions,
        seed=request.seed,
        external=request.external,
    )


def contradictions(request: Request) -> list[str]:
    """Return what cannot be asked for together; it shows before any script is read."""
    both = [name for name in request.varied if name in request.fixed]
    problems = [f"factor {name!r} is both varied and set: choose one" for name in both]
    for name in (*request.varied, *request.fixed):
        try:
            factors.get(name, request.stack)
        except UsageError as error:
            problems.append(error.message)
    variants = math.prod(len(levels) for levels in request.varied.values())
    if variants * request.repetitions > MAX_TRIALS:
        problems.append(
            f"{variants} variants x {request.repetitions} trials are more than {MAX_TRIALS} trials in one run"
        )
    return problems


def _impossible(variant: Variant) -> list[str]:
    levels = variant.levels
    if "pool_size" not in levels:
        return []
    wanted = (int(levels["pool_size"]) + int(levels["max_overflow"])) * int(levels["workers"])
    if wanted <= MAX_CONNECTIONS_OF_TARGET:
        return []
    return [
        f"variant {variant.name!r} wants {wanted} connections ((pool_size + max_overflow) x workers), and PostgreSQL "
        f"has {MAX_CONNECTIONS_OF_TARGET} for the target"
    ]


def _ordered(names: Sequence[str], repetitions: int, seed: int) -> tuple[Trial, ...]:
    order = random.Random(seed)  # noqa: S311 - an order to be repeated, not a secret
    trials: list[Trial] = []
    for repetition in range(1, repetitions + 1):
        block = list(names)
        order.shuffle(block)
        for name in block:
            position = len(trials) + 1
            trials.append(Trial(id=f"{position:03d}", variant=name, repetition=repetition, position=position))
    return tuple(trials)


def planned(plan: Plan, trials: Sequence[Trial] | None = None) -> Planned:
    """Return what measuring ``trials`` (all of the plan, by default) comes to, and how long it will take.

    The stack's start counts to the first trial. A closed model may be done earlier than its schedule says.
    """
    todo = [
        PlannedTrial(trial.position, trial.variant, plan.schedules[trial.variant].total_s + OVERHEAD_PER_TRIAL_S)
        for trial in (plan.trials if trials is None else trials)
    ]
    if todo:
        todo[0] = replace(todo[0], expected_s=todo[0].expected_s + START_S)
    return Planned(
        scenario=plan.scenario.name,
        trials=tuple(todo),
        expected_s=sum(trial.expected_s for trial in todo) + (CONCLUDE_S if todo else 0.0),
        at_most=not all(schedule.open_model for schedule in plan.schedules.values()),
    )


def command(plan: Plan, given: str | None = None) -> str:
    """Return the command that repeats the plan. ``given`` is the script as the user named it.

    It stays so where it is relative to the folder that ticketbench was called in. Any other path would name this
    machine, and becomes ``path/to/own.js``. Of somebody else's system only what is recorded can be named: a host that
    is not this machine is ``HOST``, a header's value ``...``; a mapping of the user's appears by file name only.
    """
    words = ["ticketbench", "run", plan.scenario.name if is_bundled(plan.scenario) else _portable(plan, given)]
    for name, levels in plan.varied.items():
        words += ["--vary", f"{name}={','.join(map(level_text, levels))}"]
    for name, level in plan.fixed.items():
        words += ["--set", f"{name}={level_text(level)}"]
    words += ["--trials", str(plan.repetitions), "--seed", str(plan.seed), "--stack", plan.stack]
    if plan.external is not None:
        words += external_words(plan.external)
    return shlex.join(words)


def external_words(system: ExternalSystem) -> list[str]:
    """Return the options that name the system again, as far as it is recorded."""
    host = "127.0.0.1" if system.where == "loopback" else "HOST"
    words = ["--target", f"{system.scheme}://{host}:{system.port}{system.path}"]
    if system.prometheus is not None:
        words += ["--prometheus", "URL", "--prometheus-mapping", system.mapping]
    for name in system.headers:
        words += ["--header", f"{name}: ..."]
    if "remote" in (system.where, system.prometheus):
        words.append("--allow-remote-target")
    return words


def is_bundled(scenario: Scenario) -> bool:
    """Tell whether a scenario comes with ticketbench, rather than from a script of the user's own."""
    return scenario.script == f"{scenario.name}.js" and not Path(scenario.name).suffix


def _portable(plan: Plan, given: str | None) -> str:
    path = Path(given) if given is not None else None
    if path is None or path.is_absolute() or ".." in path.parts or path.parts[0].startswith("~"):
        return f"path/to/{plan.scenario.script}"
    return path.as_posix()
