"""The lock files: that they hold what pyproject.toml asks for, and nothing that ties them to one machine."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUN = [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]]
DEV = PROJECT["dependency-groups"]["dev"]


def pins(name: str) -> dict[str, Requirement]:
    """Every pinned package of a lock file by its canonical name; refuses a line that pins nothing."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found = {}
    for line in lines:
        requirement = Requirement(line.split(" --hash=")[0].strip())
        assert re.fullmatch(r"==[^,*]+", str(requirement.specifier)), line[:80]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}(\s|$)", line), f"{requirement.name} has no hash"
        found[canonicalize_name(requirement.name)] = requirement
    return found


@pytest.mark.parametrize(("lock", "wanted"), [("run", RUN), ("dev", RUN + DEV)])
def test_lock_satisfies_pyproject(lock: str, wanted: list[str]) -> None:
    locked = pins(lock)
    for requirement in map(Requirement, wanted):
        pin = locked.get(canonicalize_name(requirement.name))
        assert pin is not None, f"requirements/{lock}.txt lacks {requirement.name}: run make lock"
        version = Version(str(pin.specifier).removeprefix("=="))
        assert version in requirement.specifier, f"{pin} does not satisfy {requirement}: run make lock"


def test_tools_are_locked_beside_the_same_runtime() -> None:
    run, dev = pins("run"), pins("dev")
    assert {name: str(dev.get(name)) for name in run} == {name: str(pin) for name, pin in run.items()}


@pytest.mark.parametrize("lock", ["run", "dev"])
def test_lock_names_no_index_and_no_file(lock: str) -> None:
    lines = (ROOT / "requirements" / f"{lock}.txt").read_text().splitlines()
    options = [line for line in lines if re.match(r"\s*-", line) and not line.lstrip().startswith("--hash=")]
    assert options == []
    assert [line for line in lines if "://" in line or " @ " in line] == []
