"""Prometheus from the machine's own Debian or Ubuntu archive, without root and without installing anything.

apt-get checks the archive's signatures; its lists, state and cache lie in a private folder, so the system's stay as
they are.
"""

import platform
import shutil
from pathlib import Path
from typing import Final

from ticketbench.binaries.fetching import run_tool
from ticketbench.binaries.probe import Requirement
from ticketbench.errors import EnvironmentFailure
from ticketbench.events import Emit

PACKAGE: Final = "prometheus"
# Debian 12's package lists and the package itself; for the progress shown, not checked.
EXPECTED_BYTES: Final = 75_000_000


class DebianSource:
    """Fetches Prometheus's program out of the distribution's package."""

    def __init__(self, need: Requirement) -> None:
        self._need = need
        system = _release()
        self.label = f"{system} package {PACKAGE}"
        # the distribution's release is part of the name: a home shared by two of them must not mix their builds
        self.folder = f"{PACKAGE}-{system}-{platform.machine()}"
        self.program = PACKAGE

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
        steps = (
            ("reading the package lists", ("apt-get", "-c", str(config), "-q", "update"), EXPECTED_BYTES),
            (
                f"downloading the {self.label}",
                ("apt-get", "-c", str(config), "-q", "download", PACKAGE),
                EXPECTED_BYTES,
            ),
        )
        for doing, command, size in steps:
            run_tool(self._need.part, command, scratch=scratch, doing=doing, advice=advice, emit=emit, total_bytes=size)
        package = next(scratch.glob(f"{PACKAGE}_*.deb"), None)
        if package is None:
            raise EnvironmentFailure(f"{self._need.part}: apt-get reported success and left no package", advice)
        tree = scratch / "tree"
        run_tool(
            self._need.part,
            ("dpkg-deb", "-x", str(package), str(tree)),
            scratch=scratch,
            doing="unpacking the package",
            advice=advice,
            emit=emit,
        )
        program = tree / "usr" / "bin" / PACKAGE
        if not program.is_file():
            raise EnvironmentFailure(f"{self._need.part}: {package.name} holds no {PACKAGE} program", advice)
        program.rename(into / self.program)


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
