"""Finds the server programs that a local stack needs, and fetches those that the machine does not have.

Order for each part: named by the user (``TICKETBENCH_K6`` and so on), on PATH and fit for use, in our cache, fetched
into our cache. A named program that is unfit is an error, never silently replaced: the user meant that one. After the
first time everything works offline.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ticketbench import paths
from ticketbench.binaries.cache import Cache
from ticketbench.binaries.debian import PACKAGES, DebianSource
from ticketbench.binaries.probe import LOOK_TIMEOUT_S, REQUIREMENTS, Found, Prober, Requirement, Unfit
from ticketbench.binaries.wheels import WHEELS, WheelSource, fitting
from ticketbench.errors import EnvironmentFailure, TicketbenchError, UsageError
from ticketbench.events import Emit, Provide, ignore
from ticketbench.model import BinaryVersion

# What only some factors need; a stack has all others.
OPTIONAL: Final = ("pgbouncer", "haproxy")
PARTS: Final = tuple(part for part in REQUIREMENTS if part not in OPTIONAL)

Source = WheelSource | DebianSource


@dataclass(frozen=True)
class Binaries:
    """The programs that were found. ``versions`` says what they are, without a path, and may be stored and shown."""

    programs: Mapping[str, Path]
    versions: tuple[BinaryVersion, ...]

    def program(self, part: str) -> Path:
        """Return the program of ``part``. Raises LookupError where :func:`provide` was not asked for it."""
        return self.programs[part]

    @property
    def k6(self) -> Path:
        """The k6 program."""
        return self.program("k6")

    @property
    def postgres(self) -> Path:
        """PostgreSQL's server program."""
        return self.program("postgres")

    @property
    def initdb(self) -> Path:
        """The program that makes a PostgreSQL data folder; of the same version as :attr:`postgres`."""
        return self.postgres.with_name("initdb")

    @property
    def redis(self) -> Path:
        """The server program of Redis or Valkey."""
        return self.program("redis")

    @property
    def prometheus(self) -> Path:
        """The Prometheus program."""
        return self.program("prometheus")

    def version(self, part: str) -> str:
        """Return the version of a part, empty where :func:`provide` was not asked for it."""
        return next((each.version for each in self.versions if each.part == part), "")

    def and_more(self, other: "Binaries") -> "Binaries":
        """Return these programs and those of ``other``."""
        return Binaries({**self.programs, **other.programs}, (*self.versions, *other.versions))


def provide(emit: Emit = ignore, parts: Sequence[str] = PARTS) -> Binaries:
    """Return a fit program for each of ``parts``, fetching what is missing (k6 30 MB, PostgreSQL 14, Prometheus 19).

    Two callers at a time fetch once: the second waits. Raises UsageError for an unknown part or a named program that is
    unfit, EnvironmentFailure where a part can neither be found nor fetched.
    """
    unknown = [part for part in parts if part not in REQUIREMENTS]
    if unknown:
        raise UsageError(*(f"there is no part {part!r}: known are {', '.join(REQUIREMENTS)}" for part in unknown))
    cache = Cache(paths.cache_dir() / "binaries")
    prober = Prober(cache.root / "known.json")
    found = {part: _provide_one(REQUIREMENTS[part], cache, prober, emit) for part in parts}
    prober.save()
    return Binaries(
        programs={part: item.program for part, item in found.items()},
        versions=tuple(
            BinaryVersion(part=part, version=item.version, source=item.source, sha256=item.sha256)
            for part, item in found.items()
        ),
    )


@dataclass(frozen=True)
class Sighting:
    """What a look for one part saw, without fetching anything.

    ``found`` is the program that a run would use, None where it would have to be fetched or cannot be had. ``problem``
    then says why nobody can use the named one or fetch another; without it ``fetchable`` names the package that would
    be fetched. ``passed_over`` are programs on PATH that are unfit, each with the reason.
    """

    part: str
    found: Found | None = None
    problem: str = ""
    remedy: str = ""
    fetchable: str = ""
    passed_over: tuple[str, ...] = ()

    def beside(self, *names: str) -> tuple[str, ...]:
        """Return those of ``names`` that lie beside the program and can be run."""
        if self.found is None:
            return ()
        return tuple(name for name in names if os.access(self.found.program.with_name(name), os.X_OK))


def look(part: str, patience_s: float = LOOK_TIMEOUT_S) -> Sighting:
    """Look for one part in the order of :func:`provide`, fetching and changing nothing. Raises KeyError if unknown.

    A program that does not tell its version within ``patience_s`` is unfit.
    """
    need = REQUIREMENTS[part]
    cache = Cache(paths.cache_dir() / "binaries")
    prober = Prober(cache.root / "known.json", patience_s)
    try:
        if named := os.environ.get(need.variable):
            return Sighting(part, found=_named(need, named, prober))
        found, passed_over = _first_on_path(need, prober)
        if found is not None:
            return Sighting(part, found=found)
        source = _source(need)
        cached = _cached(need, source, cache, prober)
    except TicketbenchError as error:
        return Sighting(part, problem=error.message, remedy=error.hint)
    if cached is not None:
        return Sighting(part, found=cached, passed_over=passed_over)
    obstacle = source.obstacle()
    return Sighting(
        part,
        problem=obstacle,
        remedy=need.advice if obstacle else "",
        fetchable="" if obstacle else source.label,
        passed_over=passed_over,
    )


def _first_on_path(need: Requirement, prober: Prober) -> tuple[Found | None, tuple[str, ...]]:
    passed_over: list[str] = []
    for program in _on_path(need):
        answer = prober.examine(need, program, "PATH")
        if isinstance(answer, Found):
            return answer, tuple(passed_over)
        passed_over.append(f"{program} {answer.why}")
    return None, tuple(passed_over)


def _provide_one(need: Requirement, cache: Cache, prober: Prober, emit: Emit) -> Found:
    if named := os.environ.get(need.variable):
        return _named(need, named, prober)
    found, passed_over = _first_on_path(need, prober)
    if found is not None:
        return found
    source = _source(need)
    cached = _cached(need, source, cache, prober)
    if cached is not None:
        return cached
    with cache.lock(need.part, lambda: emit(Provide(need.part, "another ticketbench is fetching it; waiting"))):
        # whoever held the lock may have fetched it meanwhile
        cached = _cached(need, source, cache, prober)
        if cached is not None:
            return cached
        emit(Provide(need.part, f"fetching {source.label}"))
        folder = cache.install(source.folder, lambda into: source.fetch(into, emit))
        answer = prober.examine(need, folder / source.program, f"cache:{source.label}")
    if isinstance(answer, Unfit):
        raise EnvironmentFailure(
            f"{need.part}: what was fetched ({source.label}) {answer.why}" + _seen(passed_over), need.advice
        )
    emit(Provide(need.part, f"{source.label} is ready"))
    return answer


def _seen(passed_over: Sequence[str]) -> str:
    return f"; passed over: {'; '.join(passed_over)}" if passed_over else ""


def _named(need: Requirement, text: str, prober: Prober) -> Found:
    path = paths.expanded(text, need.variable).absolute()
    paths.require_reachable(path, need.variable)
    candidates = [path / name for name in need.names] if path.is_dir() else [path]
    for candidate in candidates:
        paths.require_reachable(candidate, need.variable)
    program = next((candidate for candidate in candidates if candidate.is_file()), None)
    if program is None:
        what = f"holds no {' or '.join(need.names)}" if path.is_dir() else "does not exist"
        raise UsageError(f"{need.variable}={text} {what}", hint=f"correct it, or unset it to have {need.part} found")
    answer = prober.examine(need, program, "named")
    if isinstance(answer, Unfit):
        raise UsageError(
            f"{need.variable}={text} {answer.why}", hint=f"name another, or unset it to have {need.part} found"
        )
    return answer


def _on_path(need: Requirement) -> Iterator[Path]:
    seen: set[Path] = set()
    for folder in (*os.get_exec_path(), *need.folders):
        if not folder:
            continue
        for name in need.names:
            program = Path(folder) / name
            try:
                # the resolved one: what lies beside a program (initdb, its libraries) lies beside its target
                resolved = program.resolve()
                usable = resolved.is_file() and os.access(resolved, os.X_OK)
            except (OSError, RuntimeError):  # another user's PATH, whose folders are closed to us; a circle of links
                continue
            if usable and resolved not in seen:
                seen.add(resolved)
                yield resolved


def _source(need: Requirement) -> Source:
    if need.part in PACKAGES:
        return DebianSource(need)
    return WheelSource(need, fitting(WHEELS[need.part], need))


def _cached(need: Requirement, source: Source, cache: Cache, prober: Prober) -> Found | None:
    folder = cache.get(source.folder)
    if folder is None:
        return None
    answer = prober.examine(need, folder / source.program, f"cache:{source.label}")
    return answer if isinstance(answer, Found) else None


__all__ = ["OPTIONAL", "PARTS", "Binaries", "Sighting", "look", "provide"]
