"""Somebody else's system as a stack: nothing of it is started, changed or looked into, it is only sent requests.

What is ours is a Prometheus on the loopback, which k6 and the sampler write to. The system's own Prometheus, where
there is one, is read after each trial (:mod:`ticketbench.collecting.own`).
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import httpx

from ticketbench import interrupts
from ticketbench.addresses import Address
from ticketbench.binaries import Binaries
from ticketbench.errors import EnvironmentFailure
from ticketbench.events import Emit, Notice, ignore
from ticketbench.mapping import SeriesSource
from ticketbench.model import ExternalSystem, Level
from ticketbench.stack.launch import Launcher
from ticketbench.stack.listener import listener
from ticketbench.stack.protocol import Component, Endpoints, Servers
from ticketbench.stack.servers import PrometheusServer
from ticketbench.stack.state import StateFile, remove, take_down_leftovers

# The programs that such a run needs.
PARTS: Final = ("k6", "prometheus")
# A system that lets a single request wait longer than this before any load is down for every purpose of a load test.
PREFLIGHT_S: Final = 10.0
# What makes k6 accept a certificate that no known authority has signed.
TRUST: Final = (
    "set insecureSkipTLSVerify: true in the script's options, or name its authority's certificate with SSL_CERT_FILE"
)


@dataclass(frozen=True)
class System:
    """Where the system is and how to talk to it. Holds secrets: what may be written down is :meth:`record`.

    ``target_said`` is the option, variable or key that gave the address, for messages; ``headers_from_variable`` are
    the names of those headers that the environment gave.
    """

    target: Address
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers_from_variable: tuple[str, ...] = ()
    target_said: str = "--target"
    prometheus: Address | None = None
    source: SeriesSource | None = None

    def record(self) -> ExternalSystem:
        """Return what a run may tell of it: no host's name, no header's value."""
        mapping = self.source.mapping if self.source is not None else None
        return ExternalSystem(
            scheme=self.target.scheme,
            where="loopback" if self.target.on_loopback else "remote",
            port=self.target.port,
            path=self.target.path,
            headers=tuple(self.headers),
            headers_from_variable=self.headers_from_variable,
            prometheus=None if self.prometheus is None else ("loopback" if self.prometheus.on_loopback else "remote"),
            mapping=mapping.name if mapping is not None else "",
            mapping_sha256=mapping.sha256 if mapping is not None else "",
            signals=mapping.signals() if mapping is not None else (),
        )


class ExternalStack:
    """A system that is already there; implements :class:`ticketbench.stack.Stack`.

    ``preflight`` is the path that is asked for once before each load, the target's own address where it is empty;
    ``any_certificate`` whether k6 is told not to check the target's certificate, which is then not checked here either.
    """

    def __init__(
        self,
        run_id: str,
        binaries: Binaries,
        system: System,
        emit: Emit = ignore,
        *,
        preflight: str = "",
        any_certificate: bool = False,
    ) -> None:
        self._binaries = binaries
        self._system = system
        self._emit = emit
        self._preflight = preflight
        self._any_certificate = any_certificate
        self._file = StateFile(run_id, keep=False)
        self._launcher = Launcher(self._file.state.stack_id, self._file, ends_with_us=True)
        self._prometheus: PrometheusServer | None = None
        self._told = False

    def start(self) -> Servers:
        """Ask the target once, then bring up Prometheus. Raises EnvironmentFailure, with everything stopped again."""
        self._ask()
        try:
            take_down_leftovers(self._emit)
            self._file.create()
            logs, folder = self._file.folder / "logs", self._file.folder / "prometheus"
            logs.mkdir()
            folder.mkdir(mode=0o700)
            self._prometheus = PrometheusServer(
                self._binaries.prometheus, folder, self._launcher, log=logs / "prometheus.log"
            )
            self._prometheus.launch()
            self._prometheus.await_ready()
            self._file.listens({"prometheus": self._prometheus.port})
        except BaseException:
            self.stop()
            raise
        return Servers(prometheus_url=self._prometheus.url, access=None, components=self._ours(self._prometheus))

    def apply(self, levels: Mapping[str, Level]) -> Endpoints:
        """Ask the target once more. Nothing of it is reset: it is as the trial before has left it.

        ``levels`` are of the load only, which k6 is told. Raises EnvironmentFailure: it does not answer, or our
        Prometheus has died.
        """
        prometheus = self._prometheus
        if prometheus is None:
            raise RuntimeError("the stack is not started")
        if (why := prometheus.dead()) is not None:
            raise EnvironmentFailure(f"prometheus died: {why}")
        self._ask()
        target = self._system.target
        return Endpoints(
            base_url=target.url,
            prometheus_url=prometheus.url,
            access=None,
            components=(*self._ours(prometheus), *self._theirs()),
            app_metrics=(),
            k6_command=(str(self._binaries.k6),),
            binaries=self._binaries.versions,
            settings={},
            logs={"prometheus": prometheus.log},
            dead=self.dead,
            addresses=target.numbers,
            headers=self._system.headers,
            source=self._system.source,
        )

    def _ask(self) -> None:
        ask(self._system, self._preflight, any_certificate=self._any_certificate)

    def _ours(self, prometheus: PrometheusServer) -> tuple[Component, ...]:
        launched = prometheus.launched
        return (Component("prometheus", launched.process.pid),) if launched is not None else ()

    def _theirs(self) -> tuple[Component, ...]:
        """Return the process that listens at the target's port, where it is one of this machine that we may see."""
        target = self._system.target
        pid = listener(target.port) if target.on_loopback else None
        if pid is None and target.on_loopback and not self._told:
            self._told = True
            self._emit(
                Notice(
                    "the process behind the target cannot be seen (another user's, or in a container): its CPU is "
                    "counted as that of others"
                )
            )
        return (Component("app", pid, ours=False),) if pid is not None else ()

    def dead(self) -> dict[str, str]:
        """Return our Prometheus where it has died; whether the system lives is for its answers to say."""
        why = self._prometheus.dead() if self._prometheus is not None else None
        return {} if why is None else {"prometheus": why}

    def stop(self) -> None:
        """End our Prometheus and remove its data. Idempotent; safe in any state, also half-started."""
        with interrupts.deferred():
            remove(self._file.state)
            self._launcher.reap()
            if self._prometheus is not None:
                self._prometheus.launched = None


def ask(system: System, path: str, *, any_certificate: bool = False) -> int:
    """Send the target one GET with the run's headers and return the answer's status; any answer will do.

    Raises EnvironmentFailure where there is none, or where the target shows a certificate that k6 would refuse with
    every request. Redirects are not followed.
    """
    target = system.target
    url = f"{target.url}{path}"
    try:
        with httpx.Client(
            trust_env=False,
            verify=False if any_certificate else _as_k6_checks(),
            timeout=PREFLIGHT_S,
            follow_redirects=False,
        ) as client:
            return client.get(url, headers=dict(system.headers)).status_code
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        if (distrust := _distrust(error)) is not None:
            raise EnvironmentFailure(
                f"the target's certificate is not trusted: {distrust.replace(target.host, '<target>')}",
                f"k6 would refuse it with every request, so no load was sent: {TRUST}",
            ) from error
        raise EnvironmentFailure(
            # the message is kept with a trial, the hint is not: the host's name stays out of the run directory
            f"the target does not answer: {_why(error).replace(target.host, '<target>')}",
            f"{url} was asked once, and nothing else was sent: start it, or correct {system.target_said}",
        ) from error


def _as_k6_checks() -> ssl.SSLContext:
    """Return how to check a certificate: as k6 does, whose authorities SSL_CERT_FILE and SSL_CERT_DIR name as well."""
    context = ssl.create_default_context()
    context.verify_flags &= ~ssl.VerifyFlags.VERIFY_X509_STRICT  # newer Pythons set it, and refuse what k6 takes
    return context


def _distrust(error: BaseException | None) -> str | None:
    """Return why the certificate was refused, None where that is not what went wrong."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return str(error.verify_message).rstrip(".")
        error = error.__cause__ or error.__context__
    return None


def _why(error: Exception) -> str:
    """Return what went wrong in words; the client's own text may be empty."""
    if isinstance(error, httpx.TimeoutException):
        return f"no answer within {PREFLIGHT_S:g} s"
    return " ".join(str(error).split()) or type(error).__name__
