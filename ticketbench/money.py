"""The money of a trial: waits until the sale has settled what it owes, and reads the payment provider's books."""

import json
import time
from collections.abc import Iterator
from typing import Final

import httpx
import psycopg
from psycopg.conninfo import make_conninfo

from ticketbench.errors import EnvironmentFailure
from ticketbench.ledger_rows import LedgerRow
from ticketbench.stack.protocol import DatabaseAccess
from ticketbench.stack.reset import DATABASE

# Where both tables are, their payments that are neither through nor ended.
UNSETTLED: Final = (
    "SELECT key FROM payments WHERE state IN ('paying', 'refunding')"
    " UNION ALL SELECT payment_key FROM checkouts WHERE state IN ('paying', 'refunding')"
)
# A checkout that nobody finished is refunded after 60 s by a sweep each 5 s, and a purchase's payment sooner. As a rule
# it is settled at once.
SETTLE_S: Final = 75.0
_POLL_S: Final = 0.1
_CONNECT_S: Final = 5
_STATEMENT_MS: Final = 10_000
_READ_S: Final = 60.0


def await_settled(access: DatabaseAccess, *, deadline_s: float = SETTLE_S) -> bool:
    """Wait until no payment is under way or to be given back; return False where one still is after ``deadline_s``.

    Raises EnvironmentFailure where PostgreSQL cannot be asked.
    """
    dsn = make_conninfo(
        access.postgres_dsn,
        dbname=DATABASE,
        application_name="ticketbench-money",
        connect_timeout=_CONNECT_S,
        options=f"-c statement_timeout={_STATEMENT_MS}",
    )
    deadline = time.monotonic() + deadline_s
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            while connection.execute(f"SELECT EXISTS ({UNSETTLED})").fetchone() != (False,):
                if time.monotonic() > deadline:
                    return False
                time.sleep(_POLL_S)
    except psycopg.Error as error:
        text = " ".join(str(error).split())
        raise EnvironmentFailure(f"cannot ask PostgreSQL whether all payments are settled: {text}") from error
    return True


def read_provider(url: str) -> Iterator[LedgerRow]:
    """Yield what the provider at ``url`` has charged and given back, as it comes. Raises EnvironmentFailure."""
    try:
        with (
            httpx.Client(timeout=_READ_S, trust_env=False) as client,
            client.stream("GET", f"{url}/charges") as answer,
        ):
            answer.raise_for_status()
            for line in answer.iter_lines():
                said = json.loads(line)
                if said["kind"] in ("charge", "refund"):
                    kind, pence = said["kind"], int(said["amount_pence"])
                    yield LedgerRow(kind=kind, match_id=0, quantity=pence, key=str(said["key"]))
    except (httpx.HTTPError, ValueError, KeyError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise EnvironmentFailure(
            f"cannot read the payment provider's books: {text}", "payment.log tells what became of it"
        ) from error
