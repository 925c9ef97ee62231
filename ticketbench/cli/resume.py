"""``ticketbench run --resume RUN``: finish an interrupted run under the run's own plan and seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ticketbench import machine, scenario, store
from ticketbench.analysis.compare import machine_differences
from ticketbench.errors import UsageError
from ticketbench.model import BinaryVersion, Plan, RunRecord, TrialRecord
from ticketbench.plan import is_bundled


@dataclass(frozen=True)
class Resumed:
    """An interrupted run, ready to go on: ``stored`` is what it has measured so far."""

    record: RunRecord
    script: Path
    stored: tuple[TrialRecord, ...]
    row_scripts: Mapping[str, Path] = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        """The run's own plan."""
        return self.record.plan


def reopen(directory: store.RunDirectory, script: str | None) -> Resumed:
    """Read what a run has done so far. ``script`` is needed where its scenario is a script of the user's own.

    Raises UsageError: a damaged run, or a script that is missing or another one.
    """
    record = directory.record()
    scripts = _row_scripts(record.plan, script)
    first = scripts[record.plan.reference] if scripts else _script(record.plan, script)
    return Resumed(record, first, directory.trial_records(), scripts)


def _row_scripts(plan: Plan, given: str | None) -> dict[str, Path]:
    """Return the script of each row: bundled ones are known, and one of the user's own tells where the others are."""
    own = sorted({one.script for one in plan.row_scenarios.values() if not is_bundled(one)})
    if own and given is None:
        raise UsageError(
            f"--resume needs the scripts of the run's rows again, {', '.join(own)}: give one of them, the others are"
            f" looked for beside it: ticketbench run path/to/{own[0]} --resume RUN"
        )
    if plan.rows and given is not None and Path(given).name not in own:
        raise UsageError(f"SCENARIO {given!r} is not one of the rows' own scripts: they are {', '.join(own) or 'none'}")
    beside = Path(given or "").parent
    return {
        row: scenario.find(one.name if is_bundled(one) else str(beside / one.script), "a row's scenario")
        for row, one in plan.row_scenarios.items()
    }


def _script(plan: Plan, given: str | None) -> Path:
    name = plan.scenario.name
    bundled = name in scenario.bundled()
    if given is None:
        if not bundled:
            raise UsageError(
                f"--resume needs the script of the run, {plan.scenario.script}, again: "
                f"ticketbench run path/to/{plan.scenario.script} --resume RUN"
            )
        return scenario.find(name)
    script = scenario.find(given)
    if script.name != plan.scenario.script:
        raise UsageError(f"SCENARIO {given!r} is not the run's: it was made with {plan.scenario.script}")
    return script


def require_unchanged(resumed: Resumed, k6: Path, binaries: Sequence[BinaryVersion]) -> None:
    """Refuse to mix trials of unlike scripts, programs or machines in one run. Raises UsageError naming each change."""
    plan, before = resumed.plan, resumed.record.environment
    here = machine.environment(binaries, before.settings, own_target=plan.external is None)
    problems = [f"changed since the run began: {difference}" for difference in machine_differences(before, here)]
    scripts = resumed.row_scripts or {plan.reference: resumed.script}
    changed = {}
    for variant, script in scripts.items():
        now, _ = scenario.inspect((str(k6),), script, scenario.load_env(plan.variant(variant).levels))
        if now.sha256 != (then := plan.scenario_of(variant)).sha256:
            changed[then.script] = (then.sha256[:8], now.sha256[:8])
    problems += [
        f"changed since the run began: scenario {name} ({one} and {other})" for name, (one, other) in changed.items()
    ]
    if here.target_sha256 != before.target_sha256:
        problems.append("changed since the run began: the target's code")
    if here.ticketbench != before.ticketbench:
        problems.append(f"changed since the run began: ticketbench {before.ticketbench} and {here.ticketbench}")
    if problems:
        raise UsageError(*problems, hint="trials of both would not be comparable: measure a new run")
