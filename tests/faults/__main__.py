"""Try the faults: ``python -m tests.faults [PATTERN...]``; all of them take about 40 minutes.

Each case is a real run of the installed program in a folder of its own, which is removed unless the case failed. A line
for each goes to standard output, ``--json FILE`` keeps what was seen (cases tried again replace their older rows), and
``--table FILE`` writes the table of docs/faults.md from that. Exit code 1 where something was not as it must be.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.faults.case import Case, NotHereError, judge
from tests.faults.cases import all_cases
from tests.faults.scene import After, Scene
from tests.faults.table import table


def row(case: Case, after: After, wrong: list[str]) -> dict[str, Any]:
    """Return what is kept of a case."""
    return {
        "part": case.part,
        "moment": case.moment,
        "fault": case.fault,
        "name": case.name,
        "code": after.code,
        "seconds": round(after.seconds, 1),
        "message": "; ".join(message.removeprefix("ticketbench: ") for message in after.messages),
        "statuses": [trial["status"] for trial in after.trials.values()],
        "reasons": list(after.reasons),
        "kept": sorted({name for files in after.kept.values() for name in files}),
        "reports": list(after.reports),
        "outcome": after.outcome,
        "left": list(after.left),
        "wrong": wrong,
    }


def attempt(case: Case, *, keep: bool) -> dict[str, Any]:
    """Try one case and return its row."""
    folder = Path(tempfile.mkdtemp(prefix="ticketbench-fault-")).resolve()
    # pytest's and our own folders are closed to others; servers that run as another user must pass through
    folder.chmod(0o711)
    scene = Scene(folder)
    wrong: list[str] = []
    try:
        after = case.play(scene)
        wrong = judge(case, after)
        wrong += [said for check in case.checks if (said := check(scene, after)) is not None]
        return row(case, after, wrong)
    except AssertionError as error:
        wrong = [f"its moment never came: {error}"]
        return row(case, scene.look(None, 0.0), wrong)
    except NotHereError as error:
        return {"part": case.part, "moment": case.moment, "fault": case.fault, "name": case.name, "skipped": str(error)}
    finally:
        scene.clean()
        if wrong and keep:
            (folder / "err").write_bytes(bytes(scene.error))
        else:
            shutil.rmtree(folder, ignore_errors=True)


def show(told: dict[str, Any]) -> str:
    """Return a case's line."""
    if "skipped" in told:
        return f"skip  {told['name']}: {told['skipped']}"
    head = f"{'WRONG' if told['wrong'] else 'ok   '} {told['name']}: exit {told['code']} after {told['seconds']:.1f} s"
    lines = [head, f"        said: {told['message'] or '-'}"]
    lines += [f"        kept: {', '.join([*told['statuses'], *told['kept']]) or '-'}"]
    lines += [f"        reason: {reason}" for reason in told["reasons"]]
    lines += [f"        WRONG: {text}" for text in told["wrong"]]
    return "\n".join(lines)


def _own_mounts() -> None:
    """Go on in a mount namespace of our own, so that no end of ours leaves anything mounted."""
    if os.geteuid() == 0 and os.environ.get("FAULTS_UNSHARED") != "1" and shutil.which("unshare"):
        os.environ["FAULTS_UNSHARED"] = "1"
        os.execvp("unshare", ["unshare", "--mount", sys.executable, "-m", "tests.faults", *sys.argv[1:]])


def main() -> int:
    """Try what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="regular expressions of part/moment/fault")
    parser.add_argument("--list", action="store_true", help="only list the cases")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep what was seen here")
    parser.add_argument("--left", action="store_true", help="only the cases that --json has not, or has as wrong")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write the table between the marks of this file")
    parser.add_argument("--keep", action="store_true", help="keep the folders of the cases that went wrong")
    options = parser.parse_args()
    chosen = [
        case
        for case in all_cases()
        if not options.patterns or any(re.search(pattern, case.name) for pattern in options.patterns)
    ]
    if options.list:
        print("\n".join(case.name for case in chosen))
        return 0
    # ours and those of the program: a shell that starts us in the background has SIGINT ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    _own_mounts()
    seen: dict[str, dict[str, Any]] = {}
    if options.json is not None:
        with contextlib.suppress(FileNotFoundError):
            seen = {told["name"]: told for told in json.loads(options.json.read_text())}
    if options.left:
        chosen = [case for case in chosen if case.name not in seen or seen[case.name].get("wrong")]
    failed = 0
    for number, case in enumerate(chosen, start=1):
        told = attempt(case, keep=options.keep)
        failed += bool(told.get("wrong"))
        print(f"[{number}/{len(chosen)}] {show(told)}", flush=True)
        seen[case.name] = told
        if options.json is not None:
            ordered = [seen[each.name] for each in all_cases() if each.name in seen]
            options.json.write_text(json.dumps(ordered, indent=1))
    if options.table is not None:
        table(options.table, [seen[each.name] for each in all_cases() if each.name in seen])
    print(f"{len(chosen)} cases, {failed} not as they must be")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
