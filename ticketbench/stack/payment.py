"""The payment provider that the sale asks for its money: a service of ours that stands for somebody else's.

It is started for the variants whose payments take time, fail, or are served so many at a time; the others pay nothing,
and nothing of it is there. All replicas of the sale share it.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import httpx

from ticketbench import factors
from ticketbench.model import Level
from ticketbench.stack.clients import ANSWER_TIMEOUT_S
from ticketbench.stack.launch import Launcher
from ticketbench.stack.servers import LOOPBACK, Ports, Server, free_port
from ticketbench.stack.target import python_path

NAME: Final = "payment"
# Its settings, each the factor of the same name (target_app/provider/settings.py); a contract test holds them together.
SETTINGS: Final = ("payment_ms", "payment_spread", "payment_limit", "payment_failure_ratio")
_JOURNAL: Final = "payments.jsonl"


def asked(levels: Mapping[str, Level]) -> bool:
    """Tell whether a variant has a provider: without one a payment takes no time and never fails."""
    return factors.paid(levels)


def settings(levels: Mapping[str, Level], journal: str) -> dict[str, str]:
    """Return what a provider of a variant is told, as its environment."""
    whole = {**factors.defaults(), **levels}
    told = {name: str(whole[name]) for name in SETTINGS}
    return {f"PROVIDER_{name.upper()}": text for name, text in {**told, "journal": journal}.items()}


def answers(url: str) -> bool:
    """Tell whether the provider at ``url`` gives a real answer."""
    try:
        told = httpx.get(f"{url}/metrics", timeout=ANSWER_TIMEOUT_S, trust_env=False)
    except httpx.TransportError:
        return False
    return told.status_code == httpx.codes.OK and "\nprovider_busy " in told.text  # and no other's server


class PaymentServer(Server):
    """The provider of a variant, with nothing charged yet."""

    name = NAME
    title = "the payment provider"

    def __init__(
        self,
        folder: Path,
        launcher: Launcher,
        *,
        log: Path,
        levels: Mapping[str, Level],
        ports: Ports = free_port,
    ) -> None:
        super().__init__(Path(sys.executable), folder, launcher, log=log, ports=ports)
        self._levels = dict(levels)

    @property
    def url(self) -> str:
        """Where the sale finds it."""
        return f"http://{LOOPBACK}:{self.port}"

    def _command(self) -> list[str]:
        if not self.again:  # what was charged outlives a fault of the provider, and not the trial
            (self.folder / _JOURNAL).unlink(missing_ok=True)
        return [str(self.program), "-P", "-m", "target_app", "payment", "--port", str(self.port)]

    def _runtime(self) -> Mapping[str, str]:
        return {**settings(self._levels, str(self.folder / _JOURNAL)), **python_path(), "PYTHONUNBUFFERED": "1"}

    def _answers(self) -> bool:
        return answers(self.url)
