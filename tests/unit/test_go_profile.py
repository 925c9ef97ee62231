"""Reading a Go program's CPU profile, as the benchmarks do: built here field by field as pprof defines it."""

import gzip

import pytest

from benchmarks.go_profile import Share, share_below


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def sample(stack: list[int], count: int) -> bytes:
    packed = b"".join(map(varint, stack))
    return field(2, field(1, packed) + field(2, varint(count) + varint(count * 10_000_000)))


def profile(*samples: bytes) -> bytes:
    texts = ["", "main.main", "k6/output/prometheusrw/remotewrite.(*Output).flush", "runtime.mallocgc"]
    functions = [field(5, field(1, number) + field(2, number)) for number in (1, 2, 3)]
    lines = {200: [1], 300: [2], 400: [3, 2]}  # the last one has a function inlined
    locations = [
        field(4, field(1, number) + b"".join(field(4, field(1, function) + field(2, 17)) for function in found))
        for number, found in lines.items()
    ]
    whole = b"".join([*samples, *locations, *functions, *(field(6, text.encode()) for text in texts)])
    return gzip.compress(whole + varint(9 << 3) + varint(1 << 60))


def test_samples_count_by_any_function_on_their_stack() -> None:
    content = profile(sample([200], 5), sample([200, 300], 2), sample([400], 4))
    assert share_below(content, "/output/prometheusrw/") == Share(below=6, samples=11)
    assert share_below(content, "main.") == Share(below=7, samples=11)
    assert share_below(content, "net/http") == Share(below=0, samples=11)


def test_a_profile_without_a_sample() -> None:
    assert share_below(profile(), "main.") == Share(below=0, samples=0)


def test_what_is_no_profile_is_refused() -> None:
    whole = gzip.decompress(profile(sample([200], 5)))
    for content in (b"", b"<html>"):
        with pytest.raises((OSError, EOFError)):
            share_below(content or b"\x1f", "main.")
    with pytest.raises(ValueError, match="not a whole profile"):
        share_below(gzip.compress(whole[:-3]), "main.")
    with pytest.raises(ValueError, match="field of kind"):
        share_below(gzip.compress(b"\x0b\x0b"), "main.")
