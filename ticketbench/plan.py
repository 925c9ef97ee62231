"""From what was asked to a frozen, seeded, ordered Plan. Nothing is started here, and every error is told at once."""

import itertools
import math
import random
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from ticketbench import factors, fault_rules, row_plan
from ticketbench.errors import UsageError
from ticketbench.events import Planned, PlannedTrial
from ticketbench.fault_plan import PlannedFault
from ticketbench.levels import FACTORS_HINT, level_text
from ticketbench.model import PLACEHOLDER, ExternalSystem, Level, Plan, Scenario, Schedule, Trial, Variant
from ticketbench.row_file import AskedRow

AUTO: Final = "auto"
MAX_TRIALS: Final = 1000  # of a whole plan: a month of work is a typing error
# The stacks' PostgreSQL takes 300 connections; the sampler, the ledger and the superuser's reserve need some of them.
MAX_CONNECTIONS_OF_TARGET: Final = 280
# For the estimate that is printed, measured on two cores (benchmarks.overhead). What a trial takes beyond its schedule:
# reset, fresh target and k6's start 1.5 s, last answers 0.3 s, audit 0.1 s, collecting 0.8 s.
OVERHEAD_PER_TRIAL_S: Final = 2.7
# What the first trial waits for beside that: servers and sampler 1.2 s, and the seed 1.9 s.
START_S: Final = 3.1
# The same on the Docker stack, where each container takes the engine 0.5 s, k6's too.
OVERHEAD_PER_TRIAL_DOCKER_S: Final = 6.0
START_DOCKER_S: Final = 6.0
# Taking the stack down, judging and reporting.
CONCLUDE_S: Final = 0.8

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
    stack: str = "local"  # AUTO until it is known which one can be had
    external: ExternalSystem | None = None
    title: str = ""
    faults: tuple[PlannedFault, ...] = ()
    rows: tuple[AskedRow, ...] = ()
    rows_from: str = ""


def variant_name(levels: Mapping[str, Level]) -> str:
    """Return a variant's name from its varied levels; ``default`` when nothing varies."""
    return ",".join(f"{name}={level_text(level)}" for name, level in levels.items()) or "default"


def build(request: Request, inspect: Inspect, load_env: LoadEnv) -> Plan:
    """Build the plan: every combination of the varied levels, repeated in randomised complete blocks.

    A block holds each variant once, in an order drawn with the seed, so that what drifts over a run (a warming or a
    busier machine) spreads over all variants instead of falling on the last one. Raises UsageError.
    """
    problems = contradictions(request)
    if problems:
        raise UsageError(*problems, hint=FACTORS_HINT)
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
    problems += fault_rules.impossible(request.faults, request.stack, variants, schedules)
    if problems:
        raise UsageError(*problems, hint=FACTORS_HINT)
    return Plan(
        title=request.title,
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
        faults=request.faults,
    )


def build_rows(request: Request, inspect: row_plan.InspectRow) -> Plan:
    """Build the plan of rows: a variant each, in randomised blocks as :func:`build` makes them. Raises UsageError."""
    if problems := contradictions(request):
        raise UsageError(*problems, hint=FACTORS_HINT)
    built = row_plan.build_rows(request.rows, request.fixed, request.stack, inspect)
    if problems := [problem for variant in built.variants for problem in _impossible(variant)]:
        raise UsageError(*problems, hint=FACTORS_HINT)
    names = [variant.name for variant in built.variants]
    return Plan(
        title=request.title,
        scenario=built.scenarios[names[0]],
        stack=request.stack,
        variants=built.variants,
        reference=names[0],
        varied={},
        fixed=request.fixed,
        trials=_ordered(names, request.repetitions, request.seed),
        schedules=built.schedules,
        repetitions=request.repetitions,
        seed=request.seed,
        external=request.external,
        rows=tuple(asked.row for asked in request.rows),
        row_scenarios=built.scenarios,
        rows_from=request.rows_from,
    )


def contradictions(request: Request) -> list[str]:
    """Return what cannot be asked for together; it shows before any script is read."""
    both = [name for name in request.varied if name in request.fixed]
    problems = [f"factor {name!r} is both varied and set: choose one" for name in both]
    for name in (*request.varied, *request.fixed):
        try:
            factors.get(name, None if request.stack == AUTO else request.stack)
        except UsageError as error:
            problems.append(error.message)
    variants = len(request.rows) or math.prod(len(levels) for levels in request.varied.values())
    if variants * request.repetitions > MAX_TRIALS:
        problems.append(
            f"{variants} variants x {request.repetitions} trials are more than {MAX_TRIALS} trials in one run"
        )
    return problems


def _impossible(variant: Variant) -> list[str]:
    levels = variant.levels
    if "pool_size" not in levels:
        return []
    # whoever says how many connections there are means to see them used up
    asked_for = levels.get("db_max_connections") != factors.get("db_max_connections").default
    if asked_for or levels.get("pooler") == "pgbouncer":
        return []
    processes = factors.processes(levels) + factors.queue_workers(levels)
    wanted = (int(levels["pool_size"]) + int(levels["max_overflow"])) * processes
    if wanted <= MAX_CONNECTIONS_OF_TARGET:
        return []
    return [
        f"variant {variant.name!r} wants {wanted} connections ((pool_size + max_overflow) x "
        f"{'(workers x replicas + queue_workers)' if factors.queued(levels) else 'workers x replicas'}), and "
        f"PostgreSQL has {MAX_CONNECTIONS_OF_TARGET} for the target; set db_max_connections, or pooler=pgbouncer"
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
    docker = plan.stack == "docker"
    beyond_s = OVERHEAD_PER_TRIAL_DOCKER_S if docker else OVERHEAD_PER_TRIAL_S
    todo = [
        PlannedTrial(trial.position, trial.variant, plan.schedules[trial.variant].total_s + beyond_s)
        for trial in (plan.trials if trials is None else trials)
    ]
    if todo:
        todo[0] = replace(todo[0], expected_s=todo[0].expected_s + (START_DOCKER_S if docker else START_S))
    return Planned(
        scenario=plan.scenario_names,
        trials=tuple(todo),
        expected_s=sum(trial.expected_s for trial in todo) + (CONCLUDE_S if todo else 0.0),
        at_most=not all(schedule.open_model for schedule in plan.schedules.values()),
    )


def command(plan: Plan, given: str | None = None) -> str:
    """Return the command that repeats the plan. ``given`` is the script as the user named it.

    It stays so where it is relative to the folder that ticketbench was called in. Any other path would name this
    machine, and becomes ``path/to/own.js``. Of somebody else's system only what is recorded can be named: a host that
    is not this machine is ``HOST``, a header's value ``<value>``; a mapping of the user's appears by file name only.
    """
    if plan.rows:
        words = ["ticketbench", "run", "--plan", plan.rows_from or "path/to/plan.toml"]
    else:
        words = ["ticketbench", "run", script_word(plan, given)]
    for name, levels in plan.varied.items():
        words += ["--vary", f"{name}={','.join(map(level_text, levels))}"]
    for name, level in ({} if plan.rows else plan.fixed).items():
        words += ["--set", f"{name}={level_text(level)}"]
    words += fault_words(plan.faults)
    words += ["--trials", str(plan.repetitions), "--seed", str(plan.seed), "--stack", plan.stack]
    if plan.external is not None:
        words += external_words(plan.external)
    return shlex.join(words)


def fault_words(faults: Iterable[PlannedFault]) -> list[str]:
    """Return the options that plan these faults again."""
    return [word for fault in faults for word in ("--fault", fault.text)]


def external_words(system: ExternalSystem) -> list[str]:
    """Return the options that name the system again, as far as it is recorded; none for what a variable gave."""
    words = ["--target", target_word(system)]
    if system.prometheus is not None:
        words += ["--prometheus", "URL", "--prometheus-mapping", system.mapping]
    words += header_words(name for name in system.headers if name not in system.headers_from_variable)
    if "remote" in (system.where, system.prometheus):
        words.append("--allow-remote-target")
    return words


def target_word(system: ExternalSystem) -> str:
    """Return the system's address as far as it is recorded; a host that is not this machine is ``HOST``."""
    host = "127.0.0.1" if system.where == "loopback" else "HOST"
    return f"{system.scheme}://{host}:{system.port}{system.path}"


def header_words(names: Iterable[str]) -> list[str]:
    """Return the options that give these headers again. Their values are nowhere: :data:`PLACEHOLDER` stands there."""
    return [word for name in names for word in ("--header", f"{name}: {PLACEHOLDER}")]


def is_bundled(scenario: Scenario) -> bool:
    """Tell whether a scenario comes with ticketbench, rather than from a script of the user's own."""
    return scenario.script == f"{scenario.name}.js" and not Path(scenario.name).suffix


def script_word(plan: Plan, given: str | None) -> str:
    """Return how a command names the plan's scenario; ``given`` as in :func:`command`."""
    return plan.scenario.name if is_bundled(plan.scenario) else portable(given or "", plan.scenario.script)


def portable(given: str, name: str) -> str:
    """Return the path ``given`` where it is below the folder it was given in, else ``path/to/`` and ``name``."""
    path = Path(given)
    if not path.parts or path.is_absolute() or ".." in path.parts or path.parts[0].startswith("~"):
        return f"path/to/{name}"
    return path.as_posix()
