"""The payment provider: a key is charged once, so many at a time, as long and as often declined as it was told."""

import asyncio
import json
import math
import statistics
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from target_app.errors import StartupError
from target_app.provider.app import ProviderApp
from target_app.provider.charges import AmountDiffersError, Charges, Durations
from target_app.provider.journal import Journal, Line
from target_app.provider.settings import PREFIX, ProviderSettings, load
from ticketbench.factors import CATALOGUE
from ticketbench.stack import payment

PROPERTIES: dict[str, dict[str, Any]] = ProviderSettings.model_json_schema()["properties"]


class Provider:
    def __init__(self, path: Path, **levels: Any) -> None:
        self.journal = Journal(path)
        self.charges = Charges(ProviderSettings(journal=path, **levels), self.journal)
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(ProviderApp(self.charges, self.journal)), base_url="http://provider"
        )

    async def post(self, path: str, key: str = "k", **body: Any) -> tuple[int, Any]:
        answer = await self.http.post(path, headers={"Idempotency-Key": key}, json=body)
        return answer.status_code, answer.json()

    async def charge(self, key: str = "k", pence: int = 2500) -> int:
        return (await self.post("/charges", key, amount_pence=pence))[0]

    async def lines(self) -> list[Any]:
        return [json.loads(line) for line in (await self.http.get("/charges")).text.splitlines()]

    async def kinds(self) -> list[tuple[str, str]]:
        return [(line["kind"], line["key"]) for line in await self.lines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "payments.jsonl"


@pytest.fixture
async def provider(path: Path) -> AsyncIterator[Provider]:
    made = Provider(path)
    yield made
    made.journal.close()


# --- once -------------------------------------------------------------------------------------------------------------


async def test_a_key_is_charged_once_however_often_it_is_asked_for(path: Path) -> None:
    provider = Provider(path, payment_ms=20)
    answers = await asyncio.gather(*(provider.charge() for _ in range(10)))
    assert [*answers, await provider.charge()] == [201] * 11
    (line,) = await provider.lines()
    assert (line["kind"], line["key"], line["amount_pence"]) == ("charge", "k", 2500)


async def test_a_key_is_of_one_amount(provider: Provider) -> None:
    assert await provider.charge() == 201
    assert await provider.post("/charges", amount_pence=1) == (422, {"error": "key_reused"})


async def test_the_amount_of_a_charge_under_way_holds_too(path: Path) -> None:
    provider = Provider(path, payment_ms=50)
    first = asyncio.create_task(provider.charges.charge("k", 2500))
    await asyncio.sleep(0)
    with pytest.raises(AmountDiffersError):
        await provider.charges.charge("k", 1)
    assert (await first).state == "charged"


async def test_a_charge_goes_on_when_who_asked_has_gone(path: Path) -> None:
    provider = Provider(path, payment_ms=30)
    asked = asyncio.create_task(provider.charge())
    while not provider.charges.busy:  # noqa: ASYNC110
        await asyncio.sleep(0)
    asked.cancel()
    assert await provider.charge() == 201
    assert await provider.kinds() == [("charge", "k")]


async def test_what_was_charged_is_given_back_once_and_never_charged_again(provider: Provider) -> None:
    await provider.charge()
    for _ in range(2):
        assert (await provider.post("/refunds"))[1]["state"] == "refunded"
    assert await provider.charge() == 409
    assert await provider.kinds() == [("charge", "k"), ("refund", "k")]


async def test_a_refund_that_is_faster_than_its_charge_refuses_it(path: Path) -> None:
    provider = Provider(path, payment_ms=20)
    asked = asyncio.create_task(provider.charge())
    while not provider.charges.busy:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert (await provider.post("/refunds"))[1]["state"] == "void"
    assert await asked == 409
    assert await provider.kinds() == [("void", "k")]


# --- kept -------------------------------------------------------------------------------------------------------------


async def test_another_life_knows_what_the_one_before_has_done(path: Path) -> None:
    first = Provider(path, payment_failure_ratio=0.5)
    keys = [f"key-{n}" for n in range(20)]
    before = [await first.charge(key) for key in keys]
    assert set(before) == {201, 402}
    await first.post("/refunds", keys[before.index(201)])
    with path.open("ab") as file:
        file.write(b'{"kind": "charge", "key": "half')  # it died while it wrote
    second = Provider(path)  # which would decline nothing
    again = [await second.charge(key) for key in keys]
    assert again == [409 if n == before.index(201) else status for n, status in enumerate(before)]
    assert await second.charge("half") == 201
    assert len(await second.lines()) == 22


async def test_a_reset_forgets_everything(path: Path) -> None:
    provider = Provider(path, payment_ms=10_000)
    pending = asyncio.create_task(provider.charges.charge("k", 1))
    while not provider.charges.busy:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert await provider.post("/reset") == (200, {"status": "empty"})
    with pytest.raises(asyncio.CancelledError):
        await pending
    assert (await provider.lines(), provider.charges.busy, provider.charges.waiting) == ([], 0, 0)


def test_a_long_journal_is_exported_whole(path: Path) -> None:
    journal = Journal(path)
    for n in range(3000):
        journal.write(Line("charge", f"key-{n}", n))
    pieces = list(journal.export())
    assert len(pieces) > 1
    assert [json.loads(line)["key"] for line in b"".join(pieces).splitlines()] == [f"key-{n}" for n in range(3000)]


# --- as long, as many, as often ---------------------------------------------------------------------------------------


async def test_so_many_are_served_at_a_time_and_the_others_wait(path: Path) -> None:
    provider = Provider(path, payment_ms=40, payment_limit=3)
    asked = [asyncio.create_task(provider.charge(str(n))) for n in range(9)]
    busiest = 0
    while not all(one.done() for one in asked):
        busiest = max(busiest, provider.charges.busy)
        await asyncio.sleep(0.001)
    assert busiest == 3
    assert {one.result() for one in asked} == {201}
    # three rounds of three: each of the later six waits for one or two others
    assert provider.charges.served_s == pytest.approx(9 * 0.04, rel=0.5)
    assert provider.charges.waited_s >= 0.9 * (3 * 0.04 + 3 * 0.08)
    assert [key for _, key in await provider.kinds()] == [str(n) for n in range(9)]  # in their order


@pytest.mark.parametrize("spread", [0.3, 1.0, 2.0])
def test_durations_are_those_of_a_lognormal_with_the_given_mean(spread: float) -> None:
    durations = Durations(0.02, spread, seed=7)
    drawn = [durations.draw() for _ in range(40_000)]
    sigma = math.sqrt(math.log(1 + spread**2))
    # of n draws the mean is off by spread / sqrt(n) of it, one time in three; five times that never happens
    assert statistics.fmean(drawn) == pytest.approx(0.02, rel=5 * spread / math.sqrt(len(drawn)))
    logs = [math.log(value) for value in drawn]
    assert statistics.fmean(logs) == pytest.approx(math.log(0.02) - sigma**2 / 2, abs=5 * sigma / math.sqrt(len(logs)))
    assert statistics.pstdev(logs) == pytest.approx(sigma, rel=5 / math.sqrt(2 * len(logs)))
    tail = math.exp(math.log(0.02) - sigma**2 / 2 + 1.6449 * sigma)  # the 95th percentile
    assert sum(value > tail for value in drawn) / len(drawn) == pytest.approx(0.05, abs=0.006)


@pytest.mark.parametrize("mean_s", [0.0, 0.02])
def test_without_a_spread_every_payment_takes_as_long(mean_s: float) -> None:
    durations = Durations(mean_s, 0.0, seed=7)
    assert {durations.draw() for _ in range(10)} == {mean_s}


@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
async def test_the_given_share_is_declined_and_stays_so(path: Path, ratio: float) -> None:
    provider = Provider(path, payment_failure_ratio=ratio)
    answers = [await provider.charges.charge(f"key-{n}", 1) for n in range(2000)]
    declined = sum(answer.state == "declined" for answer in answers)
    assert declined / 2000 == pytest.approx(ratio, abs=5 * math.sqrt(ratio * (1 - ratio) / 2000))
    assert [await provider.charges.charge(f"key-{n}", 1) for n in range(2000)] == answers
    assert provider.charges.counts["declined"] == declined


# --- over HTTP --------------------------------------------------------------------------------------------------------


async def test_it_says_what_is_wrong(provider: Provider) -> None:
    assert (await provider.http.post("/charges", json={"amount_pence": 1})).json() == {"error": "bad_key"}
    for body in (b"", b"[]", b"{}", b'{"amount_pence": -1}', b'{"amount_pence": true}', b"x" * 10_000):
        answer = await provider.http.post("/charges", headers={"Idempotency-Key": "k"}, content=body)
        assert (answer.status_code, answer.json()) == (422, {"error": "bad_amount"})
    assert (await provider.http.post("/nothing")).status_code == 404
    assert (await provider.http.get("/refunds")).status_code == 404
    assert (await provider.http.get("/health")).json() == {"status": "up"}


async def test_its_metrics_tell_what_it_does(path: Path) -> None:
    provider = Provider(path, payment_ms=5_000, payment_limit=1)
    asked = [asyncio.create_task(provider.charge(str(n))) for n in range(3)]
    while not provider.charges.busy or len(provider.charges._pending) < 3:  # noqa: ASYNC110
        await asyncio.sleep(0)
    text = (await provider.http.get("/metrics")).text
    for line in ("provider_busy 1.0", "provider_waiting 2.0", "provider_limit 1.0"):
        assert f"\n{line}\n" in text
    provider.charges.reset()
    await asyncio.gather(*asked, return_exceptions=True)


# --- the settings and the catalogue -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", payment.SETTINGS)
def test_every_factor_of_the_provider_is_its_setting(name: str, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    factor, setting = CATALOGUE[name], PROPERTIES[name]
    assert (setting["default"], setting["minimum"], setting["maximum"]) == (factor.default, factor.low, factor.high)
    assert setting["type"] == {"int": "integer", "float": "number"}[factor.kind]
    for variable, text in payment.settings({name: factor.high}, str(path)).items():
        monkeypatch.setenv(variable, text)
    assert getattr(load(), name) == factor.high


def test_every_fault_of_the_settings_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}PAYMENT_MS", "-1")
    monkeypatch.setenv(f"{PREFIX}PAYMENT_LIMITS", "1")
    with pytest.raises(StartupError) as caught:
        load()
    for words in ("PROVIDER_PAYMENT_LIMITS is not a setting", "PROVIDER_PAYMENT_MS: ", "PROVIDER_JOURNAL: "):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("levels", "asked"),
    [
        ({}, False),
        ({"payment_spread": 1.0, "payment": "in_transaction"}, False),
        ({"payment_ms": 0.5}, True),
        ({"payment_failure_ratio": 0.1}, True),
        ({"payment_limit": 3}, True),
    ],
)
def test_only_a_variant_that_needs_one_has_a_provider(levels: dict[str, Any], asked: bool) -> None:
    assert payment.asked(levels) is asked
