"""The commands about stacks that are up, as Typer sees them. What they do is loaded when they are called."""

from typing import Annotated

import typer

stacks_app = typer.Typer()

_Json = Annotated[bool, typer.Option("--json", help="Print JSON to standard output and nothing else.")]


@stacks_app.command("up")
def up_command(
    stack: Annotated[
        str | None,
        typer.Option("--stack", envvar="TICKETBENCH_STACK", metavar="auto|docker|local", help="Where [auto]."),
    ] = None,
    fixed: Annotated[
        list[str] | None, typer.Option("--set", metavar="FACTOR=A", help="A factor's level; may be repeated.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Bring the ticket sale up to play with by hand, and print where it is; `down` ends it."""
    from ticketbench.cli.stacks import up

    raise typer.Exit(up(stack=stack, fixed=tuple(fixed or ()), as_json=as_json))


@stacks_app.command("down")
def down_command(
    force: Annotated[bool, typer.Option("--force", help="Also stacks whose run is still going on.")] = False,
    as_json: _Json = False,
) -> None:
    """Stop every stack that was kept or that a killed run left, and remove its data."""
    from ticketbench.cli.stacks import down

    raise typer.Exit(down(force=force, as_json=as_json))


@stacks_app.command("status")
def status_command(as_json: _Json = False) -> None:
    """List the stacks of this user that are up, with their addresses."""
    from ticketbench.cli.stacks import status

    raise typer.Exit(status(as_json=as_json))


@stacks_app.command("logs")
def logs_command(
    components: Annotated[
        list[str] | None, typer.Argument(metavar="[COMPONENT]...", help="app, postgres, redis, prometheus [all].")
    ] = None,
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, metavar="N", help="The last N of each [50].")] = 50,
) -> None:
    """Print the last lines that each component of the stacks that are up has logged."""
    from ticketbench.cli.stacks import logs

    raise typer.Exit(logs(tuple(components or ()), lines=lines))
