"""The records that cross modules or reach the disk.

All are frozen; a change makes a copy (``model_copy``). Units stand in the names: ``_s`` seconds, ``_per_s`` events per
second, ``_bytes``; ratios run from 0 to 1; times of day are seconds since the Unix epoch, UTC. A record that is a file
of its own carries ``schema_version``; docs/files.md keeps the history of each.
"""

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from ticketbench.fault_plan import CarriedFault, PlannedFault
from ticketbench.record import Record
from ticketbench.rows import PlanRow

SCHEMA_VERSION = 1

Level = int | float | str
Shape = Literal["functional", "steady", "transient"]


# --- the plan ---------------------------------------------------------------------------------------------------------


class Variant(Record):
    """One full assignment of levels to factors. ``name`` shows the varied ones only: ``pool_size=2,cache=on``."""

    name: str
    levels: dict[str, Level]


class Slo(Record):
    """A k6 threshold as its script states it: ``metric`` with its tag filter, and the expression over it."""

    metric: str
    expression: str


class Scenario(Record):
    """A k6 script and what it says about itself in ``options.ext.ticketbench``.

    ``goal`` is the ``name`` tag of the requests whose success counts as goodput; None counts every successful request.
    ``levels`` are the scenario's own defaults for factors. ``script`` is a file name without its folder. ``preflight``
    is the path that somebody else's system is asked for before the load; empty: the target's address itself.
    ``any_certificate``: k6 is told not to check the target's certificate (``insecureSkipTLSVerify``). ``look_at`` says
    what to look at in its results.
    """

    name: str
    script: str
    sha256: str
    title: str
    asks: str
    shape: Shape
    goal: str | None
    slos: tuple[Slo, ...]
    levels: dict[str, Level]
    preflight: str = ""
    any_certificate: bool = False
    look_at: str = ""


class OfferedSlope(Record):
    """A piece of the offered rate: linear from ``from_per_s`` at ``start_s`` to ``to_per_s`` at ``end_s``.

    Seconds count from the start of k6's execution. Several slopes at one time add up.
    """

    start_s: float
    end_s: float
    from_per_s: float
    to_per_s: float


class Schedule(Record):
    """What k6 is asked to do under one variant's load levels, in seconds from the start of its execution.

    [``window_start_s``, ``window_end_s``) is the scheduled window; what comes before is warm-up. ``offered`` describes
    the iterations of the executors that belong to the window; it is empty for a closed model (``open_model`` False).
    ``warmup_scenarios`` are k6 scenario names whose requests never count.
    """

    window_start_s: float
    window_end_s: float
    total_s: float
    offered: tuple[OfferedSlope, ...]
    open_model: bool
    max_vus: int
    warmup_scenarios: tuple[str, ...] = ()


class Trial(Record):
    """One planned execution of one variant. ``id`` is its folder's name; ``position`` counts from 1 in run order."""

    id: str
    variant: str
    repetition: int
    position: int


Where = Literal["loopback", "remote"]
# Stands for a header's value in a command that repeats a run. Nobody means it: where it is given, it is refused.
PLACEHOLDER: Final = "<value>"
SignalKind = Literal["counter", "gauge"]
# The route of requests that are too many kinds to be told apart (collecting/naming.py): a group, and no address.
OTHER_ROUTE: Final = "(other)"


class MappedSignal(Record):
    """A column of series.csv.gz that a mapping takes from the system's own Prometheus; ``column`` may lack labels."""

    column: str
    kind: SignalKind
    unit: str = ""


class ExternalSystem(Record):
    """Somebody else's system, as far as a run may tell: its host's name and its headers' values stay out.

    ``mapping`` is the name of the mapping or of its file, empty without a Prometheus; ``signals`` are what it maps.
    ``headers_from_variable`` are those of the ``headers`` that TICKETBENCH_HEADERS gave.
    """

    scheme: str
    where: Where
    port: int
    path: str
    headers: tuple[str, ...] = ()
    headers_from_variable: tuple[str, ...] = ()
    prometheus: Where | None = None
    mapping: str = ""
    mapping_sha256: str = ""
    signals: tuple[MappedSignal, ...] = ()


class Plan(Record):
    """What a run will do, all of it: frozen before anything is started.

    ``varied`` holds the levels as given, in order; the reference variant is the first level of each. ``schedules`` is
    keyed by variant name. ``trials`` stand in their seeded random order, in blocks of one repetition each. ``external``
    is there where the system is somebody else's (stack ``external``). ``title`` is a plan file's, for people.
    ``faults`` are done in each trial. With ``rows`` each variant is a row, with a scenario of its own in
    ``row_scenarios``; ``rows_from`` is the plan file's name.
    """

    title: str = ""
    scenario: Scenario
    stack: str
    variants: tuple[Variant, ...]
    reference: str
    varied: dict[str, tuple[Level, ...]]
    fixed: dict[str, Level]
    trials: tuple[Trial, ...]
    schedules: dict[str, Schedule]
    repetitions: int
    seed: int
    external: ExternalSystem | None = None
    faults: tuple[PlannedFault, ...] = ()
    rows: tuple[PlanRow, ...] = ()
    row_scenarios: dict[str, Scenario] = Field(default_factory=dict)
    rows_from: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Refuse a plan whose parts do not belong together: a damaged file, for none such is ever made."""
        names = {variant.name for variant in self.variants}
        strange = sorted({self.reference, *(trial.variant for trial in self.trials)} - names)
        if strange:
            raise ValueError(f"there is no variant {strange[0]!r}")
        if unscheduled := sorted(names - self.schedules.keys()):
            raise ValueError(f"variant {unscheduled[0]!r} has no schedule")
        if self.rows and not names == {row.name for row in self.rows} == self.row_scenarios.keys():
            raise ValueError("rows, their scenarios and the variants are not the same")
        return self

    def variant(self, name: str) -> Variant:
        """Return the variant called ``name``; raises KeyError."""
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise KeyError(name)

    def scenario_of(self, variant: str) -> Scenario:
        """Return the scenario that a variant runs: its row's own, where the plan has rows."""
        return self.row_scenarios[variant] if self.rows else self.scenario

    def row_of(self, variant: str) -> PlanRow | None:
        """Return the row that a variant is; None where the plan has no rows."""
        return next((row for row in self.rows if row.name == variant), None)

    @property
    def apart(self) -> bool:
        """Whether rows run different scenarios, or different loads: then a ratio of their figures says nothing."""
        done = [(self.scenario_of(each.name), self.schedules[each.name]) for each in self.variants if self.rows]
        return any(each != done[0] for each in done)

    @property
    def scenario_names(self) -> str:
        """The names of the scenarios that are run, each once."""
        return ", ".join(dict.fromkeys(self.scenario_of(variant.name).name for variant in self.variants))


# --- what was measured ------------------------------------------------------------------------------------------------


class BinaryVersion(Record):
    """A server program that took part: where it came from (never a path of the machine), version and sha256."""

    part: str
    version: str
    source: str
    sha256: str


class Split(Record):
    """Which cores go to whom under ``pinning=split``: ``generator`` to k6, Prometheus, the sampler and ticketbench."""

    generator: tuple[int, ...]
    system: tuple[int, ...]


class Isolation(Record):
    """What a machine can do to keep components apart. An empty reason means that it can."""

    split: Split | None = None
    no_pinning: str = ""
    no_limits: str = ""


class Environment(Record):
    """The machine and the programs of a run. Nothing in it names a user, a host or a home.

    ``cores`` are those we may use, ``machine_cores`` all of them. ``cpu_quota_cores`` and ``memory_limit_bytes`` are
    what control groups allow, None without a limit. ``other_cpu`` is the share of the machine's CPU that others took
    while the stack came up. ``packages`` are the versions of what the target runs on. What cannot be read is empty, 0
    or None.
    """

    os: str
    kernel: str
    machine: str
    cpu_model: str
    cores: int
    memory_bytes: int
    virtualised: str = ""
    machine_cores: int = 0
    cpu_quota_cores: float | None = None
    memory_limit_bytes: int | None = None
    governor: str = ""
    turbo: str = ""
    frequency_hz: float | None = None
    load_average: float | None = None
    other_cpu: float | None = None
    nofile_limit: int = 0
    isolation: Isolation = Isolation()
    python: str
    ticketbench: str
    target_sha256: str = ""
    packages: dict[str, str] = Field(default_factory=dict)
    binaries: tuple[BinaryVersion, ...] = ()
    settings: dict[str, str] = Field(default_factory=dict)


class Window(Record):
    """The measured time: Unix seconds. ``end_s`` includes the answers that were still under way."""

    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        """Length of the window in seconds."""
        return self.end_s - self.start_s


class Threshold(Record):
    """k6's own verdict on one SLO, with the value it saw where the summary has one (in k6's unit, milliseconds)."""

    metric: str
    expression: str
    ok: bool
    value: float | None = None


class Thrown(Record):
    """Iterations of the k6 scenario ``scenario`` that an exception of the script ended; ``first`` tells one.

    k6 counts them among its iterations, and ends with 0 all the same.
    """

    scenario: str
    iterations: int
    first: str


class LoadResult(Record):
    """What k6 itself reported of one execution. Counts are of the whole execution, warm-up included.

    ``gomaxprocs`` is the number of cores that it was held to; None: all of them.
    """

    exit_code: int
    started_s: float
    ended_s: float
    requests: int
    iterations: int
    dropped_iterations: int
    vus_max: int
    thresholds: tuple[Threshold, ...]
    trends_ms: dict[str, dict[str, float]]
    version: str = ""
    gomaxprocs: int | None = None
    messages: tuple[str, ...] = ()
    thrown: tuple[Thrown, ...] = ()


# "damaged" is never stored: it is what a reader makes of a trial of which a file can no longer be read.
TrialStatus = Literal["done", "failed", "interrupted", "damaged"]


DisturbanceKind = Literal["clock_step", "standstill", "shared_machine"]


class Disturbance(Record):
    """Something from outside that came over a trial while its load ran.

    ``clock_step``: the wall clock jumped by ``seconds`` (signed), and series are joined by it. ``standstill``:
    ticketbench itself did not run for ``seconds``. ``shared_machine``: another run measured on this machine for
    ``seconds`` of this one's load. ``at_s`` is when it began or was noticed, ``text`` the sentence for a reader.
    """

    kind: DisturbanceKind
    at_s: float
    seconds: float
    text: str


class TrialRecord(Record):
    """One trial as it was: ``trial.json``. ``window`` and ``load`` are None where the trial did not come so far.

    ``session`` counts the invocations that worked on the run, from 1; later ones are those of ``--resume``. ``faults``
    are the planned ones.
    """

    schema_version: int = SCHEMA_VERSION
    trial: Trial
    levels: dict[str, Level]
    status: TrialStatus
    reasons: tuple[str, ...]
    started_s: float
    ended_s: float
    window: Window | None
    load: LoadResult | None
    session: int = 1
    disturbances: tuple[Disturbance, ...] = ()
    faults: tuple[CarriedFault, ...] = ()


class RunRecord(Record):
    """``run.json``: written once, before the first trial."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    created: str
    ticketbench: str
    plan: Plan
    environment: Environment
    command: str
