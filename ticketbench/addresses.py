"""Where somebody else's system is: its URL checked, its name resolved once, and whether it is on this machine.

Nothing is sent here. What is resolved is held on to: k6 may reach these addresses and no other, so a name that is
answered differently a moment later leads nowhere.
"""

import ipaddress
import socket
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Address:
    """A checked http or https address. ``url`` has no slash at its end; ``numbers`` are its IP addresses as text."""

    url: str
    scheme: str
    host: str
    port: int
    path: str
    numbers: tuple[str, ...]

    @property
    def on_loopback(self) -> bool:
        """Whether every one of its IP addresses leads to this machine's loopback."""
        return all(_is_loopback(number) for number in self.numbers)


def parse_address(option: str, text: str, problems: list[str]) -> Address | None:
    """Return the address that ``option`` was given, None where it is none: then ``problems`` says why.

    A user name, a password, a query and a fragment are refused: an address is shown and written down, and these are
    where secrets live. Looks the host's name up.
    """
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        problems.append(f"{option} {_shown(text)!r} is not an address: {error}")
        return None
    if parts.username is not None or parts.password is not None:
        problems.append(
            f"{option} holds a user name or password: give the address without it, and --header 'Authorization: ...'"
        )
        return None
    fault = _fault(text, parts.scheme, host, odd=bool(parts.query or parts.fragment))
    if fault:
        problems.append(f"{option} {_shown(text)!r} {fault}")
        return None
    if port == 0:
        problems.append(
            f"{option} {_shown(text)!r} has port 0, at which nothing can be called: give 1 to 65535, or none"
        )
        return None
    numbers = _numbers(host)
    if isinstance(numbers, str):
        problems.append(f"{option} {_shown(text)!r}: the host {host!r} has no address ({numbers})")
        return None
    if any(_is_unspecified(number) for number in numbers):
        here = "[::1]" if ":" in host else "127.0.0.1"
        instead = f"{parts.scheme}://{here}{f':{port}' if port is not None else ''}{parts.path}"
        problems.append(
            f"{option} {_shown(text)!r} is an address to listen on (all of a machine's), not one to call: for a system"
            f" on this machine give {instead!r}"
        )
        return None
    path = parts.path.rstrip("/")
    return Address(
        url=f"{parts.scheme}://{parts.netloc}{path}",
        scheme=parts.scheme,
        host=host,
        port=port or DEFAULT_PORTS[parts.scheme],
        path=path,
        numbers=numbers,
    )


def _shown(text: str) -> str:
    """Return an address for a message, without what may be a secret in it."""
    before, _, after = text.strip().rpartition("@")
    shown = f"...@{after}" if before else after
    return shown.partition("?")[0].partition("#")[0]


def _fault(text: str, scheme: str, host: str, *, odd: bool) -> str:
    bare = text.strip()
    if any(c.isspace() or not c.isprintable() for c in bare):
        return "holds a blank or a control character"
    if "://" not in bare:
        return f"has no scheme: did you mean 'http://{_shown(bare).lstrip('/')}'?" if bare else "is empty"
    if scheme not in DEFAULT_PORTS:
        return f"has the scheme {scheme!r}: known are {', '.join(DEFAULT_PORTS)}"
    if not host:
        return "names no host"
    return "has a query or a fragment, which an address that others are appended to cannot have" if odd else ""


def _numbers(host: str) -> tuple[str, ...] | str:
    """Return the host's IP addresses, or why there are none."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: a label that is too long
        return getattr(error, "strerror", None) or str(error)
    return tuple(dict.fromkeys(str(info[4][0]).partition("%")[0] for info in found)) or "no address was found"


def _is_loopback(number: str) -> bool:
    return _ip(number).is_loopback


def _is_unspecified(number: str) -> bool:
    return _ip(number).is_unspecified


def _ip(number: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return an address; an IPv4 one also where it is written as an IPv6 one."""
    address = ipaddress.ip_address(number)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
