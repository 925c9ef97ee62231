"""The sale as processes: a supervisor, its workers on one socket, their metrics, and every way they may end."""

import asyncio
import os
import signal
import socket
import subprocess
import threading
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.integration.target_processes import COMMAND, DEADLINE_S, HTTP, Serve, Site, alive, until

GUARDED = ("pessimistic", "optimistic", "atomic", "redis")


async def rush(url: str, buyers: int) -> Counter[int]:
    """Have sixty buyers at a time ask for the hot match until each has an answer; return the answers by status."""
    waiting = list(range(buyers))
    answers: Counter[int] = Counter()

    async def queue(client: httpx.AsyncClient) -> None:
        while waiting:
            buyer = f"buyer-{waiting.pop()}"
            status = 503
            while status == 503:
                answer = await client.post(
                    "/matches/1/purchases", headers={"Idempotency-Key": buyer}, json={"buyer": buyer}
                )
                status = answer.status_code
            answers[status] += 1

    async with httpx.AsyncClient(base_url=url, limits=httpx.Limits(max_connections=60), timeout=DEADLINE_S) as client:
        await asyncio.gather(*(queue(client) for _ in range(60)))
    return answers


@pytest.mark.parametrize(
    "levels",
    [
        *({"locking": locking, "payment_ms": "1"} for locking in GUARDED),
        {"data_layer": "asyncpg", "round_trips": "fewest", "purchase_route": "lean"},
    ],
    ids=[*GUARDED, "fastest"],
)
def test_several_workers_sell_to_the_last_ticket_and_count_it_right(
    serve: Serve, site: Site, levels: dict[str, str]
) -> None:
    served = serve(workers=2, stock="70", pool_size="5", pool_timeout_s="30", **levels)
    assert asyncio.run(rush(served.url, 300)) == {201: 70, 409: 230}
    assert site.sold() == 70
    assert served.total('target_purchases_total{outcome="sold"}') == 70
    assert served.total('target_purchases_total{outcome="sold_out"}') == 230
    route = 'route="/matches/{match_id}/purchases"'
    assert served.total(f'target_requests_total{{method="POST",{route},status="201"}}') == 70
    assert served.total(f'target_request_seconds_bucket{{le="+Inf",{route}}}') >= 300
    assert served.total("target_inflight") == 0
    assert served.total("target_pool_size") == 10
    assert served.total("target_pool_checked_out") == served.total("target_pool_waiters") == 0
    assert served.total("target_pool_checkouts_total") >= 300
    assert served.total("target_loop_cpu_seconds_total") > 0
    assert served.total("process_cpu_seconds_total") >= served.total("target_loop_cpu_seconds_total") / 2


def test_several_workers_without_a_guard_oversell(serve: Serve, site: Site) -> None:
    served = serve(workers=2, locking="none", stock="30", payment_ms="2", pool_timeout_s="30")
    sold = asyncio.run(rush(served.url, 200))[201]
    assert sold == site.sold() > 30


def test_it_takes_over_a_socket_that_listens(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        served = serve(ready=False, pass_fd=listening.fileno())
        served.port = listening.getsockname()[1]
        served.await_ready()
        assert HTTP.get(f"{served.url}/matches/1").json()["id"] == 1


def test_metrics_answer_while_the_loop_is_blocked(serve: Serve) -> None:
    served = serve(validate_cost="5000000")
    blocked = threading.Thread(target=HTTP.post, args=(f"{served.url}/tickets/SEED-000001/validation",))
    blocked.start()
    until(lambda: served.total("target_loop_lag_max_seconds") > 0.1, "the lag of a blocked loop")
    blocked.join()
    stage = 'target_stage_seconds_total{route="/tickets/{code}/validation",stage="cpu"}'
    until(lambda: served.total(stage) > 0.1, "the seconds of hashing")


def test_a_folder_of_the_same_name_does_not_take_the_packages_place(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "target_app").mkdir()
    (tmp_path / "target_app" / "__main__.py").write_text("raise SystemExit('the wrong one')")
    (tmp_path / "target_app" / "__init__.py").write_text("")
    monkeypatch.chdir(tmp_path)
    served = serve()
    assert HTTP.get(f"{served.url}/health").status_code == 200


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_after_the_purchases_under_way(serve: Serve, site: Site, signum: signal.Signals) -> None:
    served = serve(workers=2, payment_ms="1500", payment="in_transaction")
    answers: list[httpx.Response] = []

    def buy() -> None:
        answers.append(
            HTTP.post(f"{served.url}/matches/1/purchases", headers={"Idempotency-Key": "k"}, json={"buyer": "ann"})
        )

    buying = threading.Thread(target=buy)
    buying.start()
    until(lambda: served.total("target_pool_checked_out") == 1, "a purchase that pays")
    served.process.send_signal(signum)
    assert served.ended() == (0, "")
    buying.join()
    assert [answer.status_code for answer in answers] == [201]
    assert site.sold() == 1
    assert not any(alive(pid) for pid in served.workers)
    with pytest.raises(httpx.ConnectError):
        HTTP.get(served.url)


def test_a_worker_that_dies_takes_the_others_with_it(serve: Serve) -> None:
    served = serve(workers=2)
    os.kill(served.workers[1], signal.SIGKILL)
    assert served.ended() == (1, "target_app: worker 2 was killed by SIGKILL: stopped all\n")
    assert not any(alive(pid) for pid in served.workers)


def test_workers_die_with_their_supervisor(serve: Serve) -> None:
    served = serve(workers=2)
    served.process.kill()
    until(lambda: not any(alive(pid) for pid in served.workers), "the workers' end")


def test_a_worker_without_its_supervisor_does_not_start(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ended = subprocess.run(
            [*COMMAND, "worker", "--fd", str(listening.fileno()), "--metrics-port", "0", "--parent", "1"],
            env=site.environment,
            pass_fds=(listening.fileno(),),
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_S,
        )
    assert (ended.returncode, ended.stderr) == (1, "target_app: the supervisor is gone\n")


# --- refusing ---------------------------------------------------------------------------------------------------------
