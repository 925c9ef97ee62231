"""``ticketbench run``: from options to a plan, through the runner, to a report and an exit code."""

import os
import shlex
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ticketbench import binaries as binaries_module
from ticketbench import factors, interrupts, paths, runner, scenario, store
from ticketbench import plan as planning
from ticketbench.analysis.analyse import exit_code
from ticketbench.cli import output, panel, verdict
from ticketbench.cli.external import ExternalOptions, refuse_elsewhere, require_same, system_of
from ticketbench.cli.resume import reopen, require_unchanged
from ticketbench.cli.runs import DEFAULT_FORMATS, print_json
from ticketbench.errors import EXIT_OK, Interrupted, TicketbenchError, UsageError, worst
from ticketbench.events import Emit
from ticketbench.model import Plan, Trial, TrialRecord
from ticketbench.report.write import write
from ticketbench.stack import Stack
from ticketbench.stack.external import PARTS as EXTERNAL_PARTS
from ticketbench.stack.external import ExternalStack, System
from ticketbench.stack.local import LocalStack

STACKS = ("auto", "local", "external")


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
    resume: str | None = None
    external: ExternalOptions = field(default_factory=ExternalOptions)


def request_of(options: RunOptions) -> tuple[planning.Request, System | None]:
    """Join flags, environment and plan file, in that precedence. Raises UsageError listing every fault.

    The second is the system of somebody else's that is to be measured, None on a stack of our own.
    """
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
    system = _system(options, file, stack, problems)
    if problems or name is None:
        raise UsageError(*problems)
    # A factor given on the command line replaces what the plan file says of it, varied or set.
    said = varied.keys() | fixed.keys()
    request = planning.Request(
        scenario=name,
        varied={**{k: v for k, v in file.varied.items() if k not in said}, **varied},
        fixed={**{k: v for k, v in file.fixed.items() if k not in said}, **fixed},
        repetitions=next(value for value in (trials, file.repetitions, 1) if value is not None),
        seed=next(value for value in (seed, file.seed, 1) if value is not None),
        stack="local" if system is None else "external",  # auto: this version has one stack of its own
        external=None if system is None else system.record(),
    )
    return request, system


def _system(options: RunOptions, file: planning.PlanFile, stack: str, problems: list[str]) -> System | None:
    """Return the system of somebody else's that is asked for, None on a stack of our own or where it has faults."""
    if stack not in STACKS:
        problems.append(f"--stack {stack!r} is not known: known are {', '.join(STACKS)}")
        return None
    if stack != "external":
        refuse_elsewhere(options.external, file, stack, problems)
        return None
    if options.keep:
        problems.append("--keep has nothing to keep on the external stack: the system is not ours")
    return system_of(options.external, file, problems)


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
    if options.resume is not None:
        return _resume(options, options.resume)
    request, system = request_of(options)
    script = scenario.find(request.scenario)
    planning.require_possible(request)
    with interrupts.raised(), panel.drawer() as draw:
        provided = _provide(system, draw)
        plan = _plan(request, script, provided.k6)
        parent = Path(options.output) if options.output else paths.default_reports_dir()
        with interrupts.deferred() as signals:  # from here on there is something to put in order
            directory = store.reserve(parent, store.run_id(plan.scenario.name, datetime.now(UTC)))
            with directory.locked():
                undertaking = Undertaking(plan, script, directory, system=system)
                return _measure(undertaking, options, provided, draw, signals)


def _resume(options: RunOptions, run_folder: str) -> int:
    """Finish an interrupted run; one that has nothing left to do is reported on."""
    _refuse_with_resume(options)
    with interrupts.raised(), panel.drawer() as draw:
        directory = store.open_run(Path(run_folder))
        with interrupts.deferred() as signals, directory.locked():
            resumed = reopen(directory, options.scenario)
            system = _system_again(options, resumed.plan)
            undertaking = Undertaking(resumed.plan, resumed.script, directory, resumed.stored, system)
            if not undertaking.trials:
                draw.announce("nothing is left to do: all of its trials are done")
                draw.close()
                return _conclude(undertaking, options, None, signals)
            provided = _provide(system, draw)
            require_unchanged(resumed, provided.k6, provided.versions)
            return _measure(undertaking, options, provided, draw, signals)


def _provide(system: System | None, emit: Emit) -> binaries_module.Binaries:
    return binaries_module.provide(emit) if system is None else binaries_module.provide(emit, EXTERNAL_PARTS)


def _system_again(options: RunOptions, plan: Plan) -> System | None:
    """Return the system that a resumed run goes on with: its address and headers were not written down."""
    nothing = planning.PlanFile(None, {}, {}, None, None, None)
    problems: list[str] = []
    system = None
    if plan.external is None:
        refuse_elsewhere(options.external, nothing, plan.stack, problems)
    else:
        system = system_of(options.external, nothing, problems)
    if problems:
        raise UsageError(*problems, hint="a run does not hold its target's address and headers: give them again")
    if system is not None and plan.external is not None:
        require_same(system, plan.external)
    return system


def _refuse_with_resume(options: RunOptions) -> None:
    def typed(text: str | None, variable: str) -> bool:
        """Tell a flag from a variable of the environment, which stands for all runs and contradicts nothing here."""
        return text is not None and text != os.environ.get(variable)

    said = {
        "--vary": options.vary,
        "--set": options.fixed,
        "--plan": options.plan is not None,
        "--trials": typed(options.trials, "TICKETBENCH_TRIALS"),
        "--seed": typed(options.seed, "TICKETBENCH_SEED"),
        "--stack": typed(options.stack, "TICKETBENCH_STACK"),
        "-o": typed(options.output, "TICKETBENCH_OUTPUT"),
    }
    problems = [
        f"{name} cannot be used with --resume: the plan is the run's own" for name, given in said.items() if given
    ]
    if problems:
        raise UsageError(*problems, hint="to measure something else, start a new run")


@dataclass(frozen=True)
class Undertaking:
    """What is to be measured, and where it goes. ``stored`` is what an earlier invocation has measured of it.

    ``system`` is there where it is somebody else's.
    """

    plan: Plan
    script: Path
    directory: store.RunDirectory
    stored: tuple[TrialRecord, ...] = ()
    system: System | None = None

    @property
    def trials(self) -> tuple[Trial, ...]:
        """The trials still to be measured."""
        return runner.unfinished(self.plan, self.stored)


def _measure(
    undertaking: Undertaking,
    options: RunOptions,
    provided: binaries_module.Binaries,
    draw: panel.Drawer,
    signals: interrupts.Hold,
) -> int:
    directory = undertaking.directory
    draw.announce(_announcement(undertaking))
    name, system = directory.path.name, undertaking.system
    stack: Stack
    if system is None:
        most_workers = max(int(variant.levels["workers"]) for variant in undertaking.plan.variants)
        stack = LocalStack(name, provided, draw, keep=options.keep, most_workers=most_workers)
    else:
        stack = ExternalStack(name, provided, system, draw, preflight=undertaking.plan.scenario.preflight)
    failure: TicketbenchError | None = None
    try:
        runner.run(
            undertaking.plan,
            undertaking.script,
            stack,
            directory,
            emit=draw,
            keep=options.keep,
            stored=undertaking.stored,
        )
    except TicketbenchError as error:
        failure = error
    draw.close()
    came_late = signals.taken()  # while servers were being stopped; the report is still written
    return _conclude(undertaking, options, failure or came_late, signals)


def _announcement(undertaking: Undertaking) -> str:
    """Return what will be done and how long it will take, to be told before anything is started."""
    plan, directory = undertaking.plan, undertaking.directory
    trials, variants = len(undertaking.trials), len(plan.variants)
    left = f" of {len(plan.trials)} left" if undertaking.stored else ""
    expected = planning.planned(plan, undertaking.trials)
    return (
        f"{output.titled(plan.scenario)}\n"
        f"{variants} variant{'s' * (variants != 1)}, {trials} trial{'s' * (trials != 1)}{left}, "
        f"{'at most' if expected.at_most else 'about'} {output.duration_text(expected.expected_s)}, "
        f"on the {plan.stack} stack, into {directory.path}"
    )


def _conclude(
    undertaking: Undertaking, options: RunOptions, failure: TicketbenchError | None, signals: interrupts.Hold
) -> int:
    """Report on what is stored. Raises the failure itself where nothing was measured."""
    directory = undertaking.directory
    if failure is not None and not directory.has_trials():
        if not directory.has_superseded():
            directory.discard()
        raise failure
    try:
        with signals.listening():
            analysis, written = write(directory, DEFAULT_FORMATS)
    except Interrupted as error:
        error.hint = f"all that was measured is stored: `ticketbench report {directory.path}` writes the report"
        raise
    code = worst(exit_code(analysis), failure.exit_code if failure is not None else EXIT_OK)
    verdict.decided(code)
    if options.as_json:
        print_json(analysis)
    else:
        output.print_analysis(analysis)
    if failure is not None:
        print(f"ticketbench: {failure.message}", file=sys.stderr)
        print(f"  {failure.hint or 'what was measured until then is kept and reported'}", file=sys.stderr)
        if len(analysis.trials) < analysis.trials_planned or isinstance(failure, Interrupted):
            print(f"  to finish it: {_resume_command(undertaking)}", file=sys.stderr)
    if options.keep:
        print("the stack is still up: `ticketbench status` tells where, `ticketbench down` ends it", file=sys.stderr)
    print(written[0], file=sys.stderr if options.as_json else sys.stdout)
    return code


def _resume_command(undertaking: Undertaking) -> str:
    bundled = undertaking.plan.scenario.name in scenario.bundled()
    words = ["ticketbench", "run", *([] if bundled else [str(undertaking.script)])]
    words += ["--resume", str(undertaking.directory.path)]
    if undertaking.plan.external is not None:
        words += planning.external_words(undertaking.plan.external)
    return shlex.join(words)
