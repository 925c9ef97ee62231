"""Whether the process can sell."""

from sqlalchemy import text

from target_app.database import Database
from target_app.figures import READY, Figures
from target_app.redis_store import RedisStore

_ANY = text("SELECT 1")


class Health:
    """Asks both stores, through the same connections that requests use."""

    def __init__(self, database: Database, store: RedisStore, figures: Figures) -> None:
        self._database = database
        self._store = store
        self._stages = figures.routes[READY].stages

    async def check(self) -> None:
        """Return when PostgreSQL and Redis answered. Raises Unavailable."""
        await self._store.ping(self._stages)
        async with self._database.autocommit(self._stages) as session:
            await session.one(_ANY)
