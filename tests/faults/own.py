"""Cases of ticketbench itself: signals, a kill, a standstill, and a terminal that goes away."""

import contextlib
import os
import pty
import select
import signal
import time
from collections.abc import Iterator
from typing import Final

from tests.faults.case import WHOLE, Case, Wanted, strike
from tests.faults.scene import After, Scene

SIGNAL_CODES: Final = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143}
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
    # the second one may come while the report is being written, which it ends: then how to get it must be said
    reporting = moment == "tear-down (stop)" and not once
    fault = " ".join(signum.name for signum in signals) + (f" ({apart_s:g} s apart)" if apart_s else "")
    wanted = Wanted(
        codes=(code,),
        names="interrupted|terminated",
        trial=measured,
        report=measured and not reporting,
        acks=moment == "window" or moment.startswith("tear-down"),
        # asked twice, what is in hand must do
        ledger=measured and once,
        series=(moment == "window" or moment.startswith("tear-down")) and once,
        messages=1,
    )
    return Case("ticketbench", moment, fault, play, wanted, [_report_or_how_to_get_it] if reporting else [])


def _report_or_how_to_get_it(_: Scene, after: After) -> str | None:
    if after.reports or "`ticketbench report " in after.err:
        return None
    return "no report was written, and nothing says how to get it"


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


def own_cases() -> Iterator[Case]:
    """Yield what may come over ticketbench itself at each of its moments."""
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


def terminal_cases() -> Iterator[Case]:
    """Yield the ways in which a terminal or a reader goes away."""
    whole = {"trial": True, "report": True, "series": True, "ledger": True, "acks": True}
    yield Case("terminal", "window", "closed (SIGHUP)", _closed_terminal, Wanted((143,), messages=0, **whole))
    yield Case("terminal", "set-up", "reader of stderr gone", _no_reader, Wanted(WHOLE, messages=0, **whole))
    yield Case("terminal", "set-up", "stderr closed", _closed_stderr, Wanted(WHOLE, messages=0, **whole))
