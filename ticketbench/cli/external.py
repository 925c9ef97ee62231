"""The options of ``run --stack external``: joined with environment and plan file, checked, and made into a System."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ticketbench.addresses import Address, parse_address
from ticketbench.errors import UsageError
from ticketbench.mapping import DEFAULT_MAPPING, SeriesSource, check_selector, find_mapping, read_mapping
from ticketbench.model import ExternalSystem
from ticketbench.plan_file import PlanFile
from ticketbench.stack.external import System

HEADERS_VARIABLE: Final = "TICKETBENCH_HEADERS"
# RFC 9110: a field's name is a token, its value visible characters, blanks and tabs.
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]+")


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
    if given := getattr(options, option):
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
    headers = _headers(options.headers, file.headers, problems)
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
            source = SeriesSource(prometheus.url, mapping, selector, components_here=target.on_loopback)
    if target is None or problems:
        return None
    return System(target, headers, prometheus, source)


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
    now, before = system.record().model_dump(), recorded.model_dump()
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


def _headers(given: Sequence[str], of_file: Mapping[str, str], problems: list[str]) -> dict[str, str]:
    """Join the headers by name (case does not count): plan file, then environment, then flags."""
    joined: dict[str, tuple[str, str]] = {}
    said = [(f"plan: headers.{name}", name, value) for name, value in of_file.items()]
    lines = [(HEADERS_VARIABLE, line) for line in os.environ.get(HEADERS_VARIABLE, "").splitlines() if line.strip()]
    for number, (where, text) in enumerate((*lines, *(("--header", text) for text in given)), start=1):
        name, colon, value = text.partition(":")
        if not colon:
            problems.append(f"{where} (number {number}) is not of the form 'Name: value'")
            continue
        said.append((where, name.strip(), value))
    for where, name, value in said:
        if not _NAME.fullmatch(name):
            problems.append(f"{where}: {name!r} is no header's name")
        elif not _VALUE.fullmatch(value.strip(" \t")):
            problems.append(f"{where}: the value of {name} is empty, or holds what a header cannot")
        elif value.strip() == "...":
            problems.append(
                f"{where}: the ... of {name} stands for its value, which ticketbench does not keep: write it"
            )
        else:
            joined[name.lower()] = (name, value.strip(" \t"))
    return dict(joined.values())
