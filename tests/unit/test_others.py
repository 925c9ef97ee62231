"""CPU that others take is told apart from our own, that of processes that have ended included."""

import os
import subprocess
import sys
import time

from ticketbench.others import OthersWatch

SPIN = "import time\nend = time.process_time() + {}\nwhile time.process_time() < end: pass"


def spin(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_our_own_work_is_not_others() -> None:
    from ticketbench import others

    ours = others._ours_s()
    spin(0.3)
    subprocess.run([sys.executable, "-c", SPIN.format(0.3)], check=True)
    with subprocess.Popen([sys.executable, "-c", f"{SPIN.format(0.3)}\ninput()"], stdin=subprocess.PIPE) as running:
        deadline = time.monotonic() + 30
        while others._ours_s() - ours < 0.85 and time.monotonic() < deadline:
            time.sleep(0.02)
        found = others._ours_s() - ours
        running.communicate(b"\n")
    assert found >= 0.85


def test_anothers_work_is() -> None:
    # a process that is no child of ours: its parent has ended before we look
    script = f"( {sys.executable} -c '{SPIN.format(1.0)}' & )"
    watch = OthersWatch()
    subprocess.run(["/bin/sh", "-c", script], check=True)
    began = time.monotonic()
    time.sleep(1.0)
    share = watch.share()
    assert share is not None
    # half of what it was given in the best case, on a machine where others work as well
    assert share * (time.monotonic() - began) * (os.cpu_count() or 1) > 0.2
    assert 0 <= share <= 1


def test_a_moment_tells_nothing() -> None:
    assert OthersWatch().share() is None
