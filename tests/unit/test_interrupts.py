import os
import signal

import pytest

from ticketbench.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, Interrupted
from ticketbench.interrupts import Interrupts


@pytest.mark.parametrize(
    ("sent", "code"),
    [(signal.SIGINT, EXIT_INTERRUPTED), (signal.SIGTERM, EXIT_TERMINATED), (signal.SIGHUP, EXIT_TERMINATED)],
)
def test_a_signal_becomes_an_exception_with_its_exit_code(sent: signal.Signals, code: int) -> None:
    with Interrupts(), pytest.raises(Interrupted) as caught:
        os.kill(os.getpid(), sent)
    assert caught.value.exit_code == code


def test_a_shield_finishes_what_it_holds_and_raises_afterwards() -> None:
    done = []
    with Interrupts() as interrupts, pytest.raises(Interrupted) as caught:
        with interrupts.shielded():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            with interrupts.shielded():
                done.append("inner")
            done.append("outer")
        done.append("never")
    assert done == ["inner", "outer"]
    assert caught.value.exit_code == EXIT_TERMINATED


def test_an_exception_under_way_is_not_replaced_by_a_noted_signal() -> None:
    with Interrupts() as interrupts, pytest.raises(KeyError), interrupts.shielded():
        os.kill(os.getpid(), signal.SIGINT)
        raise KeyError


def test_the_handlers_that_were_there_come_back() -> None:
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with Interrupts():
        pass
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
