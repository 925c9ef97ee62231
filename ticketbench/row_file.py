"""The ``[[row]]`` tables of a plan file, read and checked: every fault by the row's own name."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from ticketbench.levels import parse_levels, toml_text
from ticketbench.model import Level
from ticketbench.rows import Check, Expectation, PlanRow, parse_check
from ticketbench.toml_file import tables, unknown_keys

MOST_ROWS: Final = 20
_KEYS: Final = ("name", "title", "scenario", "set", "expect")
_EXPECT_KEYS: Final = ("text", "checks")
# It is a variant's name, a part of commands and of tables.
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


@dataclass(frozen=True)
class AskedRow:
    """A row as it is asked for; ``scenario`` is a bundled name or the path of a script."""

    row: PlanRow
    scenario: str

    def without(self, factors: Collection[str]) -> "AskedRow":
        """Return the row without levels of its own for these factors: the command line has set them for all rows."""
        levels = {name: level for name, level in self.row.levels.items() if name not in factors}
        return replace(self, row=self.row.model_copy(update={"levels": levels}))


def read_rows(raw: object, where: str, problems: list[str]) -> tuple[AskedRow, ...]:
    """Read a plan file's rows; ``where`` names the file. What has a problem is left out."""
    asked_for = tables(raw, where, "row", "[[row]]", problems)
    if len(asked_for) > MOST_ROWS:
        problems.append(f"{where}: {len(asked_for)} rows are more than {MOST_ROWS} in one run")
    found: list[AskedRow] = []
    for number, table in enumerate(asked_for, 1):
        asked = _row(f"{where}: row {table.get('name', number)!r}", table, problems)
        if asked is not None and asked.row.name in (other.row.name for other in found):
            problems.append(f"{where}: two rows have the name {asked.row.name!r}")
        elif asked is not None:
            found.append(asked)
    return tuple(found)


def _row(where: str, table: dict[str, Any], problems: list[str]) -> AskedRow | None:
    before = len(problems)
    problems += unknown_keys(table, _KEYS, where)
    name, scenario = _text(where, table, "name", problems), _text(where, table, "scenario", problems)
    if name and not _NAME.fullmatch(name):
        problems.append(f"{where}: name takes up to 40 small letters, digits and hyphens, as in 'flash-sale'")
    title = _text(where, table, "title", problems, needed=False)
    levels = _levels(where, table.get("set", {}), problems)
    expect = _expectations(where, table.get("expect", []), problems)
    if len(problems) > before:
        return None
    return AskedRow(PlanRow(name=name, title=title, levels=levels, expect=expect), scenario)


def _text(where: str, table: Mapping[str, Any], key: str, problems: list[str], *, needed: bool = True) -> str:
    value = table.get(key, "" if not needed else None)
    if value is None:
        problems.append(f"{where} lacks {key}")
    elif not isinstance(value, str) or (needed and not value.strip()):
        problems.append(f"{where}: {key} = {value!r} is not text")
    else:
        return " ".join(value.split())
    return ""


def _levels(where: str, raw: object, problems: list[str]) -> dict[str, Level]:
    if not isinstance(raw, dict):
        problems.append(f"{where}: set = {raw!r} is not a table of factors")
        return {}
    levels: dict[str, Level] = {}
    for name, value in raw.items():
        named = f"{where}: set.{name}"
        if (text := toml_text(value)) is None:
            problems.append(f"{named} holds {value!r}, which is no level")
        elif (parsed := parse_levels(named, name, [text], None, problems)) is not None:
            levels[name] = parsed[0]
    return levels


def _expectations(where: str, raw: object, problems: list[str]) -> tuple[Expectation, ...]:
    found = []
    for number, table in enumerate(tables(raw, where, "expect", "[[row.expect]]", problems), 1):
        named = f"{where}: expect {number}"
        problems += unknown_keys(table, _EXPECT_KEYS, named)
        text = _text(named, table, "text", problems)
        found.append(Expectation(text=text, checks=_checks(named, table.get("checks"), problems)))
    return tuple(found)


def _checks(where: str, raw: object, problems: list[str]) -> tuple[Check, ...]:
    if not isinstance(raw, list) or not raw or not all(isinstance(text, str) for text in raw):
        problems.append(f"{where}: checks is not a list of texts, as in checks = ['p95_s < 0.1']")
        return ()
    read = (parse_check(f"{where}: checks", text, problems) for text in raw)
    return tuple(check for check in read if check is not None)
