"""One real k6 execution after another, against a small real server: what is counted, and what must not pass."""

import socket

import pytest

from tests.integration.k6_target import STEADY, Runs, Sale, failed, served
from ticketbench import k6_process, scenario

# --- the bundled scenarios ---


def test_smoke_passes_on_a_sale_that_works(runs: Runs, sale: Sale) -> None:
    outcome = runs.bundled("smoke")
    assert outcome.aborted is None
    assert outcome.result is not None
    assert (outcome.result.exit_code, outcome.result.messages) == (0, ())
    assert failed(outcome) == set()
    assert outcome.result.iterations == 3
    assert len(sale.tickets) == 3  # the same key twice is one ticket
    assert {ack.ticket_id for ack in runs.acks} == set(sale.tickets.values())
    assert runs.phases == [("window", None), ("drain", None)]


def test_smoke_fails_on_a_sale_that_sells_nothing(runs: Runs, sale: Sale) -> None:
    sale.stock = 0
    outcome = runs.bundled("smoke")
    assert outcome.aborted is None
    assert "checks{scenario:main}" in failed(outcome)
    assert runs.acks == []
    assert outcome.result is not None
    assert [text for text in outcome.result.messages if "not so: a purchase gives a ticket" in text and "409" in text]


def test_a_small_spike_sells_out_and_every_acknowledged_ticket_is_known(runs: Runs, sale: Sale) -> None:
    sale.stock = 60
    outcome = runs.bundled("spike", RATE="30", DURATION="4", HOT_SHARE="0.5")
    assert outcome.aborted is None
    assert failed(outcome) == set()  # a 409 after the sell-out is a right answer
    assert {ack.key: ack.ticket_id for ack in runs.acks} == sale.tickets
    assert {ack.key: ack.match_id for ack in runs.acks} == sale.matches
    assert len(sale.tickets) == 60
    before = {ack.match_id for ack in runs.acks if "-warmup-" in ack.key}
    during = {ack.match_id for ack in runs.acks if "-main-" in ack.key}
    assert before
    assert before <= set(range(11, 21))
    assert 1 in during
    assert during <= set(range(1, 11))
    assert all(key.startswith("run-001-") for key in sale.attempts)
    assert [name for name, _ in runs.phases] == ["warm-up", "window", "drain"]
    assert runs.phases[:2] == [("warm-up", 7.0), ("window", 4.0)]
    # The run directory keeps no acknowledged purchase twice, and nothing else was said.
    assert list((runs.folder / "logs").iterdir()) == []


def test_a_refused_purchase_is_tried_once_more_with_its_key(runs: Runs, sale: Sale) -> None:
    sale.refuse_first = True
    outcome = runs.own(
        f"""
        import {{ purchase }} from '{scenario.find("spike").parent}/lib/journeys.js';
        export const options = {{ iterations: 5 }};
        const params = {{ baseUrl: __ENV.BASE_URL }};
        export default function () {{ purchase(params, 3, `key-${{__ITER}}`); }}
        """
    )
    assert outcome.aborted is None
    assert sale.attempts == {f"key-{number}": 2 for number in range(5)}
    assert {ack.key: ack.ticket_id for ack in runs.acks} == sale.tickets
    assert len(sale.tickets) == 5


def test_a_purchase_that_is_accepted_is_asked_for_until_it_is_decided(runs: Runs, sale: Sale) -> None:
    sale.stock, sale.asks = 60, 2
    outcome = runs.bundled("spike", RATE="30", DURATION="4", HOT_SHARE="0.5", CHECKOUT="queue")
    assert outcome.aborted is None
    assert failed(outcome) == set()
    done = {ack.key: ack.ticket_id for ack in runs.acks if ack.ticket_id}
    assert done == sale.tickets
    assert {ack.key for ack in runs.acks if not ack.ticket_id} == set(sale.attempts)  # accepted, each once
    assert len(sale.tickets) == 60
    assert set(sale.asked.values()) == {3}
    assert outcome.result is not None
    purchase = "http_req_duration{scenario:main,name:purchase,expected_response:true}"
    [slo] = [threshold for threshold in outcome.result.thresholds if threshold.metric == purchase]
    assert slo.value is not None
    assert 50 < slo.value < 500  # the whole of it: three waits of 25 to 200 ms


def test_who_waits_too_long_for_a_decision_has_got_no_answer(runs: Runs, sale: Sale) -> None:
    sale.asks = 1_000_000
    outcome = runs.own(
        f"""
        import {{ purchase }} from '{scenario.find("spike").parent}/lib/journeys.js';
        export const options = {{
          vus: 3, iterations: 3, thresholds: {{ 'http_req_failed{{name:purchase}}': ['rate<0.5'] }},
        }};
        const params = {{ baseUrl: __ENV.BASE_URL }};
        export default function () {{ purchase(params, 3, `key-${{__VU}}`); }}
        """,
        CHECKOUT="queue",
    )
    assert failed(outcome) == {"http_req_failed{name:purchase}"}
    assert [ack.ticket_id for ack in runs.acks] == [0, 0, 0]
    assert all(5 < asked < 40 for asked in sale.asked.values())  # seldom enough, for 5 s


def test_arrivals_are_spread_and_the_same_for_the_same_seed(runs: Runs, sale: Sale) -> None:
    text = f"""
        import {{ JITTER_S, randomness, wantedMatch }} from '{scenario.find("spike").parent}/lib/arrivals.js';
        export const options = {{
          scenarios: {{ main: {{ executor: 'shared-iterations', vus: VUS, iterations: 2000, maxDuration: '30s' }} }},
        }};
        const params = {{ seed: __ENV.SEED, hotShare: 0.3 }};
        export default function () {{
          const random = randomness(params);
          console.log(`${{random().toFixed(6)}} ${{wantedMatch(params, random)}}`);
        }}
        """
    drawn = []
    for vus in ("1", "8"):
        runs.own(text.replace("VUS", vus))
        lines = (runs.folder / "logs" / k6_process.CONSOLE).read_text().splitlines()
        drawn.append(sorted(lines))
    assert drawn[0] == drawn[1]  # whichever virtual user runs an iteration
    numbers = sorted(float(line.split()[1]) for line in drawn[0])
    matches = [int(line.split()[2]) for line in drawn[0]]
    # Kolmogorov-Smirnov against uniform: 1.95 / sqrt(n) is its 0.1 % point; the draw is fixed by the seed.
    distance = max(abs(number - (rank + 0.5) / 2000) for rank, number in enumerate(numbers))
    assert distance < 1.95 / 2000**0.5
    assert 0.26 < matches.count(1) / 2000 < 0.34
    assert set(matches) == set(range(1, 11))


# --- counting ---


def test_the_offered_journeys_are_those_that_k6_starts_or_drops(runs: Runs) -> None:
    execution = runs.execution(
        runs.script(
            """
            import http from 'k6/http';
            import { sleep } from 'k6';
            export const options = {
              scenarios: {
                ramp: {
                  executor: 'ramping-arrival-rate', startRate: 1000, timeUnit: '10s', preAllocatedVUs: 15,
                  stages: [{ target: 4000, duration: '1s' }, { target: 4000, duration: '1s' },
                           { target: 500, duration: '1s' }],
                },
                flat: { executor: 'constant-arrival-rate', rate: 100, duration: '2s', preAllocatedVUs: 15,
                        startTime: '500ms' },
              },
            };
            export default function () { http.get(`${__ENV.BASE_URL}/health`); sleep(0.1); }
            """
        )
    )
    outcome = runs.run(execution)
    offered = sum((s.end_s - s.start_s) * (s.from_per_s + s.to_per_s) / 2 for s in execution.schedule.offered)
    assert offered == pytest.approx(250 + 400 + 225 + 200)
    assert outcome.result is not None
    assert outcome.result.dropped_iterations > 100  # 30 users for 10 journeys a second each
    assert outcome.result.iterations + outcome.result.dropped_iterations == pytest.approx(offered, rel=0.01)
    assert outcome.result.requests == outcome.result.iterations
    assert outcome.result.vus_max == 30
    assert outcome.result.trends_ms["http_req_duration"]["count"] == outcome.result.requests


def test_the_start_is_known_within_its_stated_bounds(runs: Runs, sale: Sale) -> None:
    outcome = runs.own(
        """
        import exec from 'k6/execution';
        export const options = {
          scenarios: { main: { executor: 'constant-arrival-rate', rate: 5, duration: '1s', preAllocatedVUs: 2 } },
        };
        export function setup() { const end = Date.now() + 300; while (Date.now() < end) { /* busy */ } }
        export default function () { console.log(`STARTED ${exec.scenario.startTime}`); }
        """
    )
    said = (runs.folder / "logs" / k6_process.CONSOLE).read_text().split()
    exactly_s = int(said[said.index("STARTED") + 1]) / 1000
    assert outcome.started_s is not None
    assert abs(outcome.started_s - exactly_s) <= outcome.started_within_s + 0.002  # k6 says whole milliseconds
    assert outcome.result is not None
    assert outcome.result.started_s == outcome.started_s
    assert outcome.result.ended_s >= outcome.started_s + 1


def test_a_journey_that_throws_is_told_without_folders(runs: Runs) -> None:
    outcome = runs.own(
        """
        export const options = { iterations: 3 };
        export default function () { null.price; }
        """
    )
    assert outcome.result is not None
    (message,) = outcome.result.messages
    assert message.startswith("TypeError: Cannot read property 'price'")
    assert message.endswith("(3 times)")
    assert str(runs.folder) not in (runs.folder / "logs" / k6_process.LOG).read_text()


# --- what must not pass ---


def test_a_dead_server_misses_its_slos(runs: Runs) -> None:
    with socket.socket() as bound:  # bound and not listening: refused
        bound.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{bound.getsockname()[1]}"
        outcome = runs.run(runs.execution(runs.script(STEADY % (20, 1)), base_url=dead))
    assert outcome.aborted is None
    assert outcome.result is not None
    assert outcome.result.exit_code == 99
    assert failed(outcome) == {"http_req_failed"}
    latency = {each.metric: each.value for each in outcome.result.thresholds}["http_req_duration{scenario:main}"]
    assert latency == 0  # the reason why failures must be an SLO of their own
    (message,) = outcome.result.messages[:1]
    assert "connection refused" in message
    assert "times)" in message


def test_no_script_reaches_another_address(runs: Runs) -> None:
    with served(Sale(), "127.0.0.2") as other:
        outcome = runs.own(
            f"""
            import http from 'k6/http';
            export const options = {{ iterations: 2, thresholds: {{ http_req_failed: ['rate==0.5'] }} }};
            export default function () {{
              http.get('{other}/health');
              http.get(`${{__ENV.BASE_URL}}/health`);
            }}
            """
        )
    assert failed(outcome) == set()
    assert outcome.result is not None
    assert [text for text in outcome.result.messages if "127.0.0.2" in text and "blacklisted" in text]
