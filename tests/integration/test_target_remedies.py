"""The small remedies of the sale on a real PostgreSQL and Redis: one load for all who miss, hashing beside the loop."""

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from target_app.figures import MATCH
from tests.integration.opened_sale import Open, Shop, Stores, kinds, until

MISSING = 20


@contextmanager
def nobody_reads(stores: Stores) -> Iterator[None]:
    """Keep every reader of the matches waiting."""
    with psycopg.connect(stores.database_url) as holder:
        holder.execute("LOCK TABLE matches IN ACCESS EXCLUSIVE MODE")
        yield
        holder.rollback()


def all_at_once(shop: Shop) -> list["asyncio.Task[Any]"]:
    return [asyncio.create_task(shop.http.get("/matches/2")) for _ in range(MISSING)]


async def test_those_who_miss_together_ask_once(opened: Open, stores: Stores) -> None:
    async with opened(single_flight="on", pool_size=MISSING) as shop:
        figures, pool = shop.sale.figures, shop.sale.database.pool.figures
        before = pool.checkouts
        with nobody_reads(stores):
            tasks = all_at_once(shop)
            await until(lambda: figures.cache_shared == MISSING - 1)
        answers = [await task for task in tasks]
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        assert (figures.cache_misses, pool.checkouts - before) == (MISSING, 1)
        assert figures.routes[MATCH].stages.shared_wait > 0
        assert (await shop.http.get("/matches/2")).content == answers[0].content  # from the cache
        assert (figures.cache_hits, figures.cache_shared) == (1, MISSING - 1)


async def test_without_it_each_of_them_asks(opened: Open, stores: Stores) -> None:
    async with opened(pool_size=MISSING) as shop:
        pool = shop.sale.database.pool
        before = pool.figures.checkouts
        with nobody_reads(stores):
            tasks = all_at_once(shop)
            await until(lambda: pool.checkedout() == MISSING)
        assert {(await task).status_code for task in tasks} == {200}
        assert pool.figures.checkouts - before == MISSING
        assert shop.sale.figures.cache_shared == 0


async def test_a_load_that_fails_fails_for_all_and_is_not_kept(opened: Open, stores: Stores) -> None:
    async with opened(single_flight="on", lock_timeout_s=0.2) as shop:
        with nobody_reads(stores):
            answers = [await task for task in all_at_once(shop)]
        assert kinds(answers) == {(503, "lock_timeout"): MISSING}
        assert (await shop.http.get("/matches/2")).status_code == 200
        unknown = await asyncio.gather(*(shop.http.get("/matches/999") for _ in range(5)))
        assert kinds(unknown) == {(404, "unknown_match"): 5}


async def test_who_gives_up_takes_the_load_from_nobody(opened: Open, stores: Stores) -> None:
    async with opened(single_flight="on") as shop:
        with nobody_reads(stores):
            first, *others = all_at_once(shop)
            await until(lambda: shop.sale.figures.cache_shared == MISSING - 1)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
        assert {(await task).status_code for task in others} == {200}


async def test_others_are_served_while_threads_hash(opened: Open) -> None:
    rounds = 400_000
    async with opened(validate_in_loop="off", validate_cost=rounds, gate_secret="a secret") as shop:
        validation = asyncio.create_task(shop.http.post("/tickets/SEED-000007/validation"))
        served = 0
        while not validation.done():
            assert (await shop.http.get("/health")).status_code == 200
            served += 1
            await asyncio.sleep(0)  # what comes from a socket or a thread gets its turn
        token = hashlib.pbkdf2_hmac("sha256", b"SEED-000007", b"a secret", rounds).hex()
        assert (await validation).json()["gate_token"] == token
    async with opened(validate_cost=rounds, seed=False) as shop:
        validation = asyncio.create_task(shop.http.post("/tickets/SEED-000007/validation"))
        held_up = 0
        while not validation.done():
            await shop.http.get("/health")
            held_up += 1
            await asyncio.sleep(0)
    assert served > 3 * held_up  # until the ticket is found they are alike
