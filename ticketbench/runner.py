"""One run: bring up, then for each trial reset, load, collect, audit, store; take down. The pipeline of ticketbench.

Measuring ends here, with the run directory. What it means is said by ``analysis``, from that directory alone.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ticketbench import __version__, collect, ledger, load, machine, plan as planning, scenario, store
from ticketbench.errors import EnvironmentFailure, Interrupted, TicketbenchError
from ticketbench.events import Emit, Notice, Phase, TrialStored
from ticketbench.interrupts import Interrupts
from ticketbench.model import LedgerRow, LoadResult, Plan, RunRecord, Trial, TrialRecord, Window
from ticketbench.sampler_process import SamplerProcess
from ticketbench.stack import Endpoints, Stack

if TYPE_CHECKING:
    import pandas as pd

LOG_TAIL_BYTES: Final = 256 * 1024  # of each component's log, kept with the trial


@dataclass
class Run:
    """What the steps of one run share."""

    plan: Plan
    script: Path
    stack: Stack
    directory: store.RunDirectory
    emit: Emit
    interrupts: Interrupts
    sampler: SamplerProcess | None = None
    recorded: bool = False


def run(
    plan: Plan,
    script: Path,
    stack: Stack,
    directory: store.RunDirectory,
    *,
    emit: Emit,
    interrupts: Interrupts,
    keep: bool = False,
) -> None:
    """Measure a whole plan into ``directory``.

    Each trial is on disk before the next one begins. Raises Interrupted or EnvironmentFailure after everything that
    was started is stopped (unless ``keep``) and what was measured of the broken trial is stored and marked.
    """
    this = Run(plan, script, stack, directory, emit, interrupts)
    with _up(this, keep=keep):
        for trial in plan.trials:
            measured = _measure(this, trial)
            _store(this, measured)
            if measured.failure is not None:
                raise measured.failure


@contextlib.contextmanager
def _up(this: Run, *, keep: bool) -> Iterator[None]:
    """Start the servers and the sampler; stop them whatever happens."""
    try:
        this.emit(Phase("start", "PostgreSQL, Redis and Prometheus"))
        servers = this.stack.start()
        this.sampler = SamplerProcess.start(
            servers.prometheus_url, servers.access, servers.components, this.directory.path / "sampler.log"
        )
        yield
    finally:
        with this.interrupts.shielded():
            if this.sampler is not None:
                this.sampler.stop()
            if not keep:
                this.emit(Phase("stop"))
                this.stack.stop()


@dataclass
class Measured:
    """A trial as far as it came. ``failure`` is what ends the run after the trial is stored."""

    trial: Trial
    started_s: float
    reasons: list[str] = field(default_factory=list)
    endpoints: Endpoints | None = None
    window: Window | None = None
    load: LoadResult | None = None
    outcome: "load.LoadOutcome | None" = None
    collected: "collect.Collected | None" = None
    ledger: tuple[LedgerRow, ...] | None = None
    failure: TicketbenchError | None = None


def _measure(this: Run, trial: Trial) -> Measured:
    """Take one trial through all of its phases. Whatever ends it early is noted, and what there is is kept."""
    measured = Measured(trial, started_s=time.time())
    try:
        _prepare(this, measured)
        _load(this, measured)
        _read_ledger(this, measured)
        _collect(this, measured)
    except (Interrupted, EnvironmentFailure) as error:
        measured.failure = error
        measured.reasons.append(error.message)
        _salvage(this, measured)
    return measured


def _prepare(this: Run, measured: Measured) -> None:
    plan, trial = this.plan, measured.trial
    this.emit(Phase("reset", trial.variant, trial.position, len(plan.trials)))
    endpoints = this.stack.apply(plan.variant(trial.variant).levels)
    measured.endpoints = endpoints
    if not this.recorded:
        environment = machine.environment(endpoints.binaries, endpoints.settings)
        store.save_run(this.directory, _run_record(this.directory.path.name, plan, environment))
        this.recorded = True
    sampler = this.sampler
    assert sampler is not None  # noqa: S101 - _up() started it
    for component in endpoints.components:
        sampler.watch(component.name, component.pid)


def _load(this: Run, measured: Measured) -> None:
    plan, trial, endpoints, sampler = this.plan, measured.trial, measured.endpoints, this.sampler
    assert endpoints is not None and sampler is not None  # noqa: S101, PT018 - _prepare() came first
    schedule = plan.schedules[trial.variant]
    levels = plan.variant(trial.variant).levels

    def on_phase(name: str, expected_s: float | None) -> None:
        this.emit(Phase(name, trial.variant, trial.position, len(plan.trials), expected_s))

    def should_stop() -> str | None:
        dead = endpoints.dead()
        if not sampler.alive():
            dead = {**dead, "sampler": "the sampler ended: see sampler.log"}
        return "; ".join(f"{name} died: {why}" for name, why in dead.items()) or None

    execution = load.Execution(
        k6_command=endpoints.k6_command,
        script=this.script,
        env=scenario.load_env(levels),
        base_url=endpoints.base_url,
        prometheus_url=endpoints.prometheus_url,
        trial_id=f"{this.directory.path.name}-{trial.id}",
        seed=plan.seed * 1000 + trial.repetition,
        folder=this.directory.logs_dir(trial.id),
        schedule=schedule,
    )
    outcome = load.run_load(
        execution,
        on_start=lambda pid: sampler.watch("k6", pid),
        on_phase=on_phase,
        should_stop=should_stop,
    )
    measured.outcome = outcome
    if outcome.aborted:
        raise EnvironmentFailure(outcome.aborted)


def _run_record(run_id: str, plan: Plan, environment: machine.Environment) -> RunRecord:
    return RunRecord(
        run_id=run_id,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        ticketbench=__version__,
        plan=plan,
        environment=environment,
        command=planning.command(plan),
    )
