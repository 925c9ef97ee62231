"""``ticketbench init``: a starter scenario and plan for a system of one's own."""

import shlex
from pathlib import Path

from ticketbench import paths
from ticketbench.cli import output
from ticketbench.errors import EXIT_OK, EnvironmentFailure, UsageError

FILES = ("scenario.js", "plan.toml")


def init(folder: Path) -> int:
    """Write the starter files into ``folder``, made if need be. Raises UsageError where one of them is there already.

    Nothing is ever overwritten: either all files are written or none.
    """
    starter = paths.data_dir("scenarios") / "starter"
    taken = [str(folder / name) for name in FILES if (folder / name).exists() or (folder / name).is_symlink()]
    if taken:
        raise UsageError(*(f"{path} is there already, and is left as it is" for path in taken), hint="name another DIR")
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            path = folder / name
            with path.open("x", encoding="utf-8") as file:  # fails where somebody was faster
                written.append(path)
                file.write((starter / name).read_text(encoding="utf-8"))
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
