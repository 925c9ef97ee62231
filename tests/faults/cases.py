"""The cases: what is broken, when, and what must follow."""

import contextlib
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.faults.scene import After, Scene

# The longest patience that ticketbench has with a part that is stopped is that of its clients and of its endings; one
# that is dead is noticed at once. Every case must be over by then, counted from the fault.
BOUND_S: Final = 60.0

SIGNAL_CODES: Final = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143}
COMPONENTS: Final = ("postgres", "backend", "redis", "app", "worker", "prometheus", "k6", "sampler")
# Of a run that nothing broke. On a machine that others keep busy its figures may miss an SLO or not be believed.
WHOLE: Final = (0, 1, 3)
# How each may be called in a message.
CALLED: Final = {
    "postgres": "postgres", "backend": "postgres", "redis": "redis", "app": "app|the sale", "worker": "app|the sale",
    "prometheus": "prometheus", "k6": "k6", "sampler": "sampler",
}  # fmt: skip
MOMENTS: Final = ("set-up", "warm-up", "window", "tear-down")


class NotHereError(Exception):
    """The case cannot be tried on this machine; the text says why."""


@dataclass
class Wanted:
    """What must follow. ``codes``: allowed exit codes. ``names``: a pattern that the message must hold."""

    codes: tuple[int, ...]
    names: str = ""
    trial: bool = False
    report: bool = False
    series: bool = False
    ledger: bool = False
    acks: bool = False
    left: bool = False
    messages: int | None = None  # None: one, unless the code says that nothing failed
    bound_s: float = BOUND_S


@dataclass
class Case:
    """A fault: ``part``, ``moment`` and ``fault`` are the row's first columns; ``play`` does it and returns the end."""

    part: str
    moment: str
    fault: str
    play: Callable[[Scene], After]
    wanted: Wanted
    checks: list[Callable[[Scene, After], str | None]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What it is selected by: ``postgres/window/SIGKILL``."""
        return f"{self.part}/{self.moment}/{self.fault}".replace(" ", "-")


def judge(case: Case, after: After) -> list[str]:
    """Return what was not as it must be; empty where all was."""
    wanted = case.wanted
    wrong = []
    if after.code is None:
        wrong.append("it never ended")
    elif after.code not in wanted.codes:
        wrong.append(f"exit code {after.code}, not {' or '.join(map(str, wanted.codes))}")
    if after.seconds > wanted.bound_s:
        wrong.append(f"it took {after.seconds:.0f} s to end")
    if "Traceback" in after.err:
        wrong.append("a traceback")
    messages = wanted.messages if wanted.messages is not None else int(after.code not in (0, 1, 3))
    if len(after.messages) != messages:
        wrong.append(f"{len(after.messages)} messages")
    told = " ".join(after.messages).lower()
    if wanted.names and not _matches(wanted.names, told):
        wrong.append(f"the message does not name {wanted.names}")
    if after.left and not wanted.left:
        wrong.append(f"left behind: {'; '.join(after.left)}")
    wrong += _lost(wanted, after)
    return wrong


def _matches(pattern: str, text: str) -> bool:
    return any(word in text for word in pattern.lower().split("|"))


def _lost(wanted: Wanted, after: After) -> list[str]:
    """Return what should have been kept and was not."""
    lost = []
    if wanted.trial and not after.trials:
        lost.append("no trial was kept")
    if wanted.report and not any(name.endswith("report.html") for name in after.reports):
        lost.append("no report was written")
    for wish, name in ((wanted.series, "series"), (wanted.ledger, "ledger"), (wanted.acks, "acks")):
        if wish and not any(name in files for files in after.kept.values()):
            lost.append(f"no {name} were kept")
    return lost


# --- moments ----------------------------------------------------------------------------------------------------------


def reach(scene: Scene, part: str, moment: str) -> int:
    """Start a run, wait for the moment, and return the pid of the part. Raises AssertionError where it never comes."""
    scene.start()
    if moment == "set-up":
        return scene.await_process(lambda: scene.component(part))
    lines = {"warm-up": " warm-up", "window": " window", "tear-down": " drain" if part == "k6" else " audit"}
    scene.await_line(lines[moment])
    if moment in ("warm-up", "window"):
        time.sleep(1.0)  # well inside of it
    return scene.await_process(lambda: scene.component(part))


def strike(scene: Scene, pid: int, signum: signal.Signals) -> None:
    """Send the signal and note the time."""
    scene.fault_s = time.monotonic()
    os.kill(pid, signum)


# --- parts ------------------------------------------------------------------------------------------------------------


def _part_case(part: str, moment: str, signum: signal.Signals) -> Case:
    def play(scene: Scene) -> After:
        strike(scene, reach(scene, part, moment), signum)
        return scene.end()

    # what is hit while or after the ledger is read may no longer matter: a whole trial is then as good as a failed one
    late = moment == "tear-down"
    measured = moment in ("warm-up", "window", "tear-down")
    wanted = Wanted(
        # an ended backend or worker of a server that lives is noticed by what it spoils, or does not spoil
        codes=(4, 0, 3, 1) if late else (4,),
        names="" if late else CALLED[part],
        trial=measured,
        report=measured,
        acks=moment in ("window", "tear-down"),
        ledger=measured and part not in ("postgres", "redis"),
        series=moment in ("window", "tear-down") and part != "prometheus",
    )
    return Case(part, moment, signum.name, play, wanted)


def _part_cases() -> Iterator[Case]:
    for part in COMPONENTS:
        for moment in MOMENTS:
            if part == "backend" and moment == "set-up":
                continue  # none is there for long enough to be hit
            for signum in (signal.SIGKILL, signal.SIGSTOP):
                yield _part_case(part, moment, signum)


# --- ticketbench itself -----------------------------------------------------------------------------------------------

OWN_MOMENTS: Final = {
    "reading the plan": "",
    "set-up (start)": " start ",
    "set-up (reset)": " reset ",
    "warm-up": " warm-up",
    "window": " window",
    "tear-down (audit)": " audit",
    "tear-down (collect)": " collect",
    "tear-down (stop)": "s  stop",
}


def _own_reach(scene: Scene, moment: str) -> int:
    scene.start()
    if line := OWN_MOMENTS[moment]:
        scene.await_line(line)
    else:
        time.sleep(0.6)  # it has no line to say yet
    if moment in ("warm-up", "window"):
        time.sleep(1.0)
    return scene.await_process(lambda: scene.component("ticketbench"))


def _signal_case(moment: str, signals: tuple[signal.Signals, ...], apart_s: float = 0.0) -> Case:
    def play(scene: Scene) -> After:
        pid = _own_reach(scene, moment)
        for index, signum in enumerate(signals):
            if index:
                time.sleep(apart_s)
            with contextlib.suppress(ProcessLookupError):
                strike(scene, pid, signum)
        return scene.end()

    measured = moment in ("warm-up", "window") or moment.startswith("tear-down")
    code = SIGNAL_CODES[signals[0]]
    once = len(signals) == 1
    fault = " ".join(signum.name for signum in signals) + (f" ({apart_s:g} s apart)" if apart_s else "")
    wanted = Wanted(
        codes=(code,),
        names="interrupted|terminated",
        trial=measured,
        report=measured,
        acks=moment == "window" or moment.startswith("tear-down"),
        # asked twice, what is in hand must do
        ledger=measured and once,
        series=(moment == "window" or moment.startswith("tear-down")) and once,
        messages=1,
    )
    return Case("ticketbench", moment, fault, play, wanted)


def _killed_case(moment: str, then: str) -> Case:
    def play(scene: Scene) -> After:
        pid = _own_reach(scene, moment)
        strike(scene, pid, signal.SIGKILL)
        after = scene.end()
        left = scene.await_gone(5.0)
        if left:
            after.processes = tuple(left.values())
            return after
        done = scene.call(*(("down",) if then == "down" else ("run", "sale.js")))
        again = scene.look(done.returncode, after.seconds)
        again.out, again.err = done.stdout, done.stderr
        again.empty_runs = ()  # a killed ticketbench cannot take it away; `--resume` or the user does
        again.unfinished = ()
        return again

    wanted = Wanted(codes=(0,), messages=0)
    if then == "run":
        wanted = Wanted(codes=WHOLE, messages=0, trial=True, report=True, series=True, ledger=True, acks=True)
    fault = f"SIGKILL, then `ticketbench {then}`"
    return Case("ticketbench", moment, fault, play, wanted)


def _paused_case(moment: str) -> Case:
    def play(scene: Scene) -> After:
        pid = _own_reach(scene, moment)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(4.0)
        strike(scene, pid, signal.SIGCONT)
        return scene.end()

    during = moment in ("warm-up", "window")
    wanted = Wanted(
        # a machine that others keep busy may make any trial invalid
        codes=(3,) if during else (0, 3),
        messages=0,
        trial=True,
        report=True,
        series=True,
        ledger=True,
        acks=True,
    )
    case = Case("ticketbench", moment, "SIGSTOP for 4 s, SIGCONT", play, wanted)
    if during:
        case.checks.append(
            lambda _, after: None if after.outcome == "invalid" else f"the outcome is {after.outcome}, not invalid"
        )
    return case


def _own_cases() -> Iterator[Case]:
    for moment in OWN_MOMENTS:
        for signum in SIGNAL_CODES:
            yield _signal_case(moment, (signum,))
        yield _signal_case(moment, (signal.SIGINT, signal.SIGINT))
        yield _signal_case(moment, (signal.SIGINT, signal.SIGINT), 0.5)
        if moment != "reading the plan":
            yield _killed_case(moment, "down")
            yield _paused_case(moment)
    yield _signal_case("window", (signal.SIGINT, signal.SIGTERM))
    yield _killed_case("window", "run")


# --- the terminal -----------------------------------------------------------------------------------------------------


def _closed_terminal(scene: Scene) -> After:
    """Run it on a terminal of its own, and close that in the window."""
    master, slave = pty.openpty()
    scene.start(terminal=slave)
    os.close(slave)
    said = b""
    deadline = time.monotonic() + 60
    while b"window" not in said:
        assert time.monotonic() < deadline, said
        if select.select([master], [], [], 0.2)[0]:
            said += os.read(master, 4096)
    time.sleep(1.0)
    scene.fault_s = time.monotonic()
    os.close(master)
    return scene.end()


def _no_reader(scene: Scene) -> After:
    """The reader of its progress goes away, as ``2>&1 | head`` does."""
    reading, writing = os.pipe()
    scene.start(stderr=writing)
    os.close(writing)
    said = b""
    while b" reset" not in said:
        piece = os.read(reading, 4096)
        assert piece, said
        said += piece
    scene.fault_s = time.monotonic()
    os.close(reading)
    return scene.end()


def _closed_stderr(scene: Scene) -> After:
    scene.start(prefix=("sh", "-c", 'exec "$@" 2>&-', "sh"))
    return scene.end()


def _terminal_cases() -> Iterator[Case]:
    whole = {"trial": True, "report": True, "series": True, "ledger": True, "acks": True}
    yield Case("terminal", "window", "closed (SIGHUP)", _closed_terminal, Wanted((143,), messages=0, **whole))
    yield Case("terminal", "set-up", "reader of stderr gone", _no_reader, Wanted(WHOLE, messages=0, **whole))
    yield Case("terminal", "set-up", "stderr closed", _closed_stderr, Wanted(WHOLE, messages=0, **whole))


# --- disks and folders ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def mounted(place: Path, options: str) -> Iterator[None]:
    """Mount an empty file system in memory at ``place``. Raises NotHereError where that takes rights we lack."""
    place.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise NotHereError(f"a file system cannot be mounted: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place: Path) -> None:
    """Write until nothing more fits."""
    with (place / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 65536)
    with (place / "filler2").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 512)


def _too_small(which: str, size: str) -> Callable[[Scene], After]:
    def play(scene: Scene) -> After:
        with mounted(getattr(scene, which), f"size={size}"):
            scene.start()
            return scene.end()

    return play


def _fills_up(which: str, size: str, line: str) -> Callable[[Scene], After]:
    def play(scene: Scene) -> After:
        with mounted(getattr(scene, which), f"size={size}"):
            scene.start()
            scene.await_line(line)
            time.sleep(0.5)
            scene.fault_s = time.monotonic()
            fill(getattr(scene, which))
            return scene.end()

    return play


def _read_only(which: str) -> Callable[[Scene], After]:
    def play(scene: Scene) -> After:
        with mounted(getattr(scene, which), "ro,size=1m"):
            scene.start()
            return scene.end()

    return play


def _is_a_file(which: str) -> Callable[[Scene], After]:
    def play(scene: Scene) -> After:
        getattr(scene, which).write_text("")
        scene.start()
        return scene.end()

    return play


def _removed(what: str, line: str) -> Callable[[Scene], After]:
    def play(scene: Scene) -> After:
        scene.start()
        scene.await_line(line)
        time.sleep(0.5)
        scene.fault_s = time.monotonic()
        shutil.rmtree(scene.output if what == "output" else scene.state / "stacks", ignore_errors=True)
        return scene.end()

    return play


def _disk_cases() -> Iterator[Case]:
    disk = "space|full"
    yield Case("state folder", "set-up", "disk of 20 MB", _too_small("state", "20m"), Wanted((4,), disk))
    yield Case("state folder", "set-up", "disk of 60 MB", _too_small("state", "60m"), Wanted((4,), disk))
    kept = {"trial": True, "report": True, "acks": True}
    yield Case(
        "state folder", "window", "disk fills up", _fills_up("state", "300m", " window"), Wanted((4, 3, 5), **kept)
    )
    yield Case("output folder", "set-up", "disk of 8 kB", _too_small("output", "8k"), Wanted((4,), disk))
    yield Case("output folder", "window", "disk fills up", _fills_up("output", "4m", " window"), Wanted((4,), disk))
    yield Case("output folder", "tear-down", "disk fills up", _fills_up("output", "4m", " audit"), Wanted((4,), disk))
    read_only = "read-only"
    yield Case("state folder", "set-up", "read-only", _read_only("state"), Wanted((4,), read_only))
    yield Case("output folder", "set-up", "read-only", _read_only("output"), Wanted((4,), read_only))
    yield Case(
        "state folder", "set-up", "is a file", _is_a_file("state"), Wanted((4,), "not a directory|is a file|exists")
    )
    yield Case(
        "output folder", "set-up", "is a file", _is_a_file("output"), Wanted((4,), "not a directory|is a file|exists")
    )
    gone = "no such file|is gone|removed|vanished"
    yield Case(
        "output folder",
        "window",
        "removed",
        _removed("output", " window"),
        Wanted((4,), gone, trial=True, report=True, series=True, ledger=True),
    )
    yield Case("state folder", "window", "removed", _removed("state", " window"), Wanted((4, 3), **kept))


# --- descriptors, ports, clock ----------------------------------------------------------------------------------------


def _few_descriptors(count: int) -> Callable[[Scene], After]:
    def play(scene: Scene) -> After:
        scene.start(descriptors=count)
        return scene.end()

    return play


# In a network of its own there are no other ports than these, and nothing of the machine's is touched.
_OWN_NETWORK: Final = """
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: up, running
with open("/proc/sys/net/ipv4/ip_local_port_range", "w") as file:
    file.write(sys.argv[1])
os.execvp(sys.argv[2], sys.argv[2:])
"""


def _few_ports(scene: Scene) -> After:
    probe = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        raise NotHereError(f"no network of its own: {probe.stderr.strip()}")
    scene.start(prefix=("unshare", "--net", "python3", "-c", _OWN_NETWORK, "40000 40007"))
    return scene.end()


# Each Python runs this file as it begins, found by PYTHONPATH; only ticketbench's own gets the clock.
_CLOCK: Final = """
import sys, time
from pathlib import Path
if any(Path(word).name == "ticketbench" for word in sys.orig_argv[1:2]):
    real, offset = time.time, Path(__file__).with_name("offset")
    time.time = lambda: real() + float(offset.read_text())
"""


def _stepped(seconds: int) -> Callable[[Scene], After]:
    """Step the clock that ticketbench reads by ``seconds`` in the window; the machine's and the servers' stay."""

    def play(scene: Scene) -> After:
        clock = scene.folder / "clock"
        clock.mkdir()
        (clock / "sitecustomize.py").write_text(_CLOCK)
        (clock / "offset").write_text("0")
        path = os.pathsep.join(filter(None, (str(clock), os.environ.get("PYTHONPATH"))))
        scene.start(PYTHONPATH=path)
        scene.await_line(" window")
        time.sleep(1.0)
        scene.fault_s = time.monotonic()
        (clock / "next").write_text(str(seconds))
        (clock / "next").rename(clock / "offset")  # never read half
        return scene.end()

    return play


def _clock_named(_: Scene, after: After) -> str | None:
    told = json.dumps([trial.get("disturbances") for trial in after.trials.values()])
    return None if "clock was set" in told and after.outcome == "invalid" else f"the clock is not named: {told}"


def _limit_cases() -> Iterator[Case]:
    files = "open files|too many|descriptor|ulimit"
    for count in (16, 40, 120):
        yield Case("descriptors", "set-up", f"ulimit -n {count}", _few_descriptors(count), Wanted((4,), files))
    yield Case("ports", "set-up", "8 ports in all", _few_ports, Wanted((4,), "port|address"))
    for seconds in (30, -30):
        case = Case(
            "clock", "window", f"stepped by {seconds:+d} s", _stepped(seconds), Wanted((3,), trial=True, report=True)
        )
        case.checks.append(_clock_named)
        yield case


# --- two at a time ----------------------------------------------------------------------------------------------------


def _beside(script: str) -> Callable[[Scene], After]:
    def play(scene: Scene) -> After:
        shutil.copy(scene.folder / "sale.js", scene.folder / "other.js")
        scene.start()
        other = subprocess.Popen(
            [str(part) for part in (scene_program(), "run", script)],
            cwd=scene.folder,
            env=scene.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            _, said = other.communicate(timeout=120)
        finally:
            other.kill()
            other.wait()
        after = scene.end()
        if other.returncode not in WHOLE:
            after.err += f"\nticketbench: the other run ended with {other.returncode}: {said[-300:]}"
        return after

    return play


def scene_program() -> str:
    """Return the installed program."""
    from tests.faults.scene import PROGRAM

    return PROGRAM


def _both_whole(_: Scene, after: After) -> str | None:
    if len(after.runs) != 2:
        return f"{len(after.runs)} runs are stored, not 2"
    if len(after.trials) != 2 or any(trial["status"] != "done" for trial in after.trials.values()):
        return "not both trials are done"
    return None


def _both_marked(scene: Scene, after: After) -> str | None:
    """Each run's record or trial must name the other."""
    for name in after.runs:
        text = "".join(path.read_text() for path in (scene.output / name).rglob("*.json"))
        others = [other for other in after.runs if other != name]
        if not any(other in text for other in others):
            return f"{name} does not say that it shared the machine"
    return None


def _pair_cases() -> Iterator[Case]:
    for fault, script in (("same scenario", "sale.js"), ("another scenario", "other.js")):
        wanted = Wanted((0, 1, 3), messages=0, trial=True, report=True, series=True, ledger=True, acks=True)
        yield Case("two runs", "all", fault, _beside(script), wanted, [_both_whole, _both_marked])


# --- run directories --------------------------------------------------------------------------------------------------


def _damaged(file: str, damage: Callable[[bytes], bytes]) -> Callable[[Scene], After]:
    def play(scene: Scene) -> After:
        scene.start("run", "sale.js")
        scene.end()
        (run,) = scene.output.iterdir()
        path = run / file
        path.write_bytes(damage(path.read_bytes()))
        for made in (*run.glob("report.*"), run / "analysis.json"):
            made.unlink()
        scene.start("show", str(run))
        return scene.end()

    return play


def _newer(content: bytes) -> bytes:
    return json.dumps({**json.loads(content), "schema_version": 99}).encode()


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _run_cases() -> Iterator[Case]:
    yield Case("run directory", "later", "run.json cut off", _damaged("run.json", _half), Wanted((2,), "run.json"))
    yield Case(
        "run directory",
        "later",
        "run.json of a newer version",
        _damaged("run.json", _newer),
        Wanted((2,), "newer|version"),
    )
    yield Case("run directory", "later", "trial.json cut off", _damaged("trials/001/trial.json", _half), Wanted((2, 3)))
    yield Case("run directory", "later", "series cut off", _damaged("trials/001/series.csv.gz", _half), Wanted((2, 3)))


def all_cases() -> tuple[Case, ...]:
    """Return every case, in the order of the table."""
    return (
        *_part_cases(),
        *_own_cases(),
        *_terminal_cases(),
        *_disk_cases(),
        *_limit_cases(),
        *_pair_cases(),
        *_run_cases(),
    )
