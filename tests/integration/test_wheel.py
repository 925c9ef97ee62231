"""The wheel carries what the program needs beside its code: it works from any folder, without the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LOOK = """
import sys
from pathlib import Path
import ticketbench
from ticketbench import paths
from ticketbench.stack.compose_file import read_compose
compose = read_compose({})
build = compose.services["app"].build
print(Path(ticketbench.__file__).parents[1])
print(build.context)
print((build.context / build.dockerfile).is_file())
print(all((build.context / name).is_file() for name in sys.argv[1:]))
print([mount.source for mount in compose.services["k6"].volumes] == [str(paths.data_dir("scenarios"))])
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what an installation of the wheel puts into site-packages."""
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"),
            *("--disable-pip-version-check", "-w", str(folder), str(ROOT)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    [wheel] = folder.glob("*.whl")
    site = folder / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def copied(name: str) -> list[str]:
    """Return what the Dockerfile copies, as files below the build's context."""
    files = subprocess.run(["git", "ls-files", name], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return files.split()


def test_the_app_image_can_be_built_from_the_wheel(unpacked: Path, tmp_path: Path) -> None:
    needed = [".dockerignore", "compose/app/requirements.txt", *copied("target_app")]
    assert len(needed) > 20
    ran = subprocess.run(
        [sys.executable, "-P", "-c", LOOK, *needed],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    where, context, *holds = ran.stdout.splitlines()
    assert Path(where) == unpacked
    assert Path(context) == unpacked / "ticketbench" / "data"
    assert holds == ["True", "True", "True"]


def test_the_carried_target_is_the_installed_one(unpacked: Path) -> None:
    for name in copied("target_app"):
        assert (unpacked / "ticketbench" / "data" / name).read_bytes() == (unpacked / name).read_bytes()
