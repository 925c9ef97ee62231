"""The process of one k6 execution: its command line, its environment, its end."""

import contextlib
import http.client
import ipaddress
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

from ticketbench import isolation
from ticketbench.descriptors import OTHER_FILES
from ticketbench.errors import EnvironmentFailure
from ticketbench.model import Schedule, Slo

# "url" is left out on purpose (one series for each address otherwise): requests are told apart by "name".
SYSTEM_TAGS: Final = "proto,subproto,status,method,name,error_code,expected_response,scenario"
TREND_STATS: Final = "avg,min,med,max,p(90),p(95),p(99),count"

# On one core k6 needs half the CPU for a request below about 1500 requests/s, and falls behind above (measured). A
# journey makes about two requests, and a busier script must not be hurt, so one core is for less than a third of that.
ONE_CORE_BELOW_PER_S: Final = 500.0

STOP_LIMIT_S: Final = 4.0  # between SIGINT and SIGKILL: enough for teardown and summary

# Where a user's own certificate authorities are, for a target with https.
CERTIFICATES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")

LOG: Final = "k6.log"
CONSOLE: Final = "k6-console.log"
SUMMARY: Final = "k6-summary.tmp.json"

_Network = TypeVar("_Network", ipaddress.IPv4Network, ipaddress.IPv6Network)


@dataclass(frozen=True)
class Execution:
    """What k6 is to do. ``folder`` gets its logs; ``prometheus_url`` None: no series are pushed.

    ``env`` are the load parameters (:func:`ticketbench.scenario.load_env`); BASE_URL, TRIAL and SEED are added here.
    ``trial_id`` must be unique for ever: it labels the series and begins each idempotency key. ``slos`` are needed for
    a k6 whose summary does not repeat them.

    ``addresses`` are the only IP addresses that k6 may reach; empty: those of ``base_url``'s host. ``headers`` may hold
    secrets: they reach the script as ``__ENV.HEADERS`` (JSON) through k6's environment, never its command line, and
    their values are blotted out of whatever is kept of its logs.
    """

    k6_command: Sequence[str]
    script: Path
    env: Mapping[str, str]
    base_url: str
    prometheus_url: str | None
    trial_id: str
    seed: int
    folder: Path
    schedule: Schedule
    slos: tuple[Slo, ...] = ()
    addresses: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class Child:
    """A running k6."""

    def __init__(self, execution: Execution, port: int) -> None:
        self.execution = execution
        self.port = port
        self.launched_s = time.time()
        for name in (LOG, CONSOLE, SUMMARY):
            (execution.folder / name).unlink(missing_ok=True)
        words = [*_tied_to_us(), *execution.k6_command, *_arguments(execution, port)]
        try:
            with (execution.folder / LOG).open("wb") as log:
                self.process = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    env=_environment(execution),
                    start_new_session=True,  # a Ctrl-C on the terminal is ours to pass on
                )
        except OSError as error:
            raise EnvironmentFailure(
                f"k6 cannot be started: {error.strerror}", "set TICKETBENCH_K6 to a k6 that works here"
            ) from error

    def ended(self, wait_s: float) -> bool:
        """Wait for up to ``wait_s`` and return whether k6 has ended."""
        try:
            self.process.wait(wait_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def status(self) -> int | None:
        """Return k6's execution status; 0 while nobody listens at its API (k6 opens that first), None if unknown."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
        try:
            connection.request("GET", "/v1/status")
            answer = json.loads(connection.getresponse().read())
            return int(answer["data"]["attributes"]["status"])
        except ConnectionRefusedError:
            return 0
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
            return None  # transient: it is asked again, and the process itself tells when it has ended
        finally:
            connection.close()

    def stop(self) -> None:
        """Have k6 end and sum up; kill it where that takes longer than STOP_LIMIT_S."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)  # one that was stopped would not hear the next
            self.process.send_signal(signal.SIGINT)
        if not self.ended(STOP_LIMIT_S):
            self.kill()

    def kill(self) -> None:
        """Make sure that k6 is gone. Idempotent."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def _tied_to_us() -> tuple[str, ...]:
    """Return what k6's command begins with, so that it never outlives us.

    If we were killed before the kernel was told, k6 would have got another parent by then, and nobody would end it: so
    the shell looks again before it becomes k6. Its text is fixed; what is to be run comes as arguments.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return ()
    look_again = '[ "$PPID" = "$0" ] || exit 1; exec "$@"'
    return (setpriv, "--pdeathsig", "KILL", "--", "/bin/sh", "-c", look_again, str(os.getpid()))


def _arguments(execution: Execution, port: int) -> list[str]:
    told = {
        **execution.env,
        "BASE_URL": execution.base_url,
        "TRIAL": execution.trial_id,
        "SEED": str(execution.seed),
    }
    words = ["run", "-q", "--no-usage-report", "--no-color"]
    # a script sees what -e tells it and nothing of our environment; with headers also the few variables we give k6
    words.append(f"--include-system-env-vars={'true' if execution.headers else 'false'}")
    words += ["--address", f"127.0.0.1:{port}", "--log-format", "json"]
    words += ["--summary-export", str(execution.folder / SUMMARY), "--summary-trend-stats", TREND_STATS]
    words += ["--console-output", str(execution.folder / CONSOLE)]
    words += ["--system-tags", SYSTEM_TAGS, "--tag", f"trial={execution.trial_id}"]
    if execution.prometheus_url:
        words += ["--out", "experimental-prometheus-rw"]
    for network in everything_but(execution.addresses or addresses_of(execution.base_url)):
        words += ["--blacklist-ip", network]
    for name, value in told.items():
        words += ["-e", f"{name}={value}"]
    return [*words, str(execution.script)]


def _environment(execution: Execution) -> dict[str, str]:
    """Return k6's own environment. Without HOME it leads to no settings of the user's; the headers are its secret."""
    env = {"PATH": os.environ.get("PATH", os.defpath), "K6_NEW_MACHINE_READABLE_SUMMARY": "false"}
    if execution.base_url.startswith("https://"):
        env |= {name: os.environ[name] for name in CERTIFICATES if name in os.environ}
    if execution.headers:
        env["HEADERS"] = json.dumps(dict(execution.headers))
    if execution.prometheus_url:
        env |= {
            "K6_PROMETHEUS_RW_SERVER_URL": f"{execution.prometheus_url.rstrip('/')}/api/v1/write",
            "K6_PROMETHEUS_RW_PUSH_INTERVAL": "1s",
            "K6_PROMETHEUS_RW_TREND_AS_NATIVE_HISTOGRAM": "true",
            "K6_PROMETHEUS_RW_STALE_MARKERS": "true",
        }
    if (cores := held_to_cores(execution.schedule)) is not None:
        env["GOMAXPROCS"] = str(cores)
    return env


def held_to_cores(schedule: Schedule) -> int | None:
    """Return how many cores k6 is held to under this load and where ticketbench is pinned; None: all there are."""
    if 0 < _peak_per_s(schedule) < ONE_CORE_BELOW_PER_S:
        return 1
    allowed = len(os.sched_getaffinity(0))  # k6 inherits it, and Go counts its cores by it
    return allowed if allowed < len(isolation.CORES) else None


def _peak_per_s(schedule: Schedule) -> float:
    """Return a rate that the offered one never exceeds; 0 for a closed model."""

    def top(start_s: float, end_s: float) -> float:
        return sum(max(s.from_per_s, s.to_per_s) for s in schedule.offered if s.start_s < end_s and s.end_s > start_s)

    return max((top(slope.start_s, slope.end_s) for slope in schedule.offered), default=0.0)


def addresses_of(url: str) -> tuple[str, ...]:
    """Return the IP addresses of the host in ``url``. Raises EnvironmentFailure for a host that has none."""
    host = urlsplit(url).hostname or ""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError as error:
        raise EnvironmentFailure(f"the target's host {host!r} has no address: {error.strerror}") from error
    return tuple(sorted(str(address).partition("%")[0] for address in found))


def foreign_hosts(execution: Execution) -> tuple[str, ...]:
    """Return the names and addresses of the target's host, longest first; none where it is this machine's loopback."""
    addresses = execution.addresses
    if all(ipaddress.ip_address(address).is_loopback for address in addresses):
        return ()
    host = urlsplit(execution.base_url).hostname or ""
    return tuple(sorted({host, *addresses} - {""}, key=len, reverse=True))


def everything_but(addresses: Iterable[str]) -> tuple[str, ...]:
    """Return the networks that together are all IP addresses except ``addresses``: what k6 is forbidden to reach."""
    v4 = [ipaddress.IPv4Network("0.0.0.0/0")]
    v6 = [ipaddress.IPv6Network("::/0")]
    for text in addresses:
        address = ipaddress.ip_address(text)
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped  # that is how k6 sees it
        if isinstance(address, ipaddress.IPv4Address):
            v4 = list(_without(v4, ipaddress.IPv4Network(address)))
        else:
            v6 = list(_without(v6, ipaddress.IPv6Network(address)))
    return tuple(str(network) for network in (*sorted(v4), *sorted(v6)))


def _without(networks: list[_Network], hole: _Network) -> Iterator[_Network]:
    for network in networks:
        if hole.subnet_of(network):
            yield from network.address_exclude(hole)
        else:
            yield network


def free_port() -> int:
    """Return a loopback port that nobody listens on now. Somebody may a moment later: be ready to ask again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def require_descriptors(vus: int) -> None:
    """Raise EnvironmentFailure where a process may not open a connection for each of ``vus`` virtual users.

    k6 raises its own soft limit, so the hard one counts. Beyond it a third of the requests failed (measured).
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = vus + OTHER_FILES
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise EnvironmentFailure(
            f"{vus} virtual users need {needed} open files, and this machine allows a process {hard}",
            f"raise the hard limit (ulimit -Hn {needed}), or lower vus or rate",
        )
