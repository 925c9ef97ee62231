"""One run: bring up, then for each trial reset, load, collect, audit, store; take down. The pipeline of ticketbench.

Measuring ends here, with the run directory. What it means is said by ``analysis``, from that directory alone.
"""

import contextlib
import importlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from ticketbench import __version__, factors, interrupts, k6, ledger, live, load, machine, money, scenario, store
from ticketbench import plan as planning
from ticketbench.errors import EnvironmentFailure, Interrupted, ScriptFailure, TicketbenchError
from ticketbench.events import Emit, Phase, TrialStored
from ticketbench.ledger_rows import Ack
from ticketbench.logs import keep_logs, redact_file
from ticketbench.measured import Measured, figures
from ticketbench.model import Environment, Plan, RunRecord, Trial, TrialRecord
from ticketbench.others import OthersWatch
from ticketbench.planned_faults import PlannedFaults
from ticketbench.sampler_process import SamplerProcess
from ticketbench.sampling.phases import LoadPhase
from ticketbench.stack import Endpoints, Stack, payment
from ticketbench.stack.idle import drained, idle
from ticketbench.stack.protocol import DatabaseAccess
from ticketbench.stack.replicas import component_of
from ticketbench.watch import SCRAPED_WITHIN_S, TrialWatch

if TYPE_CHECKING:
    pass

T = TypeVar("T")

# What is queued when the load ends is worked off within this. A spike leaves seconds of work behind.
DRAINED_WITHIN_S: Final = 60.0

# What the data of a trial and the report need, a second of CPU in all: loaded while the stack is coming up, which is
# mostly waiting for Prometheus, and not after the load, when somebody is waiting for the report.
HEAVY: Final = (
    "ticketbench.collect", "ticketbench.storing.series", "scipy.stats", "matplotlib.figure",
    "matplotlib.backends.backend_svg", "jinja2",
)  # fmt: skip


@dataclass
class Run:
    """What the steps of one run share."""

    plan: Plan
    script: Path
    stack: Stack
    directory: store.RunDirectory
    emit: Emit
    command: str
    signals: interrupts.Hold  # a signal strikes only where a step listens to it
    session: int = 1
    sampler: SamplerProcess | None = None
    recorded: bool = False
    others: OthersWatch = field(default_factory=OthersWatch)
    row_scripts: Mapping[str, Path] = field(default_factory=dict)  # of a plan with rows: each row its own
    run_record: RunRecord | None = None  # None where an earlier invocation has written it
    loading: threading.Thread = field(default_factory=lambda: threading.Thread(target=_load_heavy, daemon=True))


def run(
    plan: Plan,
    script: Path,
    stack: Stack,
    directory: store.RunDirectory,
    *,
    emit: Emit,
    keep: bool = False,
    stored: Sequence[TrialRecord] = (),
    command: str = "",
    row_scripts: Mapping[str, Path] | None = None,
) -> None:
    """Measure a whole plan into ``directory``; a resumed one without those of the ``stored`` trials that are done.

    Each trial is on disk before the next one begins. Raises Interrupted or EnvironmentFailure after everything that
    was started is stopped (unless ``keep``) and what was measured of the broken trial is stored and marked.
    ``command`` is the one that repeats the run. ``row_scripts`` are those of a plan with rows, by row.
    """
    with interrupts.deferred() as signals:
        this = Run(plan, script, stack, directory, emit, command or planning.command(plan), signals)
        this.row_scripts = row_scripts or {}
        if directory.has_run():
            this.recorded, this.session = True, 1 + max((record.session for record in stored), default=1)
        trials = unfinished(plan, stored)
        emit(planning.planned(plan, trials))
        with _up(this, keep=keep):
            for trial in trials:
                directory.supersede(trial.id)
                measured = _measure(this, trial)
                _store(this, measured)
                if measured.failure is not None:
                    raise measured.failure


def unfinished(plan: Plan, stored: Sequence[TrialRecord]) -> tuple[Trial, ...]:
    """Return the trials of ``plan`` that are still to be measured, in their order."""
    measured = {record.trial.id for record in stored if record.status == "done"}
    return tuple(trial for trial in plan.trials if trial.id not in measured)


def _load_heavy() -> None:
    for name in HEAVY:
        with contextlib.suppress(ImportError):  # whoever really needs it says so
            importlib.import_module(name)


@contextlib.contextmanager
def _up(this: Run, *, keep: bool) -> Iterator[None]:
    """Start the servers and the sampler; stop them whatever happens."""
    try:
        with this.signals.listening():
            own = this.plan.external is None
            this.emit(Phase("start", "PostgreSQL, Redis and Prometheus" if own else "Prometheus, for k6's series"))
            this.sampler = SamplerProcess.launch(this.directory.path / "sampler.log")  # it loads meanwhile
            servers = this.stack.start()
            this.loading.start()
            this.sampler.begin(servers.prometheus_url, servers.access, servers.components, servers.containers)
        yield
    finally:
        if this.sampler is not None:
            this.sampler.stop()
            redact_file(this.directory.path / "sampler.log")
        if not (keep and this.recorded):  # one that never answered a request is not worth keeping
            this.emit(Phase("stop"))
            this.stack.stop()


def _measure(this: Run, trial: Trial) -> Measured:
    """Take one trial through all of its phases. Whatever ends it early is noted, and what there is is kept."""
    measured = Measured(trial, started_s=time.time())
    try:
        with this.signals.listening():
            _prepare(this, measured)
            _load(this, measured)
            _read_ledger(this, measured)
            _collect(this, measured)
    except TicketbenchError as error:
        measured.failure = error
        measured.reasons.append(error.message)
        _salvage(this, measured)
    return measured


def _prepare(this: Run, measured: Measured) -> None:
    plan, trial = this.plan, measured.trial
    this.emit(
        Phase("reset" if plan.external is None else "pre-flight", trial.variant, trial.position, len(plan.trials))
    )
    sampler = _there(this.sampler)
    sampler.between_variants()
    endpoints = this.stack.apply(plan.variant(trial.variant).levels)
    measured.endpoints = endpoints
    this.loading.join()  # nothing of ours may be at work when the load begins
    if not this.recorded:
        environment = machine.environment(
            endpoints.binaries,
            endpoints.settings,
            own_target=plan.external is None,
            other_cpu=this.others.share(),
            packages=endpoints.packages,
        )
        this.run_record = _run_record(this, environment)
        store.save_run(this.directory, this.run_record)
        this.recorded = True
    measured.watch = TrialWatch(endpoints, sampler)
    sampler.variant(endpoints.logs, endpoints.access, endpoints.consoles)
    for component in endpoints.components:
        sampler.watch(component.name, component.pid)
    if plan.schedules[trial.variant].window_start_s < SCRAPED_WITHIN_S:
        measured.watch.await_scraped()  # a longer warm-up leaves Prometheus the time to find the sale


def _load(this: Run, measured: Measured) -> None:
    plan, trial = this.plan, measured.trial
    endpoints, sampler, watch = _there(measured.endpoints), _there(this.sampler), _there(measured.watch)
    schedule = plan.schedules[trial.variant]
    label = _trial_label(this, trial)

    def on_start(pid: int) -> None:
        sampler.watch("k6", pid)
        watch.k6_started(pid)

    def on_phase(name: str, planned_s: float | None) -> None:
        if name == "window":
            watch.window_begins()
        offered = live.slopes(schedule, schedule.window_start_s) if name == "window" else ()
        sampler.phase(LoadPhase(label, trial.variant, name, plan.scenario_of(trial.variant).goal, offered))
        follow.on_phase(name, planned_s)

    def on_acks(acks: Iterator[Ack]) -> None:
        with interrupts.deferred():
            this.directory.save_acks(trial.id, acks)

    execution = load.Execution(
        k6_command=endpoints.k6_command,
        script=this.row_scripts.get(trial.variant, this.script),
        env=scenario.load_env(plan.variant(trial.variant).levels),
        base_url=endpoints.base_url,
        prometheus_url=endpoints.prometheus_url,
        trial_id=label,
        # Each repetition draws other arrivals; all variants of a block meet the same ones.
        seed=plan.seed * 1000 + trial.repetition,
        folder=this.directory.logs_dir(trial.id),
        schedule=schedule,
        slos=plan.scenario_of(trial.variant).slos,
        addresses=endpoints.addresses,
        headers=endpoints.headers,
    )
    faults = PlannedFaults(plan.faults, schedule.window_start_s, endpoints.faults, watch, this.emit)
    measured.faults = faults

    def on_tick(elapsed_s: float) -> None:
        faults.on_tick(elapsed_s)
        follow.on_tick(elapsed_s)

    follow = live.LiveLoad(
        endpoints.prometheus_url, label, plan.scenario_of(trial.variant), schedule, trial, len(plan.trials), this.emit
    )
    try:
        with watch, follow:
            outcome = load.run_load(
                execution,
                on_start=on_start,
                on_phase=on_phase,
                on_tick=on_tick,
                should_stop=lambda: faults.trouble() or watch.accident(),
                on_acks=on_acks,
            )
    except load.LoadInterrupted as interrupt:
        measured.outcome = interrupt.outcome
        raise
    finally:
        faults.finish()
        sampler.phase(None)
    measured.outcome = outcome
    _require_whole(outcome, faults.trouble())


def _require_whole(outcome: load.LoadOutcome, trouble: str | None) -> None:
    """Raise what kept a load from being carried through, or from being stored."""
    if outcome.aborted and outcome.result is not None and outcome.result.exit_code in k6.EXITS_OF_A_SCRIPT:
        raise ScriptFailure(outcome.aborted, "`ticketbench scenarios check` reads the script without running it")
    if outcome.aborted or trouble:
        raise EnvironmentFailure(outcome.aborted or trouble or "")
    if outcome.failure is not None:
        raise outcome.failure


def _read_ledger(this: Run, measured: Measured) -> None:
    """Read the ledger out once nothing is under way in the target any more; somebody else's is not ours to read."""
    endpoints = _there(measured.endpoints)
    if endpoints.access is None:
        return
    _phase(this, measured, "audit")
    with _there(measured.watch).guarding():
        if not _idle(endpoints):
            measured.reasons.append("the ledger was read while purchases may still have been under way in the target")
        elif factors.queued(this.plan.variant(measured.trial.variant).levels):
            _drain(endpoints, endpoints.access)
        provider, settled = _settled(endpoints, measured)
        rows = ledger.read_ledger(endpoints.access, provider, settled=settled)
        this.directory.save_ledger(measured.trial.id, rows)
        measured.ledger_read = True


def _settled(endpoints: Endpoints, measured: Measured) -> tuple[str, bool]:
    """Let the sale give back what it owes; return where the provider's books are, and whether it had the time to.

    Without a provider, or where that has died, the address is empty.
    """
    provider = endpoints.consoles.get(payment.NAME, "")
    dead = endpoints.dead() if provider else {}
    if payment.NAME in dead:
        measured.reasons.append("the payment provider died, so nothing is known of the money")
        return "", False
    if not provider or any(component_of(name) == "app" for name in dead):
        return provider, False  # whoever would settle it is gone
    # where the time is up, what is still owed is a fault
    money.await_settled(endpoints.own_access)
    return provider, True


def _drain(endpoints: Endpoints, access: DatabaseAccess) -> None:
    """Let the workers of the queue finish what they were given; what is left the ledger tells of, and the audit."""
    drained(access.redis_url, deadline_s=DRAINED_WITHIN_S, working=lambda: not endpoints.dead())


def _idle(endpoints: Endpoints) -> bool:
    """Wait until the target has nothing under way; a dead one is not waited for."""
    return not any(component_of(name) == "app" for name in endpoints.dead()) and idle(endpoints.app_metrics)


def _collect(this: Run, measured: Measured) -> None:
    from ticketbench.collect import collect  # heavy: loaded meanwhile, see HEAVY

    endpoints, outcome = _there(measured.endpoints), measured.outcome
    if outcome is None or outcome.started_s is None:
        return
    _phase(this, measured, "collect")
    ended_s = outcome.result.ended_s if outcome.result is not None else time.time()
    with _there(measured.watch).guarding():
        measured.collected = collect(
            endpoints.prometheus_url,
            _trial_label(this, measured.trial),
            endpoints.base_url,
            outcome.started_s,
            ended_s,
            external=this.plan.external is not None,
            queue=factors.queued(this.plan.variant(measured.trial.variant).levels),
            source=endpoints.source,
        )


def _salvage(this: Run, measured: Measured) -> None:
    """Keep what can still be had of a broken trial. A part that is gone is named, and does not stop the others."""
    if measured.endpoints is None:
        return
    done = ((_read_ledger, measured.ledger_read), (_collect, measured.collected is not None))
    steps = [step for step, is_done in done if not is_done]
    for step in steps:
        try:
            with this.signals.listening():
                step(this, measured)
        except EnvironmentFailure as error:
            if error.message not in measured.reasons:  # the step that failed may be the one that is tried again
                measured.reasons.append(error.message)
        except Interrupted:
            return  # asked twice: what is in hand must do


def _store(this: Run, measured: Measured) -> None:
    """Write the trial down, whole: nobody listens to signals meanwhile."""
    if not this.recorded:
        return  # the stack never came up: there is nothing to tell
    record = measured.record(this.plan, this.session)
    folder = this.directory.logs_dir(measured.trial.id)
    if this.run_record is not None and not this.directory.has_run():  # removed in mid-run
        store.save_run(this.directory, this.run_record)
    if measured.endpoints is not None:
        keep_logs(measured.endpoints.logs, folder)
    outcome, collected = measured.outcome, measured.collected
    this.directory.save_trial(
        record,
        summary=outcome.summary if outcome is not None else None,
        series=collected.series if collected is not None else None,
        histograms=collected.histograms if collected is not None else None,
    )
    position, of = record.trial.position, len(this.plan.trials)
    this.emit(TrialStored(position, of, record.trial.variant, record.status, figures(record)))


def _phase(this: Run, measured: Measured, name: str) -> None:
    this.emit(Phase(name, measured.trial.variant, measured.trial.position, len(this.plan.trials)))


def _trial_label(this: Run, trial: Trial) -> str:
    return f"{this.directory.path.name}-{trial.id}"


def _there(thing: T | None) -> T:
    """Return what an earlier step has made. Its absence is a bug in the order of the steps."""
    if thing is None:
        raise RuntimeError("a step of the trial ran before the one it needs")
    return thing


def _run_record(this: Run, environment: Environment) -> RunRecord:
    return RunRecord(
        run_id=this.directory.path.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        ticketbench=__version__,
        plan=this.plan,
        environment=environment,
        command=this.command,
    )
