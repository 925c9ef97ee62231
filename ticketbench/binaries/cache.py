"""Our folder of fetched programs: installed whole or not at all, and one fetch at a time."""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from ticketbench.errors import EnvironmentFailure

MANIFEST: Final = "manifest.json"
# Longest wait for another process that fetches: its own downloads are given up before that.
LOCK_TIMEOUT_S: Final = 1800.0
LOCK_POLL_S: Final = 0.2


class Cache:
    """The folder ``root`` with one sub-folder for each fetched package."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, name: str) -> Path | None:
        """Return the folder ``name`` if every file that was installed is there with its size, else None.

        Sizes find what goes wrong in practice (a full disk, a cleaned-up or half-copied folder) in 5 ms; contents are
        not read again.
        """
        folder = self.root / name
        try:
            manifest = json.loads((folder / MANIFEST).read_bytes())
            if manifest["schema_version"] != 1:
                return None
            whole = all((folder / file).stat().st_size == size for file, size in manifest["files"].items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return folder if whole else None

    def install(self, name: str, fill: Callable[[Path], None]) -> Path:
        """Have ``fill`` put a package's files into an empty folder, then make that the folder ``name``.

        It appears whole, flushed to disk, or not at all; a broken one of that name is replaced. The caller holds
        :meth:`lock`. Raises EnvironmentFailure (disk full, not writable), and whatever ``fill`` raises.
        """
        with self._scratch(name) as scratch:
            fresh = scratch / "content"
            try:
                fresh.mkdir()
                fill(fresh)
                files = sorted(path for path in fresh.rglob("*") if path.is_file() and not path.is_symlink())
                manifest = {
                    "schema_version": 1,
                    "files": {str(path.relative_to(fresh)): path.stat().st_size for path in files},
                }
                (fresh / MANIFEST).write_text(json.dumps(manifest, indent=1))
                for path in (*files, fresh / MANIFEST, fresh):
                    _flush(path)
                folder = self.root / name
                if folder.exists():
                    folder.rename(scratch / "broken")
                fresh.rename(folder)
                _flush(self.root)
            except OSError as error:
                raise EnvironmentFailure(
                    f"cannot write {error.filename or self.root}: {error.strerror}",
                    "free some space, or point TICKETBENCH_CACHE at a folder with 300 MB",
                ) from error
        return folder

    @contextlib.contextmanager
    def _scratch(self, name: str) -> Iterator[Path]:
        self._make_root()
        # the caller holds the lock, so whatever fetched this before and left its folder behind was killed
        for abandoned in self.root.glob(f".fetch-{name}-*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".fetch-{name}-", dir=self.root))
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    @contextlib.contextmanager
    def lock(self, name: str, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the lock ``name`` among all processes; ``waiting`` is called once if another holds it.

        The system lets go of it when its holder ends, however it ends.
        Raises EnvironmentFailure after :data:`LOCK_TIMEOUT_S`, or where the cache cannot be written.
        """
        self._make_root()
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        path = self.root / f".{name}.lock"
        try:
            file = path.open("a")
        except OSError as error:
            raise EnvironmentFailure(
                f"cannot write {path}: {error.strerror}", "point TICKETBENCH_CACHE at a folder you may write to"
            ) from error
        with file:
            told = False
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not told:
                        waiting()
                        told = True
                    if time.monotonic() > deadline:
                        raise EnvironmentFailure(
                            f"another process has held {path} for {LOCK_TIMEOUT_S:g} s",
                            "end that ticketbench, or wait for it",
                        ) from None
                    time.sleep(LOCK_POLL_S)
            yield

    def _make_root(self) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentFailure(
                f"cannot make {self.root}: {error.strerror}", "point TICKETBENCH_CACHE at a folder you may write to"
            ) from error


def _flush(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
