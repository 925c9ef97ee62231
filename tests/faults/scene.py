"""One run of the installed program in folders of its own: brought to a moment, watched to its end, looked at after."""

import contextlib
import fcntl
import json
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

PROGRAM: Final = str(Path(sys.executable).with_name("ticketbench"))
SALE: Final = Path(__file__).with_name("sale.js")
# Nothing may take longer than this to reach its moment, or to end after it: then it is said to hang.
MOMENT_LIMIT_S: Final = 60.0
END_LIMIT_S: Final = 150.0
POLL_S: Final = 0.005


@dataclass
class After:
    """What was there when a run had ended. ``seconds`` passed between the fault and the end."""

    code: int | None
    out: str
    err: str
    seconds: float
    trials: dict[str, dict[str, Any]] = field(default_factory=dict)
    kept: dict[str, tuple[str, ...]] = field(default_factory=dict)
    outcome: str = ""
    runs: tuple[str, ...] = ()
    empty_runs: tuple[str, ...] = ()
    reports: tuple[str, ...] = ()
    processes: tuple[str, ...] = ()
    state_files: tuple[str, ...] = ()
    unfinished: tuple[str, ...] = ()
    cgroups: tuple[str, ...] = ()

    @property
    def left(self) -> tuple[str, ...]:
        """All that should not be there any more."""
        return (
            *(f"process {text}" for text in self.processes),
            *(f"state {text}" for text in self.state_files),
            *(f"empty run {text}" for text in self.empty_runs),
            *(f"unfinished {text}" for text in self.unfinished),
            *(f"cgroup {text}" for text in self.cgroups),
        )

    @property
    def messages(self) -> tuple[str, ...]:
        """The lines that say what went wrong."""
        return tuple(line for line in self.err.splitlines() if line.startswith("ticketbench: "))

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons of the first trial that has any."""
        return next((tuple(trial["reasons"]) for trial in self.trials.values() if trial["reasons"]), ())


class Scene:
    """The folders of a case, the program in them, and what it started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.output = folder / "reports"
        self.process: subprocess.Popen[bytes] | None = None
        self.begun_s = 0.0
        self.fault_s = 0.0
        self.error = bytearray()
        self._stderr: IO[bytes] | None = None
        self._scanned = 0
        shutil.copy(SALE, folder / "sale.js")
        ours = {name: value for name, value in os.environ.items() if not name.startswith("TICKETBENCH_")}
        for name in ("TICKETBENCH_CACHE", "TICKETBENCH_K6", "TICKETBENCH_POSTGRES", "TICKETBENCH_REDIS"):
            if name in os.environ:
                ours[name] = os.environ[name]
        self.env = {
            **ours,
            "TICKETBENCH_STATE": str(self.state),
            "TICKETBENCH_OUTPUT": str(self.output),
            "TICKETBENCH_STACK": "local",  # also where an engine answers
            "DOCKER_HOST": f"unix://{self.state}/no-engine",  # what is on it is not of this scene
            "NO_COLOR": "1",
            "COLUMNS": "120",
        }

    # --- the program --------------------------------------------------------------------------------------------------

    def start(
        self,
        *arguments: str,
        prefix: Sequence[str] = (),
        descriptors: int | None = None,
        stderr: int | None = None,
        terminal: int | None = None,
        **env: str,
    ) -> None:
        """Start the program; ``run sale.js`` where nothing else is said.

        ``terminal`` becomes its controlling terminal and gets its progress, ``stderr`` only that; else it is read here.
        """

        def prepare() -> None:
            if descriptors is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
            if terminal is not None:
                fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

        with (self.folder / "out").open("wb") as out:
            self.process = subprocess.Popen(
                [*prefix, PROGRAM, *(arguments or ("run", "sale.js"))],
                cwd=self.folder,
                env={**self.env, **env},
                stdin=subprocess.DEVNULL if terminal is None else terminal,
                stdout=out,
                stderr=next((taker for taker in (terminal, stderr) if taker is not None), subprocess.PIPE),
                start_new_session=True,
                preexec_fn=prepare,
            )
        self.begun_s = time.monotonic()
        self.error = bytearray()
        self._scanned = 0
        self._stderr = self.process.stderr
        if self._stderr is not None:
            os.set_blocking(self._stderr.fileno(), False)

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command of the program to its end in the same folders."""
        return subprocess.run(
            [PROGRAM, *arguments],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=END_LIMIT_S,
            check=False,
        )

    def await_line(self, text: str) -> None:
        """Return at once when the program's progress has a line with ``text``. Raises AssertionError: it has none."""
        pattern = re.compile(text.encode())
        deadline = time.monotonic() + MOMENT_LIMIT_S
        while (found := pattern.search(self.error, self._scanned)) is None:
            if not self._read(POLL_S) or time.monotonic() > deadline:
                raise AssertionError(f"no line with {text!r}:\n{self.error.decode(errors='replace')}")
        self._scanned = found.end()

    def _read(self, wait_s: float) -> bool:
        """Take in what the program said; False where it will say no more."""
        if self._stderr is None:
            time.sleep(wait_s)
            return self.process is not None and self.process.poll() is None
        if select.select([self._stderr], [], [], wait_s)[0]:
            piece = self._stderr.read()
            if piece == b"":
                return False
            self.error += piece or b""
        return True

    def await_process(self, find: Callable[[], int | None]) -> int:
        """Return the pid that ``find`` comes up with. Raises AssertionError where it never does."""
        deadline = time.monotonic() + MOMENT_LIMIT_S
        while (pid := find()) is None:
            if not self._read(POLL_S) or time.monotonic() > deadline:
                raise AssertionError(f"the process never came:\n{self.error.decode(errors='replace')}")
        return pid

    def end(self, limit_s: float = END_LIMIT_S) -> After:
        """Wait for the program's end and look at what there is. One that hangs is killed, and has the code None."""
        assert self.process is not None
        began_s = self.fault_s or self.begun_s
        deadline = began_s + limit_s
        while self._stderr is not None and self._read(0.1):
            if time.monotonic() > deadline or self.process.poll() is not None:
                break
        code: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self.process.wait(max(0.1, deadline - time.monotonic()))
        seconds = time.monotonic() - began_s
        if code is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        while self._stderr is not None and self._read(0.05):
            if not select.select([self._stderr], [], [], 0.2)[0]:
                break
        if self._stderr is not None:
            self._stderr.close()
        return self.look(code, seconds)

    # --- finding processes --------------------------------------------------------------------------------------------

    def recorded(self, component: str) -> int | None:
        """Return the pid of a component as the state file has it."""
        for path in self.state.glob("stacks/*/stack.json"):
            with contextlib.suppress(OSError, ValueError):
                for item in json.loads(path.read_text())["processes"]:
                    if item["component"] == component and alive(item["process"]["pid"]):
                        return int(item["process"]["pid"])
        return None

    def child(self, pattern: str) -> int | None:
        """Return a process below the program whose command matches ``pattern`` and that has become what it shall be."""
        assert self.process is not None
        for pid in below(self.process.pid):
            if re.search(pattern, command(pid)):
                return pid
        return None

    def component(self, name: str) -> int | None:
        """Return the pid of the component ``name``, None while it is not there."""
        match name:
            case "ticketbench":
                assert self.process is not None
                return self.process.pid
            case "k6":
                return self.child(r"^\S*k6 run ")
            case "sampler":
                return self.child(r"^\S*python\S* .*-m ticketbench\.sampler")
            case "worker":
                return self._of_family("app", r"python")
            case "backend":
                return self._of_family("postgres", r"^postgres: .*\d+\.\d+\.\d+\.\d+\(")
            case _:
                return self.recorded(name)

    def _of_family(self, parent: str, pattern: str) -> int | None:
        pid = self.recorded(parent)
        if pid is None:
            return None
        return next((child for child in below(pid) if re.search(pattern, command(child))), None)

    # --- what there is ------------------------------------------------------------------------------------------------

    def processes(self) -> dict[int, str]:
        """Return the living processes that work for this case: those with its folder in command or environment."""
        marker = str(self.folder).encode()
        found = {}
        for pid in pids():
            if pid == os.getpid():
                continue
            try:
                process = Path(f"/proc/{pid}")
                about = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
                about += bytes((process / "cwd").readlink())
            except OSError:
                continue
            if marker in about and alive(pid):
                found[pid] = command(pid)[:70]
        return found

    def await_gone(self, seconds: float) -> dict[int, str]:
        """Wait up to ``seconds`` until nothing of it is alive; return what still is."""
        deadline = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return left

    def look(self, code: int | None, seconds: float) -> After:
        """Return what there is now."""
        with contextlib.suppress(OSError):
            out = (self.folder / "out").read_text(errors="replace")
        after = After(code, out, self.error.decode(errors="replace"), seconds)
        after.processes = tuple(self.await_gone(2.0).values())
        stacks = self.state / "stacks"
        after.state_files = tuple(sorted(path.name for path in stacks.iterdir())) if stacks.is_dir() else ()
        after.cgroups = tuple(
            str(Path(above, name))
            for above, names, _ in os.walk("/sys/fs/cgroup")  # passes over what others remove meanwhile; glob does not
            for name in names
            if "ticketbench" in name and any(stack in name for stack in after.state_files)
        )
        folders = sorted(path for path in self.output.iterdir() if path.is_dir()) if self.output.is_dir() else []
        after.runs = tuple(path.name for path in folders if (path / "run.json").is_file())
        after.empty_runs = tuple(path.name for path in folders if not (path / "run.json").is_file())
        after.unfinished = tuple(
            str(path.relative_to(self.output)) for folder in folders for path in folder.rglob("*.tmp*")
        )
        for folder in folders:
            self._look_at_run(folder, after)
        return after

    def _look_at_run(self, folder: Path, after: After) -> None:
        after.reports += tuple(f"{folder.name}/{path.name}" for path in sorted(folder.glob("report.*")))
        with contextlib.suppress(OSError, ValueError):
            after.outcome = json.loads((folder / "analysis.json").read_text())["outcome"]["status"]
        for trial in sorted(folder.glob("trials/*")):
            name = f"{folder.name}/{trial.name}"
            after.kept[name] = tuple(sorted(path.name.split(".")[0] for path in trial.glob("*.gz")))
            with contextlib.suppress(OSError, ValueError):
                after.trials[name] = json.loads((trial / "trial.json").read_text())

    def clean(self) -> None:
        """End whatever is left of the case, however it went, by pid."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in self.await_gone(1.0):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def pids() -> Iterator[int]:
    """Yield the ids of all processes."""
    for entry in os.listdir("/proc"):  # noqa: PTH208 - names only
        if entry.isdigit():
            yield int(entry)


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def alive(pid: int) -> bool:
    """Tell whether a process is there; a zombie is not."""
    fields = _stat(pid)
    return bool(fields) and fields[0] not in "ZX"


def command(pid: int) -> str:
    """Return a process's command line; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def below(pid: int) -> list[int]:
    """Return all living processes below ``pid``."""
    children: dict[int, list[int]] = {}
    for each in pids():
        fields = _stat(each)
        if fields and fields[0] not in "ZX":
            children.setdefault(int(fields[1]), []).append(each)
    found: list[int] = []
    waiting = [pid]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            found.append(child)
            waiting.append(child)
    return found
