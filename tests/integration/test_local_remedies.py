"""The remedies that are servers or processes, on the local stack: each does its work, and is missed when it is dead."""

import asyncio
import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.local_stacks import running_stack
from tests.integration.sampled import Figures, json_lines, until
from ticketbench import factors, ledger, money
from ticketbench.analysis.money import MoneyAudit, audit_money
from ticketbench.binaries import Binaries
from ticketbench.isolation import CpuGroup
from ticketbench.model import Level
from ticketbench.sampler_process import SamplerProcess
from ticketbench.stack import Endpoints
from ticketbench.stack.idle import idle
from ticketbench.stack.local import LocalStack
from ticketbench.stack.state import running
from ticketbench.storing.purchases import Ledger


@pytest.fixture(scope="module")
def stack(all_binaries: Binaries) -> Iterator[LocalStack]:
    """One stack for all tests; each applies its own variant."""
    with running_stack("remedies", all_binaries, most_workers=4) as stack:
        yield stack


def levels(**changed: Level) -> dict[str, Level]:
    return {**factors.defaults(), **changed}


def buy(http: httpx.Client) -> httpx.Response:
    key = uuid.uuid4().hex
    return http.post("/matches/2/purchases", headers={"Idempotency-Key": key}, json={"buyer": key})


def client(endpoints: Endpoints) -> httpx.Client:
    return httpx.Client(base_url=endpoints.base_url, timeout=30)


def sold_by(endpoints: Endpoints) -> list[int]:
    """Return how many purchases each worker has sold."""
    wanted = 'target_purchases_total{outcome="sold"}'
    texts = [httpx.get(f"http://{address}/metrics").text for address in endpoints.app_metrics]
    return [int(float(line.split()[-1])) for text in texts for line in text.splitlines() if line.startswith(wanted)]


def pid_of(endpoints: Endpoints, name: str) -> int:
    return next(part.pid for part in endpoints.components if part.name == name)


def statuses(endpoints: Endpoints) -> dict[str, str]:
    lines = httpx.get(endpoints.consoles["haproxy"]).text.removeprefix("# ").splitlines()
    names = lines[0].split(",")
    rows = [dict(zip(names, line.split(","), strict=False)) for line in lines[1:]]
    return {row["svname"]: row["status"] for row in rows if row["pxname"] == "sale"}


def test_a_sale_behind_both_is_one_component_scraped_and_seen_idle(stack: LocalStack) -> None:
    endpoints = stack.apply(levels(replicas=2, workers=2, pooler="pgbouncer", payment_ms=5))
    names = [part.name for part in endpoints.components]
    assert names == ["postgres", "redis", "prometheus", "app", "app-2", "pgbouncer", "payment", "haproxy"]
    assert set(endpoints.logs) == set(names)
    assert len(endpoints.app_metrics) == 4
    until(lambda: not endpoints.unscraped())
    assert idle(endpoints.app_metrics)
    with client(endpoints) as http:
        assert {buy(http).status_code for _ in range(20)} == {201}
    assert sum(sold_by(endpoints)) == 20
    # all replicas have one provider, whose books agree with theirs
    assert money.await_settled(endpoints.own_access, deadline_s=10)
    rows = Ledger.of(ledger.read_ledger(endpoints.own_access, endpoints.consoles["payment"]))
    assert audit_money(rows.money) == MoneyAudit(20, 0, 0, 0, 0)
    ports = {item.component: item.port for state in running() for item in state.processes}
    assert all(ports[name] for name in ("app", "app-2", "pgbouncer", "payment", "haproxy"))
    commands = [Path(f"/proc/{part.pid}/cmdline").read_text() for part in endpoints.components]
    secret = endpoints.consoles["pgbouncer"].split(":")[2].split("@")[0]
    assert not [command for command in commands if secret in command]
    assert secret not in repr(endpoints)

    plain = stack.apply(levels())
    assert [part.name for part in plain.components] == ["postgres", "redis", "prometheus", "app"]
    assert plain.consoles == {}
    assert plain.dead() == {}


def test_requests_go_round_and_a_dead_replica_gets_none(stack: LocalStack) -> None:
    endpoints = stack.apply(levels(replicas=2))
    with client(endpoints) as http:
        assert {buy(http).status_code for _ in range(30)} == {201}
        first, second = sold_by(endpoints)
        assert first == second == 15
        os.kill(pid_of(endpoints, "app-2"), signal.SIGKILL)
        until(lambda: "app-2" in stack.dead())
        # what was on its way may be lost; what comes now goes to the one that is left
        answers = [buy(http).status_code for _ in range(30)]
        assert Counter(answers)[201] >= 28
        until(lambda: statuses(endpoints)["app-2"] == "DOWN")
        assert statuses(endpoints)["app"] == "UP"
        assert {buy(http).status_code for _ in range(10)} == {201}
    assert list(stack.dead()) == ["app-2"]
    assert "killed by SIGKILL" in stack.dead()["app-2"]


@pytest.mark.parametrize("victim", ["pgbouncer", "haproxy", "payment"])
def test_a_companion_that_dies_is_named_and_the_next_variant_has_a_fresh_one(stack: LocalStack, victim: str) -> None:
    asked = levels(pooler="pgbouncer", balancer="haproxy", payment_limit=1)
    endpoints = stack.apply(asked)
    os.kill(pid_of(endpoints, victim), signal.SIGKILL)
    until(lambda: bool(stack.dead()))
    assert list(stack.dead()) == [victim]
    assert stack.dead()[victim].startswith("killed by SIGKILL; ")
    assert stack.apply(asked).dead() == {}


@pytest.mark.parametrize("data_layer", ["sqlalchemy", "asyncpg"])
def test_too_few_connections_are_a_503_that_says_when_to_come_again(stack: LocalStack, data_layer: str) -> None:
    before = stack.apply(levels())
    few = levels(db_max_connections=15, replicas=2, pool_size=10, data_layer=data_layer, payment_ms=20)
    endpoints = stack.apply(few | {"payment": "in_transaction"})
    assert endpoints.settings["postgres.max_connections"] == "15"
    assert pid_of(endpoints, "postgres") != pid_of(before, "postgres")

    async def rush() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=endpoints.base_url, timeout=30) as http:
            calls = (
                http.post(
                    f"/matches/{2 + number % 9}/purchases",
                    headers={"Idempotency-Key": f"few-{data_layer}-{number}"},
                    json={"buyer": str(number)},
                )
                for number in range(60)
            )
            return await asyncio.gather(*calls)

    answers = asyncio.run(rush())
    kinds = Counter((answer.status_code, answer.json().get("error", "")) for answer in answers)
    assert set(kinds) <= {(201, ""), (503, "max_connections"), (503, "pool_timeout")}
    assert kinds[503, "max_connections"] > 0
    assert {answer.headers["Retry-After"] for answer in answers if answer.status_code == 503} == {"1"}

    again = stack.apply(few)  # the same PostgreSQL: only what the factor touches is started again
    assert pid_of(again, "postgres") == pid_of(endpoints, "postgres")
    assert stack.apply(levels()).settings["postgres.max_connections"] == "300"


def test_figures_of_all_reach_prometheus(stack: LocalStack, tmp_path: Path) -> None:
    endpoints = stack.apply(levels())
    access = endpoints.own_access
    log = tmp_path / "sampler.log"
    sampler = SamplerProcess.start(endpoints.prometheus_url, access, endpoints.components, log)
    figures = Figures(endpoints.prometheus_url)
    try:
        # PostgreSQL is started again meanwhile, which the sampler is told
        endpoints = stack.apply(
            levels(replicas=2, pooler="pgbouncer", pooler_size=7, db_max_connections=40, payment_ms=1)
        )
        sampler.variant(endpoints.logs, endpoints.access, endpoints.consoles)
        for part in endpoints.components:
            sampler.watch(part.name, part.pid)
        with client(endpoints) as http:
            assert {buy(http).status_code for _ in range(20)} == {201}

        def at_least(least: float, metric: str, **labels: str) -> Callable[[], bool]:
            return lambda: figures.get(metric, **labels) >= least

        until(at_least(20, "tb_pgbouncer_xacts_total"))
        until(at_least(10, "tb_haproxy_requests_total", server="app-2"))
        until(at_least(1, "tb_haproxy_up", server="app"))
        until(at_least(20 * 0.001, "tb_payment_served_seconds_total"))
        until(at_least(40, "tb_pg_max_connections"))
        assert figures.get("tb_pgbouncer_pool_size") == 7
        assert figures.get("tb_pgbouncer_clients", state="waiting") == 0
        for component in ("app", "pgbouncer", "haproxy", "payment"):
            until(at_least(0.001, "tb_cpu_seconds_total", component=component))
        components = {labels["component"] for labels, _ in figures.all("tb_cpu_seconds_total")}
        assert "app-2" not in components  # all replicas together are the sale
        sampler.between_variants()
        endpoints = stack.apply(levels())
        sampler.variant(endpoints.logs, endpoints.access, endpoints.consoles)
        silent_since = time.time()
        until(lambda: figures.newest_s("tb_redis_clients") > silent_since + 2)
        assert figures.newest_s("tb_pgbouncer_pool_size") < silent_since + 2
    finally:
        sampler.stop()
    assert {line.get("source", line.get("recovered")) for line in json_lines(log)} <= {"waits", "postgres"}


def test_each_replica_is_limited_by_itself(stack: LocalStack) -> None:
    from ticketbench import machine

    found = machine.isolation()
    if found.no_limits:
        pytest.skip(found.no_limits)
    stack.apply(levels(replicas=2, app_cpus=0.6))
    (state,) = [state for state in running() if state.stack_id == stack.stack_id]
    groups = [CpuGroup(Path(folder)) for folder in state.groups]
    assert sorted(group.folder.name.removeprefix(groups[0].folder.name) for group in groups) == ["", "-2"]
    assert [group.limited_to() for group in groups] == pytest.approx([0.6, 0.6])
    stack.apply(levels())
    assert [group.limited_to() for group in groups] == [0, 0]
