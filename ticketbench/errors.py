"""Exit codes, and the one family of errors that a user is expected to meet.

Everything that ticketbench can explain is a :class:`TicketbenchError`; it carries the exit code and a hint, and the
CLI turns it into one message. Anything else is a bug and keeps its traceback (exit code 70).
"""

from typing import Final

EXIT_OK: Final = 0
EXIT_SLO_MISSED: Final = 1  # or: a comparison found a regression
EXIT_USAGE: Final = 2
EXIT_INVALID: Final = 3  # the measurement cannot be believed, or settles nothing
EXIT_ENVIRONMENT: Final = 4  # stack, tool, port or disk failed
EXIT_INTEGRITY: Final = 5  # tickets oversold, lost or sold twice
EXIT_BUG: Final = 70  # EX_SOFTWARE of sysexits.h
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT
EXIT_TERMINATED: Final = 143  # 128 + SIGTERM

# Where several hold, the first one listed is returned (README.md, exit codes).
PRECEDENCE: Final = (
    EXIT_USAGE,
    EXIT_BUG,
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    EXIT_INTEGRITY,
    EXIT_ENVIRONMENT,
    EXIT_INVALID,
    EXIT_SLO_MISSED,
    EXIT_OK,
)


def worst(*codes: int) -> int:
    """Return the code that wins by :data:`PRECEDENCE`; 0 without arguments. Raises ValueError for an unknown code."""
    return min(codes, key=PRECEDENCE.index, default=EXIT_OK)


class TicketbenchError(Exception):
    """An expected failure: ``message`` says what happened, ``hint`` what to do about it."""

    exit_code: int = EXIT_ENVIRONMENT

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(TicketbenchError):
    """The user asked for something that does not exist or does not fit. Exit code 2, nothing was started.

    ``problems`` lists every fault found, each naming the option or key, the value and the known values.
    """

    exit_code = EXIT_USAGE

    def __init__(self, *problems: str, hint: str = "") -> None:
        super().__init__("; ".join(problems), hint)
        self.problems = problems


class EnvironmentFailure(TicketbenchError):
    """A server, tool, port or disk failed. Exit code 4."""

    exit_code = EXIT_ENVIRONMENT


class ScriptFailure(TicketbenchError):
    """The user's k6 script ended the load by itself: an exception, an abort. Exit code 3, nothing can be believed."""

    exit_code = EXIT_INVALID


class Interrupted(TicketbenchError):
    """SIGINT or SIGTERM arrived. Exit code 128 + the signal's number."""

    def __init__(self, signum: int) -> None:
        super().__init__("interrupted" if signum == 2 else "terminated")
        self.signum = signum
        self.exit_code = 128 + signum
