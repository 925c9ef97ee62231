"""The commands about stored runs, as Typer sees them. What they do is loaded when they are called."""

from pathlib import Path
from typing import Annotated

import typer

stored_app = typer.Typer()

_Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a stored run.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON to standard output and nothing else.")]


@stored_app.command("report")
def report_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of stored runs.")],
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", metavar="html|md|json|junit", help="Which to write; may be repeated [html, md]."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Judge stored runs anew and write their reports; needs no server and no k6."""
    from ticketbench.cli.runs import report

    raise typer.Exit(report(tuple(runs), tuple(formats or ()), as_json=as_json))


@stored_app.command("show")
def show_command(run: _Run, as_json: _Json = False) -> None:
    """Print what a stored run says."""
    from ticketbench.cli.runs import show

    raise typer.Exit(show(run, as_json=as_json))


@stored_app.command("audit")
def audit_command(run: _Run, as_json: _Json = False) -> None:
    """Audit the ledgers of a stored run: oversold, lost, duplicated, stranded, and the money."""
    from ticketbench.cli.runs import audit

    raise typer.Exit(audit(run, as_json=as_json))


@stored_app.command("compare")
def compare_command(
    baseline: Annotated[Path, typer.Argument(metavar="BASELINE", help="The folder of the run to compare with.")],
    candidate: Annotated[Path, typer.Argument(metavar="CANDIDATE", help="The folder of the run in question.")],
    baseline_variant: Annotated[
        str | None, typer.Option("--baseline-variant", metavar="NAME", help="Which variant [the reference].")
    ] = None,
    candidate_variant: Annotated[
        str | None, typer.Option("--candidate-variant", metavar="NAME", help="Which variant [the reference].")
    ] = None,
    form: Annotated[str, typer.Option("--format", metavar="table|md|json", help="How to print it.")] = "table",
    as_json: _Json = False,
    force: Annotated[bool, typer.Option("--force", help="Compare unlike environments, to inform only.")] = False,
) -> None:
    """Compare two stored runs, or two variants of one."""
    from ticketbench.cli.runs import CompareOptions, compare

    raise typer.Exit(
        compare(
            CompareOptions(
                baseline=baseline,
                candidate=candidate,
                baseline_variant=baseline_variant,
                candidate_variant=candidate_variant,
                form="json" if as_json else form,
                force=force,
            )
        )
    )
