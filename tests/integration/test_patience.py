"""A PostgreSQL that leaves a question unanswered is not waited for without end."""

import os
import signal

import psycopg
import pytest

from ticketbench.errors import EnvironmentFailure
from ticketbench.stack.patience import patience
from ticketbench.stack.postgres import PostgresServer


def test_an_answer_in_time_is_an_answer(postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn) as connection:
        with patience(connection, 30):
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert connection.execute("SELECT 2").fetchone() == (2,)  # and the connection is as it was


def test_a_slow_answer_is_given_up(postgres_dsn: str) -> None:
    with (
        pytest.raises(EnvironmentFailure, match=r"PostgreSQL did not answer within 0\.2 s"),
        psycopg.connect(postgres_dsn) as connection,
        patience(connection, 0.2),
    ):
        connection.execute("SELECT pg_sleep(60)")


def test_a_backend_that_is_stopped_is_given_up(postgres_server: PostgresServer) -> None:
    with psycopg.connect(postgres_server.dsn()) as connection:
        backend = connection.info.backend_pid
        os.kill(backend, signal.SIGSTOP)
        try:
            with (
                pytest.raises(EnvironmentFailure, match="did not answer"),
                patience(connection, 0.2),
            ):
                connection.execute("SELECT 1")
        finally:
            os.kill(backend, signal.SIGCONT)


def test_other_errors_stay_what_they_are(postgres_dsn: str) -> None:
    with (
        pytest.raises(psycopg.errors.UndefinedTable),
        psycopg.connect(postgres_dsn) as connection,
        patience(connection, 30),
    ):
        connection.execute("SELECT * FROM nothing")
