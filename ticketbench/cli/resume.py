"""``ticketbench run --resume RUN``: finish an interrupted run under the run's own plan and seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ticketbench import machine, scenario, store
from ticketbench.analysis.compare import machine_differences
from ticketbench.errors import UsageError
from ticketbench.model import BinaryVersion, Plan, RunRecord, TrialRecord


@dataclass(frozen=True)
class Resumed:
    """An interrupted run, ready to go on: ``stored`` is what it has measured so far."""

    record: RunRecord
    script: Path
    stored: tuple[TrialRecord, ...]

    @property
    def plan(self) -> Plan:
        """The run's own plan."""
        return self.record.plan


def reopen(directory: store.RunDirectory, script: str | None) -> Resumed:
    """Read what a run has done so far. ``script`` is needed where its scenario is a script of the user's own.

    Raises UsageError: a damaged run, or a script that is missing or another one.
    """
    record = directory.record()
    return Resumed(record, _script(record.plan, script), directory.trial_records())


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
    now, _ = scenario.inspect((str(k6),), resumed.script, scenario.load_env(plan.variant(plan.reference).levels))
    here = machine.environment(binaries, before.settings, own_target=plan.external is None)
    problems = [f"changed since the run began: {difference}" for difference in machine_differences(before, here)]
    if now.sha256 != plan.scenario.sha256:
        problems.append(
            f"changed since the run began: scenario {plan.scenario.script} "
            f"({plan.scenario.sha256[:8]} and {now.sha256[:8]})"
        )
    if here.target_sha256 != before.target_sha256:
        problems.append("changed since the run began: the target's code")
    if here.ticketbench != before.ticketbench:
        problems.append(f"changed since the run began: ticketbench {before.ticketbench} and {here.ticketbench}")
    if problems:
        raise UsageError(*problems, hint="trials of both would not be comparable: measure a new run")
