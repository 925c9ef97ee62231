"""Which rows can be one plan, and what each of them runs. Nothing is started here."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ticketbench import factors
from ticketbench.errors import UsageError
from ticketbench.model import Level, Scenario, Schedule, Variant
from ticketbench.row_file import AskedRow
from ticketbench.rows import FIGURES, RESOURCES

# Reads the script of a row under some load parameters.
InspectRow = Callable[[AskedRow, Mapping[str, Level]], tuple[Scenario, Schedule]]
# What k6 is told of a variant's levels, and may make its load of.
_TOLD: Final = frozenset(n for n, factor in factors.CATALOGUE.items() if factor.scope == "load") | {"stock"}
OTHER_WORDS: Final = "a row says all of its own load itself"


@dataclass(frozen=True)
class Built:
    """The variants that rows are, with the scenario and the schedule of each."""

    variants: tuple[Variant, ...]
    scenarios: dict[str, Scenario]
    schedules: dict[str, Schedule]


def beside_rows(plan: str, said: Mapping[str, bool]) -> Iterator[str]:
    """Yield what cannot stand beside the rows of a plan; ``said`` tells of each option or key whether it was given."""
    for name, given in said.items():
        if given:
            yield f"{name} cannot be used with the rows of {plan}: {OTHER_WORDS}"


def build_rows(rows: Sequence[AskedRow], fixed: Mapping[str, Level], stack: str, inspect: InspectRow) -> Built:
    """Read the script of each row and return what the rows are. Raises UsageError with every fault."""
    problems: list[str] = []
    variants, scenarios, schedules = [], {}, {}
    for asked in rows:
        name, levels = asked.row.name, {**fixed, **asked.row.levels}
        problems += _unknown(asked, levels, stack)
        try:
            scenario, schedule = inspect(asked, levels)
            if told := {n: level for n, level in scenario.levels.items() if n not in levels and n in _TOLD}:
                _, schedule = inspect(asked, {**told, **levels})  # as it will be told in a trial
        except UsageError as error:
            problems += [f"row {name!r}: {problem}" for problem in error.problems]
            continue
        if scenario.shape == "functional":
            problems.append(
                f"row {name!r}: scenario {scenario.name!r} is functional: it makes no performance claim to be held"
                " against an expectation"
            )
        every = {**factors.defaults(), **scenario.levels, **levels}
        # A level that the stack cannot set is no part of the variant: it would be a claim.
        kept = {n: level for n, level in every.items() if n in factors.CATALOGUE and stack in factors.get(n).stacks}
        variants.append(Variant(name=name, levels=kept))
        scenarios[name], schedules[name] = scenario, schedule
    if problems:
        raise UsageError(*problems)
    return Built(tuple(variants), scenarios, schedules)


def _unknown(asked: AskedRow, levels: Mapping[str, Level], stack: str) -> Iterator[str]:
    """Yield the factors and signals of a row that this stack does not have."""
    for name in levels:
        try:
            factors.get(name, stack)
        except UsageError as error:
            yield f"row {asked.row.name!r}: {error.message}"
    if stack == "external":
        return  # its resources are what its mapping names
    for expectation in asked.row.expect:
        for signal in (signal for check in expectation.checks for signal in check.signals):
            if signal not in FIGURES and signal.partition(".")[2] not in RESOURCES:
                yield (
                    f"row {asked.row.name!r}: {signal!r} is of no resource of this system: known are"
                    f" {', '.join(RESOURCES)}"
                )


def scripts_of(rows: Sequence[AskedRow], find: Callable[[str, str], Path], problems: list[str]) -> dict[str, Path]:
    """Return the script of each row by the row's name; what ``find`` refuses is told with the row's name."""
    scripts = {}
    for asked in rows:
        try:
            scripts[asked.row.name] = find(asked.scenario, f"row {asked.row.name!r}: scenario")
        except UsageError as error:
            problems += error.problems
    return scripts
