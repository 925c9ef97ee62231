"""Which script a name or path means, and what a script is told."""

from pathlib import Path

import pytest

from ticketbench import scenario
from ticketbench.errors import EnvironmentFailure, UsageError


def test_the_bundled_scenarios() -> None:
    assert scenario.bundled() == (
        "browse", "flash", "gate", "journey", "purchase", "smoke", "soak", "spike", "stampede", "validate", "visitors",
    )  # fmt: skip
    for name in scenario.bundled():
        assert scenario.find(name).name == f"{name}.js"


def test_a_script_of_the_users_own_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop.js").write_text("export default function () {}")
    monkeypatch.chdir(tmp_path)
    assert scenario.find("shop.js") == (tmp_path / "shop.js").resolve()
    assert scenario.find(str(tmp_path / "shop.js")).is_absolute()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("spkie", "neither a bundled name nor a .js file"),
        ("folder", "is a folder"),
        ("folder.js", "is a folder"),
        ("notes.txt", "is not a .js file"),
        ("missing.js", "does not exist"),
        ("", "names no scenario: bundled are"),
        (" ", "names no scenario: bundled are"),
    ],
)
def test_what_is_no_script_is_refused_and_the_bundled_are_named(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.js").mkdir()
    (tmp_path / "notes.txt").write_text("no script")
    with pytest.raises(UsageError) as raised:
        scenario.find(text)
    assert said in raised.value.message
    assert (
        "browse, flash, gate, journey, purchase, smoke, soak, spike, stampede, validate, visitors"
        in raised.value.message
    )


def test_load_factors_become_variables_and_nothing_else_does() -> None:
    levels = {"rate": 12.5, "duration": 30.0, "vus": 40, "hot_share": 0.0, "stock": 7, "pool_size": 3, "cache": "on"}
    assert scenario.load_env(levels) == {
        "RATE": "12.5",
        "DURATION": "30",
        "VUS": "40",
        "HOT_SHARE": "0",
        "STOCK": "7",
    }
    assert scenario.load_env({}) == {}


def test_a_missing_k6_is_an_environment_failure() -> None:
    with pytest.raises(EnvironmentFailure, match="k6 cannot be started"):
        scenario.inspect(("/nowhere/k6",), scenario.find("smoke"), {})
