"""Parts of the target that need no server: what a database's failure means, the seeds, the watches, the middleware."""

import asyncio
import gc
import time

import asyncpg
import pytest
from starlette.types import Message, Receive, Scope, Send

from target_app.database import DuplicateKey, meaning
from target_app.errors import Conflict, DatabaseError, LockTimeout, TooManyConnections
from target_app.figures import MATCH, UNMATCHED, Figures
from target_app.middleware import Measured
from target_app.runtime import TICK_S, GcWatch, LoopWatch
from target_app.seed import match_rows


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (asyncpg.LockNotAvailableError.sqlstate, LockTimeout),
        (asyncpg.DeadlockDetectedError.sqlstate, Conflict),
        (asyncpg.SerializationError.sqlstate, Conflict),
        (asyncpg.TooManyConnectionsError.sqlstate, TooManyConnections),
        (asyncpg.AdminShutdownError.sqlstate, DatabaseError),
        (asyncpg.QueryCanceledError.sqlstate, DatabaseError),
        (asyncpg.InvalidCatalogNameError.sqlstate, DatabaseError),
    ],
)
def test_a_servers_trouble_is_a_503_of_its_kind(state: str, kind: type[Exception]) -> None:
    assert type(meaning(state, "refused")) is kind


@pytest.mark.parametrize("state", [asyncpg.UndefinedTableError.sqlstate, asyncpg.PostgresSyntaxError.sqlstate])
def test_a_fault_of_ours_stays_one(state: str) -> None:
    assert meaning(state, "no such table") is None


def test_only_the_key_of_a_purchase_is_a_duplicate_key() -> None:
    state = asyncpg.UniqueViolationError.sqlstate
    assert isinstance(meaning(state, 'constraint "tickets_idempotency_key_key"'), DuplicateKey)
    assert meaning(state, 'constraint "tickets_code_key"') is None


def test_the_seeded_matches() -> None:
    rows = match_rows(stock=7)
    assert [row["id"] for row in rows] == list(range(1, 22))
    assert rows[0]["capacity"] == rows[0]["stock"] == 7
    assert {row["capacity"] for row in rows[1:20]} == {1_000_000}
    assert [row["id"] for row in rows if not row["on_sale"]] == [21]
    assert rows[20]["stock"] == 0
    assert all(row["home"] != row["away"] for row in rows)
    assert match_rows(stock=7) == rows


async def test_the_loop_watch_sees_a_blocking_call() -> None:
    watch = LoopWatch()
    watch.start()
    try:
        await asyncio.sleep(2 * TICK_S)
        began = time.thread_time()
        while time.thread_time() - began < 0.15:  # burns CPU on the loop
            pass
        assert watch.max_lag_s() > 0.1  # seen while it still lasts
        await asyncio.sleep(2 * TICK_S)
        assert watch.lag_s > 0.1
        assert watch.samples >= 2
        assert watch.cpu_s() >= 0.15
        delay = watch.run_delay_s()
        assert delay is None or delay >= 0
    finally:
        watch.stop()


def test_the_gc_watch_counts_between_start_and_stop() -> None:
    watch = GcWatch()
    gc.collect()
    assert watch.collections == 0
    watch.start()
    gc.collect()
    watch.stop()
    counted = watch.collections
    assert counted >= 1
    assert watch.seconds > 0
    gc.collect()
    assert watch.collections == counted


class _Route:
    path = MATCH


async def _served(figures: Figures, *, method: str, route: _Route | None, fails: bool) -> None:
    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        assert figures.inflight == 1
        if route is not None:
            scope["route"] = route
        if fails:
            raise RuntimeError("a bug")
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(_: Message) -> None:
        return None

    await Measured(app, figures)({"type": "http", "method": method}, receive, send)


async def test_an_answer_counts_under_its_routes_template() -> None:
    figures = Figures()
    await _served(figures, method="GET", route=_Route(), fails=False)
    assert figures.routes[MATCH].answers["GET", 204] == 1
    assert figures.inflight == 0


async def test_an_unknown_path_and_an_invented_method_share_one_label() -> None:
    figures = Figures()
    await _served(figures, method="X" * 500, route=None, fails=False)
    assert figures.routes[UNMATCHED].answers["OTHER", 204] == 1


async def test_a_bug_counts_as_a_500_and_goes_on() -> None:
    figures = Figures()
    with pytest.raises(RuntimeError, match="a bug"):
        await _served(figures, method="GET", route=_Route(), fails=True)
    assert figures.routes[MATCH].answers["GET", 500] == 1
    assert figures.inflight == 0
