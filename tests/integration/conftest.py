"""What the tests of k6's executions share: a small sale that is served, and k6 that is run against it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.k6_target import Runs, Sale, served
from ticketbench.binaries import Binaries


@pytest.fixture
def sale() -> Sale:
    return Sale()


@pytest.fixture
def base_url(sale: Sale) -> Iterator[str]:
    with served(sale) as url:
        yield url


@pytest.fixture
def runs(binaries: Binaries, base_url: str, tmp_path: Path) -> Runs:
    return Runs((str(binaries.k6),), base_url, tmp_path)
