"""Bring .venv up to date with the lock files. Started by scripts/bootstrap; the standard library is all it may use.

A second call costs two interpreter starts: the stamp in .venv says what was installed, as a hash over the lock files
and the parts of pyproject.toml that matter, so neither a checkout that touches files nor a change of a linter's
setting installs anything again. Three things lead to a rebuild from nothing: an install that was cut off while
packages were being replaced, an interpreter that is gone or was upgraded, and a folder that was moved (scripts in
.venv/bin hold its absolute path). Any other .venv is installed into and otherwise left alone.

pip comes from ensurepip, or, where Debian's python3-venv is missing, from the distribution's own wheel, which
apt-get can fetch without being root. Nothing outside .venv and a temporary folder is changed, whoever runs it.
"""

import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".stamp"
UNFINISHED = VENV / ".unfinished"
LOG = VENV / "install.log"
LOCKS = {"run": ROOT / "requirements" / "run.txt", "dev": ROOT / "requirements" / "dev.txt"}

EXIT_ENVIRONMENT_FAILED = 4  # ticketbench's own code for it, so that a script can tell it from a failed test
PROGRESS_STEP = 20  # packages between two lines where stderr is no terminal

#: pip's own last word, or the exception of a build backend that it quotes
REASON = re.compile(r"ERROR: |[A-Za-z.]+Error: ")

#: what pip prints when it fails, and what its reader can do about it; the first match counts
REMEDIES = (
    ("DO NOT MATCH THE HASHES", "the registry serves other files than the lock names: use another one, or `make lock`"),
    ("No space left", "free some disk space and call make again"),
    ("SSLError", "name your network's certificates in PIP_CERT, and call make again"),
    ("Retrying", "check the network; name a proxy in HTTPS_PROXY, or another package index in PIP_INDEX_URL"),
    ("No matching distribution", "no build for this machine, or an index without it: see PIP_INDEX_URL, PYTHON"),
)


class SetupError(Exception):
    """Set-up cannot go on: the sentence says what is missing, ``remedy`` what the reader can do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


class Progress:
    """One changing line on a terminal, a few plain ones elsewhere; on stderr, since stdout is the program's."""

    def __init__(self, total: int) -> None:
        self.total, self.seen, self.live = total, 0, sys.stderr.isatty()

    def package(self, name: str) -> None:
        """Count one more package that pip has looked at."""
        self.seen += 1
        if self.live:
            self.line(f"package {self.seen} of about {self.total}: {name}")
        elif self.seen % PROGRESS_STEP == 0:
            say(f"{self.seen} of about {self.total} packages")

    def line(self, text: str) -> None:
        """Replace the changing line; elsewhere a line of its own."""
        if self.live:
            sys.stderr.write(f"\r\033[K  {text}")
            sys.stderr.flush()
        else:
            say(text)

    def close(self) -> None:
        """Clear the changing line, so that what follows starts at the margin."""
        if self.live:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


def say(text: str) -> None:
    """Write one line of progress."""
    sys.stderr.write(f"  {text}\n")
    sys.stderr.flush()


def main(level: str) -> int:
    """Install ``level`` (run, dev or venv) unless the stamp says that it is there; return the exit code."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        if up_to_date(level):
            return 0
        with locked() as lock:
            if not up_to_date(level):
                install(level, lock)
    except KeyboardInterrupt:
        return 130
    except SetupError as error:
        sys.stderr.write(f"ticketbench cannot be set up: {error}\n  what to do: {error.remedy}\n")
        return EXIT_ENVIRONMENT_FAILED
    except OSError as error:
        sys.stderr.write(
            f"ticketbench cannot be set up: {error.strerror or error}: {error.filename or ROOT}\n"
            "  what to do: use a folder that this user may write to, on a disk with 1 GB to spare\n"
        )
        return EXIT_ENVIRONMENT_FAILED
    return 0


def _terminated(_number: int, _frame: FrameType | None) -> None:
    sys.exit(143)  # an exception, so that pip is ended and temporary files are removed on the way out


def up_to_date(level: str) -> bool:
    """Tell whether nothing has to be done: what is installed is what the locks name, here, and it starts."""
    if UNFINISHED.exists():
        return False
    if level == "venv":
        return starts("pip")
    try:
        stamp = json.loads(STAMP.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    wanted = {"root": str(ROOT), "inputs": inputs(), "level": stamp.get("level")}
    # dev.txt holds all of run.txt at the same versions, so an environment for dev is one for run
    return stamp == wanted and stamp["level"] in {level, "dev"} and starts("pip", "ticketbench") and asked_for()


def inputs() -> str:
    """Return the hash of everything that decides what gets installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    parts = [json.dumps([project.get("build-system"), project["project"], project.get("tool", {}).get("hatch")])]
    parts += [lock.read_text() for lock in LOCKS.values()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def starts(*modules: str) -> bool:
    """Tell whether .venv's interpreter runs and finds these modules; it does not after an upgrade of Python."""
    code = f"from importlib.util import find_spec as find; raise SystemExit(not all(map(find, {modules!r})))"
    try:
        return subprocess.run([PYTHON, "-I", "-c", code], stderr=subprocess.DEVNULL, check=False).returncode == 0
    except OSError:
        return False


def asked_for() -> bool:
    """Tell whether .venv has the Python version that ``PYTHON`` names; without PYTHON any supported one will do."""
    library = VENV / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return not os.environ.get("PYTHON") or library.exists()


@contextmanager
def locked() -> Iterator[int]:
    """Hold the install lock and yield its descriptor; a second make waits here and then finds the work done.

    The lock is this file itself: it survives a rebuild of .venv. pip inherits the descriptor, so that a pip whose
    parent was killed still keeps others out.
    """
    with Path(__file__).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another make is installing: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def install(level: str, lock: int) -> None:
    """Make or mend .venv, install the level and write the stamp."""
    start = time.monotonic()
    if VENV.exists() and (why := reason_to_rebuild()):
        say(f"building .venv again: {why}")
        shutil.rmtree(VENV)
    if not PYTHON.exists():
        say(f"making .venv with Python {sys.version.split()[0]}")
        try:
            make_venv()
        except SetupError:
            shutil.rmtree(VENV, ignore_errors=True)  # holds nothing of worth, and the next call starts clean
            raise
    if level == "venv":
        return
    lock_file = LOCKS[level]
    pinned = sum("==" in line for line in lock_file.read_text().splitlines() if line[:1].isalnum())
    say(f"installing {lock_file.relative_to(ROOT)}, about {pinned} packages; full output in {LOG.relative_to(ROOT)}")
    LOG.write_text("")
    pip(["--only-binary", ":all:", "-r", str(lock_file)], "the packages could not be installed", lock, pinned)
    # With its dependencies, but from no index: fails when pyproject.toml asks for what the lock does not hold.
    pip(
        ["--no-index", "--no-build-isolation", "-e", str(ROOT)],
        "ticketbench itself could not be installed",
        lock,
        remedy="if pyproject.toml asks for a package that requirements/ does not hold, run `make lock`",
    )
    stamp = {"root": str(ROOT), "inputs": inputs(), "level": level}
    beside = STAMP.with_suffix(".new")
    beside.write_text(json.dumps(stamp))
    beside.replace(STAMP)
    say(f"installed in {time.monotonic() - start:.0f} s")


def reason_to_rebuild() -> str | None:
    """Return why .venv cannot be mended by installing into it, or None."""
    if UNFINISHED.exists():
        return "an earlier install was interrupted"
    if not starts("pip"):
        return "its Python is gone, was upgraded or has no pip"
    if not asked_for():
        return "another Python version is asked for"
    try:
        built_in = json.loads(STAMP.read_text()).get("root")
    except (FileNotFoundError, ValueError):
        return None
    return None if built_in == str(ROOT) else "the folder was moved"


def make_venv() -> None:
    """Make .venv with pip in it."""
    if importlib.util.find_spec("venv") is None:
        raise SetupError(f"{sys.executable} has no venv module", "install the whole of Python: apt-get install python3")
    VENV.mkdir(exist_ok=True)
    UNFINISHED.touch()
    # The base interpreter: `python3` may be the one of the very .venv that was removed a moment ago.
    base = getattr(sys, "_base_executable", None) or sys.executable
    ran = quiet([base, "-I", "-m", "venv", "--without-pip", str(VENV)])
    if ran.returncode != 0:
        raise SetupError(f"python -m venv failed: {last_line(ran)}", "install the whole of Python, or name one: PYTHON")
    if quiet([str(PYTHON), "-I", "-m", "ensurepip", "--default-pip"]).returncode != 0:
        pip_from_the_distribution()
    UNFINISHED.unlink()


def pip_from_the_distribution() -> None:
    """Install pip into .venv from Debian's wheel of it, with apt-get's state in a temporary folder: no root needed."""
    missing = "this Python has neither ensurepip nor pip"
    remedy = "check the network, or install them (Debian, Ubuntu: apt-get install python3-venv); then call make again"
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise SetupError(missing, remedy)
    say("this Python has no ensurepip: fetching the distribution's pip with apt-get")
    with tempfile.TemporaryDirectory() as folder:
        for needed in ("lists/partial", "cache/archives/partial"):
            (Path(folder) / needed).mkdir(parents=True)
        private = [f"Dir::State::lists={folder}/lists", f"Dir::Cache={folder}/cache"]
        # As root apt-get would drop to a user of its own, who cannot write into our folder.
        apt = ["apt-get", "-q", *(f"-o{option}" for option in (*private, "APT::Sandbox::User=root"))]
        # A source that does not answer is not fatal to `update`: another one may have the package.
        update = quiet([*apt, "update"], folder)
        if (ran := quiet([*apt, "download", "python3-pip-whl"], folder)).returncode != 0:
            unanswered = re.search(r"^(?:W: Failed to fetch|E:).*", update.stdout, re.MULTILINE)
            reason = unanswered[0] if unanswered else last_line(ran)
            raise SetupError(f"{missing}, and apt-get could not fetch python3-pip-whl: {reason}", remedy)
        for package in Path(folder).glob("python3-pip-whl*.deb"):
            quiet(["dpkg-deb", "-x", str(package), folder])
        wheel = next(Path(folder).glob("usr/share/python-wheels/pip-*.whl"), None)
        if wheel is None:
            raise SetupError(f"{missing}, and the package python3-pip-whl holds no wheel of it", remedy)
        command = [str(PYTHON), "-m", "pip", "install", "-q", "--no-index", "--no-deps", str(wheel)]
        if (ran := quiet(command, folder, PYTHONPATH=str(wheel))).returncode != 0:
            raise SetupError(f"{missing}, and the distribution's wheel of pip failed: {last_line(ran)}", remedy)


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment without what would lead an interpreter or pip out of .venv."""
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONHOME", "PYTHONPATH"}}
    pip_settings = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PIP_USER": "0"}
    return kept | pip_settings | {"PYTHONUNBUFFERED": "1", "LC_ALL": "C.UTF-8"} | more


def quiet(command: list[str], cwd: str | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a short step and keep what it says for an error message."""
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def last_line(ran: subprocess.CompletedProcess[str]) -> str:
    """Return the last line that says something."""
    return next((line.strip() for line in reversed(ran.stdout.splitlines()) if line.strip()), "no output")


def pip(arguments: list[str], failure: str, lock: int, total: int = 0, remedy: str = "") -> None:
    """Run ``pip install`` with its output in the log and its progress on stderr.

    While it runs .venv is marked as unfinished. The mark stays when pip is cut off or fails once it has begun to
    replace packages; a failure before that (no network, say) has changed nothing, and the old .venv stays in use.
    """
    UNFINISHED.touch()
    progress, replacing = Progress(total), False
    output: list[str] = []
    process = subprocess.Popen(
        [str(PYTHON), "-m", "pip", "install", *arguments],
        cwd=ROOT,
        env=environment(),
        pass_fds=[lock],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        with process, LOG.open("a") as log:
            for line in process.stdout or ():
                log.write(line)
                output.append(line.strip())
                match line.split(maxsplit=3):
                    case ["Collecting", requirement, *_] if total:
                        progress.package(requirement.split("==")[0])
                    case ["Installing", "collected", *_]:
                        replacing = True
                        if total:
                            progress.line("unpacking what is new")
    finally:
        process.kill()  # without effect once it has ended
        process.wait()
        progress.close()
    if process.returncode == 0 or (process.returncode > 0 and not replacing):
        UNFINISHED.unlink()
    if process.returncode != 0:
        text = "\n".join(output)
        said = next((line for line in reversed(output) if REASON.match(line)), "no reason given")
        advice = remedy or next((advice for sign, advice in REMEDIES if sign in text), "see the log")
        raise SetupError(f"{failure}: {said.removeprefix('ERROR: ')}", f"{advice} (log: {LOG.relative_to(ROOT)})")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
