"""What options and plan files say of factors, read into levels. Every fault of a place is told at once."""

import re
from collections.abc import Sequence
from typing import Final

from ticketbench import factors
from ticketbench.errors import UsageError
from ticketbench.model import Level

# What 0 means for the factors that take it beside their bounds.
NO_LIMIT: Final = "no limit"
_NO_LIMIT: Final = re.compile(
    rf"\b({'|'.join(name for name, factor in factors.CATALOGUE.items() if factor.or_zero)})=0(?:\.0)?(?=,|$)"
)
FACTORS_HINT: Final = "factors and their levels: ticketbench scenarios show SCENARIO"


def level_text(level: Level) -> str:
    """Return a level as it is typed: ``2``, ``0.5``, ``on``."""
    return f"{level:g}" if isinstance(level, float) else str(level)


def level_words(name: str, level: Level) -> str:
    """Return a level of factor ``name`` as it is read: what is typed, but for a limit of 0, which is none."""
    factor = factors.CATALOGUE.get(name)  # a run of another version may have others
    return NO_LIMIT if factor is not None and factor.or_zero and level == 0 else level_text(level)


def variant_words(variant: str) -> str:
    """Return a variant's name as it is read: ``pool_size=2,app_cpus=no limit``. Commands take the name itself."""
    return _NO_LIMIT.sub(rf"\1={NO_LIMIT}", variant)


def parse_varied(options: Sequence[str], stack: str | None = None) -> dict[str, tuple[Level, ...]]:
    """Parse ``--vary factor=a,b`` options. Raises UsageError listing every fault."""
    problems: list[str] = []
    varied: dict[str, tuple[Level, ...]] = {}
    for option in options:
        name, equals, text = option.partition("=")
        name = name.strip()
        if not equals or not text.strip():
            problems.append(f"--vary {option!r} is not of the form FACTOR=LEVEL,LEVEL")
        elif name in varied:
            problems.append(f"--vary names factor {name!r} twice")
        elif levels := parse_levels(f"--vary {option!r}", name, text.split(","), stack, problems):
            varied[name] = levels
    _raise(problems)
    return varied


def parse_fixed(options: Sequence[str], stack: str | None = None) -> dict[str, Level]:
    """Parse ``--set factor=level`` options. Raises UsageError listing every fault."""
    problems: list[str] = []
    fixed: dict[str, Level] = {}
    for option in options:
        name, equals, text = option.partition("=")
        name = name.strip()
        if not equals or not text.strip():
            problems.append(f"--set {option!r} is not of the form FACTOR=LEVEL")
        elif name in fixed:
            problems.append(f"--set names factor {name!r} twice")
        elif levels := parse_levels(f"--set {option!r}", name, [text], stack, problems):
            fixed[name] = levels[0]
    _raise(problems)
    return fixed


def toml_text(value: object) -> str | None:
    """Return a value of a TOML file as the level that an option would spell; None for what is no level."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value) if isinstance(value, (str, int, float)) else None


def parse_levels(
    where: str, name: str, texts: Sequence[str], stack: str | None, problems: list[str]
) -> tuple[Level, ...] | None:
    """Return the levels of factor ``name`` that ``texts`` spell; None with a problem added, which begins ``where``."""
    try:
        factor = factors.get(name, stack)
        levels = tuple(factor.parse(text) for text in texts)
    except UsageError as error:
        problems.append(f"{where}: {error.message}")
    except ValueError as error:
        problems.append(f"{where}: {error}")
    else:
        if len(set(levels)) == len(levels):
            return levels
        problems.append(f"{where} names a level twice")
    return None


def _raise(problems: Sequence[str]) -> None:
    if problems:
        raise UsageError(*problems, hint=FACTORS_HINT)
