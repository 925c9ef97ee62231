"""Fetched packages appear whole or not at all, and archives cannot write outside of their folder."""

import stat
import zipfile
from pathlib import Path

import pytest

from ticketbench.binaries.cache import Cache
from ticketbench.binaries.wheels import UnsafeArchiveError, unpack
from ticketbench.errors import EnvironmentFailure


def fill(into: Path) -> None:
    (into / "bin").mkdir()
    (into / "bin" / "server").write_bytes(b"x" * 1000)


def test_what_was_installed_is_found_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    assert cache.get("server-1") is None
    folder = cache.install("server-1", fill)
    assert cache.get("server-1") == folder
    assert (folder / "bin" / "server").read_bytes() == b"x" * 1000
    assert [path.name for path in cache.root.iterdir()] == ["server-1"]


@pytest.mark.parametrize("damage", ["truncated", "missing", "no manifest", "damaged manifest"])
def test_a_broken_one_is_not_found_and_is_replaced(tmp_path: Path, damage: str) -> None:
    cache = Cache(tmp_path / "cache")
    folder = cache.install("server-1", fill)
    match damage:
        case "truncated":
            (folder / "bin" / "server").write_bytes(b"x")
        case "missing":
            (folder / "bin" / "server").unlink()
        case "no manifest":
            (folder / "manifest.json").unlink()
        case _:
            (folder / "manifest.json").write_text('{"schema_version": 1, "files": 3}')
    assert cache.get("server-1") is None
    assert cache.install("server-1", fill) == folder
    assert cache.get("server-1") == folder


def test_a_failed_fetch_leaves_what_was_there(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")

    def break_off(into: Path) -> None:
        fill(into)
        raise EnvironmentFailure("the network is gone")

    with pytest.raises(EnvironmentFailure, match="network"):
        cache.install("server-1", break_off)
    assert list(cache.root.iterdir()) == []
    folder = cache.install("server-1", fill)
    with pytest.raises(EnvironmentFailure, match="network"):
        cache.install("server-1", break_off)
    assert cache.get("server-1") == folder


def test_what_a_killed_fetch_left_is_removed_by_the_next(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    abandoned = cache.root / ".fetch-server-1-abc"
    abandoned.mkdir(parents=True)
    (abandoned / "half").write_bytes(b"x")
    cache.install("server-1", fill)
    assert not abandoned.exists()


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(EnvironmentFailure, match="cannot make") as failure,
        Cache(tmp_path / "file" / "cache").lock("k6", lambda: None),
    ):
        pass
    assert "TICKETBENCH_CACHE" in failure.value.hint


def archive(path: Path, members: dict[str, int]) -> Path:
    with zipfile.ZipFile(path, "w") as bundle:
        for name, mode in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            bundle.writestr(info, f"content of {name}")
    return path


def test_one_folder_is_unpacked_with_its_execute_bits(tmp_path: Path) -> None:
    wheel = archive(
        tmp_path / "a.whl",
        {"p/bin/server": 0o100755, "p/bin/doc/readme": 0o100644, "p/bin/conf": 0o100600, "p/other": 0o100644},
    )
    unpack(wheel, tmp_path / "out", "p/bin", leave_out=("p/bin/doc",))
    files = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")}
    assert files == {"server", "conf"}
    assert stat.S_IMODE((tmp_path / "out" / "server").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "out" / "conf").stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("name", "mode"),
    [("../outside", 0o100644), ("/etc/outside", 0o100644), ("a/../../outside", 0o100644), ("link", 0o120777)],
)
def test_an_archive_that_reaches_outside_is_refused_before_anything_is_written(
    tmp_path: Path, name: str, mode: int
) -> None:
    wheel = archive(tmp_path / "a.whl", {"good": 0o100644, name: mode})
    with pytest.raises(UnsafeArchiveError):
        unpack(wheel, tmp_path / "out", "")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "outside").exists()


def test_a_damaged_archive_is_noticed(tmp_path: Path) -> None:
    wheel = archive(tmp_path / "a.whl", {"server": 0o100755})
    content = bytearray(wheel.read_bytes())
    content[content.index(b"content of")] ^= 0xFF
    wheel.write_bytes(content)
    with pytest.raises(zipfile.BadZipFile):
        unpack(wheel, tmp_path / "out", "")
