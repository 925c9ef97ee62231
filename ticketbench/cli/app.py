"""The commands, and the one place that turns errors into messages and exit codes.

Heavy modules are imported inside the commands: ``--help`` must not pay for pandas.
"""

import errno
import gc
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.exceptions import Abort, TyperException

from ticketbench import __version__, interrupts
from ticketbench.cli import verdict
from ticketbench.cli.output import tell
from ticketbench.cli.stack_commands import stacks_app
from ticketbench.cli.stored_commands import stored_app
from ticketbench.errors import (
    EXIT_BUG,
    EXIT_ENVIRONMENT,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    EnvironmentFailure,
    TicketbenchError,
    UsageError,
    worst,
)


def _help_alone(context: typer.Context) -> None:
    """Print the help where a group of commands is named without one of them, and exit as for any wrong usage."""
    if context.invoked_subcommand is None:
        tell(context.get_help())
        raise typer.Exit(EXIT_USAGE)


app = typer.Typer(
    name="ticketbench",
    help="Load-test a real ticket sale, audit its ledger, and find out what breaks first.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
scenarios_app = typer.Typer(
    help="The k6 scripts that come with ticketbench, and your own.",
    invoke_without_command=True,
    callback=_help_alone,
)
app.add_typer(scenarios_app, name="scenarios")
app.add_typer(stored_app)
app.add_typer(stacks_app)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON to standard output and nothing else.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"ticketbench {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Load-test a real ticket sale, audit its ledger, and find out what breaks first."""
    _help_alone(context)
    try:
        Path.cwd()
    except OSError as error:  # Python, k6 and PostgreSQL would each fail over it in words of their own
        raise EnvironmentFailure(
            f"the current folder cannot be used: {error.strerror}", "it was removed, maybe: change to another one"
        ) from error


def _from_variables(context: typer.Context, *names: str) -> frozenset[str]:
    """Return those of the options that a variable of the environment gave."""
    sources = ((name, context.get_parameter_source(name)) for name in names)
    return frozenset(name for name, source in sources if source is not None and source.name == "ENVIRONMENT")


@app.command("run")
def run_command(
    context: typer.Context,
    scenario: Annotated[
        str | None, typer.Argument(metavar="SCENARIO", help="A bundled name (see `scenarios list`) or a .js file.")
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option("--vary", metavar="FACTOR=A,B", help="Measure each of these levels; may be repeated."),
    ] = None,
    fixed: Annotated[
        list[str] | None, typer.Option("--set", metavar="FACTOR=A", help="One level for all variants; may be repeated.")
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            "--fault",
            metavar="'DO WHAT at S for S'",
            help="Done to a component in each window, as 'pause redis at 10 for 3'; may be repeated.",
        ),
    ] = None,
    plan: Annotated[str | None, typer.Option("--plan", metavar="NAME|FILE", help="A TOML plan to read from.")] = None,
    trials: Annotated[
        str | None,
        typer.Option("--trials", envvar="TICKETBENCH_TRIALS", metavar="N", help="Trials of each variant [1]."),
    ] = None,
    seed: Annotated[
        str | None,
        typer.Option("--seed", envvar="TICKETBENCH_SEED", metavar="N", help="Of the order and the arrivals [1]."),
    ] = None,
    stack: Annotated[
        str | None,
        typer.Option(
            "--stack", envvar="TICKETBENCH_STACK", metavar="auto|docker|local|external", help="Where to run it [auto]."
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", envvar="TICKETBENCH_OUTPUT", metavar="DIR", help="Gets the run's own folder [reports]."
        ),
    ] = None,
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="RUN", help="Finish an interrupted run, under its own plan.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target", envvar="TICKETBENCH_TARGET", metavar="URL", help="Your own system (--stack external)."
        ),
    ] = None,
    prometheus: Annotated[
        str | None,
        typer.Option("--prometheus", envvar="TICKETBENCH_PROMETHEUS", metavar="URL", help="The one that scrapes it."),
    ] = None,
    prometheus_mapping: Annotated[
        str | None,
        typer.Option(
            "--prometheus-mapping",
            envvar="TICKETBENCH_PROMETHEUS_MAPPING",
            metavar="NAME|FILE",
            help="Which of its series stand for what [prometheus-fastapi-instrumentator].",
        ),
    ] = None,
    prometheus_selector: Annotated[
        str | None,
        typer.Option(
            "--prometheus-selector",
            envvar="TICKETBENCH_PROMETHEUS_SELECTOR",
            metavar="MATCHERS",
            help='Which of its targets is your system, such as job="shop" [all].',
        ),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header",
            metavar="'NAME: VALUE'",
            help="Sent with every request; may be repeated. A secret goes into TICKETBENCH_HEADERS, one a line.",
        ),
    ] = None,
    allow_remote_target: Annotated[
        bool, typer.Option("--allow-remote-target", help="You may put load on a system that is not on this machine.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack up afterwards; `down` ends it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring the system up, load it, audit it, report, and take it down."""
    from ticketbench.cli.external import ExternalOptions
    from ticketbench.cli.options import RunOptions
    from ticketbench.cli.run import run

    raise typer.Exit(
        run(
            RunOptions(
                scenario=scenario,
                vary=tuple(vary or ()),
                fixed=tuple(fixed or ()),
                faults=tuple(fault or ()),
                plan=plan,
                trials=trials,
                seed=seed,
                stack=stack,
                output=output,
                keep=keep,
                as_json=as_json,
                resume=resume,
                external=ExternalOptions(
                    target=target,
                    prometheus=prometheus,
                    mapping=prometheus_mapping,
                    selector=prometheus_selector,
                    headers=tuple(header or ()),
                    allow_remote=allow_remote_target,
                    from_variables=frozenset(
                        name.removeprefix("prometheus_")
                        for name in _from_variables(
                            context, "target", "prometheus", "prometheus_mapping", "prometheus_selector"
                        )
                    ),
                ),
                from_variables=_from_variables(context, "trials", "seed", "stack", "output"),
            )
        )
    )


@app.command("init")
def init_command(
    folder: Annotated[str, typer.Argument(metavar="[DIR]", help="Gets the files [loadtest].")] = "loadtest",
) -> None:
    """Write a starter scenario and plan for a system of your own."""
    from ticketbench.cli.init import init

    if not folder.strip():
        raise UsageError(f"DIR {folder!r} names no folder", hint="leave it out for the folder loadtest")
    raise typer.Exit(init(Path(folder)))


@scenarios_app.command("list")
def scenarios_list(as_json: JsonOption = False) -> None:
    """List the bundled scenarios with the question each one asks."""
    from ticketbench.cli.scenarios import list_scenarios

    list_scenarios(as_json=as_json)


@scenarios_app.command("show")
def scenarios_show(
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", help="A bundled name or a .js file.")],
    as_json: JsonOption = False,
) -> None:
    """Show a scenario: its question, load, SLOs and levels, and the factors that may vary."""
    from ticketbench.cli.scenarios import show_scenario

    show_scenario(scenario, as_json=as_json)


@scenarios_app.command("check")
def scenarios_check(
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", help="A bundled name or a .js file.")],
    as_json: JsonOption = False,
) -> None:
    """Check that a script can be run, and say what would weaken its results."""
    from ticketbench.cli.scenarios import check_scenario

    raise typer.Exit(check_scenario(scenario, as_json=as_json))


@app.command("doctor")
def doctor_command(
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", envvar="TICKETBENCH_OUTPUT", metavar="DIR", help="Where runs will go [reports]."
        ),
    ] = None,
    provide: Annotated[bool, typer.Option("--provide", help="Fetch the server programs that are missing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say whether a run can be made here: programs, ports, limits, disk, memory, cores, other load, leftovers."""
    from ticketbench.cli.doctor import doctor

    raise typer.Exit(doctor(output=output, provide=provide, as_json=as_json))


def _complain(message: str, hint: str = "") -> None:
    printable = "".join(c if c.isprintable() else " " for c in message)
    tell(f"ticketbench: {printable}")
    if hint:
        tell(f"  {hint}")


def _leave(code: int) -> NoReturn:
    """Flush and exit; neither a reader that went away (a closed pipe) nor a late signal changes the code."""
    interrupts.ignored()
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno != errno.EPIPE:
            _complain(f"standard output cannot be written: {error.strerror}")
            code = worst(code, EXIT_ENVIRONMENT)
    # Python's end would look through all that pandas and matplotlib have made, for 0.6 s of CPU (0.07 s with this)
    gc.freeze()
    sys.exit(code)


def _open_closed_streams() -> None:
    """Let what would be printed vanish where the caller has closed a stream: it is None then."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - for as long as we run


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the program. Exit codes: see :mod:`ticketbench.errors`."""
    _open_closed_streams()
    code: Any = EXIT_OK
    try:
        # for typer an interrupt would be an exit like any other, without a word
        with interrupts.raised():
            try:
                code = app(arguments, standalone_mode=False)
            finally:
                interrupts.ignored()  # the code is decided; one message is still to be said
    except UsageError as error:
        for problem in error.problems:
            _complain(problem)
        if error.hint:
            tell(f"  {error.hint}")
        code = EXIT_USAGE
    except TicketbenchError as error:
        _complain(error.message, error.hint)
        code = error.exit_code
    except TyperException as error:
        _complain(" ".join(error.format_message().split()), "try --help")
        code = EXIT_USAGE
    except (KeyboardInterrupt, Abort):
        _complain("interrupted")
        code = EXIT_INTERRUPTED
    except (BrokenPipeError, SystemExit):  # typer and rich turn a closed pipe into an exit of their own, with code 1
        code = verdict.code
    except BaseException as error:  # noqa: BLE001 - a bug keeps its traceback, and is never mistaken for a verdict
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            _complain(f"cannot write: {error.strerror}", "free some space")
            _leave(worst(verdict.code, EXIT_ENVIRONMENT))
        traceback.print_exc()
        _complain("this is a bug in ticketbench; please report it with the lines above")
        code = EXIT_BUG
    _leave(code if isinstance(code, int) else EXIT_OK)
