"""The options of ``ticketbench run``: flags, variables and plan file become one request, or all of their faults."""

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ticketbench import plan as planning
from ticketbench import row_plan, scenario
from ticketbench.cli.external import ExternalOptions, refuse_elsewhere, system_of, words_again
from ticketbench.errors import UsageError
from ticketbench.fault_plan import PlannedFault, parse_faults
from ticketbench.levels import FACTORS_HINT, parse_fixed, parse_varied
from ticketbench.model import Level
from ticketbench.plan_file import MAX_REPETITIONS, MAX_SEED, PlanFile, bundled_plans, find_plan, read_plan_file
from ticketbench.stack.external import System

STACKS: Final = (planning.AUTO, "docker", "local", "external")

_VARIABLES: Final = {
    "trials": "TICKETBENCH_TRIALS",
    "seed": "TICKETBENCH_SEED",
    "stack": "TICKETBENCH_STACK",
    "output": "TICKETBENCH_OUTPUT",
}
NO_PLAN: Final = PlanFile(None, {}, {}, None, None, None)
_FLAGS: Final = {"trials": "--trials", "seed": "--seed", "stack": "--stack", "output": "-o"}


@dataclass(frozen=True)
class RunOptions:
    """The options of ``ticketbench run``, as given; None where nothing was said.

    ``from_variables`` names those that a variable of the environment gave, so that a fault can be told where it is.
    """

    scenario: str | None
    vary: tuple[str, ...]
    fixed: tuple[str, ...]
    plan: str | None
    trials: str | None
    seed: str | None
    stack: str | None
    output: str | None
    keep: bool
    as_json: bool
    resume: str | None = None
    from_variables: frozenset[str] = frozenset()
    external: ExternalOptions = field(default_factory=ExternalOptions)
    faults: tuple[str, ...] = ()

    def said(self, option: str) -> str:
        """Return the name under which an option was given: its flag, or its variable."""
        return _VARIABLES[option] if option in self.from_variables else _FLAGS[option]


@dataclass(frozen=True)
class Asked:
    """What is asked for, and its script. ``system`` is somebody else's to be measured, None on a stack of our own.

    ``system_words`` are the options that name that system again on this terminal, wherever they were given.
    ``row_scripts`` are those of a plan with rows, by row; ``script`` is the first of them.
    """

    request: planning.Request
    script: Path
    system: System | None
    system_words: tuple[str, ...]
    row_scripts: dict[str, Path] = field(default_factory=dict)


def request_of(options: RunOptions) -> Asked:
    """Join flags, environment and plan file, in that precedence.

    Raises UsageError listing every fault, of whichever of the three, before any program is started.
    """
    problems: list[str] = []
    file = _plan_file(options, problems)
    varied: dict[str, tuple[Level, ...]] = {}
    fixed: dict[str, Level] = {}
    try:
        varied = parse_varied(options.vary)
    except UsageError as error:
        problems += error.problems
    try:
        fixed = parse_fixed(options.fixed)
    except UsageError as error:
        problems += error.problems
    faults: tuple[PlannedFault, ...] = ()
    try:
        faults = parse_faults(options.faults)
    except UsageError as error:
        problems += error.problems
    trials = _whole(options.said("trials"), options.trials, 1, MAX_REPETITIONS, problems)
    seed = _whole(options.said("seed"), options.seed, 0, MAX_SEED, problems)
    row_scripts = _row_scripts(options, file, problems)
    script = next(iter(row_scripts.values()), None) if file and file.rows else _script(options, file, problems)
    if options.output is not None and not options.output.strip():
        problems.append(f"{options.said('output')} {options.output!r} names no folder")
    elif options.output is not None and not options.output.isprintable():
        problems.append(f"{options.said('output')} {options.output!r} holds control characters: the path is printed")
    file = file or NO_PLAN
    system = _system(options, file, problems)
    # A factor given on the command line replaces what the plan file says of it, varied or set.
    said = varied.keys() | fixed.keys()
    request = planning.Request(
        scenario=options.scenario or file.scenario or "",
        varied={**{k: v for k, v in file.varied.items() if k not in said}, **varied},
        fixed={**{k: v for k, v in file.fixed.items() if k not in said}, **fixed},
        repetitions=next(value for value in (trials, file.repetitions, 1) if value is not None),
        seed=next(value for value in (seed, file.seed, 1) if value is not None),
        stack=_stack(options, file) if system is None else "external",
        external=None if system is None else system.record(),
        title=file.title,
        faults=faults or file.faults,
        rows=tuple(asked.without(said) for asked in file.rows),
        rows_from=_plan_word(options) if file.rows else "",
    )
    problems += planning.contradictions(request)
    if problems or script is None:
        raise UsageError(*problems, hint=FACTORS_HINT if "factor" in " ".join(problems) else "")
    words = () if system is None else words_again(options.external, file)
    return Asked(request, script, system, words, row_scripts)


def _plan_file(options: RunOptions, problems: list[str]) -> PlanFile | None:
    """Return what the plan file says, an empty one where there is none, and None where it cannot be read at all."""
    if options.plan is None:
        return NO_PLAN
    try:
        file, faults = read_plan_file(find_plan(options.plan))
    except UsageError as error:
        problems += error.problems
        return None
    problems += faults
    return file


def _row_scripts(options: RunOptions, file: PlanFile | None, problems: list[str]) -> dict[str, Path]:
    """Return the script of each row; what cannot be said beside rows is refused."""
    if file is None or not file.rows:
        return {}
    said = {
        f"SCENARIO {options.scenario}": options.scenario is not None,
        "--vary": bool(options.vary),
        "--fault": bool(options.faults),
    }
    problems += row_plan.beside_rows(f"--plan {options.plan}", said)
    return row_plan.scripts_of(file.rows, scenario.find, problems)


def _plan_word(options: RunOptions) -> str:
    """Return the plan file as a command may name it anywhere."""
    named = options.plan or ""
    return named if named in bundled_plans() else planning.portable(named, Path(named).name)


def _script(options: RunOptions, file: PlanFile | None, problems: list[str]) -> Path | None:
    said, name = "SCENARIO", options.scenario
    if name is None:
        if file is None:
            return None  # the plan that would name it cannot be read, and that is told
        said, name = f"{options.plan}: scenario", file.scenario
    if name is None:
        problems.append(f"SCENARIO is missing: bundled are {', '.join(scenario.bundled())}, or give a .js file")
        return None
    try:
        return scenario.find(name, said)
    except UsageError as error:
        problems += error.problems
        return None


def _stack(options: RunOptions, file: PlanFile) -> str:
    return options.stack or file.stack or planning.AUTO


def _system(options: RunOptions, file: PlanFile, problems: list[str]) -> System | None:
    """Return the system of somebody else's that is asked for, None on a stack of our own or where it has faults."""
    stack = _stack(options, file)
    if stack not in STACKS:
        said = options.said("stack") if options.stack else f"{options.plan}: stack"
        problems.append(f"{said} {stack!r} is not known: known are {', '.join(STACKS)}")
        return None
    if stack != "external":
        refuse_elsewhere(options.external, file, stack, problems)
        return None
    if options.keep:
        problems.append("--keep has nothing to keep on the external stack: the system is not ours")
    faults: list[str] = []
    system = system_of(options.external, file, faults)
    problems += faults
    return system


def _whole(said: str, text: str | None, low: int, high: int, problems: list[str]) -> int | None:
    """Return the whole number that an option was given, None where it was not given or is none (then in problems)."""
    if text is None:
        return None
    with contextlib.suppress(ValueError):  # Python makes no number of thousands of digits
        if text.strip().isdecimal() and low <= int(text) <= high:
            return int(text)
    problems.append(f"{said} {text!r} is not possible: it takes a whole number from {low} to {high}")
    return None
