"""Where things live. Every folder can be moved by an environment variable; none is made before it is needed."""

import os
from pathlib import Path

from ticketbench.errors import EnvironmentFailure

_PACKAGE = Path(__file__).resolve().parent


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:
        raise EnvironmentFailure(
            "no home folder is known for this user", "set TICKETBENCH_CACHE and TICKETBENCH_STATE to writable folders"
        ) from error


def _folder(variable: str, xdg: str, fallback: str) -> Path:
    if own := os.environ.get(variable):
        return Path(own).expanduser().absolute()
    base = os.environ.get(xdg)
    return (Path(base) if base and Path(base).is_absolute() else _home() / fallback) / "ticketbench"


def cache_dir() -> Path:
    """Return the folder of downloaded server binaries: ``TICKETBENCH_CACHE``, or below the XDG cache folder."""
    return _folder("TICKETBENCH_CACHE", "XDG_CACHE_HOME", ".cache")


def state_dir() -> Path:
    """Return the folder of running stacks and their data: ``TICKETBENCH_STATE``, or below the XDG state folder."""
    return _folder("TICKETBENCH_STATE", "XDG_STATE_HOME", ".local/state")


def data_dir(name: str) -> Path:
    """Return a folder of files carried with the program (``scenarios``), in a checkout or a wheel."""
    for candidate in (_PACKAGE / "data" / name, _PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise EnvironmentFailure(f"the folder {name}/ that belongs to ticketbench is missing", "install ticketbench again")


def default_reports_dir() -> Path:
    """Return where runs are written unless ``-o`` says otherwise: ``reports`` in the current folder."""
    return Path("reports")
