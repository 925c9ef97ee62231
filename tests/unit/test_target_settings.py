"""The target's settings: one for each factor of the catalogue, one reader, faults named, secrets kept."""

from typing import Any

import pytest

from target_app.database import connecting, session_settings
from target_app.errors import StartupError
from target_app.settings import PREFIX, Settings, load
from ticketbench.factors import CATALOGUE, Factor
from ticketbench.stack import pgbouncer

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


def test_a_pooler_sets_in_its_sessions_what_the_sale_sets_in_its_own() -> None:
    levels = {"synchronous_commit": "off", "pool_timeout_s": 3.0, "pooler_size": 7}
    settings = Settings(**{name: level for name, level in levels.items() if name != "pooler_size"})
    pooling = pgbouncer.Pooling.of(levels)
    assert session_settings(settings) == {**pgbouncer.SESSION, "synchronous_commit": pooling.synchronous_commit}
    text = pgbouncer.configuration(host="h", port=1, postgres=("p", 2), passwords="/f", pooling=pooling)
    for name, value in session_settings(settings).items():
        assert f"SET {name} = {value}" in text
    assert "default_pool_size = 7\n" in text
    assert "query_wait_timeout = 3\n" in text
    # and through it the sale sends nothing that PgBouncer does not know
    behind = connecting(settings.model_copy(update={"pooler": "pgbouncer", "prepared_statements": "off"}))
    assert behind["server_settings"] == {"application_name": "target_app"}
    assert behind["statement_cache_size"] == 0


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
