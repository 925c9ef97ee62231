"""Looking at matches: through the cache, or in PostgreSQL each time."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from time import perf_counter
from typing import Any

from target_app import queries
from target_app.database import Database, Row
from target_app.errors import RedisError, UnknownMatch
from target_app.figures import MATCH, MATCHES, Figures, Stages
from target_app.redis_store import RedisStore
from target_app.settings import Settings


class Catalogue:
    """The matches as JSON, ready to be sent."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        store: RedisStore,
        figures: Figures,
        *,
        routes: tuple[str, str] = (MATCHES, MATCH),
    ) -> None:
        all_route, one_route = routes  # those whose stages the time goes to
        self._database = database
        self._store = store
        self._figures = figures
        self._cached = settings.cache == "on"
        self._flights: dict[str, asyncio.Task[bytes]] | None = (
            {} if self._cached and settings.single_flight == "on" else None
        )
        self._stock_in_redis = settings.locking == "redis"
        self._all_stages = figures.routes[all_route].stages
        self._one_stages = figures.routes[one_route].stages

    async def matches(self) -> bytes:
        """Return all matches. Raises Unavailable."""
        stages = self._all_stages

        async def load() -> bytes:
            async with self._database.autocommit(stages) as session:
                rows = await session.all(queries.all_matches)
            body = json.dumps(await self._shown(rows, stages)).encode()
            await self._to_cache("matches", body, stages)
            return body

        return await self._from_cache("matches", stages) or await self._loaded("matches", load, stages)

    async def match(self, match_id: int) -> bytes:
        """Return one match; one that does not exist is never cached. Raises UnknownMatch, Unavailable."""
        stages = self._one_stages
        name = f"match:{match_id}"

        async def load() -> bytes:
            async with self._database.autocommit(stages) as session:
                row = await session.one(queries.one_match, {"for_match": match_id})
            if row is None:
                raise UnknownMatch
            (shown,) = await self._shown([row], stages)
            body = json.dumps(shown).encode()
            await self._to_cache(name, body, stages)
            return body

        return await self._from_cache(name, stages) or await self._loaded(name, load, stages)

    async def _loaded(self, name: str, load: Callable[[], Coroutine[Any, Any, bytes]], stages: Stages) -> bytes:
        """Return what ``load`` does. With single flight those who want the same meanwhile share one load and its end.

        Nobody who gives up takes the load away from the others. Raises what ``load`` raises.
        """
        flights = self._flights
        if flights is None:
            return await load()
        flight = flights.get(name)
        if flight is None:
            flight = flights[name] = asyncio.create_task(load())
            flight.add_done_callback(lambda done: _landed(flights, name, done))
            return await asyncio.shield(flight)
        self._figures.cache_shared += 1
        began = perf_counter()
        try:
            return await asyncio.shield(flight)
        finally:
            stages.shared_wait += perf_counter() - began

    async def _from_cache(self, name: str, stages: Stages) -> bytes | None:
        if not self._cached:
            return None
        try:
            body = await self._store.cached(name, stages)
        except RedisError:  # without its cache the sale is slower, not closed
            body = None
        if body is None:
            self._figures.cache_misses += 1
        else:
            self._figures.cache_hits += 1
        return body

    async def _to_cache(self, name: str, body: bytes, stages: Stages) -> None:
        if not self._cached:
            return
        try:
            await self._store.keep(name, body, stages)
        except RedisError:
            return

    async def _shown(self, rows: Sequence[Row], stages: Stages) -> list[dict[str, Any]]:
        """Return rows as they are shown; where Redis keeps the stock, with what it says (raises RedisError)."""
        shown: list[dict[str, Any]] = [
            {**{name: getattr(row, name) for name in queries.SHOWN}, "kickoff": row.kickoff.isoformat()} for row in rows
        ]
        if self._stock_in_redis and shown:
            stocks = await self._store.stocks([each["id"] for each in shown], stages)
            for each, stock in zip(shown, stocks, strict=True):
                if stock is not None:  # a match that is not on sale has none there
                    each["stock"] = stock
        return shown


def _landed(flights: dict[str, asyncio.Task[bytes]], name: str, flight: asyncio.Task[bytes]) -> None:
    del flights[name]
    if not flight.cancelled():
        flight.exception()  # looked at, so that one that nobody waits for any more is no complaint in the log
