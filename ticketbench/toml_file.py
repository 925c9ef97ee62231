"""TOML files that users write, read whole."""

import tomllib
from pathlib import Path
from typing import Any

from ticketbench.errors import UsageError


def read_toml(path: Path, said: str) -> dict[str, Any]:
    """Return what the file holds. Raises UsageError, beginning with ``said``, for what cannot be read or is no TOML.

    A byte order mark, which editors on Windows write, is passed over.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{said} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:  # a fault of syntax, a number of thousands of digits, deep nesting
        raise UsageError(f"{said} is not TOML: {error}") from error
