"""The workers of the queue, which a variant with ``checkout=queue`` has beside the sale: a component of its own."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import httpx

from ticketbench.stack.clients import ANSWER_TIMEOUT_S
from ticketbench.stack.launch import Launcher
from ticketbench.stack.servers import LOOPBACK, Server

NAME: Final = "worker"


class QueueWorkers(Server):
    """One supervisor and a worker for each of ``metrics_ports``, with the settings of the sale (``environment``).

    The ports are known to Prometheus before, so it is those or none. ``port`` is the first of them.
    """

    name = NAME
    title = "the queue's workers"

    def __init__(
        self,
        folder: Path,
        launcher: Launcher,
        *,
        log: Path,
        environment: Mapping[str, str],
        metrics_ports: Sequence[int],
    ) -> None:
        super().__init__(Path(sys.executable), folder, launcher, log=log, ports=lambda: metrics_ports[0])
        self._environment = dict(environment)
        self._metrics_ports = tuple(metrics_ports)

    def _command(self) -> list[str]:
        ports = ",".join(map(str, self._metrics_ports))
        command = [str(self.program), "-P", "-m", "target_app", "work", "--workers", str(len(self._metrics_ports))]
        return [*command, "--metrics-ports", ports]

    def _runtime(self) -> Mapping[str, str]:
        return self._environment

    def _answers(self) -> bool:
        return at_work(self._metrics_ports)


def at_work(metrics_ports: Iterable[int]) -> bool:
    """Tell whether every worker whose metrics are on these ports of the loopback is at work."""
    return all(_at_work(f"{LOOPBACK}:{port}") for port in metrics_ports)


def _at_work(address: str) -> bool:
    try:
        told = httpx.get(f"http://{address}/metrics", timeout=ANSWER_TIMEOUT_S, trust_env=False)
    except httpx.TransportError:
        return False
    return any(
        line.startswith("target_loop_lag_samples_total ") and float(line.split()[1]) > 0
        for line in told.text.splitlines()
    )
