"""Each remedy in a whole run of the installed program, on local processes and in containers."""

import csv
import gzip
import html
import json
from pathlib import Path
from typing import Any

import pytest
from program import Program, columns

from ticketbench import paths
from ticketbench.binaries import look

pytestmark = pytest.mark.e2e

# Ten connections of each replica want more than the five that PostgreSQL has for them, and PgBouncer makes do with.
ALL = (
    "--set", "duration=5", "--set", "rate=60", "--set", "payment_ms=200", "--set", "replicas=2",
    "--set", "db_max_connections=15", "--set", "payment_failure_ratio=0.1",
    "--set", "pooler_size=5", "--set", "single_flight=on", "--set", "validate_in_loop=off",
    "--vary", "pooler=none,pgbouncer",
)  # fmt: skip
KINDS = ("ticket", "refused", "queued")
MEASURED = {0, 1, 3}  # how fast this machine is, and what else it does, is not the question


def rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt") as file:
        return list(csv.DictReader(file))


def grown(values: list[float]) -> float:
    return values[-1] - values[0]


def of_variants(path: Path) -> dict[str, dict[str, list[float]]]:
    """Return the columns of each variant's only trial."""
    found = {}
    for trial in sorted(path.glob("trials/*/trial.json")):
        name = json.loads(trial.read_text())["trial"]["variant"]
        found[name] = columns(path, trial.parent.name)
    return found


def whole(analysis: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the saturation of each variant; all of them sold, and sold no ticket twice."""
    for variant in analysis["variants"]:
        assert variant["integrity"]["status"] == "pass"
        assert variant["integrity"]["sold"] > 0
        # the provider was paid for every ticket, and has kept nothing else
        money = variant["integrity"]
        assert money["charged"] - money["refunded"] == money["sold"]
        assert (money["double_charged"], money["unpaid"], money["unrefunded"]) == (0, 0, 0)
    return {each["variant"]: each["signals"]["saturation"] for each in analysis["variants"]}


def check_both(path: Path, analysis: dict[str, Any]) -> None:
    """Look at a run with every remedy, without PgBouncer and with it."""
    usage = whole(analysis)
    assert all(each["signals"]["errors"]["answered"]["402"] > 0 for each in analysis["variants"])
    plain, pooled = (of_variants(path)[f"pooler={level}"] for level in ("none", "pgbouncer"))
    for series in (plain, pooled):
        shares = [grown(series[f"haproxy.requests{{server={name}}}"]) for name in ("app", "app-2")]
        assert min(shares) > 0.4 * sum(shares) > 0
        assert max(series["app.up"]) == 2
        assert series["pg.max_connections"][-1] == 15
        for component in ("app", "haproxy", "payment"):
            assert grown(series[f"cpu_s{{component={component}}}"]) > 0
        assert not [name for name in series if "component=app-2" in name]
        assert grown(series["payment.served_s"]) > 0
        assert grown(series["app.purchases{outcome=declined}"]) > 0
    refused = "app.purchases{outcome=max_connections}"
    assert grown(plain[refused]) > 0 == grown(pooled[refused])
    assert not [name for name in plain if "pgbouncer" in name]
    assert grown(pooled["pgbouncer.xacts"]) > 0
    assert set(pooled["pgbouncer.pool_size"]) == {5}
    assert grown(pooled["cpu_s{component=pgbouncer}"]) > 0
    assert 0 < usage["pooler=pgbouncer"]["pgbouncer"]["utilisation"] <= 1
    assert "pgbouncer" not in usage["pooler=none"]
    assert usage["pooler=none"]["haproxy_cpu"]["utilisation"] > 0
    record = json.loads((path / "run.json").read_text())
    assert {"pgbouncer", "haproxy"} <= {each["part"] for each in record["environment"]["binaries"]}
    page = (path / "report.html").read_text()
    assert "HAProxy CPU" in page
    assert "Double charged" in page


def test_a_queue_in_a_whole_run(program: Program) -> None:
    load = ("--set", "duration=5", "--set", "rate=60", "--set", "stock=150", "--set", "queue_workers=2")
    done = program("run", "spike", *load, "--vary", "checkout=sync,queue")
    assert done.code in MEASURED, done.err
    (path,) = program.runs()
    analysis = program.analysis()
    usage = whole(analysis)
    plain, queued = (of_variants(path)[f"checkout={level}"] for level in ("sync", "queue"))
    assert not [name for name in plain if "worker" in name]
    assert max(queued["worker.up"]) == 2
    done_by_workers = sum(grown(queued[f"worker.queue_tasks{{outcome={end}}}"]) for end in ("sold", "refused"))
    # the last scrapes of the two are up to a second apart
    assert done_by_workers == pytest.approx(grown(queued["app.purchases{outcome=queued}"]), abs=60)
    assert grown(queued["cpu_s{component=worker}"]) > 0
    assert 0 < usage["checkout=queue"]["queue_worker"]["utilisation"] <= 1
    assert "queue_worker" not in usage["checkout=sync"]
    for variant in analysis["variants"]:
        told = variant["signals"]
        assert variant["integrity"]["acknowledged"] == variant["integrity"]["sold"]
        assert told["errors"]["ratio"] == 0
        assert told["latency_s"]["p50"] > 0
        assert not [reason for reason in variant["validity"]["reasons"] if "counted" in json.dumps(reason)]
    [trial] = [file.parent for file in path.glob("trials/*/trial.json") if '"checkout=queue"' in file.read_text()]
    accepted = {row["key"] for row in rows(trial / "acks.csv.gz") if row["ticket_id"] == "0"}
    ended = {kind: {row["key"] for row in rows(trial / "ledger.csv.gz") if row["kind"] == kind} for kind in KINDS}
    assert accepted == ended["ticket"] | ended["refused"]
    assert not ended["ticket"] & ended["refused"]
    assert ended["refused"]
    assert not ended["queued"]
    assert "queue workers' CPU" in html.unescape((path / "report.html").read_text())


def test_every_remedy_in_a_whole_run(program: Program) -> None:
    done = program("run", "spike", *ALL)
    assert done.code in MEASURED, done.err
    (path,) = program.runs()
    check_both(path, program.analysis())
    logs = {log.name for log in path.glob("trials/*/logs/*.log")}
    assert "pgbouncer.log" in logs
    assert not program.alive()


def test_a_program_that_cannot_be_had_is_told_before_anything_starts(program: Program) -> None:
    there = look("haproxy").found
    if there is not None and not there.source.startswith("cache:"):
        pytest.skip("HAProxy is installed here: it can be had")
    cache = program.folder / "cache" / "binaries"
    cache.mkdir(parents=True)
    for folder in (paths.cache_dir() / "binaries").iterdir():
        if folder.is_dir() and not folder.name.startswith("haproxy"):
            (cache / folder.name).symlink_to(folder)
    nowhere = program.folder / "apt.conf"
    nowhere.write_text('Dir::Etc::sourcelist "/nonexistent"; Dir::Etc::sourceparts "/nonexistent";')
    elsewhere = {"TICKETBENCH_CACHE": str(cache.parent), "APT_CONFIG": str(nowhere)}
    done = program("run", "smoke", "--set", "replicas=2", **elsewhere)
    assert done.code == 4, done.err
    assert "haproxy: " in done.err
    assert "install haproxy 2.6 or newer and put it on PATH, or name it with TICKETBENCH_HAPROXY" in done.err
    assert not program.runs()


# --- in containers ----------------------------------------------------------------------------------------------------


@pytest.mark.xdist_group("docker")
def test_every_remedy_in_containers(in_docker: Program) -> None:
    done = in_docker("run", "spike", "--stack", "docker", *ALL)
    assert done.code in MEASURED, done.err
    (path,) = in_docker.runs()
    check_both(path, in_docker.analysis())


@pytest.mark.xdist_group("docker")
def test_an_image_that_cannot_be_had_is_told_before_anything_starts(in_docker: Program) -> None:
    missing = {"TICKETBENCH_IMAGE_PGBOUNCER": "ticketbench.invalid/no-such-image:1"}
    done = in_docker("run", "smoke", "--stack", "docker", "--set", "pooler=pgbouncer", **missing)
    assert done.code == 4, done.err
    assert "ticketbench.invalid/no-such-image:1" in done.err
    assert "TICKETBENCH_IMAGE_PGBOUNCER" in done.err
    assert not in_docker.runs()
