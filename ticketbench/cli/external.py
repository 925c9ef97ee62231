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
from ticketbench.plan import PlanFile
from ticketbench.stack.external import System

HEADERS_VARIABLE: Final = "TICKETBENCH_HEADERS"
# RFC 9110: a field's name is a token, its value visible characters, blanks and tabs.
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]+")


@dataclass(frozen=True)
class ExternalOptions:
    """The options as given: flag or ``TICKETBENCH_*``; None where nothing was said. Headers may be secrets."""

    target: str | None = None
    prometheus: str | None = None
    mapping: str | None = None
    selector: str | None = None
    headers: tuple[str, ...] = field(default=(), repr=False)
    allow_remote: bool = False


def system_of(options: ExternalOptions, file: PlanFile, problems: list[str]) -> System | None:
    """Return the system that flags, environment and plan file name, in that precedence; None where it has faults.

    Every fault is added to ``problems``, none with a header's value. Looks the hosts' names up; sends nothing.
    """
    target = _address("--target", options.target or file.target, options.allow_remote, problems)
    if not (options.target or file.target):
        problems.append("--target is missing: the address of your system, such as http://127.0.0.1:8000")
    prometheus = _address("--prometheus", options.prometheus or file.prometheus, options.allow_remote, problems)
    headers = _headers(options.headers, file.headers, problems)
    mapping_text = options.mapping or file.prometheus_mapping
    selector = check_selector("--prometheus-selector", options.selector or file.prometheus_selector or "", problems)
    source = None
    if prometheus is None and not (options.prometheus or file.prometheus):
        problems += [
            f"{option} says how to read a Prometheus: give --prometheus URL too"
            for option, given in (("--prometheus-mapping", mapping_text), ("--prometheus-selector", selector))
            if given
        ]
    try:
        mapping = read_mapping(find_mapping("--prometheus-mapping", mapping_text or DEFAULT_MAPPING))
    except UsageError as error:
        problems += error.problems
    else:
        if prometheus is not None and target is not None:
            source = SeriesSource(prometheus.url, mapping, selector, components_here=target.on_loopback)
    if target is None or problems:
        return None
    return System(target, headers, prometheus, source)


def refuse_elsewhere(options: ExternalOptions, file: PlanFile, stack: str, problems: list[str]) -> None:
    """Add a problem for each option that only the external stack has, where the stack is another one."""
    said = {
        "--target": options.target or file.target,
        "--prometheus": options.prometheus or file.prometheus,
        "--prometheus-mapping": options.mapping or file.prometheus_mapping,
        "--prometheus-selector": options.selector or file.prometheus_selector,
        "--header": options.headers or file.headers,
        "--allow-remote-target": options.allow_remote,
    }
    problems += [
        f"{option} belongs to --stack external (the stack is {stack})" for option, given in said.items() if given
    ]


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


def _address(option: str, text: str | None, allow_remote: bool, problems: list[str]) -> Address | None:
    if not text:
        return None
    address = parse_address(option, text, problems)
    if address is not None and not address.on_loopback and not allow_remote:
        problems.append(
            f"{option} {address.url!r} is not on this machine ({', '.join(address.numbers)}): only loopback addresses "
            "may be used, unless --allow-remote-target says that you may put load on it"
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
        else:
            joined[name.lower()] = (name, value.strip(" \t"))
    return dict(joined.values())
