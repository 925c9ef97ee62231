"""Purchases that wait in Redis for a worker: ``checkout=queue``.

Keys: ``purchases`` (a stream; each entry's ``__data__`` is JSON of match, buyer, key), ``purchase:<key>`` (hash: match,
buyer, state). An entry is in the stream from its 202 until the very step that writes down what became of it, so the
stream's length is what waits or is being worked on. States: ``queued``; ``sold``, whose ticket is in PostgreSQL under
the key; else the kind of the refusal. Only what has ended has a time to live. The ledger audit reads both.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import ResponseError

from target_app import queries
from target_app.database import Database
from target_app.errors import REFUSALS, GivenUp, KeyReused, QueueFull, RedisError, UnknownPurchase
from target_app.figures import PURCHASE, PURCHASES, Figures, Stages
from target_app.locking import Accepted, Order, Ticket
from target_app.redis_store import RedisStore, command
from target_app.settings import Settings

STREAM: Final = "purchases"
GROUP: Final = "sale"
QUEUED: Final = "queued"
SOLD: Final = "sold"
GIVEN_UP: Final = GivenUp.kind

_STATE: Final = "purchase:"

# KEYS: stream, state. ARGV: limit (0: none), the entry, match, buyer. One step: a key is queued once, however often it
# is asked for, and the queue is never longer than its limit.
_PUT: Final = """
local known = redis.call('HMGET', KEYS[2], 'state', 'match', 'buyer')
local state = known[1]
if state == 'queued' or state == 'sold' then
  if known[2] ~= ARGV[3] or known[3] ~= ARGV[4] then return 'reused' end
  return state
end
local limit = tonumber(ARGV[1])
if limit > 0 and redis.call('XLEN', KEYS[1]) >= limit then return 'full' end
redis.call('XADD', KEYS[1], '*', '__data__', ARGV[2])
redis.call('HSET', KEYS[2], 'state', 'queued', 'match', ARGV[3], 'buyer', ARGV[4])
redis.call('PERSIST', KEYS[2])
return 'queued'
"""
# KEYS: stream, state. ARGV: group, entry id, match, buyer, state, time to live in ms. What has been sold stays sold,
# whatever a second worker with the same entry makes of it.
_END: Final = """
if redis.call('HGET', KEYS[2], 'state') ~= 'sold' then
  redis.call('HSET', KEYS[2], 'state', ARGV[5], 'match', ARGV[3], 'buyer', ARGV[4])
end
redis.call('PEXPIRE', KEYS[2], ARGV[6])
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
return redis.call('XDEL', KEYS[1], ARGV[2])
"""


class PurchaseQueue:
    """The stream and the states. Every method raises RedisError within its time-outs."""

    def __init__(self, settings: Settings, store: RedisStore) -> None:
        self._client = store.client
        self._put = self._client.register_script(_PUT)
        self._end = self._client.register_script(_END)
        self._limit = settings.queue_limit
        self._ttl_ms = round(settings.queue_result_ttl_s * 1000)

    async def put(self, order: Order, stages: Stages) -> str:
        """Queue the order unless it is: return ``queued`` or ``sold``. Raises QueueFull, KeyReused."""
        args: list[str | int] = [self._limit, packed(order), order.match_id, order.buyer]
        async with command(stages):
            said = _text(await self._put(keys=[STREAM, _STATE + order.key], args=args))
        if said == "full":
            raise QueueFull
        if said == "reused":
            raise KeyReused
        return said

    async def end(self, entry: str, order: Order, state: str, stages: Stages) -> None:
        """Write down what became of an entry, and take it out of the queue."""
        args: list[str | int] = [GROUP, entry, order.match_id, order.buyer, state, self._ttl_ms]
        async with command(stages):
            await self._end(keys=[STREAM, _STATE + order.key], args=args)

    async def state(self, key: str, stages: Stages) -> str | None:
        """Return the state of a key's purchase, None where nothing is known of it."""
        async with command(stages):
            value: Any = await self._client.hget(_STATE + key, "state")
        return None if value is None else _text(value)

    async def length(self, stages: Stages) -> tuple[int, float]:
        """Return how many entries wait or are being worked on, and when the oldest came (Unix seconds; 0: none)."""
        async with command(stages), self._client.pipeline(transaction=False) as pipeline:
            pipeline.xlen(STREAM)
            pipeline.xrange(STREAM, count=1)
            length, oldest = await pipeline.execute()
        return int(length), came_s(_text(oldest[0][0])) if oldest else 0.0

    async def open(self) -> None:
        """Make the group of the workers, which gets every entry from the first one on, unless it is there."""
        async with command(Stages()):
            try:
                await self._client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):  # it is there
                    raise

    async def deliveries(self, entry: str, stages: Stages) -> int:
        """Return how often an entry was given to a worker; 0 for one that has ended."""
        async with command(stages):
            pending = await self._client.xpending_range(STREAM, GROUP, min=entry, max=entry, count=1)
        return int(pending[0]["times_delivered"]) if pending else 0


class QueuedPurchases:
    """Takes orders for the queue, and tells what became of them."""

    def __init__(self, queue: PurchaseQueue, database: Database, figures: Figures) -> None:
        self._queue = queue
        self._database = database
        self._counts = figures.purchases
        self._accepting = figures.routes[PURCHASE].stages
        self._telling = figures.routes[PURCHASES].stages

    async def purchase(self, order: Order) -> Ticket | Accepted:
        """Accept the order, or return the ticket that its key has. Raises SaleError."""
        try:
            state = await self._queue.put(order, self._accepting)
        except QueueFull:
            self._counts["queue_full"] += 1
            raise
        except RedisError:
            self._counts["database_error"] += 1  # the stores count as one
            raise
        if state == SOLD and (ticket := await self._ticket(order.key, self._accepting)) is not None:
            self._counts["replayed"] += 1
            return ticket
        self._counts["queued"] += 1
        return Accepted(order.key)

    async def outcome(self, key: str) -> Ticket | Accepted:
        """Return the key's ticket, or that it is waited for.

        Raises what the purchase was refused with, GivenUp, UnknownPurchase.
        """
        state = await self._queue.state(key, self._telling)
        if state == QUEUED:
            return Accepted(key)
        # Nothing known: forgotten long since, or Redis was emptied. A ticket is never forgotten.
        if state in (None, SOLD) and (ticket := await self._ticket(key, self._telling)) is not None:
            return ticket
        raise REFUSALS.get(state or "", UnknownPurchase)

    async def _ticket(self, key: str, stages: Stages) -> Ticket | None:
        async with self._database.autocommit(stages) as session:
            row = await session.one(queries.ticket_of_key, {"with_key": key})
        if row is None:
            return None
        return Ticket(row.ticket_id, row.ticket_match_id, row.ticket_code, key, row.ticket_price_pence)


@dataclass(frozen=True, slots=True)
class Entry:
    """An order as it came out of the stream, and when it was put there (Unix seconds)."""

    id: str
    order: Order
    came_s: float


def packed(order: Order) -> str:
    """Return an order as an entry's data."""
    return json.dumps({"match": order.match_id, "buyer": order.buyer, "key": order.key})


def unpacked(entry: str, data: bytes) -> Entry:
    """Undo :func:`packed`. Raises ValueError, KeyError, TypeError for what is none of ours."""
    told = json.loads(data)
    return Entry(entry, Order(int(told["match"]), str(told["buyer"]), str(told["key"])), came_s(entry))


def came_s(entry: str) -> float:
    """Return when an entry was put into the stream: Redis names entries by its clock, in ms."""
    return int(entry.partition("-")[0]) / 1000


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
