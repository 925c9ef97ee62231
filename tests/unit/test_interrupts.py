import os
import signal
import socket
import threading
import time

import pytest

from ticketbench import interrupts
from ticketbench.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, EnvironmentFailure, Interrupted


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


def test_what_is_found_meanwhile_interrupts_whatever_is_waited_for() -> None:
    asked = []

    def look() -> EnvironmentFailure | None:
        asked.append(time.monotonic())
        return EnvironmentFailure("it hangs") if len(asked) >= 2 else None

    here, there = socket.socketpair()
    with here, there, pytest.raises(EnvironmentFailure, match="it hangs"), interrupts.watching(look):
        here.recv(1)  # nobody will ever send
    assert len(asked) == 2


def test_a_block_that_ends_in_time_ends_the_watching() -> None:
    asked = []
    with interrupts.watching(lambda: asked.append(1)):
        time.sleep(1.5 * interrupts.WATCH_PERIOD_S)
    count = len(asked)
    assert count >= 1
    time.sleep(1.5 * interrupts.WATCH_PERIOD_S)
    assert len(asked) == count
    signal.raise_signal(signal.SIGURG)  # one that comes late does nothing


def test_a_failure_waits_for_what_must_be_finished() -> None:
    found = threading.Event()

    def look() -> EnvironmentFailure:
        found.set()
        return EnvironmentFailure("it hangs")

    done = []
    with pytest.raises(EnvironmentFailure), interrupts.watching(look):
        with interrupts.deferred():
            assert found.wait(10)
            time.sleep(interrupts.WATCH_PERIOD_S)  # it is told and told again in the meantime
            done.append("finished")
        time.sleep(10)
    assert done == ["finished"]


def test_watching_within_watching() -> None:
    with (
        pytest.raises(EnvironmentFailure, match="outer"),
        interrupts.watching(lambda: EnvironmentFailure("outer")),
        interrupts.watching(lambda: None),
    ):
        time.sleep(10)


def test_another_thread_watches_nothing() -> None:
    raised: list[BaseException] = []

    def work() -> None:
        try:
            with interrupts.watching(lambda: EnvironmentFailure("never asked")):
                time.sleep(1.5 * interrupts.WATCH_PERIOD_S)
        except EnvironmentFailure as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert raised == []
