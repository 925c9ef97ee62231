"""Which process of this machine listens at a TCP port: /proc's tables of sockets, and whose descriptors they are."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_LISTEN: Final = "0A"  # include/net/tcp_states.h
# They pass connections on to a container: their CPU is not the system's.
_FORWARDERS: Final = frozenset({"docker-proxy", "rootlessport", "conmon", "pasta", "slirp4netns", "gvproxy"})


def listener(port: int) -> int | None:
    """Return the process whose whole tree serves ``port``: the topmost of those that hold the listening socket.

    None where there is none, where it belongs to a user whose processes we may not look into, and where it is a
    forwarder of a container engine.
    """
    sockets = set(_sockets(port))
    holders = {pid for pid in _processes() if sockets & _sockets_of(pid)}
    top = next((pid for pid in sorted(holders) if _parent(pid) not in holders), None)
    return top if top is not None and _name(top) not in _FORWARDERS else None


def _sockets(port: int) -> Iterator[str]:
    """Yield the inodes of the sockets that listen at ``port``, on any address of this machine."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in _read(table).splitlines()[1:]:
            field = line.split()
            if field[3] == _LISTEN and int(field[1].rpartition(":")[2], 16) == port:
                yield field[9]


def _processes() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdecimal())  # noqa: PTH208 - hundreds of names


def _sockets_of(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):  # gone meanwhile, or another user's
        for descriptor in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - all descriptors of all processes
            with contextlib.suppress(OSError):  # closed meanwhile
                target = os.readlink(f"/proc/{pid}/fd/{descriptor}")  # noqa: PTH115
                if target.startswith("socket:["):
                    found.add(target[8:-1])
    return found


def _parent(pid: int) -> int:
    after_name = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(after_name[1]) if len(after_name) > 1 else 0


def _name(pid: int) -> str:
    return _read(f"/proc/{pid}/comm").strip()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
