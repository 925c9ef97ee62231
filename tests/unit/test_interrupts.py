import contextlib
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


def test_where_nobody_listens_a_signal_waits_for_who_does() -> None:
    done = []
    with interrupts.raised(), interrupts.deferred() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("held")
        with pytest.raises(Interrupted) as caught, signals.listening():
            done.append("never")
        assert caught.value.exit_code == EXIT_TERMINATED
        with signals.listening():
            done.append("forgotten once raised")
    assert done == ["held", "forgotten once raised"]


def test_of_two_signals_the_second_waits_until_the_first_is_dealt_with() -> None:
    done = []
    with interrupts.raised(), interrupts.deferred() as signals:
        with pytest.raises(Interrupted), signals.listening():
            try:
                os.kill(os.getpid(), signal.SIGINT)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                done.append("put in order")
        assert done == ["put in order"]
        late = signals.taken()
        assert late is not None
        assert late.exit_code == EXIT_TERMINATED
        assert signals.taken() is None


def test_a_failure_between_two_steps_is_not_mistaken_for_one_within() -> None:
    with interrupts.raised(), pytest.raises(KeyError), interrupts.deferred() as signals:
        with contextlib.suppress(ValueError), signals.listening():
            raise ValueError
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.taken() is not None
        raise KeyError


def test_what_began_before_is_told_to_who_listens_within() -> None:
    with interrupts.raised(), interrupts.deferred() as outer:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted), interrupts.deferred() as inner, inner.listening():
            pass
        assert outer.taken() is None


def test_the_user_who_was_heard_is_not_told_again() -> None:
    with (
        interrupts.raised(),
        pytest.raises(Interrupted) as caught,
        interrupts.deferred() as signals,
        signals.listening(),
    ):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.exit_code == EXIT_INTERRUPTED


def test_a_hail_of_signals_never_breaks_what_is_held_together() -> None:
    """Signals at any instruction: what follows a step always follows, and a step is interrupted at most once."""
    stop = threading.Event()

    def hail() -> None:
        while not stop.is_set():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.0003)

    thread = threading.Thread(target=hail)
    begun = followed = interrupted = 0
    with interrupts.raised(), contextlib.suppress(Interrupted), interrupts.deferred() as signals:
        thread.start()
        try:
            deadline = time.monotonic() + 1.0
            while time.monotonic() < deadline:
                begun += 1
                try:
                    with signals.listening():
                        for _ in range(200):
                            len(str(begun))
                except Interrupted:
                    interrupted += 1
                followed += 1
        finally:
            stop.set()
            thread.join()
    assert begun == followed
    assert interrupted > 50


def test_a_signal_at_any_instruction_finds_the_watching_in_order() -> None:
    begun = set(threading.enumerate())
    for delay in range(60):
        with interrupts.raised(), contextlib.suppress(Interrupted), interrupts.deferred() as signals:
            timer = threading.Timer(delay * 0.00002, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            try:
                with signals.listening():
                    for _ in range(3):
                        with interrupts.watching(lambda: None):
                            pass
            finally:
                timer.join()
    assert set(threading.enumerate()) <= begun  # an earlier test's thread may have ended meanwhile


def test_watching_reaches_into_a_step_that_listens() -> None:
    with (
        interrupts.deferred() as signals,
        pytest.raises(EnvironmentFailure, match="it hangs"),
        signals.listening(),
        interrupts.watching(lambda: EnvironmentFailure("it hangs")),
    ):
        time.sleep(10)


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


def test_what_is_ignored_from_now_on_stays_ignored_after_the_block() -> None:
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        with interrupts.raised():
            interrupts.ignored()
            os.kill(os.getpid(), signal.SIGTERM)
        for signum in before:
            os.kill(os.getpid(), signum)  # would end the tests
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
