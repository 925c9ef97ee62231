"""Somebody else's system, measured by the installed program: the course project's kind of app and a real Prometheus."""

import http.server
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from program import Program, await_line

from tests.external_app.shop import Shop, running
from ticketbench.binaries import Binaries
from ticketbench.stack.launch import Launcher
from ticketbench.stack.servers import free_port

pytestmark = pytest.mark.e2e

APP = Path(__file__).parent.parent / "external_app"
SECRET = "open-sesame-42"
LOAD = (str(APP / "load.js"), "--stack", "external")
MAPPED = ("--prometheus-mapping", str(APP / "mapping.toml"))


@pytest.fixture
def shop(tmp_path: Path, binaries: Binaries, launcher: Launcher) -> Iterator[Shop]:
    with running(tmp_path, binaries, launcher, API_KEY=SECRET, PASSWORD_ROUNDS="400000") as started:
        yield started


def test_dead_routes_slow_log_in_and_unguarded_stock_are_in_the_report(program: Program, shop: Shop) -> None:
    program.env["TICKETBENCH_HEADERS"] = f"X-Api-Key: {SECRET}"
    run = program.start(
        "run", *LOAD, "--target", shop.url, "--prometheus", shop.prometheus.url, *MAPPED, "--set", "rate=60",
        "--set", "duration=6",
    )  # fmt: skip
    lines = await_line(run, "window")
    commands = list(program.processes().values())
    assert any("k6" in command and "BASE_URL" in command for command in commands)
    assert not any(SECRET in command for command in commands)
    out, err = run.communicate(timeout=120)
    assert run.returncode == 3, err

    (directory,) = program.runs()
    analysis = program.analysis()
    (variant,) = analysis["variants"]
    routes = {route["name"]: route for route in variant["routes"]}
    assert any("GET seats does not exist: 100 %" in reason for reason in variant["validity"]["reasons"])
    assert analysis["outcome"]["status"] == "invalid"
    assert set(routes["GET seats"]["by_status"]) == {"404"}
    slos = {slo["metric"]: slo for slo in variant["slos"]}
    assert not slos["http_req_duration{name:login}"]["ok"]
    assert not slos["sold_of_match_1"]["ok"]
    sold = slos["sold_of_match_1"]["values"][0]
    assert sold > 50  # seats
    assert slos["http_req_failed{name:buy}"]["ok"]  # the header was sent: without it every purchase is a 401

    # what the system itself says: where the time goes, and that it handed out what it does not have
    own = {signal["column"]: signal for signal in variant["own"]}
    assert own["app.duration_s{method=POST,route=/login}"]["value"] > 0
    assert own["resource.used{resource=seats_of_match_1}"]["most"] > 50
    assert not any("cpu_s" in column for column in own)  # this machine's own measurement of it is the better one
    assert variant["integrity"]["status"] == "not_audited"
    assert f"{sold - 50:.0f} more than there are" in variant["integrity"]["reasons"][0]
    assert variant["signals"]["saturation"]["app_cpu"]["utilisation"] > 0  # the process behind the port was found

    page = (directory / "report.html").read_text()
    for text in ("GET seats", "POST /login", "seats of match 1", "not audited", "sold_of_match_1"):
        assert text in page, text
    kept = [path for path in directory.rglob("*") if path.is_file()]
    assert not [path for path in kept if SECRET.encode() in path.read_bytes()]
    assert SECRET not in out + err + "".join(lines)
    record = json.loads((directory / "run.json").read_text())
    assert record["plan"]["external"]["headers"] == ["X-Api-Key"]
    assert "X-Api-Key" not in record["command"]  # the variable gives it again
    assert "TICKETBENCH_HEADERS gave X-Api-Key: set it first." in page
    assert "--header" not in err

    assert program("audit", str(directory)).code == 3  # nothing to audit settles nothing
    assert program("show", str(directory)).code == 3
    assert program("report", str(directory)).code == 0


def test_a_prometheus_that_dies_in_mid_run_takes_nothing_else_with_it(program: Program, shop: Shop) -> None:
    run = program.start(
        "run", *LOAD, "--target", shop.url, "--prometheus", shop.prometheus.url, "--set", "rate=30",
        "--set", "duration=4", "--header", f"X-Api-Key: {SECRET}",
    )  # fmt: skip
    await_line(run, "window")
    shop.prometheus.stop()
    _, err = run.communicate(timeout=120)
    assert run.returncode == 3, err
    (variant,) = program.analysis()["variants"]
    reasons = " ".join(variant["validity"]["reasons"])
    assert (
        "the system's own Prometheus did not answer, so its series are missing: the connection was refused" in reasons
    )
    assert shop.prometheus.url not in reasons
    assert variant["signals"]["latency_s"]["count"] > 0
    assert variant["own"] == []


def test_a_query_that_prometheus_refuses_is_told_before_any_load(program: Program, shop: Shop) -> None:
    (program.folder / "m.toml").write_text("samples = 'up'\n[[signal]]\ncolumn = 'app.inflight'\nquery = 'sum('\n")
    done = program(
        "run", *LOAD, "--target", shop.url, "--prometheus", shop.prometheus.url, "--prometheus-mapping", "m.toml"
    )
    assert done.code == 2
    assert "ticketbench: mapping m.toml: app.inflight: Prometheus refuses the query 'sum(': " in done.err
    assert "parse error" in done.err
    assert "pre-flight" not in done.err
    assert program.runs() == []
    assert not list(program.folder.glob("reports/*"))
    assert program.alive() == []


def test_a_system_that_is_down_is_one_message(program: Program) -> None:
    done = program("run", *LOAD, "--target", f"http://127.0.0.1:{free_port()}")
    assert done.code == 4
    assert "the target does not answer" in done.err
    assert done.err.count("ticketbench: ") == 1
    assert program.runs() == []
    assert program.alive() == []


def test_what_is_not_on_this_machine_is_refused_before_anything_starts(program: Program) -> None:
    done = program("run", *LOAD, "--target", "http://192.0.2.1", "--prometheus", "http://198.51.100.7:9090")
    assert done.code == 2
    assert "--target 'http://192.0.2.1' is not on this machine" in done.err
    assert "--prometheus 'http://198.51.100.7:9090' is not on this machine" in done.err
    assert "--allow-remote-target" in done.err
    assert "start" not in done.err


def test_every_fault_is_told_at_once_and_no_secret_with_it(program: Program) -> None:
    mapping = program.folder / "m.toml"
    mapping.write_text("samples = 'x'\n[[signal]]\ncolumn = 'nothing'\nquery = 'x'\n")
    done = program(
        "run", *LOAD, "--target", "127.0.0.1:1", "--prometheus", f"http://me:{SECRET}@127.0.0.1", "--header", SECRET,
        "--header", f"Bad Name: {SECRET}", "--prometheus-mapping", str(mapping), "--prometheus-selector", "shop",
        "--keep", "--trials", "0",
    )  # fmt: skip
    assert done.code == 2
    for text in (
        "--target '127.0.0.1:1' has no scheme",
        "--prometheus holds a user name or password",
        "--header (number 1) is not of the form 'Name: value'",
        "'Bad Name' is no header's name",
        "column = 'nothing' is not known: known are app.requests",
        "--prometheus-selector 'shop' is not a list of label matchers",
        "--keep has nothing to keep",
        "--trials '0'",
    ):
        assert text in done.err, text
    assert SECRET not in done.out + done.err


def test_only_the_load_can_be_varied_on_a_system_that_is_not_ours(program: Program) -> None:
    done = program("run", "smoke", "--stack", "external", "--target", "http://127.0.0.1:9", "--vary", "pool_size=2,5")
    assert done.code == 2
    assert "factor 'pool_size' cannot be had on the external stack: only on" in done.err
    done = program("run", "smoke", "--stack", "external", TICKETBENCH_TARGET="http://0.0.0.0:9")
    assert done.code == 2
    assert "TICKETBENCH_TARGET 'http://0.0.0.0:9' is an address to listen on" in done.err
    done = program("run", "smoke", "--stack", "local", "--target", "http://127.0.0.1:9")
    assert done.code == 2
    assert "--target belongs to --stack external (the stack is local)" in done.err


def test_the_starter_runs_as_written_and_is_never_overwritten(program: Program) -> None:
    assert program("init", "lt").code == 0
    plan = program.folder / "lt" / "plan.toml"
    again = program("init", "lt")
    assert again.code == 2
    assert again.err.count("is there already, and is left as it is") == 2
    (program.folder / "lt" / "lt.js").unlink()
    plan.write_text("mine")
    assert program("init", "lt").code == 2
    assert plan.read_text() == "mine"
    assert not (program.folder / "lt" / "lt.js").exists()
    assert program("init", "other").code == 0
    del program.env["TICKETBENCH_STACK"]  # the plan's own is the one that is tried
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        # another port than the plan's own, which somebody may have taken; and too short to be believed, to be quick
        address = f"http://127.0.0.1:{server.server_address[1]}"
        done = program("run", "--plan", "other/plan.toml", "--target", address, "--set", "duration=1", "--json")
        server.shutdown()
    assert done.code == 3
    assert "other (other.js: visitors at a steady rate)\n" in done.err
    warned, _, _ = done.err.partition("pre-flight")  # known before anything is sent
    assert "warning: the window is 1 s: too short for a steady scenario" in warned
    (variant,) = json.loads(done.out)["variants"]
    assert variant["signals"]["traffic"]["good"] > 0
    assert variant["signals"]["errors"]["ratio"] == 0
    assert any("too short for a steady scenario" in reason for reason in variant["validity"]["reasons"])
    (directory,) = program.runs()
    record = json.loads((directory / "run.json").read_text())
    assert record["plan"]["title"] == "other"
    assert record["command"] == f"ticketbench run --plan other/plan.toml --set duration=1 --target {address}"
    assert "<span>other</span>" in (directory / "report.html").read_text()


def test_a_target_that_dies_in_the_window_is_told_with_what_to_do(program: Program) -> None:
    (program.folder / "load.js").write_text(
        "import http from 'k6/http';\n"
        "export const options = { scenarios: { main: { executor: 'constant-arrival-rate', rate: 50, duration: '8s',"
        " preAllocatedVUs: 20 } } };\n"
        "export default () => http.get(__ENV.BASE_URL, { tags: { name: 'page' } });\n"
    )
    port = free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _await_port(port)
            run = program.start("run", "load.js", "--stack", "external", "--target", f"http://127.0.0.1:{port}")
            await_line(run, "window")
        finally:
            server.kill()
    _, err = run.communicate(timeout=120)
    assert run.returncode == 3, err
    (variant,) = program.analysis()["variants"]
    assert variant["validity"]["reasons"][0].startswith("the target stopped answering ")
    assert "connection refused" in variant["validity"]["reasons"][0]
    assert "next: start the system" in err
    assert "ticketbench doctor" not in err


def _await_port(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.05)
        else:
            return


class Silent(http.server.SimpleHTTPRequestHandler):
    """Serves the folder that the tests run in, and logs nothing."""

    def log_message(self, *_: object) -> None:
        return
