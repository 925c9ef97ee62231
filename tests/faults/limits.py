"""Cases of disks and limits: no space, folders that cannot be used, few files and ports, a clock that is set."""

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tests.faults.case import Case, NotHereError, Wanted
from tests.faults.scene import After, Scene

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


def disk_cases() -> Iterator[Case]:
    """Yield what may be wrong with the folders that a run writes to."""
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


def limit_cases() -> Iterator[Case]:
    """Yield too few files and ports, and clocks that are set."""
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
