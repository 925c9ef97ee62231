"""The machine that a run was measured on, without a word about who owns it."""

import contextlib
import hashlib
import importlib.util
import os
import platform
import resource
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

from ticketbench import __version__, limits
from ticketbench.errors import EnvironmentFailure
from ticketbench.isolation import CORES, probe
from ticketbench.model import BinaryVersion, Environment, Isolation


def environment(
    binaries: Sequence[BinaryVersion],
    settings: Mapping[str, str],
    *,
    own_target: bool = True,
    other_cpu: float | None = None,
    packages: Mapping[str, str] | None = None,
) -> Environment:
    """Describe this machine, the programs that take part and the settings of the servers.

    ``other_cpu`` is what :class:`ticketbench.others.OthersWatch` saw. Without ``own_target`` the system is somebody
    else's, and no version of it is known. ``packages`` None: the target runs on those that are installed here.
    """
    return Environment(
        os=_os_name(),
        kernel=platform.release(),
        machine=platform.machine(),
        cpu_model=_cpu_model(),
        cores=len(CORES),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        virtualised=_virtualised(),
        machine_cores=os.cpu_count() or 0,
        cpu_quota_cores=limits.cpu_quota(),
        memory_limit_bytes=limits.memory_limit(),
        governor=", ".join(limits.governors()),
        turbo=limits.turbo(),
        frequency_hz=limits.frequency_hz(),
        load_average=os.getloadavg()[0],
        other_cpu=other_cpu,
        nofile_limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        python=platform.python_version(),
        ticketbench=__version__,
        target_sha256=target_sha256() if own_target else "",
        isolation=isolation(),
        packages=dict(installed() if packages is None else packages) if own_target else {},
        binaries=tuple(binaries),
        settings=dict(settings),
    )


# What decides how fast the target is, beside its own code.
PACKAGES: Final = (
    "asyncpg", "fastapi", "httptools", "msgspec", "orjson", "prometheus-client", "psycopg", "pydantic", "redis",
    "sqlalchemy", "starlette", "uvicorn", "uvloop",
)  # fmt: skip


def installed() -> dict[str, str]:
    """Return the versions of the packages that the target may run on, of those that are installed."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def isolation() -> Isolation:
    """Return whether this machine can pin components and limit them, tried; what was tried does not stay."""
    return probe()


def target_sha256() -> str:
    """Return a hash over the target's source, so that two runs of different code can be told apart."""
    spec = importlib.util.find_spec("target_app")
    if spec is None or not spec.submodule_search_locations:
        raise EnvironmentFailure("the package target_app is missing", "install ticketbench again")
    digest = hashlib.sha256()
    folder = Path(spec.submodule_search_locations[0])
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(f"{path.relative_to(folder)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # absent in some containers; the field stays empty rather than guessed


def _os_name() -> str:
    for line in _read("/etc/os-release").splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip().strip('"')
    return platform.system()


def _cpu_model() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "Processor"):
            return value.strip()
    return platform.processor() or platform.machine()


def _virtualised() -> str:
    flags = next((line for line in _read("/proc/cpuinfo").splitlines() if line.startswith("flags")), "")
    return "hypervisor" if " hypervisor" in flags else ""
