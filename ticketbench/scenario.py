"""Finds k6 scripts, and reads through ``k6 inspect`` what a script says of itself and what load it will offer.

Any script runs: metadata in ``options.ext.ticketbench`` is optional, and what is there must be right.
"""

import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args
from urllib.parse import unquote, urlsplit

from ticketbench import factors, k6, paths
from ticketbench.errors import EnvironmentFailure, UsageError
from ticketbench.k6_schedule import schedule
from ticketbench.model import Level, Scenario, Schedule, Shape, Slo

INSPECT_TIMEOUT_S: Final = 60.0  # it takes about 0.1 s; a script that computes for a minute in its init code is broken

# The shortest steady probe, after its warm-up, that the search for a capacity relies on.
SHORTEST_STEADY_S: Final = 20.0

# Factors that reach a script, and the environment variable that each becomes.
LOAD_VARIABLES: Final = {
    "rate": "RATE",
    "duration": "DURATION",
    "vus": "VUS",
    "hot_share": "HOT_SHARE",
    "stock": "STOCK",
}
# Two values each, both possible: a script that makes the same of both does not use the variable.
_PROBES: Final = {"RATE": ("50", "60"), "DURATION": ("30", "40"), "VUS": ("50", "60")}

_PLACEHOLDERS: Final = {"BASE_URL": "http://127.0.0.1:9", "TRIAL": "inspect", "SEED": "1"}
_SHAPES: Final[tuple[str, ...]] = get_args(Shape)
_KEYS: Final = ("title", "asks", "shape", "goal", "warmup", "levels", "reads", "preflight", "look_at")


# --- finding ----------------------------------------------------------------------------------------------------------


def bundled() -> tuple[str, ...]:
    """Return the names of the scenarios that come with ticketbench."""
    return tuple(sorted(path.stem for path in paths.data_dir("scenarios").glob("*.js")))


def find(text: str, said: str = "SCENARIO") -> Path:
    """Return the script that ``text`` names: a bundled name, or the path of a ``.js`` file.

    Raises UsageError; ``said`` is the argument or key to be named in it.
    """
    names = bundled()
    if text in names:
        return paths.data_dir("scenarios") / f"{text}.js"
    known = f"bundled are {', '.join(names)}"
    if not text.strip():
        raise UsageError(f"{said} {text!r} names no scenario: {known}, or give a .js file")
    path = paths.expanded(text, said)
    paths.require_reachable(path, said)
    if path.is_dir():
        raise UsageError(f"{said} {text!r} is a folder: give a .js file, or a bundled name ({known})")
    if path.suffix != ".js":
        what = "is not a .js file" if path.exists() else "is neither a bundled name nor a .js file"
        raise UsageError(f"{said} {text!r} {what}: {known}")
    if not path.is_file():
        raise UsageError(f"{said} {text!r} does not exist: {known}")
    if not os.access(path, os.R_OK):
        raise UsageError(f"{said} {text!r} cannot be read", hint="check the file's permissions")
    return path.resolve()


def load_env(levels: Mapping[str, Level]) -> dict[str, str]:
    """Return the environment that tells a script its load: a variable for each load factor in ``levels``, and STOCK.

    CHECKOUT is there where purchases are queued: the script's requests have other names then.
    """
    queue = {"CHECKOUT": "queue"} if factors.queued(levels) else {}
    return queue | {
        variable: f"{level:.12g}" if isinstance(level, float) else str(level)
        for name, variable in LOAD_VARIABLES.items()
        if (level := levels.get(name)) is not None
    }


# --- inspecting -------------------------------------------------------------------------------------------------------


def inspect(k6_command: Sequence[str], script: Path, env: Mapping[str, str]) -> tuple[Scenario, Schedule]:
    """Return what ``script`` says of itself and what it will offer when it is given ``env``.

    Raises UsageError for a script that k6 does not accept (in k6's own words) and for wrong metadata (every fault
    named), EnvironmentFailure where k6 itself cannot be run.
    """
    options = _options(k6_command, script, env)
    meta = _metadata(script, options)
    scenario = Scenario(
        name=script.stem if _is_bundled(script) else script.name,
        script=script.name,
        sha256=_sha256(k6_command, script, env),
        title=meta.title,
        asks=meta.asks,
        shape=meta.shape,
        goal=meta.goal,
        slos=_slos(options),
        levels=meta.levels,
        preflight=meta.preflight,
        look_at=meta.look_at,
        any_certificate=options.get("insecureSkipTLSVerify") is True,
    )
    return scenario, schedule(script.name, options, meta.warmup)


def unused(
    k6_command: Sequence[str], script: Path, names: Iterable[str], env: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Return those of the factors ``names`` that reach the script's load through no variable it uses.

    RATE, DURATION and VUS show in k6's options. What a script uses in its journeys only cannot be seen from outside:
    it says so in its metadata, ``reads: ["HOT_SHARE"]``. Factors that are not of the load's scope are never unused.
    Raises what :func:`inspect` raises.
    """
    asked = [name for name in names if factors.get(name).scope == "load"]
    if not asked:
        return ()
    base = dict(env or {})
    reads = _metadata(script, _options(k6_command, script, base)).reads
    ignored: list[str] = []
    for name in asked:
        variable = LOAD_VARIABLES[name]
        if variable in reads:
            continue
        probes = _PROBES.get(variable)
        if probes is None:
            ignored.append(name)
            continue
        try:
            seen = [_options(k6_command, script, {**base, variable: value}) for value in probes]
        except UsageError:
            continue  # without the variable it was accepted: so it reads it, and has limits of its own
        if seen[0] == seen[1]:
            ignored.append(name)
    return tuple(ignored)


def check(k6_command: Sequence[str], script: Path) -> tuple[str, ...]:
    """Return what weakens a script that can be run: each a sentence. Raises what :func:`inspect` raises."""
    options = _options(k6_command, script, {})
    scenario, planned = inspect(k6_command, script, {})
    metrics = {slo.metric.partition("{")[0] for slo in scenario.slos}
    functional = scenario.shape == "functional"
    warnings: list[str] = []
    if not (options.get("ext") or {}).get("ticketbench"):
        warnings.append("it has no metadata in options.ext.ticketbench: the whole execution is taken for the window")
    if not scenario.slos:
        warnings.append("it has no thresholds: nothing says what is good enough")
    elif not metrics & {"http_req_failed", "checks"}:
        warnings.append("no threshold is on http_req_failed: a dead server answers in 0 ms and would pass")
    if planned.open_model and "dropped_iterations" not in metrics:
        warnings.append("no threshold is on dropped_iterations: journeys that never started would go unnoticed")
    if not planned.open_model and not functional:
        warnings.append("its load is closed: a slow target is offered less, which hides how slow it is")
    if scenario.shape == "steady" and planned.window_start_s == 0:
        warnings.append("it is steady and has no warm-up: name the k6 scenarios that warm up in `warmup`")
    if scenario.shape == "steady" and planned.window_end_s - planned.window_start_s < SHORTEST_STEADY_S:
        warnings.append(f"its window is shorter than {SHORTEST_STEADY_S:g} s: too short for a steady state")
    if any(isinstance(each, dict) and each.get("abortOnFail") for each in _thresholds(options)):
        warnings.append("a threshold has abortOnFail: the trial ends early, and its window is cut off")
    return tuple(warnings)


def _is_bundled(script: Path) -> bool:
    return script.parent.resolve() == paths.data_dir("scenarios").resolve()


def _k6(
    k6_command: Sequence[str],
    command: str,
    script: Path,
    env: Mapping[str, str],
    *flags: str,
    settings: Mapping[str, str] | None = None,
) -> bytes:
    """Run a k6 command that only reads the script. The script sees ``env``, and nothing of ours.

    ``settings`` are k6's own environment variables; they override what the script says.
    """
    told = {**_PLACEHOLDERS, **env}
    words = [*k6_command, command, "--log-format", "json", *flags]
    words += [word for name, value in told.items() for word in ("-e", f"{name}={value}")]
    words.append(str(script))
    try:
        done = subprocess.run(words, capture_output=True, timeout=INSPECT_TIMEOUT_S, env=settings or {}, check=False)
    except subprocess.TimeoutExpired as error:
        raise UsageError(
            f"k6 was still reading {script.name} after {INSPECT_TIMEOUT_S:g} s", hint="look for a loop in its init code"
        ) from error
    except OSError as error:
        raise EnvironmentFailure(
            f"k6 cannot be started: {error.strerror}", "set TICKETBENCH_K6 to a k6 that works here"
        ) from error
    if done.returncode != 0:
        log = k6.read_log(done.stderr.decode(errors="replace").splitlines())
        said = k6.Log(log).first_error() or f"exit code {done.returncode} without a word"
        raise UsageError(f"k6 does not accept {script.name}: {said}")
    return done.stdout


def _options(k6_command: Sequence[str], script: Path, env: Mapping[str, str]) -> dict[str, Any]:
    """Return k6's options with every shortcut turned into k6 scenarios, validated as a run would."""
    written = _json_object(_k6(k6_command, "inspect", script, env))
    # `k6 run` takes one virtual user where a script names none; `k6 inspect` refuses that script.
    one_user = written.get("vus") is None and not written.get("scenarios") and not written.get("stages")
    settings = {"K6_VUS": "1"} if one_user else {}
    return _json_object(_k6(k6_command, "inspect", script, env, "--execution-requirements", settings=settings))


def _json_object(out: bytes) -> dict[str, Any]:
    try:
        options = json.loads(out)
    except ValueError as error:
        raise EnvironmentFailure(f"k6 inspect wrote what is not JSON: {error}", "check the version of k6") from error
    if not isinstance(options, dict):
        raise EnvironmentFailure("k6 inspect wrote no options", "check the version of k6")
    return options


def _sha256(k6_command: Sequence[str], script: Path, env: Mapping[str, str]) -> str:
    """Hash the script and every local file it imports or opens, as k6 itself bundles them, by relative name."""
    bundle = _k6(k6_command, "archive", script, env, "--exclude-env-vars", "-O", "/dev/stdout")
    digest = hashlib.sha256()
    files: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(bundle)) as archive:
        held = {member.name: archive.extractfile(member) for member in archive.getmembers() if member.isfile()}
        contents = {name: file.read() for name, file in held.items() if file is not None}
    # k6 writes /home/nobody for a user's home, so names are relative to the script's own name as k6 wrote it.
    main = urlsplit(json.loads(contents["metadata.json"])["filename"]).path
    for name, content in contents.items():
        if name.startswith("file/"):
            files[os.path.relpath("/" + name.removeprefix("file/"), Path(unquote(main)).parent)] = content
    files.setdefault(script.name, script.read_bytes())
    for name in sorted(files):
        digest.update(name.encode() + b"\0" + hashlib.sha256(files[name]).digest())
    return digest.hexdigest()


# --- metadata ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Metadata:
    title: str
    asks: str
    shape: Shape
    goal: str | None
    warmup: tuple[str, ...]
    levels: dict[str, Level]
    reads: tuple[str, ...]
    preflight: str
    look_at: str


def _metadata(script: Path, options: Mapping[str, Any]) -> _Metadata:
    raw = (options.get("ext") or {}).get("ticketbench", {})
    if not isinstance(raw, dict):
        raise UsageError(f"{script.name}: options.ext.ticketbench = {raw!r} is not an object")
    problems = [f"there is no key {key!r}: known are {', '.join(_KEYS)}" for key in raw if key not in _KEYS]
    shape: Shape = "transient"
    match raw.get("shape", "transient"):
        case "functional" | "steady" | "transient" as known:
            shape = known
        case other:
            problems.append(f"shape = {other!r} is unknown: known are {', '.join(_SHAPES)}")
    reads = _names(raw, "reads", LOAD_VARIABLES.values(), "known are", problems)
    meta = _Metadata(
        title=_text(raw, "title", script.name, problems) or script.name,
        asks=_text(raw, "asks", "", problems) or "",
        shape=shape,
        goal=_text(raw, "goal", None, problems),
        warmup=_names(raw, "warmup", options.get("scenarios") or {}, "the script's k6 scenarios are", problems),
        levels=_levels(raw.get("levels") or {}, problems),
        reads=reads,
        preflight=_text(raw, "preflight", "", problems) or "",
        look_at=_text(raw, "look_at", "", problems) or "",
    )
    if meta.preflight and not meta.preflight.startswith("/"):
        problems.append(f"preflight = {meta.preflight!r} is not a path of the target: it begins with a slash")
    if problems:
        raise UsageError(
            *(f"{script.name}: options.ext.ticketbench: {problem}" for problem in problems),
            hint="docs/signals.md, scenario conventions",
        )
    return meta


def _text(raw: Mapping[str, Any], key: str, default: str | None, problems: list[str]) -> str | None:
    value = raw.get(key, default)
    if value is None or isinstance(value, str):
        return value
    problems.append(f"{key} = {value!r} is not text")
    return default


def _names(
    raw: Mapping[str, Any], key: str, known: Iterable[str], listed_as: str, problems: list[str]
) -> tuple[str, ...]:
    values = raw.get(key) or []
    if not isinstance(values, list):
        problems.append(f"{key} = {values!r} is not a list of names")
        return ()
    known = tuple(known)
    problems += [
        f"{key} names {value!r}: {listed_as} {', '.join(known) or 'none'}" for value in values if value not in known
    ]
    return tuple(value for value in values if value in known)


def _levels(raw: object, problems: list[str]) -> dict[str, Level]:
    if not isinstance(raw, dict):
        problems.append(f"levels = {raw!r} is not an object of factors")
        return {}
    levels: dict[str, Level] = {}
    for name, value in raw.items():
        text = {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
        try:
            levels[name] = factors.get(name).parse(text)
        except UsageError as error:
            problems.append(f"levels: {error.message}")
        except ValueError as error:
            problems.append(f"levels: {error}")
    return levels


def _thresholds(options: Mapping[str, Any]) -> list[Any]:
    return [each for expressions in (options.get("thresholds") or {}).values() for each in expressions]


def _slos(options: Mapping[str, Any]) -> tuple[Slo, ...]:
    return tuple(
        Slo(metric=metric, expression=each["threshold"] if isinstance(each, dict) else str(each))
        for metric, expressions in sorted((options.get("thresholds") or {}).items())
        for each in expressions
    )
