"""The lock files: that they hold what pyproject.toml asks for, and nothing that ties them to one machine."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUN = [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]]
DEV = PROJECT["dependency-groups"]["dev"]
TARGET = PROJECT["dependency-groups"]["target"]
FILES = {"run": "requirements/run.txt", "dev": "requirements/dev.txt", "target": "compose/app/requirements.txt"}


def pins(name: str) -> dict[str, Requirement]:
    """Every pinned package of a lock file by its canonical name; refuses a line that pins nothing."""
    text = (ROOT / FILES[name]).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found = {}
    for line in lines:
        requirement = Requirement(line.split(" --hash=")[0].strip())
        assert re.fullmatch(r"==[^,*]+", str(requirement.specifier)), line[:80]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}(\s|$)", line), f"{requirement.name} has no hash"
        found[canonicalize_name(requirement.name)] = requirement
    return found


@pytest.mark.parametrize(("lock", "wanted"), [("run", RUN), ("dev", RUN + DEV), ("target", TARGET)])
def test_lock_satisfies_pyproject(lock: str, wanted: list[str]) -> None:
    locked = pins(lock)
    for requirement in map(Requirement, wanted):
        pin = locked.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{FILES[lock]} lacks {requirement.name}: run make lock"
        version = Version(str(pin.specifier).removeprefix("=="))
        assert version in requirement.specifier, f"{pin} does not satisfy {requirement}: run make lock"


def test_tools_are_locked_beside_the_same_runtime() -> None:
    run, dev = pins("run"), pins("dev")
    assert {name: str(dev.get(name)) for name in run} == {name: str(pin) for name, pin in run.items()}


def test_the_target_s_image_has_the_runtime_s_versions_and_less_of_them() -> None:
    run, target = pins("run"), pins("target")
    assert {name: str(pin.specifier) for name, pin in target.items()} == {
        name: str(run[name].specifier) for name in target
    }
    assert len(target) < len(run) / 2


def test_the_target_s_image_has_whatever_the_target_imports() -> None:
    imported = set()
    for path in (ROOT / "target_app").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).partition(".")[0])
    modules = imported - sys.stdlib_module_names - {"target_app"}
    assert {"asyncpg", "argon2"} <= modules
    locked, of = set(pins("target")), packages_distributions()
    assert [name for name in modules if not locked & set(map(canonicalize_name, of[name]))] == []


@pytest.mark.parametrize("lock", ["run", "dev", "target"])
def test_lock_names_no_index_and_no_file(lock: str) -> None:
    lines = (ROOT / FILES[lock]).read_text().splitlines()
    options = [line for line in lines if re.match(r"\s*-", line) and not line.lstrip().startswith("--hash=")]
    assert options == []
    assert [line for line in lines if "://" in line or " @ " in line] == []
