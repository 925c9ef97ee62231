"""Whether a trial's measurement can be believed, and if not, why: every reason is a sentence with its figure.

Three weights. *invalid*: the figures say something else than they seem to (the generator was measured, a series is
torn, nothing works). *lower_bound*: they bound the truth from one side, which the sentence names. *note*: worth
knowing, and changes nothing. A functional scenario makes no performance claim: only what would make its counts wrong
applies to it, its thresholds decide the rest.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ticketbench.analysis import crosscheck
from ticketbench.analysis.disturbances import Weight, disturbed
from ticketbench.analysis.resources import host_busy_cores, label, workers_of
from ticketbench.analysis.series import Series, known
from ticketbench.analysis.thrown import thrown
from ticketbench.analysis.unreached import unreached
from ticketbench.analysis.wording import listed, number, percent
from ticketbench.conclusions import Validity, ValidityStatus
from ticketbench.model import OTHER_ROUTE, Environment, RunRecord

if TYPE_CHECKING:
    from ticketbench.analysis.signals import Measurement
    from ticketbench.store import TrialData

# Below this share of the offered iterations the achieved rate is another rate than the one asked for (METHOD 4.1).
ACHIEVED_SHARE: Final = 0.95
# A single-threaded server at 85 % makes a request wait for 2.8 service times (M/D/1: rho / (2 (1 - rho))); of k6's 0.5
# to 1 ms a request that is 1.5 to 3 ms of latency that are k6's own.
K6_CPU_SHARE: Final = 0.85
# Seconds that k6's threads were runnable without a core, per second: so many of them wait at a time. It handles one
# event after another, so an answer that comes in meets a waiting k6 with up to this probability.
K6_RUN_DELAY: Final = 0.2
HOST_BUSY: Final = 0.95
# CPU that somebody else took, as a share of the machine. 15 % is where results moved visibly on two shared cores; with
# half of the machine gone and none left over another machine was measured.
OTHERS_LOWER_BOUND: Final = 0.15
OTHERS_INVALID: Final = 0.50
# A hypervisor that gives 5 % of the time to others stretches one request in twenty: p95 is its doing.
STEAL_SHARE: Final = 0.05
# One second of garbage collection, checkpoint or a late scrape is at most 5 % of 20 s, so alone it is not the p95.
SHORTEST_STEADY_S: Final = 20.0
# The p95 of 100 requests rests on the five slowest.
FEWEST_GOAL_REQUESTS: Final = 100
MOST_FAILING: Final = 0.5
# A system that turns most away on purpose (503) and serves the rest is overloaded, not broken: its goodput is believed.
# That needs nearly all failures to be of that kind, and a tenth of the goal's requests to succeed all the same.
SHED: Final = "503"
SOLD_OUT: Final = "409"  # the one right answer that sells nothing
SHED_SHARE: Final = 0.95
SHED_GOOD_SHARE: Final = 0.1
# From ten requests on, a share of half is no accident of one or two; where it is every single one, three are enough.
ROUTE_MISSING_SHARE: Final = 0.5
ROUTE_MISSING_REQUESTS: Final = 10
ROUTE_MISSING_ALL: Final = 3
# The app's scrapes may miss one second in ten before its means are those of other seconds.
SCRAPES_MISSED: Final = 0.1
# The sampler ticks ten times a second; a tenth of a second late per second is one tick lost in each.
SAMPLER_LATE: Final = 0.1
# A second of a window is told of; what was done in a tenth of it and not seen may hide who took the CPU.
SAMPLER_GAP_S: Final = 1.0
SAMPLER_GAP_SHARE: Final = 0.1
# Series of several sources are joined by the wall clock with a jitter of 0.1 s; a jump beyond it tears them apart.
CLOCK_STEP_S: Final = 0.1
# k6 exits with 99 when a threshold failed: that is an answer. Anything else but 0 is none.
K6_ANSWERS: Final = (0, 99)


@dataclass(frozen=True)
class Reason:
    """One fault of a measurement: how much it weighs, and the sentence."""

    weight: Weight
    text: str


def judge(trial: "TrialData", run: RunRecord, measured: "Measurement | None") -> Validity:
    """Return the validity of one trial. ``measured`` None (or nothing in it) is invalid."""
    reasons = list(_reasons(trial, run, measured))
    weights = {reason.weight for reason in reasons}
    status: ValidityStatus = (
        "invalid" if "invalid" in weights else "lower_bound" if "lower_bound" in weights else "valid"
    )
    order: tuple[Weight, ...] = ("invalid", "lower_bound", "note")
    ordered = sorted(reasons, key=lambda reason: order.index(reason.weight))
    return Validity(status=status, reasons=tuple(reason.text for reason in ordered))


def _reasons(trial: "TrialData", run: RunRecord, measured: "Measurement | None") -> Iterator[Reason]:
    yield from _ended(trial)
    if measured is None or trial.record.window is None:
        yield Reason("invalid", "nothing was measured: the trial did not come as far as its window")
        return
    series = Series(trial.series)
    edges = np.array([trial.record.window.start_s, trial.record.window.end_s])
    shape = run.plan.scenario_of(trial.record.trial.variant).shape
    performance = shape != "functional"
    yield from _missing(trial, series, stack=run.plan.stack)
    yield from (Reason(weight, text) for weight, text in disturbed(trial, series, performance=performance))
    if measured.requests == 0:  # then what it threw is why
        yield from (Reason(weight, text) for weight, text in thrown(trial, run, series))
        yield Reason("invalid", "k6 sent no request that counts: nothing was measured")
    else:  # an answer that failed is why many a script throws
        if run.plan.external is not None:
            yield from (Reason(weight, text) for weight, text in unreached(trial, trial.record.window, measured))
        yield from _failing(measured, performance=performance)
        yield from (Reason(weight, text) for weight, text in thrown(trial, run, series))
    for text in crosscheck.contradictions(
        trial, series, measured, quantiles=performance, own_app=run.plan.external is None
    ):
        yield Reason("invalid", text)
    for text in crosscheck.thresholds_without_data(trial):
        yield Reason("invalid", text)
    if not performance:
        return
    schedule = run.plan.schedules[trial.record.trial.variant]
    if trial.record.status == "done":  # else it is short because it was cut short, and no setting would help
        yield from _too_short(measured, shape, open_model=schedule.open_model)
    generator = _Generator(series, edges, run.environment, generator_cores(trial, run.environment))
    yield from _load(measured, generator)
    here = run.plan.external is not None and run.plan.external.where == "loopback"
    yield from _others(series, edges, run.environment.cores, theirs_too=here)
    yield from _sources(trial, series, edges)
    for text in crosscheck.strangers(trial, series, own_app=run.plan.external is None):
        yield Reason("lower_bound", text)
    yield from _of_external(series) if run.plan.external is not None else _of_faults(trial, series)


def _of_faults(trial: "TrialData", series: Series) -> Iterator[Reason]:
    """Say what planned faults leave open."""
    if crosscheck.app_was_ended(trial):
        for text in crosscheck.app_saw_fewer(series):
            yield Reason("note", f"{text}; it was ended on purpose, and its counts since the last scrape are gone")


def _of_external(series: Series) -> Iterator[Reason]:
    """Say which rules somebody else's system leaves open: what cannot be checked is neither kept nor broken."""
    if not series.has("app.requests"):
        yield Reason(
            "note",
            "whether anybody else used the system meanwhile could not be checked: no series counts its requests",
        )
    for text in crosscheck.app_saw_fewer(series):
        yield Reason("note", f"{text}; or it counts requests in another way, which could not be checked")


# --- the trial itself -------------------------------------------------------------------------------------------------


def _ended(trial: "TrialData") -> Iterator[Reason]:
    record = trial.record
    if record.status != "done":
        why = f": {'; '.join(record.reasons)}" if record.reasons else ""
        word = {"interrupted": "was interrupted", "damaged": "can no longer be read whole"}.get(record.status, "failed")
        why = "" if why in (": interrupted", ": terminated") else why
        yield Reason("invalid", f"the trial {word}{why}")
    else:
        for reason in record.reasons:
            yield Reason("note", reason)
        for fault in record.faults:
            if fault.began_s is None:
                yield Reason("invalid", f"the planned fault {fault.fault.text!r} never came: the load had ended before")
        if record.load is None:
            yield Reason("invalid", "k6 left no summary: its own totals are missing")
        elif record.load.exit_code not in K6_ANSWERS:
            yield Reason(
                "invalid", f"k6 ended with exit code {record.load.exit_code}: read its log in the trial's folder"
            )


def _missing(trial: "TrialData", series: Series, *, stack: str) -> Iterator[Reason]:
    names = series.names()
    if trial.histograms is None or not (trial.histograms.count > 0).any():
        yield Reason("invalid", "k6's latency histograms are missing: no latency and no error is known")
    if not {"k6.requests", "k6.iterations"} & names:
        yield Reason("invalid", "k6's series are missing in Prometheus: neither traffic nor drops are known")
    if "cpu_s" not in names:
        yield Reason(
            "lower_bound",
            "the sampler's series are missing: whether others took CPU is unknown, so the system can do at least this",
        )
    if stack != "external" and not any(name.startswith("app.") for name in names):
        yield Reason("note", "the app's series are missing: nothing is known of its pool, its loop and its stages")


def _failing(measured: "Measurement", *, performance: bool) -> Iterator[Reason]:
    for route in measured.routes:
        # A script may expect a 404 now and then. One that calls every answer a success hides a route that never was.
        only_404 = performance and set(route.by_status) == {"404"}
        missing = route.requests if only_404 else route.unexpected_404
        enough = ROUTE_MISSING_ALL if missing == route.requests else ROUTE_MISSING_REQUESTS
        if route.requests >= enough and missing >= ROUTE_MISSING_SHARE * route.requests:
            share = percent(missing / route.requests)
            yield Reason(
                "invalid",
                f"{route.method} requests went to too many addresses to tell apart, and {share} of these"
                f" {route.requests} were answered 404: give requests whose address varies a name tag"
                if route.name == OTHER_ROUTE
                else f"{route.method} {route.name} does not exist: {share} of its {route.requests} requests were"
                " answered 404",
            )
    sold_out = SOLD_OUT in measured.signals.errors.answered
    if performance and measured.goal_requests and not measured.latency.count and not sold_out:
        kinds = listed(f"{count} x {kind}" for kind, count in measured.goal_ended.items())
        yield Reason(
            "invalid",
            f"not one request towards the goal succeeded ({kinds}): there is no latency and no goodput to tell",
        )
    if measured.failed > MOST_FAILING * measured.requests:
        by_kind = measured.signals.errors.by_kind
        kinds = listed(f"{count} x {kind}" for kind, count in by_kind.items())
        text = (
            f"most requests failed: {measured.failed} of {measured.requests}"
            f" ({percent(measured.failed / measured.requests)}: {kinds})"
        )
        shed = by_kind.get(SHED, 0) >= SHED_SHARE * measured.failed
        if shed and measured.latency.count >= SHED_GOOD_SHARE * measured.goal_requests:
            text += ": the system turned buyers away, so the latency is that of the few it served, and at least this"
            yield Reason("lower_bound", text)
        else:
            yield Reason("invalid", text)


# --- load -------------------------------------------------------------------------------------------------------------


def _too_short(measured: "Measurement", shape: str, *, open_model: bool) -> Iterator[Reason]:
    if shape == "steady" and measured.window_s < SHORTEST_STEADY_S:
        yield Reason(
            "invalid",
            f"the window of {number(measured.window_s)} s is too short for a steady scenario, which needs"
            f" {number(SHORTEST_STEADY_S)} s: set duration={number(SHORTEST_STEADY_S)} or more",
        )
    if measured.requests > 0 and measured.goal_requests < FEWEST_GOAL_REQUESTS:
        more = "raise the rate or the duration" if open_model else "let more virtual users ask, or for longer"
        yield Reason(
            "invalid",
            f"{measured.goal_requests} requests towards the goal are too few: a p95 needs {FEWEST_GOAL_REQUESTS};"
            f" {more}",
        )


class _Generator:
    """How k6 itself fared in the window; a figure is None where it was not sampled."""

    def __init__(
        self, series: Series, edges: "np.ndarray[tuple[int], np.dtype[np.float64]]", env: Environment, cores: int
    ) -> None:
        length = edges[1] - edges[0]
        k6 = label(component="k6")
        self._cpu = known(series.increase("cpu_s", edges, k6)[0] / length)
        self._run_delay = known(series.increase("run_delay_s", edges, k6)[0] / length)
        busy = known(host_busy_cores(series, edges)[0])
        self._host = None if busy is None else busy / max(1, env.cores)
        self._cores = cores

    def shortage(self) -> str:
        """Return how k6 lacked CPU, as a clause, or nothing."""
        if self._cpu is not None and self._cpu > K6_CPU_SHARE * self._cores:
            return f"k6 used {percent(self._cpu / self._cores)} of the {_cores(self._cores)} that it may use"
        delayed = self._run_delay is not None and self._run_delay > K6_RUN_DELAY
        if delayed and self._host is not None and self._host >= HOST_BUSY:
            return (
                f"on average {self._run_delay or 0:.1f} of k6's threads waited for a core while the machine was"
                f" {percent(self._host)} busy"
            )
        return ""


def generator_cores(trial: "TrialData", environment: Environment) -> int:
    """Return how many cores k6 could use at a time."""
    held_to = trial.record.load.gomaxprocs if trial.record.load is not None else None
    return min(held_to or environment.cores, max(1, environment.cores))


def _load(measured: "Measurement", generator: _Generator) -> Iterator[Reason]:
    traffic = measured.signals.traffic
    shortage = generator.shortage()
    offered, started = measured.offered, measured.started
    behind = offered is not None and started is not None and offered > 0 and started < ACHIEVED_SHARE * offered
    if behind and shortage:
        yield Reason(
            "invalid",
            f"the generator was measured, not the system: {shortage}, and only {number(traffic.achieved_per_s or 0)}/s"
            f" of {number(traffic.offered_per_s or 0)}/s offered were achieved; lower the rate",
        )
    elif shortage:
        yield Reason(
            "lower_bound", f"{shortage}: part of the latency is its own, the system is at least as fast as shown"
        )
    if traffic.dropped:
        of = f" of {round(offered)} scheduled iterations ({percent(traffic.dropped / offered)})" if offered else ""
        yield Reason(
            "lower_bound",
            f"k6 dropped {traffic.dropped}{of or ' iterations'}: all its virtual users were waiting for an answer;"
            " buyers would have waited longer, so the latency is at least this",
        )
    elif behind and not shortage:
        yield Reason(
            "lower_bound",
            f"only {number(traffic.achieved_per_s or 0)}/s of {number(traffic.offered_per_s or 0)}/s offered were"
            " achieved: the system did not keep up, so the latency is at least this",
        )


# --- the machine and the sources --------------------------------------------------------------------------------------


def _others(
    series: Series, edges: "np.ndarray[tuple[int], np.dtype[np.float64]]", cores: int, *, theirs_too: bool
) -> Iterator[Reason]:
    """Judge what others took of the machine; with ``theirs_too`` parts of the system may be among these others."""
    length = edges[1] - edges[0]
    machine = length * max(1, cores)
    others = known(series.increase("cpu_s", edges, label(component="other"))[0] / machine)
    busy = known(host_busy_cores(series, edges)[0])
    if theirs_too:
        if others is not None and others > OTHERS_LOWER_BOUND:
            yield Reason(
                "note",
                f"processes that ticketbench did not start took {percent(others)} of the machine's CPU; parts of the"
                " system itself (its database, say) may be among them, so whether others disturbed it could not be"
                " checked",
            )
    elif others is not None and others > OTHERS_INVALID and (busy is None or busy >= HOST_BUSY * max(1, cores)):
        yield Reason(
            "invalid",
            f"others took {percent(others)} of the machine's CPU and left none over: end what else runs, and measure"
            " again",
        )
    elif others is not None and others > OTHERS_LOWER_BOUND:
        yield Reason(
            "lower_bound",
            f"others took {percent(others)} of the machine's CPU (more than {percent(OTHERS_LOWER_BOUND)}): the system"
            " can do at least this",
        )
    steal = known(series.increase("host_cpu_s", edges, label(mode="steal"))[0] / machine)
    if steal is not None and steal > STEAL_SHARE:
        yield Reason("note", f"the hypervisor stole {percent(steal)} of the machine's CPU")


def _sources(
    trial: "TrialData", series: Series, edges: "np.ndarray[tuple[int], np.dtype[np.float64]]"
) -> Iterator[Reason]:
    late = known(series.increase("sampler.late_s", edges)[0] / (edges[1] - edges[0]))
    if late is not None and late > SAMPLER_LATE:
        yield Reason("note", f"the sampler was late by {number(late)} s each second: its figures are coarse")
    gap_s = known(series.increase("sampler.gap_s", edges)[0])
    if gap_s is not None and gap_s >= SAMPLER_GAP_S:
        yield Reason(
            "lower_bound" if gap_s > SAMPLER_GAP_SHARE * (edges[1] - edges[0]) else "note",
            f"the sampler itself stood still for {number(gap_s)} s (stopped, or without a core): what happened"
            " meanwhile it did not see",
        )
    step_s = known(series.increase("sampler.clock_step_s", edges)[0])
    told = any(disturbance.kind == "clock_step" for disturbance in trial.record.disturbances)
    if step_s is not None and step_s > CLOCK_STEP_S and not told:
        yield Reason("invalid", f"the machine's clock was set by {number(step_s)} s: series are joined by that clock")
    failures = known(series.increase("sampler.push_failures", edges)[0])
    if failures is not None and failures >= 1:
        yield Reason("note", f"{round(failures)} of the sampler's pushes to Prometheus failed: its series have gaps")
    if series.has("app.up"):
        missed = series.missed("app.up", edges, least=workers_of(trial.record.levels, series, 1))
        if missed > SCRAPES_MISSED:
            yield Reason(
                "note",
                f"in {percent(missed)} of the seconds a worker of the app could not be scraped: its means have gaps",
            )


def _cores(count: int) -> str:
    return "one core" if count == 1 else f"{count} cores"


def worst(statuses: Iterable[ValidityStatus]) -> ValidityStatus:
    """Return the worst of several validities; nothing at all is invalid."""
    order: tuple[ValidityStatus, ...] = ("invalid", "lower_bound", "valid")
    return min(statuses, key=order.index, default="invalid")
