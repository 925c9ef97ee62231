"""What k6 leaves behind, read in each of its formats."""

import json
from typing import Any

import pytest

from ticketbench import k6
from ticketbench.k6_process import addresses_of, everything_but
from ticketbench.ledger_rows import Ack
from ticketbench.model import Slo, Threshold, Thrown

LATENCY = "http_req_duration{scenario:main,name:purchase}"
SLOS = (Slo(metric=LATENCY, expression="p(95)<500"), Slo(metric="http_req_failed", expression="rate<0.01"))


def exported(*, slow: bool, failed: bool) -> dict[str, Any]:
    """As --summary-export writes it: a threshold's true means that it was crossed."""
    return {
        "metrics": {
            "http_reqs": {"count": 400, "rate": 10.5},
            "iterations": {"count": 200, "rate": 5.25},
            "dropped_iterations": {"count": 3, "rate": 0.1},
            "vus_max": {"value": 40, "min": 40, "max": 45},
            LATENCY: {"avg": 12.5, "med": 10.0, "p(95)": 620.5, "count": 200, "thresholds": {"p(95)<500": slow}},
            "http_req_failed": {"value": 0.25, "passes": 100, "fails": 300, "thresholds": {"rate<0.01": failed}},
        }
    }


def test_in_an_exported_summary_true_means_crossed() -> None:
    summary = k6.parse_summary(exported(slow=True, failed=False), SLOS)
    assert (summary.requests, summary.iterations, summary.dropped_iterations, summary.vus_max) == (400, 200, 3, 45)
    assert summary.thresholds == (
        Threshold(metric=LATENCY, expression="p(95)<500", ok=False, value=620.5),
        Threshold(metric="http_req_failed", expression="rate<0.01", ok=True, value=0.25),
    )
    assert summary.trends_ms == {LATENCY: {"avg": 12.5, "med": 10.0, "p(95)": 620.5, "count": 200.0}}


def test_in_a_handle_summary_ok_means_ok() -> None:
    raw = {
        "metrics": {
            LATENCY: {"type": "trend", "values": {"avg": 1, "p(95)": 2}, "thresholds": {"p(95)<500": {"ok": True}}},
            "http_req_failed": {"type": "rate", "values": {"rate": 1}, "thresholds": {"rate<0.01": {"ok": False}}},
        }
    }
    summary = k6.parse_summary(raw, SLOS)
    assert [(each.ok, each.value) for each in summary.thresholds] == [(True, 2.0), (False, 1.0)]


def machine_readable() -> dict[str, Any]:
    return {
        "version": "1.0.0",
        "metadata": {"generatedAt": "2026-11-22T12:00:00Z", "k6Version": "2.0.0"},
        "config": {"duration": 30.0, "execution": "local"},
        "results": {
            "checks": {},
            "metrics": [
                {"name": "http_reqs", "type": "counter", "contains": "default", "values": {"count": 400}},
                {"name": "iterations", "type": "counter", "contains": "default", "values": {"count": 200}},
                {"name": "vus_max", "type": "gauge", "contains": "default", "values": {"max": 7, "min": 7, "value": 7}},
                {"name": "http_req_failed", "type": "rate", "values": {"matches": 1, "total": 4, "rate": 0.25}},
                {"name": "http_req_duration", "type": "trend", "values": {"avg": 12.5, "p(95)": 40.0}},
            ],
        },
    }


@pytest.mark.parametrize(
    ("crossed", "expected"),
    [
        (frozenset(), [True, True]),
        (frozenset({"http_req_failed"}), [True, False]),
        (frozenset({LATENCY}), [False, True]),
        (None, [False, False]),  # k6 came to no verdict
    ],
)
def test_the_machine_readable_summary_takes_its_verdicts_from_the_log(
    crossed: frozenset[str] | None, expected: list[bool]
) -> None:
    summary = k6.parse_summary(machine_readable(), SLOS, crossed)
    assert [each.ok for each in summary.thresholds] == expected
    assert summary.thresholds[1].value == 0.25
    assert (summary.requests, summary.iterations, summary.dropped_iterations) == (400, 200, 0)
    assert (summary.vus_max, summary.version) == (7, "2.0.0")
    assert summary.trends_ms == {"http_req_duration": {"avg": 12.5, "p(95)": 40.0}}


def test_a_threshold_that_nothing_says_anything_about_is_missed() -> None:
    summary = k6.parse_summary({"metrics": {}}, SLOS, frozenset())
    assert [(each.ok, each.value) for each in summary.thresholds] == [(False, None), (False, None)]


def test_what_is_no_summary_is_refused() -> None:
    with pytest.raises(ValueError, match="neither"):
        k6.parse_summary({"something": "else"}, ())


def test_crossed_metrics_keep_the_commas_of_their_filters() -> None:
    said = f"thresholds on metrics '{LATENCY}, http_req_failed' have been crossed"
    assert k6.crossed_metrics(k6.Log([k6.LogLine("error", said)]), 99) == {LATENCY, "http_req_failed"}
    assert k6.crossed_metrics(k6.Log(), 0) == frozenset()
    assert k6.crossed_metrics(k6.Log(), 107) is None


def log_of(*entries: dict[str, str]) -> list[k6.LogLine]:
    return list(k6.read_log([json.dumps(entry) for entry in entries]))


def test_an_error_names_the_script_and_no_folder() -> None:
    said = "GoError: file:///home/somebody/tests/shop.js: Line 2:31 Unexpected token ;\n\tat file:///home/x/a.js:1:2\n"
    (line,) = log_of({"level": "error", "msg": said})
    assert line.text == "shop.js: Line 2:31 Unexpected token ;"
    assert k6.Log([k6.LogLine("warning", "first"), line]).first_error() == line.text


def test_a_list_of_problems_is_kept_whole() -> None:
    (line,) = log_of({"level": "error", "msg": "There were problems:\n\t- the rate isn't specified\n\t- no duration"})
    assert line.text == "There were problems: the rate isn't specified no duration"


def test_exceptions_of_iterations_are_told_from_what_else_was_said() -> None:
    def line(scenario: str, text: str, source: str = "stacktrace") -> str:
        said = f"{text}\n\tat default (file:///somewhere/else/t.js:3:59(8))\n"
        return json.dumps({"level": "error", "msg": said, "scenario": scenario, "source": source})

    lines = [line("main", f"Error: boom {n}") for n in range(5)]
    lines += [line("warmup", "TypeError: x is undefined"), line("main", "said", source="console")]
    lines += [json.dumps({"level": "error", "msg": "Error: down\n\tat teardown (t.js:6)", "hint": "script exception"})]
    assert k6.Log(k6.read_log(lines)).thrown() == (
        Thrown(scenario="main", iterations=5, first="boom 0"),
        Thrown(scenario="warmup", iterations=1, first="TypeError: x is undefined"),
    )


def test_messages_are_counted_and_not_repeated() -> None:
    log = log_of(
        {"level": "info", "msg": "hello"},
        {"level": "warning", "msg": "Request Failed", "error": "dial tcp 127.0.0.1:41234: connection refused"},
        {"level": "warning", "msg": "Request Failed", "error": "dial tcp 127.0.0.1:41299: connection refused"},
        {"level": "error", "msg": "boom"},
    )
    refused = "Request Failed: dial tcp 127.0.0.1:41234: connection refused"
    assert k6.messages(k6.Log(log)) == (f"{refused} (2 times)", "boom")
    many = [k6.LogLine("error", "e" * number) for number in range(1, 31)]
    assert len(k6.messages(k6.Log(many))) == k6.MAX_MESSAGES + 1
    assert k6.messages(k6.Log(many))[-1] == f"and {30 - k6.MAX_MESSAGES} more kinds of messages"


def test_a_panic_counts_as_an_error() -> None:
    assert (
        k6.Log(k6.read_log(["panic: runtime error", "goroutine 1 [running]:"])).first_error() == "panic: runtime error"
    )


def console(*texts: str) -> list[str]:
    return [json.dumps({"level": "info", "msg": text}) for text in texts]


def test_acks_are_told_from_other_lines_and_from_torn_ones() -> None:
    lines = console(
        'ACK {"at":1795362995949,"match":1,"key":"t-main-0","ticket":17}',
        "hello from file:///home/somebody/shop.js:3",
        'ACK {"at":1795362995950,"match":1}',
        "ACK nonsense",
    )
    torn = console('ACK {"at":1795362995951,"match":1,"key":"t-main-1","ticket":18}')[0][:60]
    found = k6.Console()
    assert list(found.acks([*lines, "", torn])) == [Ack(1795362995.949, 1, "t-main-0", 17)]
    assert found.malformed == 3
    assert found.said.content() == b"info: hello from shop.js:3\n"


@pytest.mark.parametrize("key", ["t-main-0", 'quo"te', "back\\slash", "tab\t", "é ü \u2028", "", "half \ud800"])
def test_the_quick_reading_of_a_purchase_is_the_slow_one(key: str) -> None:
    """k6's own line takes the one road, the same line with another order of its parts takes the other."""
    purchase = {"at": 1795362995949, "match": 3, "key": key, "ticket": 18}
    text = json.dumps(purchase, separators=(",", ":"), ensure_ascii=not key.isprintable())
    own = {"level": "info", "msg": f"ACK {text}", "source": "console", "time": "2026-11-22T15:40:42Z"}
    lines = [json.dumps(own, separators=(",", ":")) + "\n", json.dumps(dict(reversed(own.items())))]
    found = k6.Console()
    assert list(found.acks(lines)) == [Ack(1795362995.949, 3, key, 18)] * 2
    assert found.malformed == 0


def test_an_id_that_no_database_has_is_malformed() -> None:
    found = k6.Console()
    assert list(found.acks(console('ACK {"at":1,"match":1,"key":"k","ticket":99999999999999999999}'))) == []
    assert found.malformed == 1


def test_however_much_is_said_little_is_kept() -> None:
    log = k6.Log((k6.LogLine("warning", f"{'x' * (n % 2000)} failed") for n in range(20_000)), longest_bytes=5000)
    assert len(log.content()) <= 5000 + len(b"(cut off here)\n")
    assert log.content().endswith(b"\n(cut off here)\n")
    assert len(log.kinds) == k6.MAX_KINDS
    assert sum(count for _, count in log.kinds.values()) + log.others == 20_000
    assert k6.messages(log)[-1] == f"and at least {k6.MAX_KINDS - k6.MAX_MESSAGES} more kinds of messages"


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://10.1.2.3/path"])
def test_every_address_but_the_targets_is_forbidden(url: str) -> None:
    import ipaddress
    import random

    networks = [ipaddress.ip_network(text) for text in everything_but(addresses_of(url))]
    target = ipaddress.ip_address(url.split("/")[2].split(":")[0])

    def covered(address: str) -> bool:
        wanted = ipaddress.ip_address(address)
        return any(wanted in network for network in networks if network.version == wanted.version)

    assert not covered(str(target))
    assert covered(str(target + 1))
    assert covered(str(target - 1))
    assert covered("::1")
    assert covered("2001:db8::1")
    draw = random.Random(1)
    others = [str(ipaddress.IPv4Address(draw.getrandbits(32))) for _ in range(200)]
    assert all(covered(other) for other in others)
    assert sum(network.num_addresses for network in networks if network.version == 4) == 2**32 - 1
    assert sum(network.num_addresses for network in networks if network.version == 6) == 2**128


def test_an_ipv6_target_is_the_only_ipv6_address_left() -> None:
    import ipaddress

    networks = [ipaddress.ip_network(text) for text in everything_but(addresses_of("http://[::1]:8000"))]
    assert sum(network.num_addresses for network in networks if network.version == 6) == 2**128 - 1
    assert not any(ipaddress.ip_address("::1") in network for network in networks if network.version == 6)
    assert ipaddress.ip_network("0.0.0.0/0") in networks
