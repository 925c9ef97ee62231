"""What a person sees: the panel on a terminal, and a clean terminal after it."""

import json
import os
import signal
import subprocess
import time

from program import PROGRAM, Program
from terminal import Terminal

SHORT = ("--set", "duration=6", "--set", "rate=40")
SHOW_CURSOR, HIDE_CURSOR = b"\x1b[?25h", b"\x1b[?25l"


def in_window(shown: list[str]) -> bool:
    """Whether the panel shows a window with figures."""
    return any(line.startswith("window ") for line in shown) and any(
        line.startswith("finished") and "/s" in line for line in shown
    )


def panel_lines(shown: list[str]) -> list[str]:
    words = ("window ", "warm-up ", "plan ", "offered ", "finished ", "next ", "reset ", "collect ", "drain ", "audit ")
    return [line for line in shown if line.startswith(words)]


def test_the_panel_is_seen_and_gone_and_the_results_stay(program: Program) -> None:
    terminal = Terminal(program, 80, 24, "run", "spike", "--vary", "pool_size=10", *SHORT)
    shown = terminal.until(in_window)
    assert shown[0] == "spike: the sale of a hot match opens"
    start = next(number for number, line in enumerate(shown) if line.startswith("spike  trial 1 of 1  pool_size=10"))
    assert [line.split()[0] for line in shown[start : start + 6]] == [
        "spike", "window", "plan", "offered", "finished", "next",
    ]  # fmt: skip
    assert len(shown) == start + 6
    assert "left" in shown[start + 1]
    after = terminal.until(lambda now: any("[1/1] pool_size=" in line for line in now))
    (done,) = (line for line in after if "[1/1] pool_size=" in line)
    assert "done; " in done
    assert terminal.end() in (0, 3)  # 3: others were busy on this machine, and the run says so
    final = terminal.shown()
    assert panel_lines(final) == []
    assert final[-1] == f"{os.path.relpath(program.runs()[0], program.folder)}/report.html"
    assert sum("[1/1] pool_size=" in line for line in final) == 1
    assert any(line.startswith("next: ticketbench ") for line in final)
    assert terminal.raw.rfind(SHOW_CURSOR) > terminal.raw.rfind(HIDE_CURSOR) > -1
    assert terminal.screen.cursor.hidden is False


def test_ctrl_c_in_a_window_that_became_narrow_leaves_a_clean_terminal(program: Program) -> None:
    terminal = Terminal(program, 120, 40, "run", "spike", *SHORT, NO_COLOR="1")
    wide = terminal.until(in_window)
    assert any(line.startswith("window ") and 65 < len(line) <= 100 for line in wide)
    terminal.resize(40, 40)
    narrow = terminal.until(lambda now: in_window(now) and any(line.startswith("goodput") for line in now))
    assert all(len(line) <= 40 for line in narrow)
    assert b"\x1b[38;5" not in terminal.raw  # NO_COLOR takes the colours, and only them
    terminal.type(b"\x03")
    assert terminal.end() == 130
    final = terminal.shown()
    assert panel_lines(final) == []
    assert "ticketbench: interrupted" in final
    assert any(line.startswith("next: ticketbench run --resume") for line in final)
    assert "".join(final).endswith("/report.html")
    assert terminal.screen.cursor.hidden is False
    assert json.loads((program.runs()[0] / "trials" / "001" / "trial.json").read_text())["status"] == "interrupted"


def test_a_terminal_that_is_stopped_holds_up_no_trial(program: Program) -> None:
    """Ctrl-S, and everything goes on; after Ctrl-Q the end is there."""
    terminal = Terminal(program, 80, 24, "run", "smoke")
    terminal.until(lambda now: any(line.startswith("smoke  trial 1 of 1") for line in now))
    terminal.type(b"\x13")
    deadline = time.monotonic() + 60
    while not list(program.folder.glob("reports/*/trials/001/trial.json")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    terminal.type(b"\x11")
    assert terminal.end() == 0
    assert terminal.shown()[-1].endswith("/report.html")


def test_a_dumb_terminal_gets_lines_and_a_failure_is_readable(program: Program) -> None:
    (program.folder / "throws.js").write_text(
        "export const options = { vus: 2, duration: '2s' };\n"
        "export function setup() { throw new Error('no \\x1b[2J[red]stock[/]'); }\nexport default function () {}\n"
    )
    terminal = Terminal(program, 80, 24, "run", "./throws.js", TERM="dumb")
    assert terminal.end() == 3
    shown = terminal.shown()
    assert shown[0] == "throws.js"  # it has no title of its own
    assert any(line.startswith("closed model, at most 2 virtual users") for line in shown)
    assert any(" s  [1/1] reset default" in line for line in shown)
    assert any(line.startswith("ticketbench: ") and "[red]stock[/]" in line for line in shown)
    assert HIDE_CURSOR not in terminal.raw
    assert b"\x1b[2J" not in terminal.raw
    (run,) = program.runs()
    assert json.loads((run / "run.json").read_text())["command"].startswith("ticketbench run throws.js ")


def test_json_is_alone_on_standard_output_and_a_late_signal_changes_no_code(program: Program) -> None:
    process = subprocess.Popen(
        [PROGRAM, "run", "smoke", "--json"],
        cwd=program.folder, env=program.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    program.started.append(process)
    assert process.stderr is not None
    for line in process.stderr:  # with --json the last line goes to standard error
        if line.rstrip().endswith("report.html"):
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
            break
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out)["outcome"]["status"] == "pass"
