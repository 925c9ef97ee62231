"""Time and memory of what follows an hour at 500 purchases a second, before the trial is stored.

    python -m benchmarks.long_run [--seconds 3600] [--per-s 500] [--json FILE]

Three parts, each in a process of its own: k6's console read into ``acks.csv.gz``, the ledger read out of a real
PostgreSQL into ``ledger.csv.gz``, and the series and native histograms collected from a real Prometheus, which is
filled by remote write with what k6 and the sampler would have pushed. Prometheus's own memory is told too.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

PARTS: Final = ("console", "ledger", "collect")
_TRIAL: Final = "long-run"
_BATCH_S: Final = 60
_SERIES: Final = 150


def main() -> None:
    """Fill, measure each part in a child, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long_run", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--per-s", type=int, default=500)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw figures too")
    parser.add_argument("--part", choices=(*PARTS, "fill"), help=argparse.SUPPRESS)
    parser.add_argument("--told", default="{}", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.part:
        told = json.loads(asked.told)
        {"console": _console, "ledger": _ledger, "collect": _collect, "fill": _fill}[asked.part](told)
        return
    figures = _measure(asked.seconds, asked.per_s)
    print(f"{'part':<12}{'wall s':>10}{'CPU s':>10}{'memory MB':>12}")
    for name, cost in figures.items():
        print(f"{name:<12}" + "".join(f"{cost.get(key, float('nan')):>{w}.1f}" for key, w in _COLUMNS))
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=1) + "\n")


_COLUMNS: Final = (("wall_s", 10), ("cpu_s", 10), ("memory_mb", 12))


def _measure(seconds: int, per_s: int) -> dict[str, dict[str, float]]:
    from ticketbench.binaries import provide
    from ticketbench.stack.launch import Launcher, NoJournal
    from ticketbench.stack.postgres import PostgresServer
    from ticketbench.stack.servers import PrometheusServer, RedisServer

    binaries = provide()
    launcher = Launcher(f"benchmark-{os.getpid()}", NoJournal(), ends_with_us=True)
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="ticketbench-long-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        told: dict[str, Any] = {
            "folder": name,
            "seconds": seconds,
            "per_s": per_s,
            "start_s": time.time() - seconds - 60,
        }
        _write_console(folder, seconds * per_s)
        figures["console"] = _child("console", told)
        kinds = (("postgres", PostgresServer), ("redis", RedisServer), ("prometheus", PrometheusServer))
        servers: dict[str, Any] = {}
        try:
            for part, kind in kinds:
                (folder / part).mkdir()
                server = kind(getattr(binaries, part), folder / part, launcher, log=folder / f"{part}.log")
                servers[part] = server
                if isinstance(server, PostgresServer):
                    server.prepare()
                server.launch()
                server.await_ready()
            told |= {"postgres": servers["postgres"].dsn(), "redis": servers["redis"].url}
            _sell(told["postgres"], seconds * per_s)
            figures["ledger"] = _child("ledger", told)
            told["prometheus"] = servers["prometheus"].url
            _child("fill", told)
            filled_mb = _memory_mb(told["prometheus"])
            figures["collect"] = _child("collect", told)
            figures["Prometheus, filled"] = {"memory_mb": filled_mb}
            figures["Prometheus, asked"] = {"memory_mb": _memory_mb(told["prometheus"])}
        finally:
            for server in servers.values():
                server.stop()
    return figures


def _child(part: str, told: dict[str, Any]) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.long_run", "--part", part, "--told", json.dumps(told)]
    begun_s = time.monotonic()
    process = subprocess.Popen(command)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the part {part} ended with {process.returncode}")
    wall_s = time.monotonic() - begun_s
    return {"wall_s": wall_s, "cpu_s": used.ru_utime + used.ru_stime, "memory_mb": used.ru_maxrss / 1024}


def _memory_mb(url: str) -> float:
    """Return the resident memory that a Prometheus tells of itself, scraped from it directly."""
    import httpx

    text = httpx.get(f"{url}/metrics", trust_env=False).text
    return next(float(line.split()[1]) / 1e6 for line in text.splitlines() if line.startswith("process_resident_mem"))


# --- the parts --------------------------------------------------------------------------------------------------------


def _write_console(folder: Path, count: int) -> None:
    with (folder / "console.log").open("w") as file:
        for n in range(1, count + 1):
            ack = {"at": 1_790_000_000_000 + n, "match": n % 50 + 1, "key": f"run-001-main-{n}", "ticket": n}
            entry = {"level": "info", "msg": "ACK " + json.dumps(ack, separators=(",", ":")), "source": "console"}
            file.write(json.dumps({**entry, "time": "2026-11-22T15:40:42Z"}, separators=(",", ":")) + "\n")


def _console(told: dict[str, Any]) -> None:
    from ticketbench import k6
    from ticketbench.store import RunDirectory

    with (Path(told["folder"]) / "console.log").open() as lines:
        stored = RunDirectory(Path(told["folder"])).save_acks("001", k6.Console().acks(lines))
    if stored != told["seconds"] * told["per_s"]:
        raise RuntimeError(f"{stored} purchases were stored")


def _sell(dsn: str, count: int) -> None:
    import psycopg
    from psycopg.conninfo import make_conninfo

    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("CREATE DATABASE tickets")
    with psycopg.connect(make_conninfo(dsn, dbname="tickets"), autocommit=True) as sale:
        sale.execute("CREATE TABLE matches (id int PRIMARY KEY, capacity int, stock int, on_sale bool)")
        sale.execute("CREATE TABLE tickets (id bigint PRIMARY KEY, match_id int, idempotency_key text)")
        sale.execute("INSERT INTO matches SELECT n, 10000000, 0, true FROM generate_series(1, 50) n")
        sale.execute(
            "INSERT INTO tickets SELECT n, n %% 50 + 1, 'run-001-main-' || n FROM generate_series(1, %s::int) n",
            (count,),
        )


def _ledger(told: dict[str, Any]) -> None:
    from ticketbench.ledger import read_ledger
    from ticketbench.stack.protocol import DatabaseAccess
    from ticketbench.store import RunDirectory

    rows = read_ledger(DatabaseAccess(told["postgres"], told["redis"]))
    RunDirectory(Path(told["folder"])).save_ledger("001", rows)


def _collect(told: dict[str, Any]) -> None:
    from ticketbench import collect

    start_s, end_s = float(told["start_s"]), float(told["start_s"]) + told["seconds"]
    found = collect.collect(told["prometheus"], _TRIAL, "http://127.0.0.1:1", start_s, end_s, external=True)
    if len(found.histograms) < told["seconds"] or len(found.series.columns) < _SERIES:
        raise RuntimeError(f"{len(found.histograms)} histogram rows and {len(found.series.columns)} columns came back")


def _fill(told: dict[str, Any]) -> None:
    """Push an hour's series, oldest first, as k6 and the sampler do: one sample a second of each."""
    import httpx
    import snappy  # type: ignore[import-untyped]

    with httpx.Client(trust_env=False) as client:
        for body in _requests(float(told["start_s"]), int(told["seconds"]), float(told["per_s"])):
            answer = client.post(
                f"{told['prometheus']}/api/v1/write",
                content=snappy.compress(body),
                headers={"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"},
            )
            if answer.status_code >= 300:
                raise RuntimeError(f"Prometheus refused a push: {answer.text[:300]}")


def _requests(start_s: float, seconds: int, per_s: float) -> Iterator[bytes]:
    """Yield the bodies of remote-write requests (prometheus/prompb: remote.proto, types.proto)."""
    import numpy as np

    from benchmarks.synthesise import BUCKETS, FLOWS, draw

    rng = np.random.default_rng(1)
    totals = [np.cumsum(draw(rng, flow, per_s, seconds), axis=0) for flow in FLOWS if flow.scenario == "main"]
    labels = [_labels_of(flow) for flow in FLOWS if flow.scenario == "main"]
    for first in range(0, seconds, _BATCH_S):
        at = range(first, min(first + _BATCH_S, seconds))
        stamps = [round((start_s + second + 1) * 1000) for second in at]
        body = b""
        for total, of in zip(totals, labels, strict=True):
            counts = [total[second] for second in at]
            body += _timeseries(
                {"__name__": "k6_http_req_duration_seconds", **of},
                b"".join(_field(4, _histogram(BUCKETS, c, t)) for c, t in zip(counts, stamps, strict=True)),
            )
            done = zip((int(c.sum()) for c in counts), stamps, strict=True)
            body += _timeseries({"__name__": "k6_http_reqs_total", **of}, b"".join(_sample(n, t) for n, t in done))
        for n in range(_SERIES):
            name = {"__name__": f"tb_made_up_{n}_seconds_total", "job": "sampler"}
            body += _timeseries(name, b"".join(_sample(t % 10**7 / 1000 * (n + 1), t) for t in stamps))
        alive = {"__name__": "tb_sampler_ticks_total", "job": "sampler", "what": "proc"}
        yield body + _timeseries(alive, b"".join(_sample(t / 100, t) for t in stamps))


def _labels_of(flow: Any) -> dict[str, str]:
    told = {
        "error_code": flow.error,
        "expected_response": str(flow.expected).lower(),
        "method": flow.method,
        "name": flow.route,
        "scenario": flow.scenario,
        "status": flow.status,
        "trial": _TRIAL,
    }
    return {name: value for name, value in told.items() if value}


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def _signed(value: int) -> bytes:
    return _varint(2 * value if value >= 0 else -2 * value - 1)  # zigzag


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _double(number: int, value: float) -> bytes:
    import struct

    return _varint(number << 3 | 1) + struct.pack("<d", value)


def _sample(value: float, stamp_ms: int) -> bytes:
    return _field(2, _double(1, float(value)) + _varint(2 << 3) + _varint(stamp_ms))


def _timeseries(labels: dict[str, str], samples: bytes) -> bytes:
    pairs = (_field(1, _field(1, k.encode()) + _field(2, v.encode())) for k, v in sorted(labels.items()))
    return _field(1, b"".join(pairs) + samples)


def _histogram(indices: Any, counts: Any, stamp_ms: int) -> bytes:
    """Return a native histogram of schema 3, whose buckets are one span over all of ``indices``."""
    whole = [int(n) for n in counts]
    deltas = b"".join(_signed(n - before) for n, before in zip(whole, [0, *whole], strict=False))
    span = _varint(1 << 3) + _signed(int(indices[0])) + _varint(2 << 3) + _varint(len(whole))
    return (
        _varint(1 << 3) + _varint(sum(whole))
        + _double(3, 0.01 * sum(whole))
        + _varint(4 << 3) + _signed(3)
        + _double(5, 1e-128)
        + _varint(6 << 3) + _varint(0)
        + _field(11, span)
        + _field(12, deltas)
        + _varint(15 << 3) + _varint(stamp_ms)
    )  # fmt: skip


if __name__ == "__main__":
    main()
