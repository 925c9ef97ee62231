"""The external stack on real servers: a real Prometheus that scrapes the course project's kind of app, and its end."""

import http.server
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.external_app.shop import Shop, running
from ticketbench import collect
from ticketbench.addresses import parse_address
from ticketbench.binaries import Binaries
from ticketbench.collecting.own import OwnSeries, add_own, await_own, require_answerable
from ticketbench.collecting.series import Frame
from ticketbench.errors import EnvironmentFailure, UsageError
from ticketbench.mapping import SeriesSource, find_mapping, read_mapping
from ticketbench.stack.external import System, ask
from ticketbench.stack.launch import Launcher
from ticketbench.stack.listener import listener
from ticketbench.stack.servers import free_port

pytestmark = pytest.mark.integration


def source_of(shop: Shop, mapping: str = "prometheus-fastapi-instrumentator", selector: str = "") -> SeriesSource:
    return SeriesSource(shop.prometheus.url, read_mapping(find_mapping("-", mapping)), selector, components_here=True)


@pytest.fixture(scope="module")
def shop(binaries: Binaries, launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with running(tmp_path_factory.mktemp("shop"), binaries, launcher, PASSWORD_ROUNDS="20000") as started:
        yield started


def read(shop: Shop, source: SeriesSource, asks: int) -> tuple[Frame, tuple[str, ...], OwnSeries]:
    """Send some requests between two times, as a load would, and read what the shop's own Prometheus has of them."""
    start_s = time.time()
    with httpx.Client(base_url=shop.url) as client:
        for _ in range(asks):
            client.get("/matches")
            client.get("/matches/1/seats")
        client.post("/login", json={"name": "alice", "password": "secret"})
    end_s = time.time()
    own = await_own(source, start_s, end_s)
    first = int(start_s) - 2
    frame = Frame(first, int(max(own.last_s, end_s)) + 2 - first, 1.0, 0.0)
    return frame, add_own(frame, source, own, end_s), own


def growth(frame: Frame, column: str) -> float:
    """What a counter grew by; one that appears on the way began at zero."""
    values = frame.pandas()[column].dropna()
    return float(values.iloc[-1] - (values.iloc[0] if values.index[0] == frame.time(0) else 0.0))


def test_the_bundled_mapping_reads_what_the_real_library_exports(shop: Shop) -> None:
    frame, said, own = read(shop, source_of(shop, selector='job="app"'), asks=20)
    columns = set(frame.columns)
    assert {"cpu_s{component=app}", "memory_bytes{component=app}"} <= columns
    assert growth(frame, "app.requests{method=GET,route=/matches,status=2xx}") == 20
    assert growth(frame, "app.requests{method=GET,route=none,status=4xx}") == 20  # the library's word for no route
    assert growth(frame, "app.duration_s{method=POST,route=/login}") > 0
    assert not any("/metrics" in column for column in columns)
    assert own.resolution_s == pytest.approx(1.0, abs=0.1)
    # it counts requests in progress only where it is told to: no weakness of the run, and what is missing is never 0
    assert said == ()
    assert "app.inflight" not in columns


def test_a_value_stands_only_where_it_was_sampled(shop: Shop) -> None:
    source = source_of(shop)
    frame, _, own = read(shop, source, asks=1)
    rows = {row for row in range(frame.rows) if any(0 <= frame.time(row) - scrape < 1 for scrape in own.scrapes_s)}
    kept = frame.pandas()["memory_bytes{component=app}"].dropna()
    assert set(kept.index) <= {frame.time(row) for row in rows | {0}}
    assert len(kept) >= 2


def test_a_query_that_fails_is_named_and_the_others_are_asked(shop: Shop, tmp_path: Path) -> None:
    mapping = tmp_path / "m.toml"
    mapping.write_text(
        "samples = 'http_request_duration_highr_seconds_count{$selector}'\n"
        "[[signal]]\ncolumn = 'app.inflight'\nquery = 'sum('\n"
        "[[signal]]\ncolumn = 'app.pool_max'\nquery = 'no_such_metric'\n"
        "[[resource]]\nname = 'seats'\nused = 'sum(tickets_sold{match=\"1\"})'\ncapacity = 7\n"
    )
    frame, said, _ = read(shop, source_of(shop, str(mapping)), asks=1)
    assert said[0].startswith("app.inflight is missing: the system's own Prometheus refused its query:")
    assert said[1] == "app.pool_max is missing: its query gave nothing in the trial's time"
    series = frame.pandas()
    assert set(series["resource.used{resource=seats}"].dropna()) == {0.0}
    assert set(series["resource.capacity{resource=seats}"].dropna()) == {7.0}


def test_each_query_is_asked_before_the_load_and_the_refused_ones_are_told_in_prometheus_own_words(
    shop: Shop, tmp_path: Path
) -> None:
    mapping = tmp_path / "m.toml"
    mapping.write_text(
        "samples = 'http_requests_total{$selector}'\n"
        "[[signal]]\ncolumn = 'app.inflight'\nquery = 'sum('\n"
        "[[signal]]\ncolumn = 'app.pool_max'\nquery = 'no_such_metric'\n"
        "[[signal]]\ncolumn = 'app.requests'\nquery = 'http_requests_total[1m]'\n"
        "[[resource]]\nname = 'seats'\nused = 'sum(tickets_sold) by by'\ncapacity = 7\n"
    )
    with pytest.raises(UsageError) as caught:
        require_answerable(source_of(shop, str(mapping)))
    told = caught.value.problems
    assert [problem.partition(": Prometheus refuses the query ")[0] for problem in told] == [
        "mapping m.toml: app.inflight",
        "mapping m.toml: app.requests",
        "mapping m.toml: resource.used{resource=seats}",
    ]
    assert told[0].partition("the query ")[2].startswith("'sum(': ")
    assert "parse error: unclosed left parenthesis" in told[0]
    assert "range vector" in told[1]
    assert not any("HTTP" in problem or "errorType" in problem for problem in told)


def test_what_merely_gives_nothing_can_be_asked_and_who_does_not_answer_stops_no_run(shop: Shop) -> None:
    assert require_answerable(source_of(shop)) == ""
    said = require_answerable(source_of(shop, selector='job="another"'))
    assert said.startswith("the system's own Prometheus has no sample now of what --prometheus-selector chooses")
    nobody = SeriesSource(f"http://127.0.0.1:{free_port()}", source_of(shop).mapping, "", components_here=True)
    said = require_answerable(nobody)
    assert "does not answer: the connection was refused; the run goes on without its series" in said
    assert "127.0.0.1" not in said
    no_prometheus = SeriesSource(shop.url, source_of(shop).mapping, "", components_here=True)
    assert "does not answer" in require_answerable(no_prometheus)


def test_a_selector_that_finds_nothing_is_said(shop: Shop) -> None:
    frame, said, _ = read(shop, source_of(shop, selector='job="another"'), asks=0)
    assert len(said) == 1
    assert "has no sample of what --prometheus-selector chooses" in said[0]
    assert not list(frame.columns)


def test_without_a_prometheus_the_rest_is_collected(shop: Shop, prometheus_url: str) -> None:
    nobody = SeriesSource(f"http://127.0.0.1:{free_port()}", source_of(shop).mapping, "", components_here=True)
    collected = collect.collect(
        prometheus_url, "none", shop.url, time.time() - 3, time.time(), external=True, source=nobody
    )
    (said,) = collected.own
    assert "did not answer, so its series are missing: the connection was refused" in said
    assert "127.0.0.1" not in said
    assert "k6.requests" in collected.missing
    assert "app.up" not in collected.missing


def test_the_process_behind_a_port_is_found(shop: Shop) -> None:
    assert listener(int(shop.url.rpartition(":")[2])) == shop.pid
    assert listener(free_port()) is None


def test_the_clock_of_the_other_side_is_compared_and_its_offset_taken_out(shop: Shop) -> None:
    start_s = time.time()
    own = await_own(source_of(shop), start_s, start_s)
    assert abs(own.offset_s) < 1
    ahead = OwnSeries(tuple(at_s + 40 for at_s in own.scrapes_s), 40.0)
    assert ahead.last_s == pytest.approx(own.last_s, abs=1)
    frame = Frame(int(start_s) - 2, 4, 1.0, 0.0)
    assert "is 40.0 s ahead of this machine's" in add_own(frame, source_of(shop), ahead, start_s)[0]


def test_the_preflight_is_one_request_with_the_headers(shop: Shop) -> None:
    target = parse_address("--target", shop.url, [])
    assert target is not None
    assert ask(System(target, {"X-Api-Key": "k"}), "/matches") == 200
    assert ask(System(target), "/no-such-path") == 404  # any answer will do
    gone = parse_address("--target", f"http://127.0.0.1:{free_port()}", [])
    assert gone is not None
    with pytest.raises(EnvironmentFailure, match=r"does not answer: .*refused"):
        ask(System(gone), "")


class Fine(http.server.BaseHTTPRequestHandler):
    """Answers everything with 200, and logs nothing."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


class Quiet(http.server.ThreadingHTTPServer):
    """A client that goes away in the handshake is what is tested, and no trace is printed of it."""

    def handle_error(self, *_: object) -> None:
        return


def certificate(folder: Path, name: str) -> Path:
    """Make a self-signed certificate for an address or host; the key is in the same file."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing, which makes the certificate")
    both = folder / "both.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=shop", "-addext", f"subjectAltName={name}", "-keyout", folder / "key.pem",
         "-out", folder / "certificate.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    both.write_bytes((folder / "key.pem").read_bytes() + (folder / "certificate.pem").read_bytes())
    return both


@contextmanager
def https(both: Path) -> Iterator[System]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    with Quiet(("127.0.0.1", 0), Fine) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        target = parse_address("--target", f"https://127.0.0.1:{server.server_address[1]}", [])
        assert target is not None
        try:
            yield System(target)
        finally:
            server.shutdown()


def test_a_certificate_that_k6_would_refuse_is_told_before_the_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with https(certificate(tmp_path, "IP:127.0.0.1")) as system:
        with pytest.raises(EnvironmentFailure, match=r"certificate is not trusted: self.signed certificate$") as caught:
            ask(system, "")
        assert "insecureSkipTLSVerify: true" in caught.value.hint
        assert "SSL_CERT_FILE" in caught.value.hint
        assert ask(system, "", any_certificate=True) == 200
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        assert ask(system, "") == 200


def test_a_certificate_of_another_host_is_refused_without_naming_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with https(certificate(tmp_path, "DNS:shop.example")) as system:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        with pytest.raises(EnvironmentFailure, match=r"not trusted: .*mismatch.*'<target>'"):
            ask(system, "")
