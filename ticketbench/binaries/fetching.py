"""Runs a package tool and tells how far its download is."""

import contextlib
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from ticketbench.errors import EnvironmentFailure
from ticketbench.events import Emit, Provide

# A download of 31 MB that takes longer than this has stalled: 25 kB/s.
FETCH_TIMEOUT_S: Final = 1200.0
POLL_S: Final = 0.25


def run_tool(
    part: str,
    command: Sequence[str],
    *,
    scratch: Path,
    doing: str,
    advice: str,
    emit: Emit,
    total_bytes: int = 0,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run ``command`` in ``scratch``, where all its files go, and emit how many bytes lie there.

    Raises EnvironmentFailure that names the part, what was being done, the tool's last words and ``advice``.
    """
    log = scratch / "tool.log"
    deadline = time.monotonic() + FETCH_TIMEOUT_S
    with log.open("wb") as output:
        try:
            tool = subprocess.Popen(
                command,
                cwd=scratch,
                env={**os.environ, "LC_ALL": "C", "TMPDIR": str(scratch), **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            raise EnvironmentFailure(f"{part}: cannot run {command[0]}: {error.strerror}", advice) from error
        try:
            while True:
                try:
                    status = tool.wait(POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    done = _bytes_below(scratch)  # a tool may copy what it loaded: never show more than all
                    emit(Provide(part, doing, min(done, total_bytes) if total_bytes else done, total_bytes))
                if time.monotonic() > deadline:
                    raise EnvironmentFailure(f"{part}: {doing} took longer than {FETCH_TIMEOUT_S:g} s", advice)
        finally:
            if tool.poll() is None:
                tool.kill()
                tool.wait()
    if status != 0:
        said = _last_words(log.read_text(errors="replace"))
        raise EnvironmentFailure(f"{part}: {doing} failed: {said}", advice)


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error", "e:", "err:"))]
    return " / ".join((errors or lines)[-2:])[:500] or "the tool said nothing"


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # the tool renames and removes files meanwhile
            if path.is_file():
                total += path.stat().st_size
    return total
