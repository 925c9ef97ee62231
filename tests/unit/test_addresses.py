import socket

import pytest

from ticketbench.addresses import Address, parse_address


def parsed(text: str) -> Address:
    problems: list[str] = []
    address = parse_address("--target", text, problems)
    assert problems == []
    assert address is not None
    return address


def refused(text: str) -> str:
    problems: list[str] = []
    assert parse_address("--target", text, problems) is None
    (problem,) = problems
    assert problem.startswith("--target")
    return problem


@pytest.mark.parametrize(
    ("text", "url", "port", "path"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000", 8000, ""),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000", 8000, ""),
        ("https://127.0.0.1", "https://127.0.0.1", 443, ""),
        (" http://127.8.9.1/api/v1// ", "http://127.8.9.1/api/v1", 80, "/api/v1"),
        ("http://[::1]:8000/x", "http://[::1]:8000/x", 8000, "/x"),
        ("http://[::ffff:127.0.0.1]:80", "http://[::ffff:127.0.0.1]:80", 80, ""),
    ],
)
def test_an_address_of_the_loopback(text: str, url: str, port: int, path: str) -> None:
    address = parsed(text)
    assert (address.url, address.port, address.path) == (url, port, path)
    assert address.on_loopback


@pytest.mark.parametrize("text", ["http://192.0.2.1", "http://[2001:db8::1]"])
def test_an_address_elsewhere_is_not_on_the_loopback(text: str) -> None:
    assert not parsed(text).on_loopback


def test_a_name_is_on_the_loopback_only_if_all_of_its_addresses_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(*numbers: str) -> None:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (number, 0)) for number in numbers]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    answers("127.0.0.1", "::1")
    assert parsed("http://shop").on_loopback
    answers("127.0.0.1", "192.0.2.7")
    assert not parsed("http://shop").on_loopback
    assert parsed("http://shop").numbers == ("127.0.0.1", "192.0.2.7")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("127.0.0.1:8000", "has no scheme: did you mean 'http://127.0.0.1:8000'"),
        ("localhost", "did you mean 'http://localhost'"),
        ("ftp://127.0.0.1", "scheme 'ftp': known are http, https"),
        ("http://", "names no host"),
        ("http://:8000", "names no host"),
        ("http://127.0.0.1:99999", "Port out of range"),
        ("http://127.0.0.1:0", "has port 0"),
        ("http://127.0.0.1:http", "is not an address"),
        ("http://[::1", "is not an address"),
        ("http://127.0.0.1/?a=b", "query or a fragment"),
        ("http://127.0.0.1/#x", "query or a fragment"),
        ("http://127.0.0.1/a b", "blank"),
        ("http://no-such-host.invalid", "has no address"),
        ("http://" + "a" * 70 + ".invalid", "has no address"),
        ("  ", "is empty"),
    ],
)
def test_what_is_no_address_is_refused_with_the_reason(text: str, why: str) -> None:
    assert why in refused(text)


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("http://0.0.0.0:8000/shop", "'http://127.0.0.1:8000/shop'"),
        ("https://0.0.0.0", "'https://127.0.0.1'"),
        ("http://[::]:8000", "'http://[::1]:8000'"),
        ("http://[::ffff:0.0.0.0]:8000", "'http://[::1]:8000'"),
    ],
)
def test_an_address_to_listen_on_is_refused_with_the_one_to_call(text: str, instead: str) -> None:
    said = refused(text)
    assert "is an address to listen on" in said
    assert said.endswith(f"give {instead}")


@pytest.mark.parametrize("text", ["http://me:pa55word@127.0.0.1", "http://pa55word@127.0.0.1", "me:pa55word@127.0.0.1"])
def test_a_password_in_an_address_is_refused_and_never_repeated(text: str) -> None:
    assert "pa55word" not in refused(text)


@pytest.mark.parametrize("text", ["http://127.0.0.1/?token=pa55word", "http://127.0.0.1/#pa55word"])
def test_a_secret_in_a_query_is_not_repeated_either(text: str) -> None:
    assert "pa55word" not in refused(text)
