"""Where things live. Every folder can be moved by an environment variable; none is made before it is needed."""

import os
from pathlib import Path

from ticketbench.errors import EnvironmentFailure, UsageError

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
        return expanded(own, variable).absolute()
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


def expanded(text: str, said: str) -> Path:
    """Return ``text`` as a path, ``~`` replaced. Raises UsageError naming ``said``, which gave it."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{said} {text!r} begins with a home folder that is not known") from error


def require_reachable(path: Path, said: str) -> None:
    """Raise UsageError where the system refuses to look at ``path``; ``said`` is the option or argument it is from.

    Its folder may be closed to this user, its name too long, its links a circle: Python then raises where it is asked
    whether there is such a file. One that simply is not there is no refusal.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null byte, which no file's name has
        return
    except OSError as error:
        raise UsageError(f"{said} {str(path)!r} cannot be looked at: {error.strerror}") from error


def default_reports_dir() -> Path:
    """Return where runs are written unless ``-o`` says otherwise: ``reports`` in the current folder."""
    return Path("reports")
