"""The target's settings: one for each factor of the catalogue, one reader, faults named, secrets kept."""

from typing import Any

import pytest

from target_app.errors import StartupError
from target_app.settings import PREFIX, Settings, load
from ticketbench.factors import CATALOGUE, Factor

TARGETS = [factor for factor in CATALOGUE.values() if factor.scope in ("app", "data")]
PROPERTIES: dict[str, dict[str, Any]] = Settings.model_json_schema()["properties"]


@pytest.fixture(autouse=True)
def _addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TARGET_DATABASE_URL", "postgresql://u:hidden-word@127.0.0.1:1/sale")
    monkeypatch.setenv("TARGET_REDIS_URL", "redis://:hidden-word@127.0.0.1:1/0")


@pytest.mark.parametrize("factor", TARGETS, ids=lambda factor: factor.name)
def test_every_factor_is_the_setting_of_its_name(factor: Factor) -> None:
    setting = PROPERTIES[factor.name]
    assert setting["default"] == factor.default
    if factor.kind == "choice":
        assert tuple(setting["enum"]) == factor.choices
    else:
        assert setting["type"] == {"int": "integer", "float": "number"}[factor.kind]
        assert (setting["minimum"], setting["maximum"]) == (factor.low, factor.high)


@pytest.mark.parametrize("factor", TARGETS, ids=lambda factor: factor.name)
def test_a_setting_takes_what_the_catalogue_takes(factor: Factor, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = factor.choices or (f"{factor.low:g}", f"{factor.high:.0f}")
    for text in texts:
        monkeypatch.setenv(PREFIX + factor.name.upper(), text)
        assert getattr(load(), factor.name) == factor.parse(text)


def test_every_fault_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TARGET_LOCKING", "hopeful")
    monkeypatch.setenv("TARGET_POOL_SIZE", "0")
    monkeypatch.setenv("TARGET_POOLSIZE", "2")
    monkeypatch.setenv("TARGET_DATABASE_URL", "mysql://u:hidden-word@h/d")
    with pytest.raises(StartupError) as caught:
        load()
    message = str(caught.value)
    assert "TARGET_POOLSIZE is not a setting" in message
    assert "TARGET_LOCKING: Input should be 'none', 'pessimistic'" in message
    assert "TARGET_POOL_SIZE: Input should be greater than or equal to 1" in message
    assert "TARGET_DATABASE_URL: " in message
    assert "hidden-word" not in message


def test_secrets_are_not_shown() -> None:
    settings = load()
    assert "hidden-word" not in f"{settings!r} {settings} {settings.model_dump()}"
    assert settings.database_url.get_secret_value().endswith("/sale")
