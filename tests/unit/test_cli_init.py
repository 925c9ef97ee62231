"""What ``init`` writes, and what ``scenarios show`` looks like on a narrow terminal."""

import tomllib
from pathlib import Path

import pytest

from ticketbench import factors
from ticketbench.cli import scenarios
from ticketbench.cli.init import init


@pytest.mark.parametrize(
    ("folder", "script", "title"),
    [
        ("shop", "shop.js", "shop"),
        ("a/my-shop_2.0", "my-shop_2.0.js", "my-shop_2.0"),
        ("my shop", "scenario.js", "my own system"),
        ("l\u00e4den", "scenario.js", "my own system"),
        ('quo"te', "scenario.js", "my own system"),
    ],
)
def test_the_script_and_the_title_are_named_after_the_folder(
    folder: str, script: str, title: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init(tmp_path / folder) == 0
    assert {path.name for path in (tmp_path / folder).iterdir()} == {script, "plan.toml"}
    plan = tomllib.loads((tmp_path / folder / "plan.toml").read_text())
    assert (plan["scenario"], plan["title"]) == (script, title)
    assert f"scenarios check {script} " in (tmp_path / folder / script).read_text()
    assert str(tmp_path / folder / script) in capsys.readouterr().out


def test_here_is_the_folder_that_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop").mkdir()
    monkeypatch.chdir(tmp_path / "shop")
    assert init(Path()) == 0
    assert (tmp_path / "shop" / "shop.js").is_file()


def test_large_bounds_are_written_out() -> None:
    assert factors.get("stock").levels_text() == "a whole number from 0 to 5000000"


def test_a_long_text_goes_on_below_itself() -> None:
    pairs = [("a", "short"), ("longer_name", "word " * 30), ("b", "x" * 100)]
    lines = list(scenarios._lines(pairs, 80))
    assert max(map(len, lines)) <= 80
    assert lines[0] == "  a            short"
    indent = lines[1].index("word")
    assert lines[1].startswith("  longer_name  word word")
    assert [line[:indent].strip() for line in lines] == ["a", "longer_name", *[""] * (len(lines) - 4), "b", ""]
    assert all(line[indent] != " " for line in lines)
