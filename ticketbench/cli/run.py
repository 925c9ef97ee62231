"""``ticketbench run``: from options to a plan, through the runner, to a report and an exit code."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from ticketbench import descriptors, factors, interrupts, paths, runner, scenario, store
from ticketbench import plan as planning
from ticketbench.analysis.analyse import exit_code
from ticketbench.cli import again, output, panel, verdict
from ticketbench.cli.closing import Ended, earlier_run, next_steps
from ticketbench.cli.external import refuse_elsewhere, require_same, system_of, words_again
from ticketbench.cli.options import NO_PLAN, Asked, RunOptions, request_of
from ticketbench.cli.provided import Provided, provide
from ticketbench.cli.remedies import foreseen
from ticketbench.cli.resume import reopen, require_unchanged
from ticketbench.cli.runs import DEFAULT_FORMATS, print_json
from ticketbench.conclusions import Analysis
from ticketbench.errors import EXIT_OK, EnvironmentFailure, Interrupted, TicketbenchError, UsageError, worst
from ticketbench.events import Emit, Notice
from ticketbench.model import Level, Plan, Scenario, Schedule, Trial, TrialRecord
from ticketbench.report.write import write
from ticketbench.row_file import AskedRow
from ticketbench.stack import Stack
from ticketbench.stack.external import ExternalStack, System


def _plan(asked: Asked, request: planning.Request, k6: Path) -> Plan:
    k6_command, script = (str(k6),), asked.script
    if request.rows:
        return planning.build_rows(request, lambda row, levels: _row(k6_command, asked.row_scripts, row, levels))
    load_factors = [n for n in (*request.varied, *request.fixed) if factors.get(n).scope == "load"]
    ignored = scenario.unused(k6_command, script, load_factors)
    problems = [f"scenario {script.name!r} does not use {name!r}, so it cannot be varied or set" for name in ignored]
    hint = "load factors reach a script as __ENV.RATE, DURATION, VUS and HOT_SHARE" if ignored else ""
    try:
        plan = planning.build(request, lambda env: scenario.inspect(k6_command, script, env), scenario.load_env)
    except UsageError as error:
        raise UsageError(*problems, *error.problems, hint=hint or error.hint) from error
    if problems:
        raise UsageError(*problems, hint=hint)
    return plan


def _row(
    k6_command: Sequence[str], scripts: Mapping[str, Path], asked: AskedRow, levels: Mapping[str, Level]
) -> tuple[Scenario, Schedule]:
    """Read the script of a row under its levels. Raises UsageError, also for a load factor that the script ignores."""
    script = scripts[asked.row.name]
    if ignored := scenario.unused(k6_command, script, levels):
        raise UsageError(*(f"scenario {script.name!r} does not use {name!r}, so it cannot be set" for name in ignored))
    return scenario.inspect(k6_command, script, scenario.load_env(levels))


def run(options: RunOptions) -> int:
    """Run a plan and report on it; return the exit code. Whatever was measured is reported, also after a failure."""
    if options.resume is not None:
        if not options.resume.strip():
            raise UsageError(
                f"--resume {options.resume!r} names no run", hint="give the folder that `ticketbench run` printed"
            )
        return _resume(options, options.resume)
    asked = request_of(options)
    with interrupts.raised(), panel.drawer() as draw:
        plan, provided = _provided(asked, draw)
        descriptors.require(plan)
        parent = Path(options.output) if options.output else paths.default_reports_dir()
        with interrupts.deferred() as signals:  # from here on there is something to put in order
            directory = store.reserve(parent, store.run_id(_subject(plan), datetime.now(UTC)))
            with directory.locked():
                undertaking = Undertaking(
                    plan, asked.script, directory, system=asked.system, given=asked.request.scenario,
                    system_words=asked.system_words, row_scripts=asked.row_scripts,
                )  # fmt: skip
                return _measure(undertaking, options, provided, draw, signals)


def _provided(asked: Asked, draw: panel.Drawer) -> tuple[Plan, Provided]:
    """Return the plan, and all that its stack needs: for ``auto`` Docker's, or else the local one's, saying why."""
    provided = provide(asked.request.stack, draw)
    plan = _plan(asked, replace(asked.request, stack=provided.name), provided.k6)
    try:
        return plan, _for_plan(provided, plan, draw)
    except EnvironmentFailure as error:
        if asked.request.stack != planning.AUTO or provided.docker is None:
            raise
        draw(Notice(f"measuring on the local stack, because not on Docker: {error.message}"))
    provided = provide("local", draw)
    plan = _plan(asked, replace(asked.request, stack=provided.name), provided.k6)
    return plan, _for_plan(provided, plan, draw)


def _subject(plan: Plan) -> str:
    """Return what a run is called by: its scenario, or the plan file whose rows it measures."""
    return Path(plan.rows_from).stem if plan.rows else plan.scenario.name


def _for_plan(provided: Provided, plan: Plan, draw: panel.Drawer) -> Provided:
    return provided.for_variants([variant.levels for variant in plan.variants], draw, plan.faults)


def _resume(options: RunOptions, run_folder: str) -> int:
    """Finish an interrupted run; one that has nothing left to do is reported on."""
    _refuse_with_resume(options)
    with interrupts.raised(), panel.drawer() as draw:
        directory = store.open_run(Path(run_folder))
        with interrupts.deferred() as signals, directory.locked():
            resumed = reopen(directory, options.scenario)
            system = _system_again(options, resumed.plan)
            undertaking = Undertaking(
                resumed.plan, resumed.script, directory, resumed.stored, system, given=options.scenario,
                system_words=() if system is None else words_again(options.external, NO_PLAN),
                row_scripts=resumed.row_scripts,
            )  # fmt: skip
            if not undertaking.trials:
                draw.announce("nothing is left to do: all of its trials are done")
                draw.close()
                return _conclude(undertaking, options, None, signals)
            provided = provide(resumed.plan.stack, draw)
            provided = _for_plan(provided, resumed.plan, draw)
            require_unchanged(resumed, provided.k6, provided.versions)
            descriptors.require(resumed.plan)
            return _measure(undertaking, options, provided, draw, signals)


def _system_again(options: RunOptions, plan: Plan) -> System | None:
    """Return the system that a resumed run goes on with: its address and headers were not written down."""
    problems: list[str] = []
    system = None
    if plan.external is None:
        refuse_elsewhere(options.external, NO_PLAN, plan.stack, problems)
    else:
        system = system_of(options.external, NO_PLAN, problems)
    if problems:
        raise UsageError(*problems, hint="a run does not hold its target's address and headers: give them again")
    if system is not None and plan.external is not None:
        require_same(system, plan.external)
    return system


def _refuse_with_resume(options: RunOptions) -> None:
    # A variable of the environment stands for all runs and contradicts nothing here.
    typed = {
        option
        for option, text in (
            ("trials", options.trials),
            ("seed", options.seed),
            ("stack", options.stack),
            ("output", options.output),
        )
        if text is not None and option not in options.from_variables
    }
    said = {
        "--vary": options.vary,
        "--set": options.fixed,
        "--fault": options.faults,
        "--plan": options.plan is not None,
        "--trials": "trials" in typed,
        "--seed": "seed" in typed,
        "--stack": "stack" in typed,
        "-o": "output" in typed,
    }
    problems = [
        f"{name} cannot be used with --resume: the plan is the run's own" for name, given in said.items() if given
    ]
    if problems:
        raise UsageError(*problems, hint="to measure something else, start a new run")


@dataclass(frozen=True)
class Undertaking:
    """What is to be measured, and where it goes.

    ``stored`` is what an earlier invocation has measured of it; ``system`` is there where it is somebody else's;
    ``given`` is the scenario as the user named it, ``system_words`` are the options that named the system.
    """

    plan: Plan
    script: Path
    directory: store.RunDirectory
    stored: tuple[TrialRecord, ...] = ()
    system: System | None = None
    given: str | None = None
    system_words: tuple[str, ...] = ()
    row_scripts: Mapping[str, Path] = field(default_factory=dict)

    @property
    def trials(self) -> tuple[Trial, ...]:
        """The trials still to be measured."""
        return runner.unfinished(self.plan, self.stored)


def _measure(
    undertaking: Undertaking,
    options: RunOptions,
    provided: Provided,
    draw: panel.Drawer,
    signals: interrupts.Hold,
) -> int:
    directory = undertaking.directory
    draw.announce(_announcement(undertaking))
    name, system = directory.path.name, undertaking.system
    stack: Stack
    if system is None:
        levels = [variant.levels for variant in undertaking.plan.variants]
        stack = provided.stack(name, levels, draw, keep=options.keep, faults=bool(undertaking.plan.faults))
    else:
        asked_first = undertaking.plan.scenario
        stack = ExternalStack(
            name, provided.binaries, system, draw, preflight=asked_first.preflight,
            any_certificate=asked_first.any_certificate,
        )  # fmt: skip
    failure: TicketbenchError | None = None
    try:
        with signals.listening():
            _require_answerable(system, draw)
        runner.run(
            undertaking.plan,
            undertaking.script,
            stack,
            directory,
            emit=draw,
            keep=options.keep,
            stored=undertaking.stored,
            command=again.for_report(options, undertaking.plan),
            row_scripts=undertaking.row_scripts,
        )
    except TicketbenchError as error:
        failure = error
    draw.close()
    came_late = signals.taken()  # while servers were being stopped; the report is still written
    return _conclude(undertaking, options, failure or came_late, signals)


def _require_answerable(system: System | None, emit: Emit) -> None:
    """Refuse queries that the system's own Prometheus cannot evaluate; that it does not answer at all is only told."""
    if system is None or system.source is None:
        return
    from ticketbench.collecting.own import require_answerable  # heavy

    if trouble := require_answerable(system.source):
        emit(Notice(trouble))


def _announcement(undertaking: Undertaking) -> str:
    """Return what will be done and how long it will take, to be told before anything is started."""
    plan, directory = undertaking.plan, undertaking.directory
    trials, variants = len(undertaking.trials), len(plan.variants)
    left = f" of {len(plan.trials)} left" if undertaking.stored else ""
    expected = planning.planned(plan, undertaking.trials)
    what = "row" if plan.rows else "variant"
    return (
        f"{_headline(plan)}\n"
        f"{variants} {what}{'s' * (variants != 1)}, {trials} trial{'s' * (trials != 1)}{left}, "
        f"{'at most' if expected.at_most else 'about'} {output.duration_text(expected.expected_s)}, "
        f"on the {plan.stack} stack, into {directory.path}"
        + (f"\n{output.closed_model_text(plan)}" if output.closed_model_text(plan) else "")
        + "".join(f"\nwarning: {text}" for text in foreseen(plan))
    )


def _headline(plan: Plan) -> str:
    if plan.rows:
        return f"{plan.title or _subject(plan)} ({plan.scenario_names})"
    return output.titled(plan.scenario, plan.title)


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
        output.print_analysis(analysis, undertaking.plan)
    if failure is not None:
        output.tell(f"ticketbench: {output.plain(failure.message)}")
        output.tell(f"  {failure.hint or 'what was measured until then is kept and reported'}")
    for step in next_steps(_ended(undertaking, options, analysis, failure)):
        output.tell(f"next: {step}")
    interrupts.ignored()  # with the next line all is said, and a signal comes too late to change what was decided
    if options.as_json:
        output.tell(str(written[0]))
    else:
        print(written[0], flush=True)
    return code


def _own_script(undertaking: Undertaking) -> str | None:
    """Return the script that has to be named to go on with the run; None where all are bundled."""
    plan = undertaking.plan
    for row, one in plan.row_scenarios.items():
        if not planning.is_bundled(one):
            return str(undertaking.row_scripts[row])
    if plan.rows or planning.is_bundled(plan.scenario):
        return None
    return undertaking.given or str(undertaking.script)


def _ended(
    undertaking: Undertaking, options: RunOptions, analysis: Analysis, failure: TicketbenchError | None
) -> Ended:
    unfinished = len(analysis.trials) < analysis.trials_planned or isinstance(failure, Interrupted)
    return Ended(
        plan=undertaking.plan,
        analysis=analysis,
        run=undertaking.directory.path,
        script=_own_script(undertaking),
        again=again.for_terminal(options, undertaking.plan),
        system=undertaking.system_words,
        unfinished=unfinished,
        failure=failure,
        kept=options.keep,
        earlier=earlier_run(undertaking.directory, analysis),
    )
