"""scripts/bootstrap run for real in a folder of its own; what needs the package registry is left to .ci/run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT_FAILED = 4


def bootstrap(folder: Path, level: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [folder / "scripts" / "bootstrap", level],
        env=os.environ | {"PYTHON": sys.executable} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the set-up reads of a checkout, in a folder with a space in its name."""
    folder = tmp_path / "a checkout"
    folder.mkdir()
    for part in ("scripts", "requirements"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_an_old_python_is_one_message_and_exit_4(checkout: Path, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for needed in ("sh", "dirname"):
        (programs / needed).symlink_to(shutil.which(needed) or needed)
    # Stands for a Python of that age: none is installed on a machine that can run this test.
    (programs / "python3").write_text("#!/bin/sh\necho 3.9\nexit 1\n")
    (programs / "python3").chmod(0o755)

    ran = bootstrap(checkout, "run", PATH=str(programs), PYTHON="")

    assert ran.returncode == ENVIRONMENT_FAILED
    assert ran.stdout == ""
    assert ran.stderr.count("cannot be set up") == 1
    assert "needs Python 3.11" in ran.stderr
    assert "python3 is 3.9" in ran.stderr
    assert "what to do:" in ran.stderr
    assert not (checkout / ".venv").exists()


def test_an_unreachable_registry_is_one_message_and_leaves_nothing_half_done(checkout: Path) -> None:
    nowhere = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",  # the discard port: refused at once
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": "",
        "PIP_RETRIES": "1",
        "PIP_NO_CACHE_DIR": "1",
    }
    ran = bootstrap(checkout, "run", **nowhere)

    assert ran.returncode == ENVIRONMENT_FAILED
    assert ran.stdout == ""
    assert ran.stderr.count("cannot be set up") == 1
    assert "Traceback" not in ran.stderr
    assert "HTTPS_PROXY" in ran.stderr
    assert not (checkout / ".venv" / ".stamp").exists()
    assert not (checkout / ".venv" / ".unfinished").exists()


def test_a_second_call_is_silent_and_damage_is_repaired(checkout: Path) -> None:
    python = checkout / ".venv" / "bin" / "python"
    first = bootstrap(checkout, "venv")
    assert first.returncode == 0, first.stderr
    assert first.stdout == ""
    assert subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0

    again = bootstrap(checkout, "venv")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")

    (checkout / ".venv" / ".unfinished").touch()
    interrupted = bootstrap(checkout, "venv")
    assert interrupted.returncode == 0, interrupted.stderr
    assert "interrupted" in interrupted.stderr

    python.unlink()
    python.symlink_to(checkout / "python-that-was-removed")
    broken = bootstrap(checkout, "venv")
    assert broken.returncode == 0, broken.stderr
    assert "its Python is gone" in broken.stderr
    assert subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0


def test_two_at_once_make_one_environment(checkout: Path) -> None:
    command = [checkout / "scripts" / "bootstrap", "venv"]
    environment = os.environ | {"PYTHON": sys.executable}
    both = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[1] for process in both]

    assert [process.returncode for process in both] == [0, 0], said
    assert sum("making .venv" in text for text in said) == 1, said
