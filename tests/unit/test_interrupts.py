import os
import signal

import pytest

from ticketbench import interrupts
from ticketbench.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, Interrupted


@pytest.mark.parametrize(
    ("sent", "code"),
    [(signal.SIGINT, EXIT_INTERRUPTED), (signal.SIGTERM, EXIT_TERMINATED), (signal.SIGHUP, EXIT_TERMINATED)],
)
def test_a_signal_becomes_an_exception_with_its_exit_code(sent: signal.Signals, code: int) -> None:
    with interrupts.raised(), pytest.raises(Interrupted) as caught:
        os.kill(os.getpid(), sent)
    assert caught.value.exit_code == code


def test_a_shield_finishes_what_it_holds_and_raises_afterwards() -> None:
    done = []
    with interrupts.raised(), pytest.raises(Interrupted) as caught:
        with interrupts.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            with interrupts.deferred():
                done.append("inner")
            done.append("outer")
        done.append("never")
    assert done == ["inner", "outer"]
    assert caught.value.exit_code == EXIT_TERMINATED


def test_a_signal_during_a_failure_wins_and_keeps_it_as_context() -> None:
    """Exit code 130 comes before 4, and the message of what failed is not lost."""
    with interrupts.raised(), pytest.raises(Interrupted) as caught, interrupts.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        raise KeyError
    assert isinstance(caught.value.__context__, KeyError)


def test_the_handlers_that_were_there_come_back() -> None:
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with interrupts.raised():
        pass
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_held_back_signals_reach_whoever_handled_them_before() -> None:
    seen: list[str] = []
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGHUP)}
    try:
        for signum in before:
            signal.signal(signum, lambda number, _frame: seen.append(f"handler {number:d}"))
        with interrupts.deferred():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGHUP)
            seen.append("end of block")
        assert seen == ["end of block", f"handler {signal.SIGTERM:d}", f"handler {signal.SIGHUP:d}"]
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
