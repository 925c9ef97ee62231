"""The options of ``run --stack external``: joined with environment and plan file, checked, and made into a System."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ticketbench.addresses import Address, parse_address
from ticketbench.errors import UsageError
from ticketbench.mapping import DEFAULT_MAPPING, SeriesSource, check_selector, find_mapping, read_mapping
from ticketbench.model import PLACEHOLDER, ExternalSystem
from ticketbench.plan import header_words
from ticketbench.plan_file import PlanFile
from ticketbench.stack.external import System

HEADERS_VARIABLE: Final = "TICKETBENCH_HEADERS"
# RFC 9110: a field's name is a token, its value visible characters, blanks and tabs. Beyond ASCII it leaves open what a
# byte means: the pre-flight's client refuses such a value and k6 sends UTF-8, so the two would not ask alike.
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e]+")
# What a command shows in the place of a value, now and (three dots) formerly.
_NO_VALUES: Final = (PLACEHOLDER, "...")


@dataclass(frozen=True)
class ExternalOptions:
    """The options as given: flag or ``TICKETBENCH_*``; None where nothing was said. Headers may be secrets.

    ``from_variables`` names those that a variable of the environment gave.
    """

    target: str | None = None
    prometheus: str | None = None
    mapping: str | None = None
    selector: str | None = None
    headers: tuple[str, ...] = field(default=(), repr=False)
    allow_remote: bool = False
    from_variables: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Said:
    """An option's value, and the name under which it was given: its flag, its variable or its key of the plan."""

    name: str
    value: str | None


_FLAGS: Final = {
    "target": "--target",
    "prometheus": "--prometheus",
    "mapping": "--prometheus-mapping",
    "selector": "--prometheus-selector",
}


def _said(options: ExternalOptions, file: PlanFile, option: str) -> _Said:
    flag = _FLAGS[option]
    key = flag.removeprefix("--").replace("-", "_")
    if (given := getattr(options, option)) is not None:
        return _Said(f"TICKETBENCH_{key.upper()}" if option in options.from_variables else flag, given)
    planned = getattr(file, key)
    return _Said(f"plan: {key}" if planned else flag, planned or None)


def system_of(options: ExternalOptions, file: PlanFile, problems: list[str]) -> System | None:
    """Return the system that flags, environment and plan file name, in that precedence; None where it has faults.

    Every fault is added to ``problems``, none with a header's value. Looks the hosts' names up; sends nothing.
    """
    wanted, theirs = _said(options, file, "target"), _said(options, file, "prometheus")
    target = _address(wanted, options.allow_remote, problems)
    if wanted.value is None:
        problems.append("--target is missing: the address of your system, such as http://127.0.0.1:8000")
    prometheus = _address(theirs, options.allow_remote, problems)
    headers, of_variable = _headers(options.headers, file.headers, problems)
    chosen, which = _said(options, file, "mapping"), _said(options, file, "selector")
    selector = check_selector(which.name, which.value or "", problems)
    if theirs.value is None:
        problems += [
            f"{said.name} says how to read a Prometheus: give --prometheus URL too"
            for said in (chosen, which)
            if said.value
        ]
    source = None
    try:
        mapping = read_mapping(find_mapping(chosen.name, chosen.value or DEFAULT_MAPPING))
    except UsageError as error:
        problems += error.problems
    else:
        if prometheus is not None and target is not None:
            source = SeriesSource(
                prometheus.url, mapping, selector, components_here=target.on_loopback, selector_said=which.name
            )
    if target is None or problems:
        return None
    return System(
        target,
        headers,
        headers_from_variable=of_variable,
        target_said=wanted.name,
        prometheus=prometheus,
        source=source,
    )


def words_again(options: ExternalOptions, file: PlanFile) -> tuple[str, ...]:
    """Return the flags that name the system again on this terminal: none for what a variable of the environment gives.

    They hold addresses and paths as they were given, and :data:`PLACEHOLDER` for the values of headers.
    """
    words: list[str] = []
    for option, flag in _FLAGS.items():
        said = _said(options, file, option)
        if said.value is not None and option not in options.from_variables:
            words += [flag, said.value]
    typed = {name.lower(): name for name in header_names(options.headers)}
    of_variable = {name.lower() for name in header_names(_variable_lines())}
    planned = {name.lower(): name for name in file.headers if name.lower() not in of_variable}
    words += header_words({**planned, **typed}.values())
    return (*words, "--allow-remote-target") if options.allow_remote else tuple(words)


def header_names(lines: Iterable[str]) -> list[str]:
    """Return the names of headers that are written ``Name: value``."""
    return [line.partition(":")[0].strip() for line in lines]


def refuse_elsewhere(options: ExternalOptions, file: PlanFile, stack: str, problems: list[str]) -> None:
    """Add a problem for each option that only the external stack has, where the stack is another one.

    A variable of the environment stands for all runs, and contradicts none.
    """
    said = [_said(options, file, option) for option in _FLAGS if option not in options.from_variables]
    names = [one.name for one in said if one.value]
    names += ["--header"] if options.headers else ["plan: headers"] if file.headers else []
    names += ["--allow-remote-target"] if options.allow_remote else []
    problems += [f"{name} belongs to --stack external (the stack is {stack})" for name in names]


def require_same(system: System, recorded: ExternalSystem) -> None:
    """Refuse to finish a run on another system than the one it began on. Raises UsageError naming each difference."""
    now, before = (_comparable(one) for one in (system.record(), recorded))
    problems = [
        f"changed since the run began: {name} {before[name] or '(none)'} and {now[name] or '(none)'}"
        for name in ("scheme", "where", "port", "path", "headers", "prometheus", "mapping", "mapping_sha256")
        if now[name] != before[name]
    ]
    if problems:
        raise UsageError(*problems, hint="trials of both would not be comparable: measure a new run")


def _address(said: _Said, allow_remote: bool, problems: list[str]) -> Address | None:
    if said.value is None:
        return None
    address = parse_address(said.name, said.value, problems)
    if address is not None and not address.on_loopback and not allow_remote:
        problems.append(
            f"{said.name} {address.url!r} is not on this machine ({', '.join(address.numbers)}): only loopback "
            "addresses may be used, unless --allow-remote-target says that you may put load on it"
        )
        return None
    return address


def _comparable(system: ExternalSystem) -> dict[str, Any]:
    """Return a system's record with its headers in one order and case: neither changes what is sent."""
    return {**system.model_dump(), "headers": ", ".join(sorted(name.lower() for name in system.headers))}


def _variable_lines() -> list[str]:
    return [line for line in os.environ.get(HEADERS_VARIABLE, "").splitlines() if line.strip()]


def _headers(
    given: Sequence[str], of_file: Mapping[str, str], problems: list[str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Join the headers by name (case does not count): plan file, then environment, then flags.

    Returns them, and the names of those that the environment gave. Within one place a name may stand only once.
    """
    joined: dict[str, tuple[str, str, str]] = {}
    for where, headers in (
        ("plan: headers", list(of_file.items())),
        (HEADERS_VARIABLE, _split(HEADERS_VARIABLE, _variable_lines(), problems)),
        ("--header", _split("--header", given, problems)),
    ):
        here: dict[str, str] = {}
        for name, text in headers:
            value = text.strip(" \t")
            if not _NAME.fullmatch(name):
                problems.append(f"{where}: {name!r} is no header's name")
            elif (before := here.get(name.lower())) is not None:
                spelt = "" if before == name else f" (as {before} and {name}: case does not count)"
                problems.append(f"{where}: {before} is given twice{spelt}: give it once")
            elif not value.isascii():
                problems.append(f"{where}: the value of {name} is not ASCII, and a header can hold nothing else")
            elif not _VALUE.fullmatch(value):
                problems.append(f"{where}: the value of {name} is empty, or holds what a header cannot")
            elif value in _NO_VALUES:
                problems.append(
                    f"{where}: {value} stands for the value of {name}, which ticketbench does not keep: put it in"
                )
            else:
                joined[name.lower()] = (where, name, value)
            here.setdefault(name.lower(), name)
    from_variable = tuple(name for where, name, _ in joined.values() if where == HEADERS_VARIABLE)
    return {name: value for _, name, value in joined.values()}, from_variable


def _split(where: str, lines: Sequence[str], problems: list[str]) -> list[tuple[str, str]]:
    pairs = []
    for number, line in enumerate(lines, start=1):
        name, colon, value = line.partition(":")
        if colon:
            pairs.append((name.strip(), value))
        else:
            problems.append(f"{where} (number {number}) is not of the form 'Name: value'")
    return pairs
