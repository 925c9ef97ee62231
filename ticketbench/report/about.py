"""What a report says about how it was made: definitions, environment, versions, and the files of evidence."""

from ticketbench import factors, store
from ticketbench.levels import level_words
from ticketbench.model import PLACEHOLDER, Environment, Level
from ticketbench.report import wording
from ticketbench.report.input import ReportInput
from ticketbench.report.table import Cell, Column, Row, Table

_SHA_SHOWN = 16  # enough to tell two builds apart; run.json has all of it


def method(data: ReportInput) -> tuple[tuple[str, str], ...]:
    """Return the terms that a reader needs, each with what it means in this run."""
    goals = dict.fromkeys(data.run.plan.scenario_of(variant.name).goal for variant in data.run.plan.variants)
    named = " or ".join(f"“{wording.clean(goal)}”" for goal in goals if goal)
    good = f"successful {named} requests" if named and all(goals) else "successful requests"
    return (
        (
            "Goodput",
            f"{good} per second of the window. A 409 after the sell-out is answered: neither good nor an error.",
        ),
        ("Offered rate", "iterations that the scenario schedules per second, whether or not k6 could start them."),
        ("Achieved rate", "iterations that k6 started per second. Below the offered rate some were dropped."),
        (
            "Finished rate",
            "iterations that came to their end per second; what is missing to the offered rate still waits.",
        ),
        (
            "Latency",
            "the client's, of successful answers; quantiles come from merged histograms and are not averaged.",
        ),
        ("Errors", "failed requests among all requests. Their latencies are kept apart from the successful ones'."),
        ("Utilisation, queue", "busy fraction of a resource over the window, and the mean of what waited for it."),
        ("Window", "the measured time. Warm-up before it never counts; answers still under way at its end do."),
        (
            "Valid, lower bound, invalid",
            "if the measurement can be believed. A lower bound limits the truth from one side; the reason says which.",
        ),
        ("Integrity", _integrity(data)),
        ("Effect", "candidate / reference. An interval needs repeated trials: with one trial each there is none."),
    )


def _integrity(data: ReportInput) -> str:
    if data.run.plan.external is not None:
        return "not audited: the ledger of somebody else's system cannot be read. Its own series and SLOs may tell."
    return "the ledger in the database, read after the load had stopped, against what buyers were told."


def command_notes(data: ReportInput) -> tuple[str, ...]:
    """Return what has to be put in or set before the run's command does the same again."""
    run, system = data.run, data.run.plan.external
    if system is None:
        return ()
    stand_in = (
        ("HOST", "://HOST:"),
        ("URL", "--prometheus URL"),
        ("MATCHERS", "--prometheus-selector MATCHERS"),
        (PLACEHOLDER, f": {PLACEHOLDER}"),
    )
    found = [word for word, text in stand_in if text in run.command]
    notes = []
    if found:
        stand = "stands" if len(found) == 1 else "stand"
        notes.append(f"{wording.listing(found)} {stand} for what a run does not write down: put it in.")
    if system.headers_from_variable:
        notes.append(f"TICKETBENCH_HEADERS gave {wording.listing(system.headers_from_variable)}: set it first.")
    return tuple(notes)


def files(data: ReportInput) -> tuple[tuple[str, str], ...]:
    """Return the run directory's files, relative to it, with what each holds."""
    return (
        (store.RUN_FILE, "the plan, seed, environment and versions, written before the first trial"),
        (store.ANALYSIS_FILE, "every figure of this report, unrounded"),
        (f"trials/*/{store.TRIAL_FILE}", "window, status and k6's totals of a trial"),
        (f"trials/*/{store.SERIES_FILE}", "every series, one column each, one row a second"),
        (f"trials/*/{store.HISTOGRAMS_FILE}", "latency histograms per second, route and status"),
        (f"trials/*/{store.ACKS_FILE}", "each purchase that k6 saw acknowledged"),
        (f"trials/*/{store.LEDGER_FILE}", "what the database held after the trial"),
        (f"trials/*/{store.SUMMARY_FILE}", "k6's own summary"),
        ("trials/*/logs/", "the last lines of each server's log"),
    )


def _pairs(caption: str, head: str, pairs: list[tuple[str, str]], empty: str) -> Table:
    columns = (Column("what", head, numeric=False), Column("value", "Value", numeric=False))
    rows = tuple(
        Row((Cell(what), Cell(value) if value else Cell("not recorded", "", "missing"))) for what, value in pairs
    )
    return Table(caption, columns, rows, empty=empty)


def _levels(data: ReportInput) -> Table:
    variants = data.run.plan.variants
    names = sorted({name for v in variants for name in v.levels})

    def shown(name: str, level: Level | None) -> Cell:
        return Cell("the scenario's own") if level is None else Cell(level_words(name, level))

    varied = set(data.run.plan.varied)
    rows = tuple(
        Row((Cell(name, "varied" if name in varied else ""), *(shown(name, v.levels.get(name)) for v in variants)))
        for name in sorted(names, key=lambda name: (name not in varied, name))
    )
    columns = (
        Column("factor", "Factor", numeric=False),
        *(Column(v.name, wording.variant(v.name), numeric=False) for v in variants),
    )
    return Table("Every factor's level in every variant", columns, rows, empty="no factor had a level")


def _target(data: ReportInput) -> list[tuple[str, str]]:
    """Return what identifies the system under test: our target's code, or where somebody else's is."""
    system = data.run.plan.external
    if system is None:
        return [("Target, sha256", data.run.environment.target_sha256[:_SHA_SHOWN])]
    mapping = f"{system.mapping}, sha256 {system.mapping_sha256[:_SHA_SHOWN]}" if system.mapping else "none was read"
    return [
        (
            "System",
            f"{system.scheme}, {system.where}, port {system.port}, path {system.path or '/'}; host not recorded",
        ),
        ("Headers sent", ", ".join(system.headers) or "none of the user's"),
        ("Its own Prometheus", f"{system.prometheus}, mapping {mapping}" if system.prometheus else "none was read"),
    ]


def _virtual(env: Environment) -> str:
    """Return what is known of a machine within a machine; the CPU's flag ``hypervisor`` says no more than that."""
    if not env.virtualised:
        return ""
    return ", a virtual machine" + (f" ({env.virtualised})" if env.virtualised != "hypervisor" else "")


def _cpu(env: Environment) -> str:
    of = f" of {env.machine_cores}" if env.machine_cores > env.cores else ""
    quota = f", limited to {env.cpu_quota_cores:g} by a control group" if env.cpu_quota_cores is not None else ""
    return f"{env.cpu_model}, {env.cores}{of} core{'s' * (env.cores != 1 or bool(of))}{quota}"


def _clock(env: Environment) -> str:
    frequency = f"{env.frequency_hz / 1e9:.2f} GHz" if env.frequency_hz else ""
    governor = f"governor {env.governor}" if env.governor else ""
    turbo = f"turbo {env.turbo}" if env.turbo else ""
    return ", ".join(filter(None, (frequency, governor, turbo)))


def _memory(env: Environment) -> str:
    limit = env.memory_limit_bytes
    limited = f", limited to {wording.size_bytes(limit)} by a control group" if limit is not None else ""
    return f"{wording.size_bytes(env.memory_bytes)}{limited}"


def _split(env: Environment) -> str:
    """Return which cores pinning=split gives to whom here."""
    split = env.isolation.split
    if split is None:
        return env.isolation.no_pinning
    names = (", ".join(map(str, cores)) for cores in (split.generator, split.system))
    return "load generator and observers on {}, the system on {}".format(*names)


def _pinned(data: ReportInput) -> bool:
    return any(variant.levels.get("pinning") == "split" for variant in data.run.plan.variants)


def _others(env: Environment) -> str:
    """Return what others did while the stack came up."""
    share = f"{wording.percent(env.other_cpu)} of the CPU while the stack came up" if env.other_cpu is not None else ""
    average = f"load average {env.load_average:.1f}, our own included" if env.load_average is not None else ""
    return "; ".join(filter(None, (share, average)))


def _kept_apart(data: ReportInput) -> str:
    """Return the levels of the factors that keep components apart, where several in the order of the variants."""
    if data.run.plan.external is not None:
        return "not ours to set: the system is somebody else's"
    variants, told = data.run.plan.variants, []
    for name, factor in factors.CATALOGUE.items():
        levels = [v.levels[name] for v in variants if name in v.levels] if factor.scope == "stack" else []
        if any(level != factor.default for level in levels):
            told.append(f"{name} {' or '.join(dict.fromkeys(level_words(name, level) for level in levels))}")
    known = any("pinning" in v.levels for v in variants)  # a run of an earlier version has no such factors
    return "; ".join(told) or ("no pinning, no CPU limits" if known else "")


def environment_table(data: ReportInput) -> Table:
    """Return in a few rows what a reader of the short report needs to judge the figures by."""
    env = data.run.environment
    programs = ", ".join(
        f"{b.part} {b.version}{f' ({b.source})' if b.source.startswith('stand-in') else ''}" for b in env.binaries
    )
    rows = [
        (
            "System",
            f"{env.os}, kernel {env.kernel}, {env.machine}" + _virtual(env),
        ),
        ("CPU", _cpu(env)),
        ("Clock", _clock(env)),
        ("Memory", _memory(env)),
        ("Pinning and CPU limits", _kept_apart(data)),
        ("Load by others", _others(env)),
        ("Versions", f"ticketbench {env.ticketbench}, Python {env.python}" + (f", {programs}" if programs else "")),
    ]
    return _pairs("Environment", "What", rows, "")


def about_tables(data: ReportInput) -> tuple[Table, ...]:
    """Return the machine, the programs with version and checksum, the settings, and every factor's level."""
    env, plan = data.run.environment, data.run.plan
    scenarios = [plan.scenario_of(variant.name) for variant in plan.variants]
    machine = [
        ("Operating system", env.os),
        ("Kernel", env.kernel),
        ("Machine", f"{env.machine}{_virtual(env)}"),
        ("CPU", _cpu(env)),
        ("Clock", _clock(env)),
        ("Memory", _memory(env)),
        ("Pinning and CPU limits", _kept_apart(data)),
        *([("Cores under pinning=split", _split(env))] if _pinned(data) else []),
        ("Load by others", _others(env)),
        ("Open files allowed", f"{env.nofile_limit:,}" if env.nofile_limit else ""),
        ("Python", env.python),
        ("The target's packages", ", ".join(f"{name} {version}" for name, version in sorted(env.packages.items()))),
        ("ticketbench", env.ticketbench),
        *_target(data),
        *(
            ("Scenario script", f"{script}, sha256 {sha256[:_SHA_SHOWN]}")
            for script, sha256 in {(one.script, one.sha256): None for one in scenarios}
        ),
        ("Stack", plan.stack),
        ("Seed", str(plan.seed)),
        ("Run", data.run.run_id),
    ]
    programs = Table(
        "Programs",
        (
            Column("part", "Part", numeric=False),
            Column("version", "Version", numeric=False),
            Column("source", "From", numeric=False),
            Column("sha256", "sha256", numeric=False),
        ),
        tuple(
            Row((Cell(b.part), Cell(b.version), Cell(b.source), Cell(b.sha256[:_SHA_SHOWN] or "not recorded")))
            for b in env.binaries
        ),
        empty="no server programs are recorded",
    )
    settings = _pairs("Settings of the stack", "Setting", sorted(env.settings.items()), "no settings are recorded")
    return (_pairs("Machine and run", "What", machine, ""), programs, _levels(data), settings)
