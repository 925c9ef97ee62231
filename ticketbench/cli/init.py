"""``ticketbench init``: a starter scenario and plan for a system of one's own."""

import re
import shlex
from pathlib import Path
from typing import Final

from ticketbench import paths
from ticketbench.cli import output
from ticketbench.errors import EXIT_OK, EnvironmentFailure, UsageError

PLAN: Final = "plan.toml"
# What the starter files call the script, and what the plan calls the whole.
_SCRIPT: Final = "scenario.js"
_TITLE: Final = "my own system"
# A folder's name that can be a file's, a run's and a title as it is.
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,39}")


def init(folder: Path) -> int:
    """Write the starter files into ``folder``, made if need be. Raises UsageError where one of them is there already.

    The script and the plan's title are named after the folder, so that runs of several systems can be told apart.
    Nothing is ever overwritten: either all files are written or none.
    """
    starter = paths.data_dir("scenarios") / "starter"
    paths.require_reachable(folder, "DIR")
    own = folder.resolve().name
    name = own if _PLAIN_NAME.fullmatch(own) else Path(_SCRIPT).stem
    title = own if _PLAIN_NAME.fullmatch(own) else _TITLE
    files = {f"{name}.js": starter / _SCRIPT, PLAN: starter / PLAN}
    taken = [str(folder / name) for name in files if (folder / name).exists() or (folder / name).is_symlink()]
    if taken:
        raise UsageError(*(f"{path} is there already, and is left as it is" for path in taken), hint="name another DIR")
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file_name, source in files.items():
            path = folder / file_name
            text = source.read_text(encoding="utf-8").replace(_SCRIPT, f"{name}.js").replace(_TITLE, title)
            with path.open("x", encoding="utf-8") as file:  # fails where somebody was faster
                written.append(path)
                file.write(text)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise EnvironmentFailure(
            f"cannot write {folder}: {error.strerror}", "name a folder you may write to"
        ) from error
    for path in written:
        print(output.plain(str(path)))
    plan = output.plain(str(written[-1]))
    print(f"next: put your system's address into {plan}, then")
    print(f"  ticketbench run --plan {shlex.quote(plan)}")
    return EXIT_OK
