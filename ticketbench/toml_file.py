"""TOML files that users write, read whole."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ticketbench.errors import UsageError


def tables(raw: object, where: str, key: str, heading: str, problems: list[str]) -> list[dict[str, Any]]:
    """Return a file's list of tables, written under ``heading``; nothing, with a problem added, for what is none."""
    if isinstance(raw, list) and all(isinstance(table, dict) for table in raw):
        return raw
    problems.append(f"{where}: {key} is not a list of tables: write {heading} above each")
    return []


def unknown_keys(table: dict[str, Any], known: Sequence[str], where: str) -> list[str]:
    """Return a sentence for each key of a table that is not ``known``."""
    return [f"{where} has no key {key!r}: known are {', '.join(known)}" for key in table if key not in known]


def read_toml(path: Path, said: str) -> tuple[dict[str, Any], bytes]:
    """Return what the file holds, and the bytes that it was read from.

    Raises UsageError, beginning with ``said``, for what cannot be read or is no TOML.

    A byte order mark, which editors on Windows write, is passed over.
    """
    try:
        content = path.read_bytes()
        return tomllib.loads(content.decode("utf-8-sig")), content
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{said} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:  # a fault of syntax, a number of thousands of digits, deep nesting
        raise UsageError(f"{said} is not TOML: {error}") from error
