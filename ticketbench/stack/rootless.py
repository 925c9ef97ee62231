"""Servers that refuse to run as root, or should not: in a user namespace, or really as nobody."""

import shutil
from pathlib import Path

from ticketbench.stack.launch import NOBODY, Identity, Launcher, not_root
from ticketbench.stack.servers import Ports, Server, free_port


class RootlessServer(Server):
    """A server that runs as whoever we are, or as nobody where we are root."""

    def __init__(
        self,
        program: Path,
        folder: Path,
        launcher: Launcher,
        *,
        log: Path,
        ports: Ports = free_port,
        identity: Identity | None = None,
    ) -> None:
        super().__init__(program, folder, launcher, log=log, ports=ports)
        self._as = identity

    def _identity(self) -> Identity:
        if self._as is None:
            self._as = not_root()
        return self._as

    def _bundle(self) -> Path:
        """Return the folder that has to be copied for the program to run elsewhere."""
        return self.program.parent

    def _hand_over(self) -> None:
        """Give the folder to nobody, with a copy of the programs where they lie out of nobody's reach."""
        if not open_to_all(self.program):
            source, copy = self._bundle(), self.folder / "programs"
            shutil.copytree(source, copy, symlinks=True, dirs_exist_ok=True)
            self.program = copy / self.program.relative_to(source)
        for path in (self.folder, *self.folder.rglob("*")):
            shutil.chown(path, NOBODY, NOBODY)


def open_to_all(program: Path) -> bool:
    """Tell whether any user can reach and run ``program``."""
    return all(path.stat().st_mode & 0o005 == 0o005 for path in (program, *program.parents))
