"""Puts the sale together: one function, and nothing happens before it is called."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from target_app import payment_queries, queries
from target_app.accounts import Accounts
from target_app.asyncpg_layer import AsyncpgDatabase
from target_app.catalogue import Catalogue
from target_app.checkout import Checkouts
from target_app.database import Database, Values
from target_app.endpoints import health_router, purchase_router, queue_router, refuse, refuse_input, sale_router
from target_app.errors import SaleError, StartupError, TooManyConnections, Unavailable
from target_app.figures import PURCHASE, Figures
from target_app.health import Health
from target_app.holds import Holds
from target_app.late import LateShop
from target_app.lean import LeanPurchases
from target_app.locking import guard_of
from target_app.metrics import SaleCollector, registry_of
from target_app.middleware import Measured
from target_app.passwords import Passwords
from target_app.paying import Cashier
from target_app.payments import NoProvider, Provider
from target_app.purchase_queue import PurchaseQueue, QueuedPurchases
from target_app.purchases import Purchases, Till
from target_app.redis_store import RedisStore
from target_app.runtime import GcWatch, LoopWatch
from target_app.settings import Settings
from target_app.settling import Settler
from target_app.sqlalchemy_layer import SqlalchemyDatabase
from target_app.sweeper import Sweeper
from target_app.validation import Gate

# No match and no ticket has these: executing the statement prepares it and touches nothing.
_NOWHERE: Final[Values] = {"for_match": 0, "for_buyer": "", "with_key": "", "with_code": "", "at_most": 0}
_PLAIN: Final = ((queries.purchase_view, _NOWHERE), (queries.one_match, {"for_match": 0}))
_PAYING: Final = (
    (payment_queries.begin, {"with_key": "", "for_match": 0, "for_buyer": "", "amount": 0, "at_most_s": 0.0}),
    (payment_queries.paid, {"with_key": ""}),
)
_WARM: Final = {"plain": _PLAIN, "fewest": ((queries.sell_at_once, _NOWHERE), *_PLAIN)}


class Sale:
    """The parts of one worker's sale, opened and closed together."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.figures = Figures(queue=settings.checkout == "queue")
        self.database = database_of(settings)
        self.store = RedisStore(settings)
        self.loop = LoopWatch()
        self.gc = GcWatch()
        guard = guard_of(settings, self.figures, self.store)
        self.catalogue = Catalogue(settings, self.database, self.store, self.figures)
        # Without a provider nothing of it is there: a purchase costs what it did before there was one.
        self.provider = Provider(settings) if settings.payment_url else None
        self.settler = Settler(self.database, self.provider) if self.provider else None
        cashier = Cashier(settings, self.provider, self.settler) if self.provider and self.settler else None
        self.purchases = Purchases(settings, self.database, guard, self.figures, cashier)
        self.queue: PurchaseQueue | None = None
        self.queued: QueuedPurchases | None = None
        if settings.checkout == "queue":
            self.queue = PurchaseQueue(settings, self.store)
            self.queued = QueuedPurchases(self.queue, self.database, self.figures)
        self.till: Till = self.queued or self.purchases
        self.gate = Gate(settings, self.database, self.figures)
        self.health = Health(self.database, self.store, self.figures)
        self.holds = Holds(settings, self.database, self.store, self.figures)
        self.checkouts = Checkouts(self.database, self.provider or NoProvider())
        self.passwords = Passwords(settings)
        self.accounts = Accounts(settings, self.database, self.passwords)
        self.sweeper = Sweeper(settings, self.database, self.holds, self.checkouts, self.accounts)

    def registry(self, *, serves: bool = True) -> CollectorRegistry:
        """Return a registry with all metrics of this worker; without those of its routes where it serves nobody."""
        return registry_of(SaleCollector(self.figures, self.database.pool, self.loop, self.gc, serves=serves))

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Hold all connections open, and the stock of ``locking=redis`` in place. Raises StartupError."""
        try:
            await self.store.open()
            paying = _PAYING if self.provider else ()
            await self.database.open((*_WARM[self.settings.round_trips], *paying))
            await self._put_stock()
            await self._start_sweeper()
            if self.settler is not None:
                self.settler.start()
            self.loop.start()
            self.gc.start()
            yield
        finally:
            if self.settler is not None:
                await self.settler.stop()
            await self.sweeper.stop()
            if self.provider is not None:
                await self.provider.close()
            self.passwords.close()
            self.gc.stop()
            self.loop.stop()
            await self.database.close()
            await self.store.close()
            self.gate.close()

    async def _start_sweeper(self) -> None:
        try:
            await self.sweeper.start()
        except Unavailable as error:
            raise StartupError(f"what is in carts could not be looked for: {error.kind}") from error

    async def _put_stock(self) -> None:
        if self.settings.locking != "redis":
            return
        stages = self.figures.routes[PURCHASE].stages
        try:
            async with self.database.autocommit(stages) as session:
                rows = await session.all(queries.stock_by_sales)
                held: dict[int, list[str]] = {}
                for row in await session.all(queries.held_keys):
                    held.setdefault(row.match_id, []).append(row.idempotency_key)
            await self.store.set_stocks({row.id: row.stock for row in rows}, held, stages)
        except TooManyConnections:
            return  # the other workers of this sale have them all, and who has one has put it
        except Unavailable as error:
            raise StartupError(f"the stock could not be put into Redis: {error.kind}") from error


def database_of(settings: Settings) -> Database:
    """Return the data layer that ``data_layer`` names. Raises StartupError for an address that is none."""
    return AsyncpgDatabase(settings) if settings.data_layer == "asyncpg" else SqlalchemyDatabase(settings)


@dataclass(frozen=True)
class Application:
    """What a server needs: hold ``sale.opened()`` while ``asgi`` serves."""

    sale: Sale
    asgi: ASGIApp


def create_app(settings: Settings) -> Application:
    """Return the application; nothing is connected to yet."""
    sale = Sale(settings)
    app = FastAPI(title="Ticket sale", openapi_url=None, redirect_slashes=False)
    app.router.default = LateShop(sale, app.routes)
    app.include_router(sale_router(sale.catalogue, sale.gate))
    app.include_router(purchase_router(sale.till))
    if sale.queued is not None:
        app.include_router(queue_router(sale.queued))
    app.include_router(health_router(sale.health))
    app.add_exception_handler(SaleError, refuse)
    app.add_exception_handler(RequestValidationError, refuse_input)
    served: ASGIApp = app
    if settings.purchase_route == "lean":
        served = LeanPurchases(app, sale.till)
    # Around the framework, not added to it: what the framework itself does to a request is part of its time.
    return Application(sale, Measured(served, sale.figures))
