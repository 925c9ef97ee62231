"""The commands that repeat a run: one for its report, which travels, and one for the terminal that it was made on."""

import shlex
from pathlib import Path

from ticketbench import plan as planning
from ticketbench.cli.external import header_names, words_again
from ticketbench.cli.options import NO_PLAN, RunOptions
from ticketbench.levels import level_text
from ticketbench.model import Plan
from ticketbench.plan_file import bundled_plans


def for_report(options: RunOptions, plan: Plan) -> str:
    """Return the command that repeats the run, without anything that names this machine, a host or a secret.

    A plan file is named as it is, with what flags and variables of the environment put on top of it.
    """
    selector = ["--prometheus-selector", "MATCHERS"] if plan.external and options.external.selector else []
    if options.plan is None:
        return shlex.join([*shlex.split(planning.command(plan, options.scenario)), *selector])
    words = ["ticketbench", "run"]
    words += [] if options.scenario is None else [planning.script_word(plan, options.scenario)]
    named = options.plan in bundled_plans()
    words += ["--plan", options.plan if named else planning.portable(options.plan, Path(options.plan).name)]
    words += _factors(options)
    for flag, text in (("--trials", options.trials), ("--seed", options.seed), ("--stack", options.stack)):
        words += [] if text is None else [flag, text.strip()]
    system, given = plan.external, options.external
    if system is not None:
        words += [] if given.target is None else ["--target", planning.target_word(system)]
        words += [] if given.prometheus is None else ["--prometheus", "URL"]
        words += [] if given.mapping is None else ["--prometheus-mapping", system.mapping]
        words += selector
        words += planning.header_words(header_names(given.headers))
        words += ["--allow-remote-target"] if given.allow_remote else []
    return shlex.join(words)


def for_terminal(options: RunOptions, plan: Plan) -> tuple[str, ...]:
    """Return the words after ``ticketbench`` that measure the same again here, without the number of trials.

    They are those that were typed; after ``--resume`` those of the run's own plan. A variable of the environment is
    still set.
    """
    system_words = () if plan.external is None else words_again(options.external, NO_PLAN)
    if options.resume is not None and plan.rows:
        return ("run", "--plan", plan.rows_from, "--seed", str(plan.seed), "--stack", plan.stack, *system_words)
    if options.resume is not None:
        bundled = planning.is_bundled(plan.scenario)
        words = ["run", plan.scenario.name if bundled else options.scenario or plan.scenario.script]
        words += [
            w for name, levels in plan.varied.items() for w in ("--vary", f"{name}={','.join(map(level_text, levels))}")
        ]
        words += [w for name, level in plan.fixed.items() for w in ("--set", f"{name}={level_text(level)}")]
        words += [*planning.fault_words(plan.faults), "--stack", plan.stack]
        return (*words, *system_words)
    words = ["run"]
    words += [] if options.scenario is None else [options.scenario]
    words += [] if options.plan is None else ["--plan", options.plan]
    words += _factors(options)
    for option, text in (("seed", options.seed), ("stack", options.stack), ("output", options.output)):
        words += [] if text is None or option in options.from_variables else [options.said(option), text]
    return (*words, *system_words)


def _factors(options: RunOptions) -> list[str]:
    return [
        *(word for text in options.vary for word in ("--vary", text)),
        *(word for text in options.fixed for word in ("--set", text)),
        *(word for text in options.faults for word in ("--fault", text)),
    ]
