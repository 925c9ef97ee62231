"""TOML files that users write, read whole."""

import tomllib
from pathlib import Path
from typing import Any

from ticketbench.errors import UsageError


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
