"""One worker of the queue: reads the stream through FastStream and does each purchase as the sale itself would.

An entry leaves the stream in the same step that writes down what became of it (purchase_queue.py), so a worker may die
at any time: what it had its hands on stays with the group, and once it has lain idle for ``queue_claim_s`` it is given
to a worker that lives (XAUTOCLAIM), this one's successor too. A purchase that is done a second time that way finds the
ticket of its key.
"""

import asyncio
import gc
import logging
import secrets
import signal
import sys
import time
from typing import Final

import uvloop
from faststream import AckPolicy
from faststream.redis import RedisBroker, RedisStreamMessage, StreamSub

from target_app import settings as settings_module
from target_app.app import Sale
from target_app.errors import RedisError, SaleError, StartupError, Unavailable
from target_app.exposition import MetricsServer
from target_app.figures import PURCHASE, Stages
from target_app.purchase_queue import GIVEN_UP, GROUP, SOLD, STREAM, Entry, PurchaseQueue, unpacked
from target_app.purchases import Purchases
from target_app.queue_figures import QueueCollector, QueueFigures
from target_app.settings import Settings
from target_app.worker import SWITCH_INTERVAL_S, die_with_parent

# Before an entry is left for a later try: what is only busy decides within these.
_BETWEEN_TRIES_S: Final = (0.1, 0.5)
# A purchase that ends its workers, or that no worker can do for a fault of ours, must not come back for ever.
_MOST_DELIVERIES: Final = 6
_BLOCK_MS: Final = 1000
_LOOK_S: Final = 0.5
# For opening connections to the stream, and for what FastStream has under way when it stops.
_SOCKET_S: Final = 5.0

_log = logging.getLogger("target_app.queue")


def run(*, metrics_host: str, metrics_port: int, parent_pid: int) -> int:
    """Work until SIGTERM or SIGINT; return 0. Raises StartupError."""
    die_with_parent(parent_pid)
    settings = settings_module.load()
    if settings.checkout != "queue":
        raise StartupError("TARGET_CHECKOUT is not queue: nobody would put anything into the queue")
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    sale = Sale(settings)
    figures = QueueFigures()
    registry = sale.registry(serves=False)
    registry.register(QueueCollector(figures))
    try:
        metrics = MetricsServer(metrics_host, metrics_port, registry)
    except OSError as error:
        raise StartupError(f"metrics port {metrics_host}:{metrics_port}: {error.strerror}") from error
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_work(sale, settings, figures))
    finally:
        metrics.close()
    return 0


async def _work(sale: Sale, settings: Settings, figures: QueueFigures) -> None:
    if sale.queue is None:
        raise RuntimeError("a sale with checkout=queue has a queue")
    stopped = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stopped.set)
    async with sale.opened():
        worker = QueueWorker(sale.queue, sale.purchases, settings, figures, sale.figures.routes[PURCHASE].stages)
        try:
            await worker.start()
            gc.collect()
            gc.freeze()
            await worker.watch(stopped)
        finally:
            await worker.stop()


class QueueWorker:
    """The consumer of the stream, from :meth:`start` to :meth:`stop`."""

    def __init__(
        self,
        queue: PurchaseQueue,
        purchases: Purchases,
        settings: Settings,
        figures: QueueFigures,
        stages: Stages,
    ) -> None:
        self._queue = queue
        self._purchases = purchases
        self._figures = figures
        self._stages = stages
        self._patience_s = settings.queue_patience_s
        # The broker's own connections: a blocked read must not hold one of the sale's.
        self._broker = RedisBroker(
            settings.redis_url.get_secret_value(),
            logger=_log,
            log_level=logging.DEBUG,
            apply_types=False,
            graceful_timeout=settings.stop_timeout_s,
            socket_timeout=_SOCKET_S,
            socket_connect_timeout=settings.connect_timeout_s,
        )
        me = secrets.token_hex(6)
        claim_ms = round(settings.queue_claim_s * 1000)
        new = StreamSub(
            STREAM, group=GROUP, consumer=me, polling_interval=_BLOCK_MS, max_records=settings.queue_concurrency
        )
        idle = StreamSub(
            STREAM,
            group=GROUP,
            consumer=f"{me}-claims",
            min_idle_time=claim_ms,
            polling_interval=min(_BLOCK_MS, claim_ms),
        )
        # MANUAL: an entry is acknowledged after its purchase, in one step with what became of it.
        manual = AckPolicy.MANUAL
        self._subscribers = (
            self._broker.subscriber(
                stream=new, ack_policy=manual, no_reply=True, decoder=_entry, max_workers=settings.queue_concurrency
            ),
            self._broker.subscriber(stream=idle, ack_policy=manual, no_reply=True, decoder=_entry),
        )
        self._subscribers[0](self._new)
        self._subscribers[1](self._claimed)

    async def start(self) -> None:
        """Begin to work. Raises StartupError."""
        try:
            await self._queue.open()
            await self._look()
            await self._broker.start()
        except (RedisError, OSError) as error:
            raise StartupError(f"the queue cannot be read: {error.__cause__ or error}") from error

    async def watch(self, stopped: asyncio.Event) -> None:
        """Follow the queue's length until ``stopped``. Raises StartupError where the stream is gone."""
        while not stopped.is_set():
            if not all(each.running for each in self._subscribers):
                raise StartupError("the stream of queued purchases is gone: Redis was emptied or started anew")
            try:
                await self._look()
            except RedisError:
                _log.warning("the length of the queue cannot be read")
            try:
                async with asyncio.timeout(_LOOK_S):
                    await stopped.wait()
            except TimeoutError:
                continue

    async def stop(self) -> None:
        """Finish what is under way, within ``stop_timeout_s``; what is left is another's."""
        await self._broker.stop()

    async def _look(self) -> None:
        self._figures.length, self._figures.oldest_s = await self._queue.length(Stages())

    # Of one parameter each: FastStream would spread an entry over several.
    async def _new(self, entry: Entry) -> None:
        await self._take(entry, claimed=False)

    async def _claimed(self, entry: Entry) -> None:
        self._figures.claimed += 1
        await self._take(entry, claimed=True)

    async def _take(self, entry: Entry, *, claimed: bool) -> None:
        figures = self._figures
        figures.taken += 1
        figures.wait_s += max(0.0, time.time() - entry.came_s)
        figures.busy += 1
        try:
            if claimed and await self._queue.deliveries(entry.id, self._stages) > _MOST_DELIVERIES:
                await self._end(entry, GIVEN_UP, "given_up")
            else:
                await self._do(entry)
        except RedisError:
            figures.ends["left"] += 1  # done or not: whoever gets it next finds out
        finally:
            figures.busy -= 1

    async def _do(self, entry: Entry) -> None:
        """Do one purchase as far as it can be decided. Raises RedisError where that could not be written down."""
        for wait_s in (*_BETWEEN_TRIES_S, None):
            try:
                await self._purchases.purchase(entry.order)
            except Unavailable:
                if wait_s is None:
                    break
                await asyncio.sleep(wait_s)
            except SaleError as error:
                return await self._end(entry, error.kind, "refused")
            else:
                return await self._end(entry, SOLD, "sold")
        if time.time() - entry.came_s > self._patience_s:
            return await self._end(entry, GIVEN_UP, "given_up")
        self._figures.ends["left"] += 1
        return None

    async def _end(self, entry: Entry, state: str, outcome: str) -> None:
        await self._queue.end(entry.id, entry.order, state, self._stages)
        self._figures.ends[outcome] += 1


async def _entry(message: RedisStreamMessage) -> Entry:
    return unpacked(message.raw_message["message_ids"][0].decode(), bytes(message.body))
