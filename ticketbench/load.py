"""One k6 execution: started, watched, stopped, and turned into records."""

import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ticketbench import k6
from ticketbench.errors import EnvironmentFailure, Interrupted
from ticketbench.k6_process import (
    CONSOLE,
    LOG,
    SUMMARY,
    Child,
    Execution,
    foreign_hosts,
    free_port,
    held_to_cores,
    require_descriptors,
)
from ticketbench.ledger_rows import Ack
from ticketbench.logs import blot_out
from ticketbench.model import LoadResult, Schedule
from ticketbench.storing.files import write_atomically

START_LIMIT_S: Final = 150.0  # making virtual users takes seconds; k6 gives a script's setup() 60 s
DRAIN_LIMIT_S: Final = 60.0  # k6's own default for the last iterations is 30 s
START_POLL_S: Final = 0.02  # bounds the error of the execution's start
WATCH_POLL_S: Final = 0.2
EARLY_S: Final = 0.5  # an open model that ends this much before its window was cut off
PORT_ATTEMPTS: Final = 5


@dataclass(frozen=True)
class LoadOutcome:
    """What came of an execution. ``aborted`` says why it was not carried through, None when it was.

    ``result`` and ``summary`` are None where k6 died before it could sum up. ``failure`` is what kept the acknowledged
    purchases from being stored; they are still in k6's console log then.
    ``started_s`` (Unix seconds) is None where the execution did not begin; it is exact to ``started_within_s``.
    """

    result: LoadResult | None
    summary: dict[str, Any] | None
    aborted: str | None
    started_s: float | None = None
    started_within_s: float = 0.0
    failure: EnvironmentFailure | None = None


class LoadInterrupted(Interrupted):
    """SIGINT or SIGTERM arrived during the load. k6 is stopped, and ``outcome`` is what it had done until then."""

    def __init__(self, signum: int, outcome: LoadOutcome) -> None:
        super().__init__(signum)
        self.outcome = outcome


OnStart = Callable[[int], None]
OnPhase = Callable[[str, float | None], None]
OnTick = Callable[[float], None]
ShouldStop = Callable[[], str | None]
OnAcks = Callable[[Iterator[Ack]], object]


def _no_tick(_elapsed_s: float) -> None:
    pass


def run_load(
    execution: Execution,
    *,
    on_start: OnStart,
    on_phase: OnPhase,
    should_stop: ShouldStop,
    on_tick: OnTick = _no_tick,
    on_acks: OnAcks | None = None,
) -> LoadOutcome:
    """Run k6 from start to end, and return what it did. k6 never outlives this call, however it ends.

    ``on_start`` gets the process id (again, with another one, where k6 had to be started anew because its port was
    taken). ``on_phase`` gets ``warm-up``, ``window`` and ``drain`` as they begin, with their planned seconds where
    known. ``on_tick`` gets the seconds since the start about five times a second; it holds up the watching, so it must
    return at once. ``should_stop`` is asked every 0.2 s; a reason stops k6 at once. ``on_acks`` is called once, after
    k6's end however that came, and gets the acknowledged purchases one by one, to store them; an EnvironmentFailure of
    it is in the outcome, and k6's console log keeps them then. Call it from the main thread: k6 is killed by the kernel
    when the thread that started it ends.

    Raises EnvironmentFailure where k6 cannot be started, and LoadInterrupted, which carries the partial outcome, when
    Interrupted or KeyboardInterrupt is raised meanwhile.
    """
    require_descriptors(execution.schedule.max_vus)
    for _ in range(PORT_ATTEMPTS):
        child = Child(execution, free_port())
        outcome = _attend(child, on_start, on_phase, on_tick, should_stop, on_acks or _forget)
        if child.process.returncode != k6.EXIT_PORT_BUSY:
            return outcome
    raise EnvironmentFailure(f"k6 found its port taken {PORT_ATTEMPTS} times in a row", "free some ports and try again")


def _forget(acks: Iterator[Ack]) -> None:
    for _ in acks:
        pass


def _attend(
    child: Child, on_start: OnStart, on_phase: OnPhase, on_tick: OnTick, should_stop: ShouldStop, on_acks: OnAcks
) -> LoadOutcome:
    seen = _Seen()
    try:
        on_start(child.process.pid)
        _watch_start(child, seen, should_stop)
        _watch_load(child, seen, on_phase, on_tick, should_stop)
    except (KeyboardInterrupt, Interrupted) as error:
        signum = error.signum if isinstance(error, Interrupted) else signal.SIGINT
        seen.aborted = Interrupted(signum).message
        child.stop()
        raise LoadInterrupted(signum, _outcome(child, seen, on_acks)) from error
    finally:
        child.kill()
    return _outcome(child, seen, on_acks)


# --- watching ---------------------------------------------------------------------------------------------------------


@dataclass
class _Seen:
    """What was observed of an execution so far. Times of day in Unix seconds."""

    started_s: float | None = None
    started_within_s: float = 0.0
    started_monotonic_s: float = 0.0
    ended_s: float | None = None
    aborted: str | None = None
    announced: set[str] = field(default_factory=set)

    def now_s(self) -> float:
        """Return the time of day; once the load has begun by a clock that nobody sets, so that it cannot end before."""
        if self.started_s is None:
            return time.time()
        return self.started_s + time.monotonic() - self.started_monotonic_s


def _watch_start(child: Child, seen: _Seen, should_stop: ShouldStop) -> None:
    """Wait until k6 starts its executors. The start lies between two polls, so it is known to half their distance."""
    not_yet_s = child.launched_s
    give_up_s = time.monotonic() + START_LIMIT_S
    ask_s = 0.0
    while not child.ended(START_POLL_S):
        asked_s = time.time()
        status = child.status()
        if status is not None and status >= k6.STATUS_RUNNING:
            seen.started_within_s = (time.time() - not_yet_s) / 2
            seen.started_s = not_yet_s + seen.started_within_s
            seen.started_monotonic_s = time.monotonic() - seen.started_within_s
            return
        if status is not None:
            not_yet_s = asked_s
        if (now_s := time.monotonic()) >= ask_s:
            ask_s = now_s + WATCH_POLL_S
            seen.aborted = should_stop()
        if seen.aborted is None and now_s >= give_up_s:
            seen.aborted = f"k6 had not begun after {START_LIMIT_S:g} s"
        if seen.aborted is not None:
            child.stop()
            return
    if child.process.returncode in {0, k6.EXIT_THRESHOLDS}:
        # A script that was over between two looks. It ran somewhere between the last look and now.
        seen.ended_s = time.time()
        seen.started_within_s = seen.ended_s - not_yet_s
        seen.started_s = not_yet_s
        seen.started_monotonic_s = time.monotonic() - seen.started_within_s


def _watch_load(child: Child, seen: _Seen, on_phase: OnPhase, on_tick: OnTick, should_stop: ShouldStop) -> None:
    """Tell the phases as they begin, until k6 has ended by itself, is asked to, or overruns."""
    schedule = child.execution.schedule
    while seen.started_s is not None and seen.aborted is None:
        elapsed_s = time.monotonic() - seen.started_monotonic_s
        _announce(schedule, seen, elapsed_s, on_phase)
        on_tick(elapsed_s)
        if child.ended(WATCH_POLL_S):
            _announce(schedule, seen, schedule.window_end_s if seen.ended_s is None else elapsed_s, on_phase)
            break
        if seen.ended_s is None and (status := child.status()) is not None and status > k6.STATUS_RUNNING:
            seen.ended_s = seen.now_s()
            _announce(schedule, seen, schedule.window_end_s, on_phase)
        seen.aborted = should_stop()
        if seen.aborted is None and elapsed_s > schedule.total_s + DRAIN_LIMIT_S:
            seen.aborted = f"k6 was still running {DRAIN_LIMIT_S:g} s after its schedule had ended, and was stopped"
        if seen.aborted is not None:
            child.stop()
    seen.ended_s = seen.ended_s or seen.now_s()
    if seen.started_s is not None and child.process.returncode in {0, k6.EXIT_THRESHOLDS}:
        _announce(schedule, seen, schedule.window_end_s, on_phase)  # it may have ended between two looks


def _announce(schedule: Schedule, seen: _Seen, elapsed_s: float, on_phase: OnPhase) -> None:
    start_s, end_s = schedule.window_start_s, schedule.window_end_s
    phases: tuple[tuple[str, float, float | None], ...] = (
        ("warm-up", 0.0, start_s),
        ("window", start_s, end_s - start_s if schedule.open_model else None),
        ("drain", end_s, None),
    )
    for name, begins_s, expected_s in phases:
        if elapsed_s >= begins_s and name not in seen.announced:
            seen.announced.add(name)
            if expected_s != 0:
                on_phase(name, expected_s)


# --- what came of it --------------------------------------------------------------------------------------------------


def _outcome(child: Child, seen: _Seen, on_acks: OnAcks) -> LoadOutcome:
    folder = child.execution.folder
    code = child.process.returncode
    secrets = tuple(child.execution.headers.values())
    hosts = foreign_hosts(child.execution)
    gone = not (folder / LOG).exists()  # made by us before k6 began
    summary = _read_summary(folder / SUMMARY)
    log, console = k6.Log(k6.read_log(_lines(folder / LOG, secrets, hosts))), k6.Console()
    failure = None
    try:
        _keep_readable(folder / LOG, log)
        if not gone:  # no purchases are something else than none known
            on_acks(console.acks(_lines(folder / CONSOLE, secrets, hosts)))
        _keep_readable(folder / CONSOLE, console.said)  # from here on the purchases are only where on_acks put them
    except EnvironmentFailure as error:
        failure = error
        if secrets or hosts:  # what k6 wrote itself may hold them, and what may be kept of it cannot be written
            for name in (LOG, CONSOLE):
                (folder / name).unlink(missing_ok=True)
    if gone:
        seen.aborted = "the run's folder was removed in mid-trial, with what k6 had written"
    aborted = seen.aborted or _why_incomplete(child.execution.schedule, seen, code, log)
    notes = list(k6.messages(log, console.said))
    if console.malformed:
        notes.append(f"{console.malformed} ACK lines of the script could not be read")
    result = None
    if code >= 0:
        try:
            figures = k6.parse_summary(summary or {"metrics": {}}, child.execution.slos, k6.crossed_metrics(log, code))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise EnvironmentFailure(
                f"k6's summary cannot be read: {error}", "this k6 may be newer than ticketbench: try k6 1.x or 2.0"
            ) from error
        result = LoadResult(
            exit_code=code,
            started_s=seen.started_s or child.launched_s,
            ended_s=seen.ended_s or seen.now_s(),
            requests=figures.requests,
            iterations=figures.iterations,
            dropped_iterations=figures.dropped_iterations,
            vus_max=figures.vus_max,
            thresholds=figures.thresholds,
            trends_ms=figures.trends_ms,
            version=figures.version,
            gomaxprocs=held_to_cores(child.execution.schedule),
            messages=tuple(notes),
            thrown=log.thrown(),
        )
    return LoadOutcome(result, summary, aborted, seen.started_s, seen.started_within_s, failure)


def _why_incomplete(schedule: Schedule, seen: _Seen, code: int, log: k6.Log) -> str | None:
    said = log.first_error()
    if code < 0:
        return f"k6 was killed by {signal.Signals(-code).name}"
    if code == k6.EXIT_INTERRUPTED:
        return "k6 was interrupted from outside"
    if code == k6.EXIT_SCRIPT_ABORTED:
        return f"the script ended the test itself: {said}"
    if code not in {0, k6.EXIT_THRESHOLDS}:
        return f"k6 ended with exit code {code}: {said or 'without a word'}"
    if schedule.open_model and seen.started_s is not None and seen.ended_s is not None:
        lasted_s = seen.ended_s - seen.started_s
        if lasted_s < schedule.window_end_s - EARLY_S:
            return f"k6 ended after {lasted_s:.1f} s of {schedule.window_end_s:g} s: {said or 'without a word'}"
    return None


def _lines(path: Path, secrets: Sequence[str], hosts: Sequence[str]) -> Iterator[str]:
    """Yield a log's lines as they may be kept; never all at once: an hour of purchases makes hundreds of megabytes."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                kept = blot_out(line, secrets) if secrets else line
                for host in hosts:
                    kept = kept.replace(host, "<target>")
                yield kept
    except FileNotFoundError:
        return


def _read_summary(path: Path) -> dict[str, Any] | None:
    try:
        raw = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None  # k6 died before or while it wrote it
    finally:
        path.unlink(missing_ok=True)
    return raw if isinstance(raw, dict) else None


def _keep_readable(path: Path, log: k6.Log) -> None:
    """Rewrite a log for the run directory: without folders of this machine, ACK lines (stored apart) or excess."""
    content = log.content()
    try:
        if content:
            write_atomically(path, content)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise EnvironmentFailure(f"cannot write {path}: {error.strerror}") from error


__all__ = ["Execution", "LoadInterrupted", "LoadOutcome", "run_load"]
