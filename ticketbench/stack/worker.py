"""The workers of the queue, which a variant with ``checkout=queue`` has beside the sale: a component of its own."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from ticketbench.stack.idle import at_work
from ticketbench.stack.launch import Launcher
from ticketbench.stack.servers import Server

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
