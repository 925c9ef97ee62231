"""Bounds how long PostgreSQL may leave a question unanswered: libpq itself would wait for ever."""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import psycopg

from ticketbench.errors import EnvironmentFailure


@contextlib.contextmanager
def patience(connection: "psycopg.Connection[Any]", seconds: float) -> Iterator[None]:
    """Let PostgreSQL take ``seconds`` for all that the block asks of it.

    Raises EnvironmentFailure where it takes longer, in place of psycopg's error; the connection is of no use then.
    """
    exhausted = threading.Event()
    # a descriptor of our own: the connection may close its own, and the number become another file's
    with socket.socket(fileno=os.dup(connection.fileno())) as below:

        def cut() -> None:
            # below libpq, which then finds the connection broken and stops waiting
            exhausted.set()
            with contextlib.suppress(OSError):
                below.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(seconds, cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        except psycopg.Error as error:
            if not exhausted.is_set():
                raise
            raise EnvironmentFailure(
                f"PostgreSQL did not answer within {seconds:g} s",
                "it hangs, or its disk does: its log and the machine's say more",
            ) from error
        finally:
            timer.cancel()
            timer.join()
