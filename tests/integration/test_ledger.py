"""The ledger against real servers: rows that were written by SQL and Redis commands come back as they are."""

import json
from collections import Counter
from collections.abc import Iterator

import psycopg
import pytest
import redis
from psycopg.conninfo import make_conninfo

from ticketbench.errors import EnvironmentFailure
from ticketbench.ledger import read_ledger
from ticketbench.ledger_rows import LedgerRow
from ticketbench.stack.protocol import DatabaseAccess
from ticketbench.stack.servers import free_port

TABLES = """
CREATE TABLE matches (id int PRIMARY KEY, capacity int NOT NULL, stock int NOT NULL, on_sale bool NOT NULL);
CREATE TABLE tickets (id bigint PRIMARY KEY, match_id int NOT NULL, idempotency_key text NOT NULL);
INSERT INTO matches VALUES (1, 100, 97, true), (2, 50, 50, true), (9, 7, 0, false);
INSERT INTO tickets VALUES (11, 1, 'a'), (12, 1, 'b'), (13, 1, 'b'), (90, 9, 'not on sale');
"""


@pytest.fixture
def target(postgres_dsn: str) -> Iterator[str]:
    """A database ``tickets`` of this test's own; yields its DSN."""
    with psycopg.connect(postgres_dsn, autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS tickets WITH (FORCE)")
        admin.execute("CREATE DATABASE tickets")
        dsn = make_conninfo(postgres_dsn, dbname="tickets")
        with psycopg.connect(dsn) as connection:
            connection.execute(TABLES)
        yield dsn
        admin.execute("DROP DATABASE IF EXISTS tickets WITH (FORCE)")


@pytest.fixture
def store(redis_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
        yield client
        client.flushdb()


def test_rows_come_back_as_written(target: str, store: "redis.Redis", postgres_dsn: str, redis_url: str) -> None:
    store.set("stock:1", 98)
    store.hset("taken:1", mapping={"a": 1, 'stranded, "odd" key': 1})
    store.set("stock:9", 5)
    assert Counter(read_ledger(DatabaseAccess(postgres_dsn, redis_url))) == Counter(
        [
            LedgerRow(kind="capacity", match_id=1, quantity=100),
            LedgerRow(kind="stock", match_id=1, quantity=97),
            LedgerRow(kind="capacity", match_id=2, quantity=50),
            LedgerRow(kind="stock", match_id=2, quantity=50),
            LedgerRow(kind="ticket", match_id=1, ticket_id=11, key="a"),
            LedgerRow(kind="ticket", match_id=1, ticket_id=12, key="b"),
            LedgerRow(kind="ticket", match_id=1, ticket_id=13, key="b"),
            LedgerRow(kind="redis_stock", match_id=1, quantity=98),
            LedgerRow(kind="redis_taken", match_id=1, key="a"),
            LedgerRow(kind="redis_taken", match_id=1, key='stranded, "odd" key'),
        ]
    )


def test_what_is_queued_and_what_was_refused_comes_back(
    target: str, store: "redis.Redis", postgres_dsn: str, redis_url: str
) -> None:
    for number in range(3):
        entry = json.dumps({"match": 1, "buyer": "ann", "key": f"waits {number}"})
        store.xadd("purchases", {"__data__": entry})
        store.hset(f"purchase:waits {number}", mapping={"state": "queued", "match": 1, "buyer": "ann"})
    store.hset("purchase:late", mapping={"state": "sold_out", "match": 2, "buyer": "bob"})
    store.hset("purchase:a", mapping={"state": "sold", "match": 1, "buyer": "ann"})
    store.hset("purchase:gone", mapping={"state": "queued", "match": 1, "buyer": "ann"})  # and no entry: nobody does it
    rows = [row for row in read_ledger(DatabaseAccess(postgres_dsn, redis_url)) if row.kind in ("queued", "refused")]
    assert rows == [
        *(LedgerRow("queued", match_id=1, key=f"waits {number}") for number in range(3)),
        LedgerRow("refused", match_id=2, key="late"),
    ]


def test_what_is_in_carts_comes_back_where_there_are_carts(
    target: str, store: "redis.Redis", postgres_dsn: str, redis_url: str
) -> None:
    with psycopg.connect(target) as connection:
        connection.execute(
            "CREATE TABLE holds (id bigint PRIMARY KEY, match_id int, idempotency_key text, going_back bool);"
            "INSERT INTO holds VALUES (1, 1, 'c', false), (2, 1, 'on its way', true), (3, 9, 'not on sale', false)"
        )
    rows = [row for row in read_ledger(DatabaseAccess(postgres_dsn, redis_url)) if row.kind == "held"]
    assert rows == [LedgerRow(kind="held", match_id=1, key="c")]


def test_a_big_sale_comes_back_whole(target: str, store: "redis.Redis", postgres_dsn: str, redis_url: str) -> None:
    with psycopg.connect(target) as connection:
        connection.execute("INSERT INTO tickets SELECT n, 2, 'key-' || n FROM generate_series(1000, 20999) n")
    store.hset("taken:2", mapping={f"key-{n}": 1 for n in range(1000, 13000)})
    rows = list(read_ledger(DatabaseAccess(postgres_dsn, redis_url)))
    assert len({row.ticket_id for row in rows if row.kind == "ticket"}) == 20_000 + 3
    assert len({row.key for row in rows if row.kind == "redis_taken"}) == 12_000  # a scan may name one twice


def test_a_target_that_holds_every_connection_does_not_shut_the_audit_out(
    target: str, store: "redis.Redis", postgres_dsn: str, redis_url: str
) -> None:
    with psycopg.connect(target, autocommit=True) as admin:
        admin.execute("DROP ROLE IF EXISTS ledger_buyer")
        admin.execute("CREATE ROLE ledger_buyer LOGIN PASSWORD 'buyer'")
    held: list[psycopg.Connection] = []
    try:
        dsn = make_conninfo(target, user="ledger_buyer", password="buyer")
        with pytest.raises(psycopg.OperationalError, match="slots are reserved"):
            while len(held) < 1000:
                held.append(psycopg.connect(dsn))
        assert len(list(read_ledger(DatabaseAccess(postgres_dsn, redis_url)))) == 7
    finally:
        for connection in held:
            connection.close()
        with psycopg.connect(target, autocommit=True) as admin:
            admin.execute("DROP ROLE ledger_buyer")


def test_what_cannot_be_reached_is_named(target: str, postgres_dsn: str, redis_url: str) -> None:
    away = free_port()
    with pytest.raises(EnvironmentFailure, match=r"PostgreSQL.*refused"):
        list(read_ledger(DatabaseAccess(make_conninfo(postgres_dsn, port=away), redis_url)))
    with pytest.raises(EnvironmentFailure, match=r"Redis.*refused"):
        list(read_ledger(DatabaseAccess(postgres_dsn, f"redis://127.0.0.1:{away}/0")))
    with psycopg.connect(target) as connection:
        connection.execute("DROP TABLE tickets")
    with pytest.raises(EnvironmentFailure, match=r"PostgreSQL.*tickets"):
        list(read_ledger(DatabaseAccess(postgres_dsn, redis_url)))
