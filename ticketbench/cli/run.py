"""``ticketbench run``: from options to a plan, through the runner, to a report and an exit code."""

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ticketbench import binaries as binaries_module
from ticketbench import factors, interrupts, paths, runner, scenario, store
from ticketbench import plan as planning
from ticketbench.analysis.analyse import exit_code
from ticketbench.cli import output, verdict
from ticketbench.cli.runs import DEFAULT_FORMATS, print_json
from ticketbench.errors import EXIT_OK, TicketbenchError, UsageError, worst
from ticketbench.events import Emit
from ticketbench.model import Plan
from ticketbench.report.write import write
from ticketbench.stack.local import LocalStack

STACKS = ("auto", "local")


@dataclass(frozen=True)
class RunOptions:
    """The options of ``ticketbench run``, as given; None where nothing was said."""

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


def request_of(options: RunOptions) -> planning.Request:
    """Join flags, environment and plan file, in that precedence. Raises UsageError listing every fault."""
    file = planning.PlanFile(None, {}, {}, None, None, None)
    if options.plan is not None:
        file = planning.read_plan_file(planning.find_plan(options.plan))
    problems: list[str] = []
    varied: dict[str, Any] = {}
    fixed: dict[str, Any] = {}
    try:
        varied = planning.parse_varied(options.vary)
    except UsageError as error:
        problems += error.problems
    try:
        fixed = planning.parse_fixed(options.fixed)
    except UsageError as error:
        problems += error.problems
    trials = _whole("--trials", options.trials, 1, planning.MAX_REPETITIONS, problems)
    seed = _whole("--seed", options.seed, 0, planning.MAX_SEED, problems)
    name = options.scenario or file.scenario
    if name is None:
        problems.append(f"SCENARIO is missing: bundled are {', '.join(scenario.bundled())}, or give a .js file")
    if options.output is not None and not options.output.strip():
        problems.append(f"-o {options.output!r} names no folder")
    stack = options.stack or file.stack or "auto"
    if stack not in STACKS:
        problems.append(f"--stack {stack!r} is not known: known are {', '.join(STACKS)}")
    if problems or name is None:
        raise UsageError(*problems)
    # A factor given on the command line replaces what the plan file says of it, varied or set.
    said = varied.keys() | fixed.keys()
    return planning.Request(
        scenario=name,
        varied={**{k: v for k, v in file.varied.items() if k not in said}, **varied},
        fixed={**{k: v for k, v in file.fixed.items() if k not in said}, **fixed},
        repetitions=next(value for value in (trials, file.repetitions, 1) if value is not None),
        seed=next(value for value in (seed, file.seed, 1) if value is not None),
        stack="local",  # auto: this version has one stack
    )


def _whole(option: str, text: str | None, low: int, high: int, problems: list[str]) -> int | None:
    """Return the whole number that an option was given, None where it was not given or is none (then in problems)."""
    if text is None:
        return None
    if text.strip().isdecimal() and low <= int(text) <= high:
        return int(text)
    problems.append(f"{option} {text!r} is not possible: it takes a whole number from {low} to {high}")
    return None


def _plan(request: planning.Request, script: Path, k6: Path) -> Plan:
    k6_command = (str(k6),)
    load_factors = [n for n in (*request.varied, *request.fixed) if factors.get(n).scope == "load"]
    ignored = scenario.unused(k6_command, script, load_factors)
    if ignored:
        raise UsageError(
            *(f"scenario {script.name!r} does not use {name!r}, so it cannot be varied or set" for name in ignored),
            hint="load factors reach a script as __ENV.RATE, DURATION, VUS and HOT_SHARE",
        )
    return planning.build(request, lambda env: scenario.inspect(k6_command, script, env), scenario.load_env)


def run(options: RunOptions) -> int:
    """Run a plan and report on it; return the exit code. Whatever was measured is reported, also after a failure."""
    request = request_of(options)
    script = scenario.find(request.scenario)
    emit: Emit = output.Lines()
    with interrupts.raised():
        provided = binaries_module.provide(emit)
        plan = _plan(request, script, provided.k6)
        parent = Path(options.output) if options.output else paths.default_reports_dir()
        directory = store.reserve(parent, store.run_id(plan.scenario.name, datetime.now(UTC)))
        _announce(plan, directory)
        stack = LocalStack(directory.path.name, provided, emit, keep=options.keep)
        failure: TicketbenchError | None = None
        try:
            runner.run(plan, script, stack, directory, emit=emit, keep=options.keep)
        except TicketbenchError as error:
            failure = error
        return _conclude(directory, options, failure)


def _announce(plan: Plan, directory: store.RunDirectory) -> None:
    """Say what will be done and how long it will take, before anything is started."""
    trials = len(plan.trials)
    print(
        f"{output.plain(plan.scenario.name)}: {output.plain(plan.scenario.title)}\n"
        f"{len(plan.variants)} variant{'s' * (len(plan.variants) != 1)}, {trials} trial{'s' * (trials != 1)}, "
        f"about {output.duration_text(planning.expected_s(plan))}, on the {plan.stack} stack, into {directory.path}",
        file=sys.stderr,
    )


def _conclude(directory: store.RunDirectory, options: RunOptions, failure: TicketbenchError | None) -> int:
    """Report on what is stored. Raises the failure itself where nothing was measured."""
    if failure is not None and not directory.has_trials():
        directory.discard()
        raise failure
    analysis, written = write(directory, DEFAULT_FORMATS)
    code = worst(exit_code(analysis), failure.exit_code if failure is not None else EXIT_OK)
    verdict.decided(code)
    if options.as_json:
        print_json(analysis)
    else:
        output.print_analysis(analysis)
    if failure is not None:
        print(f"ticketbench: {failure.message}", file=sys.stderr)
        print(f"  {failure.hint or 'what was measured until then is kept and reported'}", file=sys.stderr)
    if options.keep:
        print("the stack is still up: `ticketbench status` tells where, `ticketbench down` ends it", file=sys.stderr)
    print(written[0], file=sys.stderr if options.as_json else sys.stdout)
    return code
