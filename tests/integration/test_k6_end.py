"""How a k6 execution ends, and what is kept of it: by itself, stopped, killed, interrupted, or before it begins."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.integration.k6_target import STEADY, Runs, Sale, alive, failed
from ticketbench import k6_process, load, scenario
from ticketbench.errors import EnvironmentFailure, Interrupted
from ticketbench.load import LoadInterrupted, run_load

# --- ends ---


def test_a_script_that_cannot_begin_is_told_in_k6s_words(runs: Runs) -> None:
    outcome = runs.own(
        """
        export function setup() { throw new Error('no till is open'); }
        export default function () {}
        """
    )
    assert outcome.aborted == "k6 ended with exit code 107: no till is open"
    assert outcome.result is not None
    assert (outcome.result.exit_code, outcome.result.iterations) == (107, 0)
    assert [text for text in outcome.result.messages if "no till is open" in text]


def test_a_script_that_ends_itself_was_not_carried_through(runs: Runs) -> None:
    outcome = runs.own(
        """
        import exec from 'k6/execution';
        export const options = { iterations: 1 };
        export default function () { exec.test.abort('enough'); }
        """
    )
    assert outcome.aborted is not None
    assert outcome.aborted.startswith("the script ended the test itself")
    assert "enough" in outcome.aborted


def test_an_abort_on_a_threshold_cuts_the_window_off(runs: Runs) -> None:
    text = (STEADY % (20, 30)).replace(
        "http_req_failed: ['rate<0.01']", "http_reqs: [{ threshold: 'count<10', abortOnFail: true }]"
    )
    outcome = runs.own(text)
    assert outcome.aborted is not None
    assert "of 30 s" in outcome.aborted
    assert "http_reqs" in outcome.aborted
    assert failed(outcome) == {"http_reqs"}


def test_a_reason_to_stop_ends_k6_and_keeps_what_it_did(runs: Runs, sale: Sale) -> None:
    execution = runs.execution(runs.script(STEADY % (20, 60)))
    outcome = runs.run(execution, lambda: "postgres died: exit status 1" if len(sale.arrivals) >= 10 else None)
    assert outcome.aborted == "postgres died: exit status 1"
    assert outcome.summary is not None
    assert outcome.result is not None
    assert outcome.result.exit_code == 105
    assert 10 <= outcome.result.requests < 20 * 60
    assert not alive(runs.pids[-1])


def test_a_reason_before_the_start_is_heard_as_well(runs: Runs) -> None:
    text = "export function setup() { for (;;) { /* hangs */ } }\nexport default function () {}"
    outcome = runs.run(runs.execution(runs.script(text)), lambda: "redis died")
    assert outcome.aborted == "redis died"
    assert outcome.started_s is None
    assert not alive(runs.pids[-1])


@pytest.mark.parametrize(("error", "signum"), [(Interrupted(15), 15), (KeyboardInterrupt(), 2)])
def test_an_interruption_carries_what_was_done(error: BaseException, signum: int, runs: Runs, sale: Sale) -> None:
    def interrupt_later() -> None:
        if len(sale.arrivals) >= 10:
            raise error

    with pytest.raises(LoadInterrupted) as raised:
        runs.run(runs.execution(runs.script(STEADY % (20, 60))), interrupt_later)
    assert isinstance(raised.value, Interrupted)
    assert raised.value.exit_code == 128 + signum
    outcome = raised.value.outcome
    assert outcome.aborted == raised.value.message
    assert outcome.result is not None
    assert outcome.result.requests >= 10
    assert not alive(runs.pids[-1])


def test_an_error_of_a_callback_leaves_no_k6_behind(runs: Runs) -> None:
    def broken(pid: int) -> None:
        runs.pids.append(pid)
        raise EnvironmentFailure("the sampler is gone")

    with pytest.raises(EnvironmentFailure, match="the sampler is gone"):
        run_load(
            runs.execution(runs.script(STEADY % (20, 60))),
            on_start=broken,
            on_phase=lambda name, expected_s: None,
            should_stop=lambda: None,
        )
    assert not alive(runs.pids[-1])


def test_a_killed_k6_leaves_its_acks_and_no_result(runs: Runs, sale: Sale) -> None:
    def kill_later() -> None:
        if len(sale.tickets) >= 40:  # the last ones are sold, and k6 has not come to log them
            os.kill(runs.pids[-1], signal.SIGKILL)

    outcome = runs.run(
        runs.execution(scenario.find("purchase"), {"RATE": "40", "DURATION": "60"}),
        kill_later,
    )
    assert outcome.aborted == "k6 was killed by SIGKILL"
    assert (outcome.result, outcome.summary) == (None, None)
    assert outcome.started_s is not None
    assert len(runs.acks) >= 10
    assert {ack.key: ack.ticket_id for ack in runs.acks}.items() <= sale.tickets.items()


def test_an_interrupt_from_outside_is_no_full_run(runs: Runs, sale: Sale) -> None:
    def interrupt_k6() -> None:
        if len(sale.arrivals) >= 10:
            os.kill(runs.pids[-1], signal.SIGINT)

    outcome = runs.run(runs.execution(runs.script(STEADY % (20, 60))), interrupt_k6)
    assert outcome.aborted == "k6 was interrupted from outside"


def test_an_overrun_is_stopped(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "DRAIN_LIMIT_S", 0.5)
    outcome = runs.own(
        """
        import { sleep } from 'k6';
        export const options = { scenarios: { main: {
          executor: 'constant-arrival-rate', rate: 2, duration: '1s', preAllocatedVUs: 4, gracefulStop: '100s',
        } } };
        export default function () { sleep(90); }
        """
    )
    assert outcome.aborted is not None
    assert "still running" in outcome.aborted
    assert outcome.result is not None
    assert not alive(runs.pids[-1])


def test_k6_dies_with_a_killed_parent(runs: Runs, tmp_path: Path) -> None:
    execution = runs.execution(runs.script(STEADY % (5, 60)))
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(
                """
                import sys
                from pathlib import Path
                from ticketbench import load, scenario
                k6, script, base_url, folder = sys.argv[1:]
                _, schedule = scenario.inspect((k6,), Path(script), {})
                execution = load.Execution(
                    (k6,), Path(script), {}, base_url, None, "t", 1, Path(folder), schedule)
                load.run_load(execution, on_start=lambda pid: print(pid, flush=True),
                              on_phase=lambda name, s: None, should_stop=lambda: None)
                """
            ),
            *(runs.k6_command[0], str(execution.script), runs.base_url, str(execution.folder)),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    deadline_s = time.monotonic() + 20
    while alive(pid) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert not alive(pid)


# --- before the start ---


def test_a_taken_port_is_left_to_its_owner(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = iter([taken.getsockname()[1], k6_process.free_port()])
        monkeypatch.setattr(load, "free_port", lambda: next(ports))
        outcome = runs.own(STEADY % (20, 1))
    assert outcome.aborted is None
    assert len(runs.pids) == 2
    assert outcome.result is not None
    assert outcome.result.iterations >= 20


def test_too_few_open_files_are_found_out_before_the_load(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    execution = runs.execution(scenario.find("spike"))
    monkeypatch.setattr(k6_process.resource, "getrlimit", lambda which: (256, 1024))
    with pytest.raises(EnvironmentFailure, match="1260 virtual users need 1360 open files"):
        runs.run(execution)
    assert runs.pids == []


def test_a_host_without_an_address_is_told(runs: Runs) -> None:
    execution = runs.execution(runs.script(STEADY % (20, 1)), base_url="http://nowhere.invalid")
    with pytest.raises(EnvironmentFailure, match=r"nowhere\.invalid"):
        runs.run(execution)


def test_a_k6_that_is_not_there_is_told(runs: Runs) -> None:
    execution = runs.execution(runs.script(STEADY % (20, 1)))
    gone = dataclasses.replace(execution, k6_command=(str(runs.folder / "no-k6"),))
    outcome = runs.run(gone)
    assert outcome.aborted is not None
    assert "no-k6" in outcome.aborted
    assert outcome.started_s is None
