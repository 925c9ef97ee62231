"""What takes the money: the provider over HTTP, on connections that are kept, with retries under the same key."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import random
from typing import Final, Protocol
from urllib.parse import urlsplit

from target_app.errors import PaymentDeclined, PaymentRefunded, PaymentUnclear
from target_app.settings import Settings

# Asked so often for one payment: the provider charges a key once, so that asking again only tells what came of it.
ATTEMPTS: Final = 3
# The wait before asking again, doubled each time, and by chance up to half as long again.
_FIRST_WAIT_S: Final = 0.05
# Beyond this payments wait here: a provider that hangs is not to take all descriptors of the process.
_MOST_CONNECTIONS: Final = 1000
_LONGEST_HEAD: Final = 16_384

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Payments(Protocol):
    """What takes the money. Both may be repeated with the same key, and then happen once."""

    async def charge(self, key: str, amount_pence: int) -> None:
        """Return when it is paid. Raises PaymentDeclined; PaymentRefunded; Unavailable where nobody knows."""

    async def refund(self, key: str) -> None:
        """Return when nothing is charged under the key, and nothing will be. Raises Unavailable.

        What was charged is given back. A charge that is still on its way is refused when it arrives: its client may be
        gone by then.
        """


class NoProvider:
    """Payments that cost nothing and take no time: what a sale without a provider has."""

    async def charge(self, key: str, amount_pence: int) -> None:
        """See :class:`Payments`."""

    async def refund(self, key: str) -> None:
        """See :class:`Payments`."""


class Provider:
    """The provider at ``payment_url``. Written for its answers only: HTTP/1.1 with a length."""

    def __init__(self, settings: Settings) -> None:
        at = urlsplit(settings.payment_url)
        self._host, self._port = at.hostname or "", at.port or 0
        self._timeout_s = settings.payment_timeout_s
        self._idle: list[_Connection] = []
        self._free = asyncio.Semaphore(_MOST_CONNECTIONS)

    async def charge(self, key: str, amount_pence: int) -> None:
        """See :class:`Payments`."""
        status = await self._ask("/charges", key, json.dumps({"amount_pence": amount_pence}).encode())
        match status:
            case 201:
                return
            case 402:
                raise PaymentDeclined
            case 409:
                raise PaymentRefunded
            case _:
                raise PaymentUnclear

    async def refund(self, key: str) -> None:
        """See :class:`Payments`."""
        if await self._ask("/refunds", key, b"") != 200:
            raise PaymentUnclear

    async def close(self) -> None:
        """Close the connections that are kept."""
        self._drop()

    async def _ask(self, path: str, key: str, body: bytes) -> int:
        """Return the status of an answer. Raises PaymentUnclear where none came within the attempts."""
        request = (
            f"POST {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nIdempotency-Key: {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(_FIRST_WAIT_S * 2.0**attempt / 2 * (1 + random() / 2))  # noqa: S311
            try:
                async with asyncio.timeout(self._timeout_s), self._connection() as (reader, writer):
                    writer.write(request)
                    status = await _status(reader)
            except (OSError, EOFError, TimeoutError, ValueError, asyncio.LimitOverrunError):
                continue
            if status < 500:
                return status
        raise PaymentUnclear

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[_Connection]:
        """Give a connection, and keep it where its answer was read to the end."""
        async with self._free:
            while self._idle:
                connection = self._idle.pop()  # the last one used: the others may go
                if not (connection[0].at_eof() or connection[1].is_closing()):
                    break
                connection[1].close()
            else:
                connection = await asyncio.open_connection(self._host, self._port, limit=_LONGEST_HEAD)
            try:
                yield connection
            except BaseException:
                connection[1].close()
                raise
            self._idle.append(connection)

    def _drop(self) -> None:
        while self._idle:
            self._idle.pop()[1].close()


async def _status(reader: asyncio.StreamReader) -> int:
    """Read one answer to its end and return its status. Raises ValueError where it is none of the provider's."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    if not first.startswith(b"HTTP/1.1 "):
        raise ValueError("not an answer of HTTP/1.1")
    lengths = [line[15:] for line in lines if line[:15].lower() == b"content-length:"]
    await reader.readexactly(int(lengths[0]) if lengths else -1)
    return int(first[9:12])
