"""The sampler's parts by themselves: counters, clock, the machine's remainder, statements, commands, the outbox."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ticketbench import sampler
from ticketbench.sampling import clock
from ticketbench.sampling.counters import Counters
from ticketbench.sampling.host import _AHEAD_S, Host
from ticketbench.sampling.postgres import shorten, wait_name
from ticketbench.sampling.push import Outbox, Rejected


def test_a_reset_source_goes_on_counting() -> None:
    counters: Counters[str] = Counters()
    for raw in (10.0, 14.0, 3.0, 5.0):
        counters.read("a", raw, baseline=True)
    assert counters["a"] == 4 + 3 + 2


def test_a_key_that_comes_up_later_has_counted_from_zero() -> None:
    counters: Counters[str] = Counters()
    counters.read("early", 100.0, baseline=True)
    counters.read("late", 7.0)
    assert (counters["early"], counters["late"], counters.sum()) == (0, 7, 7)


def test_a_source_made_anew_counts_whole_even_when_it_has_overtaken() -> None:
    counters: Counters[str] = Counters()
    counters.read("a", 10.0)
    counters.forget_raw()
    counters.read("a", 12.0)
    assert counters["a"] == 22


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_counters_never_fall(raws: list[float]) -> None:
    counters: Counters[str] = Counters()
    last = 0.0
    for raw in raws:
        counters.read("a", raw)
        assert counters["a"] >= last
        last = counters["a"]


class Time:
    """A clock that only waiting and ticking move; ``costs`` are the seconds that each tick takes."""

    def __init__(self, costs: list[float]) -> None:
        self.now_s = 100.0
        self.costs = costs
        self.ticks: list[float] = []

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return self.now_s + 0.25  # the wall clock's fraction is not the monotonic one's

    def tick(self) -> None:
        self.ticks.append(self.now_s)
        self.now_s += self.costs[len(self.ticks) - 1]

    def is_set(self) -> bool:
        return len(self.ticks) == len(self.costs)

    def wait(self, seconds: float) -> bool:
        self.now_s += seconds
        return self.is_set()


def run(time: Time, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    late: list[float] = []
    monkeypatch.setattr(clock, "time", time)
    clock.every(1.0, 0.85, time.tick, time, late.append)  # type: ignore[arg-type]
    return late


def test_ticks_keep_to_the_wall_clocks_phase_and_do_not_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time([0.1, 0.3, 0.0, 0.7])
    assert run(time, monkeypatch) == []
    assert time.ticks == pytest.approx([100.6, 101.6, 102.6, 103.6])


def test_what_was_missed_is_told_and_never_caught_up(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time([3.4, 0.0, 0.0])
    late = run(time, monkeypatch)
    assert time.ticks == pytest.approx([100.6, 104.0, 104.6])
    assert sum(late) == pytest.approx(2 + 0.4)


def test_others_never_fall_and_noise_hides_no_real_cpu() -> None:
    host = Host()
    values = []
    raw_s = 0.0
    for noise_s in (0.1, -0.1, 0.05, -0.15, 0.1) * 20:
        host._count_other(raw_s + noise_s)
        values.append(host.other_s)
    assert values == sorted(values)
    assert values[-1] <= 0.1
    for _ in range(100):  # the kernel's tick misses our short bursts for a while: the remainder drifts down
        raw_s -= 0.02
        host._count_other(raw_s)
    before_s = host.other_s
    for _ in range(30):
        raw_s += 0.5
        host._count_other(raw_s)
    assert host.other_s - before_s == pytest.approx(15, abs=_AHEAD_S + 0.01)


def test_the_machines_figures_are_read() -> None:
    host = Host()
    host.tick(0.0)
    host.tick(0.0)
    assert {mode for mode, _ in host.cpu_s.items()} == {
        "user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal",
    }  # fmt: skip
    assert all(0 <= value < 60 for _, value in host.cpu_s.items())


def test_statements_fit_on_a_label() -> None:
    assert shorten("SELECT /* who */ a,\n\t b -- why\nFROM t") == "SELECT a, b FROM t"
    long = shorten("SELECT " + "x, " * 200 + "y FROM t")
    assert len(long) == 120
    assert long.endswith("...")


def test_a_wait_has_one_name_in_every_version_of_postgresql() -> None:
    names = ("IO:WalSync", "IO:WalInitWrite", "IO:WALSync", "LWLock:WALWrite", "Lock:transactionid", "CPU")
    assert [wait_name(name) for name in names] == [
        "IO:WALSync", "IO:WALInitWrite", "IO:WALSync", "LWLock:WALWrite", "Lock:transactionid", "CPU"
    ]  # fmt: skip


def test_commands_and_configuration() -> None:
    assert sampler.parse_command('{"watch": {"component": "k6", "pid": 12}}\n') == ("k6", 12)
    assert sampler.parse_command('{"unwatch": "k6"}') == ("k6", None)
    for line in (
        "",
        "nonsense",
        "{}",
        "[1]",
        '{"watch": {"component": "k6"}}',
        '{"watch": {"component": 1, "pid": "x"}}',
    ):
        with pytest.raises(ValueError, match="not a command"):
            sampler.parse_command(line)
    told = {"prometheus_url": "http://h", "postgres_dsn": "", "redis_url": "", "components": [["app", 3]]}
    assert sampler.Configuration.parse(json.dumps(told)).components == (("app", 3),)


def test_a_broken_configuration_does_not_repeat_its_secrets() -> None:
    for line in ('{"postgres_dsn": "password=secret"', '{"postgres_dsn": "password=secret"}', "password=secret"):
        with pytest.raises(ValueError, match="configuration") as failure:
            sampler.Configuration.parse(line)
        assert "secret" not in str(failure.value)
        assert failure.value.__cause__ is None


class _Receiver(BaseHTTPRequestHandler):
    statuses: ClassVar[list[int]] = []
    sizes: ClassVar[list[int]] = []

    def do_POST(self) -> None:
        self.sizes.append(len(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.statuses.pop(0))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the base class's name
        pass


@pytest.fixture
def receiver() -> Iterator[str]:
    _Receiver.statuses.clear()
    _Receiver.sizes.clear()
    server = HTTPServer(("127.0.0.1", 0), _Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_a_server_could_not_take_goes_with_the_next_push(receiver: str) -> None:
    outbox = Outbox(receiver)
    _Receiver.statuses += [503, 204]
    outbox.put([("tb_first", (), 1.0)])
    with pytest.raises(ConnectionError):
        outbox.push()
    outbox.put([("tb_second_and_more_of_it", (("component", "app"),), 2.0)])
    outbox.push()
    assert outbox.failures == 1
    assert _Receiver.sizes[1] > _Receiver.sizes[0]
    outbox.push()  # nothing is left, so nobody is asked
    assert len(_Receiver.sizes) == 2
    outbox.close()


def test_what_a_server_refuses_is_not_sent_again(receiver: str) -> None:
    outbox = Outbox(receiver)
    _Receiver.statuses += [400]
    outbox.put([("tb_first", (), 1.0)])
    with pytest.raises(Rejected):
        outbox.push()
    outbox.push()
    assert (len(_Receiver.sizes), outbox.failures) == (1, 1)
    outbox.close()


def test_what_is_refused_in_one_piece_goes_apart_so_that_only_the_refused_part_is_lost(receiver: str) -> None:
    outbox = Outbox(receiver)
    _Receiver.statuses += [400, 400, 204, 204]
    for name in ("tb_known_already", "tb_new", "tb_newer"):
        outbox.put([(name, (), 1.0)])
    with pytest.raises(Rejected, match="1 of 3 batches"):
        outbox.push()
    outbox.push()
    assert len(_Receiver.sizes) == 4
    outbox.close()


def test_what_could_not_go_apart_waits_in_order(receiver: str) -> None:
    outbox = Outbox(receiver)
    _Receiver.statuses += [400, 204, 503, 204]
    for number in range(4):
        outbox.put([("tb_" + "x" * 40 * number, (), 1.0)])
    with pytest.raises(ConnectionError):
        outbox.push()
    outbox.push()
    assert [len(batch[0][0]) for _, batch in outbox._waiting] == []
    whole, first, failed, rest = _Receiver.sizes
    assert first < failed < rest < whole  # the one that failed and the last went together
    outbox.close()


def test_what_waits_is_bounded(receiver: str) -> None:
    outbox = Outbox(receiver)
    for _ in range(481):
        outbox.put([("tb_first", (), 1.0)])
    assert outbox.dropped_batches == 1
    _Receiver.statuses += [204]
    outbox.push()
    outbox.close()
