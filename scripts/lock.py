"""Resolve pyproject.toml into requirements/run.txt and dev.txt, and the part of the target into compose/app/.

All are hashed, universal and name no index.

Versions that are locked stay unless pyproject.toml rules them out; ``--upgrade`` or ``--upgrade-package NAME`` renews
them (further arguments go to uv). One version serves all supported Pythons and machines. The build backend is part
of both files, because ticketbench is installed from its folder without a second, unlocked environment.
"""

import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV = "uv==0.13.9"  # pinned: another version may write the same lock in another form
OLDEST_PYTHON = "3.11"
EDITABLE = "editables>=0.5"  # hatchling asks for it when it installs a folder, and only then


def main(arguments: list[str]) -> int:
    """Write both lock files; return uv's exit code when it fails."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    build = "\n".join([*project["build-system"]["requires"], EDITABLE])
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--target", folder, UV], check=True)
        common = [f"{folder}/bin/uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes"]
        common += ["--python-version", OLDEST_PYTHON, "--fork-strategy", "fewest", "--no-emit-index-url"]
        common += ["--custom-compile-command", "make lock", "--no-strip-extras"]
        whole = [*arguments, "pyproject.toml", "-"]
        like_run = ["-c", "requirements/run.txt"]
        wanted: dict[str, list[str]] = {
            "requirements/run.txt": whole,
            "requirements/dev.txt": [*whole, "--group", "dev", *like_run],
            "compose/app/requirements.txt": ["--group", "target", *like_run],
        }
        for name, options in wanted.items():
            command = [*common, *options, "-o", name]
            ran = subprocess.run(command, cwd=ROOT, input=build, text=True, check=False, stdout=subprocess.DEVNULL)
            if ran.returncode != 0:
                return ran.returncode
    return 0


if __name__ == "__main__":
    os.environ.pop("PYTHONPATH", None)
    sys.exit(main(sys.argv[1:]))
