"""The small parts of the pages: words, bars, addresses, forms; and that they load with the first request only."""

import subprocess
import sys
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from target_app.accounts import normal_email
from target_app.site import words
from target_app.site.barcode import bars
from target_app.site.forms import number_of

# What the first purchase must not wait for: a worker's start is part of every trial.
HEAVY = ("jinja2", "argon2", "itsdangerous", "target_app.shop", "target_app.site.pages", "target_app.api.endpoints")


def test_a_worker_starts_without_what_only_buyers_pages_need() -> None:
    code = (
        "import sys\n"
        "from target_app import worker\n"
        "from target_app.app import create_app\n"
        "from target_app.settings import Settings\n"
        "create_app(Settings(database_url='postgresql://h/d', redis_url='redis://h'))\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (" Ann@Example.ORG ", "ann@example.org"),
        ("a.b+c_d@sub.example-site.co.uk", "a.b+c_d@sub.example-site.co.uk"),
        ("o'brien@example.ie", "o'brien@example.ie"),
        ("a..b@example.org", None),
        ("a@example", None),
        ("a@example.o", None),
        ("a@exam_ple.org", None),
        ("a@example.org\n", "a@example.org"),
        ("a\n@example.org", None),
        ("ä@example.org", None),
        ("@example.org", None),
        (f"{'a' * 64}@example.org", f"{'a' * 64}@example.org"),
        (f"{'a' * 65}@example.org", None),
    ],
)
def test_addresses(given: str, kept: str | None) -> None:
    assert normal_email(given) == kept


@given(st.text(max_size=300))
def test_any_text_is_judged_at_once(text: str) -> None:
    kept = normal_email(text)
    assert kept is None or normal_email(kept) == kept


@given(st.text(alphabet="0123456789ABCDEFT-", min_size=1, max_size=30))
def test_bars_lie_side_by_side_and_fill_the_width(code: str) -> None:
    drawn = bars(code)
    assert drawn is not None
    found, width = drawn
    assert len(found) == 5 * (len(code) + 2)
    assert sum(wide == 3 for _, wide in found) <= 2 * (len(code) + 2)
    for (at, wide), (following, _) in pairwise(found):
        assert at + wide < following
    assert found[-1][0] + found[-1][1] == width == 16 * (len(code) + 2) - 1


def test_bars_of_a_known_letter() -> None:
    found, _ = bars("A") or ([], 0)
    # * A *, and A is wide narrow narrow narrow narrow, with a wide gap behind the third bar
    assert [wide for _, wide in found[5:10]] == [3, 1, 1, 1, 3]
    assert bars("SEED-1 ") is None


def test_words() -> None:
    at = datetime(2027, 8, 4, 15, 5, tzinfo=UTC)
    assert (words.day(at), words.clock(at)) == ("Wednesday 4 August 2027", "15:05 UTC")
    assert [words.money(pence) for pence in (5, 2750, 123_456)] == ["£0.05", "£27.50", "£1,234.56"]
    assert [words.left(seconds) for seconds in (0, 0.2, 59.5, 61, 599.2)] == [
        "0 seconds", "1 second", "60 seconds", "2 minutes", "10 minutes",
    ]  # fmt: skip
    assert [words.tickets(count) for count in (1, 2)] == ["1 ticket", "2 tickets"]
    assert words.refusal("pool_timeout", 503) == words.REFUSALS["unavailable"]
    assert words.refusal("what?", 400) == words.REFUSALS["bad_request"]


@pytest.mark.parametrize("given", ["0", "11", "-1", "1.0", "", "1" * 40, "²", 0, 11])
def test_numbers_out_of_bounds_are_none(given: str | int) -> None:
    assert number_of(given, 10) is None


def test_numbers() -> None:
    assert (number_of("1", 10), number_of(10, 10), number_of("010", 10)) == (1, 10, 10)
