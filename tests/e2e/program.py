"""Runs the installed program as a user would, and looks for what it leaves behind."""

import csv
import gzip
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

PROGRAM = str(Path(sys.executable).with_name("ticketbench"))
LIMIT_S = 240


@dataclass(frozen=True)
class Finished:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        return self.out.rstrip().rpartition("\n")[2]


class Closable(Protocol):
    """Something that a test opened."""

    def close(self) -> None: ...


class Program:
    """The program in a folder and with a state of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.started: list[subprocess.Popen[str]] = []
        self.terminals: list[Closable] = []
        self.env = {**os.environ, "TICKETBENCH_STATE": str(self.state), "NO_COLOR": "1", "COLUMNS": "120"}
        for name in ("TICKETBENCH_TRIALS", "TICKETBENCH_SEED", "TICKETBENCH_OUTPUT"):
            self.env.pop(name, None)
        # where an engine answers, auto is Docker: tests of that say so
        self.env["TICKETBENCH_STACK"] = "local"
        # what is on the machine's engine belongs to tests that go on beside this one
        self.env["DOCKER_HOST"] = f"unix://{folder}/no-engine"

    def with_engine(self, images: dict[str, str]) -> None:
        """Let the program see the machine's engine, with these images."""
        self.env.pop("DOCKER_HOST", None)
        self.env |= {name: os.environ[name] for name in ("DOCKER_HOST",) if name in os.environ} | images

    def __call__(self, *arguments: str, **env: str) -> Finished:
        done = subprocess.run(
            [PROGRAM, *arguments],
            cwd=self.folder,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [PROGRAM, *arguments],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def end(self) -> None:
        """End what a failed test left running."""
        for terminal in self.terminals:
            terminal.close()
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def runs(self) -> list[Path]:
        return sorted(path.parent for path in self.folder.glob("reports/*/run.json"))

    def analysis(self) -> dict[str, Any]:
        (run,) = self.runs()
        analysis: dict[str, Any] = json.loads((run / "analysis.json").read_text())
        return analysis

    def processes(self) -> dict[int, str]:
        """The commands of the processes that work for this program: those that its folder's name stands in or on."""
        marker = str(self.folder).encode()
        found = {}
        for process in Path("/proc").iterdir():
            if not process.name.isdigit() or int(process.name) == os.getpid():
                continue
            try:
                command = (process / "cmdline").read_bytes()
                about = command + (process / "environ").read_bytes() + str((process / "cwd").readlink()).encode()
                state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if marker in about and state not in "ZX":
                found[int(process.name)] = command.replace(b"\0", b" ").decode()
        return found

    def alive(self) -> list[str]:
        """The processes of this program that are alive, for a message."""
        return [f"{pid} {command[:80]}" for pid, command in self.processes().items()]

    def wait_until_gone(self, seconds: float) -> list[str]:
        """Wait up to ``seconds`` until nothing of it is alive; return what still is."""
        deadline = time.monotonic() + seconds
        while (left := self.alive()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return left


def await_line(process: subprocess.Popen[str], text: str, seconds: float = 120) -> list[str]:
    """Read the program's progress until a line holds ``text``; return all lines read."""
    lines: list[str] = []
    deadline = time.monotonic() + seconds
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return lines
        assert time.monotonic() < deadline, "".join(lines)
    raise AssertionError(f"ended without {text!r}:\n{''.join(lines)}")


def columns(path: Path, trial: str = "001") -> dict[str, list[float]]:
    """What a trial's series hold, by column; seconds without a value are left out."""
    with gzip.open(path / "trials" / trial / "series.csv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows if row[name]] for name in rows[0]}
