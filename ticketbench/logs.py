"""The servers' logs, as they may be kept with a run: bounded, and without a word about whose machine it was."""

import contextlib
import getpass
import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from ticketbench import paths

TAIL_BYTES: Final = 256 * 1024
SHORTEST_SECRET: Final = 6


def _replacements() -> list[tuple[str, str]]:
    """Return what must not be kept and what stands for it, longest first, so that a folder goes before its parent."""
    package = Path(__file__).resolve().parent.parent
    found = {
        str(paths.state_dir()): "<state>",
        str(paths.cache_dir()): "<cache>",
        str(package): "<ticketbench>",
        sys.prefix: "<python>",
        sys.base_prefix: "<python>",
        str(Path.cwd()): "<folder>",
        os.path.expanduser("~"): "<home>",  # noqa: PTH111 - Path.home() raises where there is none
        platform.node(): "<host>",
    }
    with contextlib.suppress(OSError, KeyError):  # a user id without a name
        found[f"/{getpass.getuser()}/"] = "/<user>/"
    return sorted(((text, name) for text, name in found.items() if len(text) > 2), key=lambda pair: -len(pair[0]))


def redact(text: str) -> str:
    """Return ``text`` without folders, user and host of this machine, and without passwords in addresses."""
    for found, stands_for in _replacements():
        text = re.sub(rf"{re.escape(found)}(?![\w-])", lambda _, name=stands_for: name, text)  # type: ignore[misc]
    return re.sub(r"(\w+://[^\s:/@]*):[^\s@/]+@", r"\1:***@", text)


def blot_out(text: str, secrets: Iterable[str]) -> str:
    """Return ``text`` with each secret replaced, also where JSON escapes it; and each long word of one by itself.

    ``Bearer abcdef`` is gone, and so is ``abcdef``. Words below SHORTEST_SECRET characters are left: they are words.
    """
    found: set[str] = set()
    for secret in secrets:
        for part in (secret, *secret.split()):
            if len(part) >= SHORTEST_SECRET:
                once = json.dumps(part)[1:-1]
                found |= {part, once, json.dumps(once)[1:-1]}
    for part in sorted(found, key=len, reverse=True):
        text = text.replace(part, "***")
    return text


def redact_file(path: Path) -> None:
    """Redact a log in place; an empty one is removed."""
    with contextlib.suppress(OSError):  # a log is never worth failing for
        text = _tail(path)
        if text.strip():
            path.write_text(redact(text), encoding="utf-8")
        else:
            path.unlink()


def keep_logs(logs: Mapping[str, Path], folder: Path) -> None:
    """Copy the end of each component's log into ``folder`` as ``<component>.log``; an empty one is left out."""
    for component, path in logs.items():
        with contextlib.suppress(OSError):
            text = _tail(path)
            if text.strip():
                (folder / f"{component}.log").write_text(redact(text), encoding="utf-8")


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL_BYTES))
        return file.read().decode("utf-8", errors="replace")
