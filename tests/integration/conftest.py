"""What tests share: a small sale that is served and k6 that is run against it; and the target's own sale, opened."""

import asyncio
import contextlib
import os
import signal
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
import redis as redis_client
from psycopg.rows import tuple_row

from target_app.app import create_app
from target_app.provider.charges import Charges
from target_app.provider.settings import ProviderSettings
from target_app.seed import init_db
from tests.integration.k6_target import Runs, Sale, served
from tests.integration.opened_sale import REDIS_NUMBER, WAYS, Open, Shop, Stores
from tests.integration.paying import ProviderProcess, provider
from tests.integration.target_processes import (
    COMMAND,
    DEADLINE_S,
    PROCESSES_REDIS_NUMBER,
    Serve,
    Served,
    Site,
    alive,
    free_ports,
)
from ticketbench.binaries import Binaries


@pytest.fixture
def sale() -> Sale:
    return Sale()


@pytest.fixture
def base_url(sale: Sale) -> Iterator[str]:
    with served(sale) as url:
        yield url


@pytest.fixture
def runs(binaries: Binaries, base_url: str, tmp_path: Path) -> Runs:
    return Runs((str(binaries.k6),), base_url, tmp_path)


# --- the target's sale ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def places(postgres_dsn: str, redis_url: str) -> Iterator[Stores]:
    """A database, and a number of Redis, for the tests of one file of the sale."""
    name = f"sale_{uuid.uuid4().hex[:12]}"
    url = urlsplit(postgres_dsn)._replace(path=f"/{name}").geturl()
    cache_url = urlsplit(redis_url)._replace(path=f"/{REDIS_NUMBER}").geturl()
    with psycopg.connect(postgres_dsn, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        try:
            with (
                psycopg.connect(url, autocommit=True, row_factory=tuple_row) as sql,
                redis_client.Redis.from_url(cache_url, decode_responses=True) as cache,
            ):
                yield Stores(url, cache_url, sql, cache)
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def stores(places: Stores) -> Stores:
    """Both stores without anything in them."""
    places.empty()
    places.sql.execute("DROP FUNCTION IF EXISTS vanish")
    return places


@pytest.fixture(params=WAYS)
def opened(stores: Stores, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Open:
    """Open a sale with the given levels, on a freshly seeded database.

    Levels of a provider give it one, in the same process. A module that says ``FEW_SEEDED = True`` has no use for the
    past match's 20 000 tickets, and does not wait for them.
    """
    way = WAYS[request.param]
    if getattr(request.module, "FEW_SEEDED", False):
        monkeypatch.setattr("target_app.seed.SEEDED_TICKETS", 20)

    @asynccontextmanager
    async def opener(*, seed: bool = True, **levels: Any) -> AsyncIterator[Shop]:
        paying = {name: levels.pop(name) for name in ProviderSettings.model_fields if name in levels}
        async with contextlib.AsyncExitStack() as stack:
            charges = None
            if paying:
                where = tmp_path / f"{uuid.uuid4().hex}.jsonl"
                charges, levels["payment_url"] = await stack.enter_async_context(provider(where, **paying))
            yield await stack.enter_async_context(sale_of(levels, charges, seed=seed))

    @asynccontextmanager
    async def sale_of(levels: dict[str, Any], charges: Charges | None, *, seed: bool) -> AsyncIterator[Shop]:
        # Redis may take its time where a test is one of many things that the machine does.
        settings = stores.settings(**{**way, "redis_timeout_s": 10, **levels})
        if seed:
            await asyncio.to_thread(init_db, settings)
        app = create_app(settings)
        transport = httpx.ASGITransport(app.asgi)
        async with app.sale.opened(), httpx.AsyncClient(transport=transport, base_url="http://sale") as http:
            yield Shop(app.sale, http, charges)

    return opener


@pytest.fixture(scope="module")
def place(postgres_dsn: str, redis_url: str) -> Iterator[Site]:
    name = f"serve_{uuid.uuid4().hex[:12]}"
    url = urlsplit(postgres_dsn)._replace(path=f"/{name}").geturl()
    cache_url = urlsplit(redis_url)._replace(path=f"/{PROCESSES_REDIS_NUMBER}").geturl()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TARGET_")}
    environment = {**kept, "TARGET_DATABASE_URL": url, "TARGET_REDIS_URL": cache_url}
    with psycopg.connect(postgres_dsn, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        try:
            with psycopg.connect(url, autocommit=True) as sql, redis_client.Redis.from_url(cache_url) as cache:
                yield Site(environment, sql, cache)
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def site(place: Site) -> Site:
    """The stores with nothing in them."""
    place.sql.execute("DROP TABLE IF EXISTS matches, tickets, holds, checkouts, payments, sessions, buyers")
    place.redis.flushdb()
    return place


@pytest.fixture
def serve(site: Site, tmp_path: Path) -> Iterator[Serve]:
    """Start the sale, with a payment provider where it has one; whatever still runs at the end is killed."""
    started: list[Served] = []
    providers: list[ProviderProcess] = []

    def start(*, workers: int = 1, ready: bool = True, pass_fd: int | None = None, **levels: str) -> Served:
        if (payment_ms := levels.pop("payment_ms", None)) is not None:
            providers.append(ProviderProcess(tmp_path, payment_ms=payment_ms))
            providers[-1].start()
            levels["payment_url"] = providers[-1].url
        seeded = site.run("init-db", "--reset", **levels)
        assert seeded.returncode == 0, seeded.stderr
        port, *metrics_ports = free_ports(1 + workers)
        where = ["--port", str(port)] if pass_fd is None else ["--fd", str(pass_fd)]
        sale = Served(
            subprocess.Popen(
                [
                    *COMMAND,
                    *("serve", "--workers", str(workers), "--metrics-ports", ",".join(map(str, metrics_ports))),
                    *where,
                ],
                env={**site.environment, **{f"TARGET_{name.upper()}": level for name, level in levels.items()}},
                stderr=subprocess.PIPE,
                text=True,
                pass_fds=() if pass_fd is None else (pass_fd,),
            ),
            port,
            metrics_ports,
        )
        started.append(sale)
        if ready:
            sale.await_ready()
        return sale

    yield start
    for each in providers:
        each.end()
    for sale in started:
        for pid in (sale.process.pid, *sale.workers):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        sale.process.communicate(timeout=DEADLINE_S)
