"""What the sale keeps in Redis: the cache of matches, and the stock under ``locking=redis``.

Keys: ``cache:<name>`` (bytes as they are sent), ``stock:<match>`` (integer), ``taken:<match>`` (hash: idempotency key
to 1). The ledger audit reads the last two.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from enum import IntEnum
from time import perf_counter
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError as ClientError

from target_app.errors import RedisError, StartupError
from target_app.figures import Stages
from target_app.settings import Settings

_STOCK: Final = "stock:"
_TAKEN: Final = "taken:"
_CACHE: Final = "cache:"

# KEYS: stock, taken. ARGV: idempotency key. The check and both writes are one step for everybody else.
_TAKE: Final = """
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then return -1 end
local stock = redis.call('GET', KEYS[1])
if not stock then return -2 end
if tonumber(stock) <= 0 then return 0 end
redis.call('DECR', KEYS[1])
redis.call('HSET', KEYS[2], ARGV[1], 1)
return 1
"""
# The same for several keys: all of them, or none. ARGV: the keys. None of them has taken before.
_TAKE_ALL: Final = """
local stock = redis.call('GET', KEYS[1])
if not stock then return -2 end
if tonumber(stock) < #ARGV then return 0 end
redis.call('DECRBY', KEYS[1], #ARGV)
for _, key in ipairs(ARGV) do redis.call('HSET', KEYS[2], key, 1) end
return 1
"""
# Gives back only what is noted, so that doing it twice cannot make a ticket out of nothing.
_GIVE_BACK: Final = """
if redis.call('HDEL', KEYS[2], ARGV[1]) == 1 then return redis.call('INCR', KEYS[1]) end
return -1
"""
_GIVE_BACK_ALL: Final = """
local known = 0
for _, key in ipairs(ARGV) do known = known + redis.call('HDEL', KEYS[2], key) end
if known > 0 then redis.call('INCRBY', KEYS[1], known) end
return known
"""
# ARGV: the stock, then the keys of what is in carts, which is not part of it. One step, since a key that is noted
# without being taken could be given back all the same.
_SET_STOCK: Final = """
if not redis.call('SET', KEYS[1], ARGV[1], 'NX') then return 0 end
for at = 2, #ARGV do redis.call('HSET', KEYS[2], ARGV[at], 1) end
return 1
"""


class Taking(IntEnum):
    """What came of trying to take one ticket from the stock."""

    TAKEN = 1
    EMPTY = 0
    KEY_KNOWN = -1  # the key took one before: its ticket is written or being written
    UNKNOWN_STOCK = -2  # Redis was emptied under us


@asynccontextmanager
async def command(stages: Stages) -> AsyncIterator[None]:
    """Time commands to Redis, and raise RedisError for what the client library raises."""
    began = perf_counter()
    try:
        yield
    except (ClientError, OSError) as error:
        raise RedisError from error
    finally:
        stages.redis += perf_counter() - began


class RedisStore:
    """The worker's connections to Redis. Every method but open and close raises RedisError within its time-outs."""

    def __init__(self, settings: Settings) -> None:
        pool = BlockingConnectionPool.from_url(
            settings.redis_url.get_secret_value(),
            max_connections=settings.redis_connections,
            timeout=settings.pool_timeout_s,
            socket_timeout=settings.redis_timeout_s,
            socket_connect_timeout=settings.connect_timeout_s,
            # A repeated script could take twice: a failure is answered, and the client decides.
            retry=Retry(NoBackoff(), 0),
        )
        self._client: Redis = Redis(connection_pool=pool)
        self._take = self._client.register_script(_TAKE)
        self._give_back = self._client.register_script(_GIVE_BACK)
        self._take_all = self._client.register_script(_TAKE_ALL)
        self._give_back_all = self._client.register_script(_GIVE_BACK_ALL)
        self._ttl_ms = round(settings.cache_ttl_s * 1000)

    @property
    def client(self) -> "Redis":
        """The client, for what has scripts of its own; the connections are the store's."""
        return self._client

    async def open(self) -> None:
        """Reach the server once. Raises StartupError."""
        try:
            await self._client.ping()
        except (ClientError, OSError) as error:
            raise StartupError(f"Redis cannot be used: {type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()
        await self._client.connection_pool.disconnect()

    async def ping(self, stages: Stages) -> None:
        """Have the server answer."""
        async with command(stages):
            await self._client.ping()

    async def cached(self, name: str, stages: Stages) -> bytes | None:
        """Return the cached bytes called ``name``, or None when there are none that live."""
        async with command(stages):
            value = await self._client.get(_CACHE + name)
        return value.encode() if isinstance(value, str) else value

    async def keep(self, name: str, body: bytes, stages: Stages) -> None:
        """Cache ``body`` for ``cache_ttl_s``."""
        async with command(stages):
            await self._client.set(_CACHE + name, body, px=self._ttl_ms)

    async def set_stocks(self, stocks: Mapping[int, int], held: Mapping[int, Sequence[str]], stages: Stages) -> None:
        """Set each match's stock unless Redis has one: another worker, or an earlier life, knows better.

        ``held``: the keys of the tickets in carts, which are noted as taken where the stock is set.
        """
        async with command(stages), self._client.pipeline(transaction=False) as pipeline:
            for match_id, stock in stocks.items():
                pipeline.eval(_SET_STOCK, 2, *_keys(match_id), stock, *held.get(match_id, ()))
            await pipeline.execute()

    async def stocks(self, match_ids: Sequence[int], stages: Stages) -> list[int | None]:
        """Return the stock of each match; None where Redis has none."""
        async with command(stages):
            values = await self._client.mget([f"{_STOCK}{match_id}" for match_id in match_ids])
        return [None if value is None else int(value) for value in values]

    async def look(self, match_id: int, key: str, stages: Stages) -> tuple[int | None, bool]:
        """Return the stock of a match, None where Redis has none, and whether the key took from it.

        In this order: where the key took the last ticket, a stock of 0 comes with True, however the reads fall.
        """
        stock_key, taken_key = _keys(match_id)
        async with command(stages), self._client.pipeline(transaction=False) as pipeline:
            pipeline.get(stock_key)
            pipeline.hexists(taken_key, key)
            stock, known = await pipeline.execute()
        return None if stock is None else int(stock), bool(known)

    async def take(self, match_id: int, key: str, stages: Stages) -> Taking:
        """Take one ticket from the stock and note the key, as one step."""
        async with command(stages):
            return Taking(int(await self._take(keys=_keys(match_id), args=[key])))

    async def give_back(self, match_id: int, key: str, stages: Stages) -> None:
        """Undo :meth:`take`; harmless when it was undone already."""
        async with command(stages):
            await self._give_back(keys=_keys(match_id), args=[key])

    async def take_all(self, match_id: int, keys: Sequence[str], stages: Stages) -> Taking:
        """Take a ticket for each of the keys, which are new, or none at all."""
        async with command(stages):
            return Taking(int(await self._take_all(keys=_keys(match_id), args=list(keys))))

    async def give_back_all(self, match_id: int, keys: Sequence[str], stages: Stages) -> None:
        """Undo what was taken for these keys; harmless for those that were undone already."""
        async with command(stages):
            await self._give_back_all(keys=_keys(match_id), args=list(keys))


def _keys(match_id: int) -> list[Any]:
    return [f"{_STOCK}{match_id}", f"{_TAKEN}{match_id}"]
