"""Programs from the machine's own Debian or Ubuntu archive, without root and without installing anything.

apt-get checks the archive's signatures; its lists, state and cache lie in a private folder, so the system's stay as
they are. Shared libraries that a program needs and the machine does not have are fetched with it and lie in the folder
``lib`` beside it: whoever runs the program gives it the environment of :func:`ticketbench.binaries.probe.libraries`.
"""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ticketbench.binaries.fetching import run_tool
from ticketbench.binaries.probe import LIBRARIES, Requirement, libraries
from ticketbench.errors import EnvironmentFailure
from ticketbench.events import Emit


@dataclass(frozen=True)
class Package:
    """A package: where its program lies, and its size with Debian 12's package lists, for the progress shown."""

    name: str
    program: str
    expected_bytes: int


PACKAGES: Final = {
    "prometheus": Package("prometheus", "usr/bin/prometheus", 75_000_000),
    "pgbouncer": Package("pgbouncer", "usr/sbin/pgbouncer", 57_000_000),
    "haproxy": Package("haproxy", "usr/sbin/haproxy", 59_000_000),
}
# A library's own libraries are looked for in turn; Debian's go two levels deep.
LIBRARY_ROUNDS: Final = 4
# Every Debian has these, as Python needs them; nobody wants a second C library.
_EVERYWHERE: Final = frozenset({"libc6", "libgcc-s1", "libcrypt1"})
_MISSING: Final = re.compile(r"^\s*(\S+) => not found", re.MULTILINE)


class DebianSource:
    """Fetches a part's program out of the distribution's package."""

    def __init__(self, need: Requirement) -> None:
        self._need = need
        self._package = PACKAGES[need.part]
        system = _release()
        self.label = f"{system} package {self._package.name}"
        # the distribution's release is part of the name: a home shared by two of them must not mix their builds
        self.folder = f"{self._package.name}-{system}-{platform.machine()}"
        self.program = self._package.name

    def obstacle(self) -> str:
        """Return why it cannot be fetched here; empty where only the network is needed."""
        for tool in ("apt-get", "dpkg-deb"):
            if shutil.which(tool) is None:
                return f"it is not installed, and it can be fetched on Debian and Ubuntu only (there is no {tool} here)"
        return ""

    def fetch(self, into: Path, emit: Emit) -> None:
        """Download and unpack the package. Raises EnvironmentFailure, also where there is no apt-get."""
        if obstacle := self.obstacle():
            raise EnvironmentFailure(f"{self._need.part}: {obstacle}", self._need.advice)
        scratch = into.parent
        config = _private_apt(scratch)
        advice = f"check the network and the system's package sources and try again, or {self._need.advice}"
        fetching = _Fetching(self._need.part, scratch, config, advice, emit, self._package.expected_bytes)
        fetching.run("reading the package lists", "apt-get", "-c", str(config), "-q", "update")
        fetching.unpack(f"downloading the {self.label}", [self._package.name])
        program = fetching.tree / self._package.program
        if not program.is_file():
            raise EnvironmentFailure(
                f"{self._need.part}: the {self.label} holds no {self._package.name} program", advice
            )
        program.rename(into / self.program)
        fetching.libraries(into / self.program)


class _Fetching:
    """Packages on their way into one tree below ``scratch``. Raises EnvironmentFailure with ``advice``."""

    def __init__(self, part: str, scratch: Path, config: Path, advice: str, emit: Emit, total_bytes: int) -> None:
        self.tree = scratch / "tree"
        self._part = part
        self._scratch = scratch
        self._config = config
        self._advice = advice
        self._emit = emit
        self._total_bytes = total_bytes
        self._unpacked: set[str] = set()

    def run(self, doing: str, *command: str) -> None:
        """Run a package tool."""
        run_tool(
            self._part, command, scratch=self._scratch, doing=doing, advice=self._advice, emit=self._emit,
            total_bytes=self._total_bytes,
        )  # fmt: skip

    def unpack(self, doing: str, packages: Sequence[str]) -> None:
        """Download packages and unpack them into the tree."""
        before = set(self._scratch.glob("*.deb"))
        self.run(doing, "apt-get", "-c", str(self._config), "-q", "download", *packages)
        fresh = sorted(set(self._scratch.glob("*.deb")) - before)
        if len(fresh) != len(packages):
            raise EnvironmentFailure(f"{self._part}: apt-get reported success and left no package", self._advice)
        for package in fresh:
            self.run("unpacking the package", "dpkg-deb", "-x", str(package), str(self.tree))
        self._unpacked.update(packages)

    def libraries(self, program: Path) -> None:
        """Put the libraries that ``program`` misses on this machine beside it, from the packages that it depends on."""
        for _ in range(LIBRARY_ROUNDS):
            wanted = sorted(self._depended_on() - self._unpacked - _EVERYWHERE)
            if not self._missing_after_copying(program) or not wanted:
                break
            self.unpack(f"downloading the libraries of {program.name}", wanted)
        if missing := self._missing_after_copying(program):
            raise EnvironmentFailure(
                f"{self._part}: {program.name} needs {', '.join(missing)}, which its package does not bring",
                self._advice,
            )

    def _missing_after_copying(self, program: Path) -> tuple[str, ...]:
        """Put beside ``program`` what it misses and the tree has, and return what is missing then."""
        beside = program.with_name(LIBRARIES)
        while missing := _missing(program):
            found = [path for name in missing for path in self.tree.rglob(name) if path.is_file()]
            # one that is there and still missing is of no use to this machine, and would be copied for ever
            fresh = [library for library in found if not (beside / library.name).exists()]
            for library in fresh:
                beside.mkdir(exist_ok=True)
                shutil.copy2(library, beside / library.name)
            if not fresh:
                break
        return missing

    def _depended_on(self) -> set[str]:
        """Return the library packages that what is unpacked depends on, the first of alternatives."""
        found: set[str] = set()
        for package in self._scratch.glob("*.deb"):
            told = subprocess.run(
                ("dpkg-deb", "-f", str(package), "Pre-Depends", "Depends"), capture_output=True, text=True, check=False
            ).stdout
            for line in told.splitlines():
                for alternatives in line.partition(":")[2].split(","):
                    name = re.split(r"[ (|:]", alternatives.strip())[0]
                    if name.startswith("lib"):
                        found.add(name)
        return found


def _ldd(program: Path) -> str:
    environment = {**os.environ, "LC_ALL": "C", **libraries(program)}
    try:
        return subprocess.run(
            ("ldd", str(program)), capture_output=True, text=True, check=False, env=environment
        ).stdout
    except OSError:  # the examination that follows says what is wrong with the program
        return ""


def _missing(program: Path) -> tuple[str, ...]:
    """Return the shared libraries that the system cannot find for ``program``."""
    return tuple(_MISSING.findall(_ldd(program)))


def _private_apt(scratch: Path) -> Path:
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (scratch / folder).mkdir(parents=True)
    config = scratch / "apt.conf"
    config.write_text(
        f'Dir::State "{scratch}/state";\n'
        f'Dir::State::lists "{scratch}/state/lists";\n'
        f'Dir::Cache "{scratch}/cache";\n'
        # what is installed matters nothing to a download, but apt wants to read it
        'Dir::State::status "/var/lib/dpkg/status";\n'
        # the folder is ours alone, so apt's own user could not write to it
        'APT::Sandbox::User "";\n'
        'Acquire::Languages "none";\n'
        'Acquire::Retries "2";\n'
        # hooks of the system act on the system's folders, and fail for an ordinary user
        "#clear APT::Update::Pre-Invoke;\n"
        "#clear APT::Update::Post-Invoke;\n"
        "#clear APT::Update::Post-Invoke-Success;\n"
    )
    return config


def _release() -> str:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return platform.system().lower()
    return f"{release.get('ID', 'linux')}{release.get('VERSION_ID', '')}"
