"""Real servers for the tests, each started once on demand with the code that the local stack uses."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import hypothesis
import pytest

from ticketbench.binaries import OPTIONAL, Binaries, provide
from ticketbench.stack.compose_file import FAMILIES, read_compose
from ticketbench.stack.launch import Launcher, NoJournal
from ticketbench.stack.postgres import PostgresServer
from ticketbench.stack.servers import PrometheusServer, RedisServer

# How long an example takes says how busy the machine is, and nothing of the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Point the state elsewhere, so that no test sees or ends the user's stacks. The cache of binaries stays."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TICKETBENCH_STATE", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def binaries() -> Binaries:
    """All server programs, fetched if need be."""
    return provide()


@pytest.fixture(scope="session")
def all_binaries(binaries: Binaries) -> Binaries:
    """The same with those that only some factors need."""
    return binaries.and_more(provide(parts=OPTIONAL))


@pytest.fixture(scope="session")
def launcher() -> Launcher:
    """Start servers that end with the test session, however it ends."""
    return Launcher(f"tests-{os.getpid()}", NoJournal(), ends_with_us=True)


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder for the servers' data that other users can pass through; pytest's own is closed to them."""
    folder = Path(tempfile.mkdtemp(prefix="ticketbench-tests-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def _place(parent: Path, name: str) -> tuple[Path, Path]:
    folder = parent / name
    folder.mkdir()
    return folder, parent / f"{name}.log"


@pytest.fixture(scope="session")
def postgres_server(binaries: Binaries, launcher: Launcher, server_folder: Path) -> Iterator[PostgresServer]:
    """A PostgreSQL with pg_stat_statements loaded."""
    folder, log = _place(server_folder, "postgres")
    server = PostgresServer(binaries.postgres, folder, launcher, log=log)
    try:
        server.prepare()
        server.launch()
        server.await_ready()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgres_dsn(postgres_server: PostgresServer) -> str:
    """The superuser's URL of the database ``postgres``."""
    return postgres_server.dsn()


@pytest.fixture(scope="session")
def redis_url(binaries: Binaries, launcher: Launcher, server_folder: Path) -> Iterator[str]:
    """The URL of a Redis, password included."""
    folder, log = _place(server_folder, "redis")
    server = RedisServer(binaries.redis, folder, launcher, log=log)
    try:
        server.launch()
        server.await_ready()
        yield server.url
    finally:
        server.stop()


@pytest.fixture(scope="session")
def prometheus_url(binaries: Binaries, launcher: Launcher, server_folder: Path) -> Iterator[str]:
    """The URL of a Prometheus with remote-write receiver and native histograms."""
    folder, log = _place(server_folder, "prometheus")
    server = PrometheusServer(binaries.prometheus, folder, launcher, log=log)
    try:
        server.launch()
        server.await_ready()
        yield server.url
    finally:
        server.stop()


# --- Docker -----------------------------------------------------------------------------------------------------------


def without_docker(reason: str) -> NoReturn:
    """Skip, naming what is missing; fail where Docker is required, as .ci/run does."""
    if os.environ.get("TICKETBENCH_TEST_DOCKER") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def docker() -> str:
    """The Docker client, where an engine answers it."""
    client = shutil.which("docker")
    if client is None:
        without_docker("Docker: there is no client on PATH")
    asked = subprocess.run([client, "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True)
    if asked.returncode != 0:
        without_docker(f"Docker: {(asked.stderr.strip().splitlines() or ['no engine answers'])[-1]}")
    return client


@pytest.fixture(scope="session")
def stack_images(docker: str) -> dict[str, str]:
    """The variables that name the stack's images: those that are here, else stand-ins that are built here.

    Nothing is pulled: whoever wants to try the official images pulls them (docs/docker.md).
    """
    given = {name: value for name, value in os.environ.items() if name.startswith(FAMILIES[0])}
    given["TICKETBENCH_IMAGE_APP"] = "ticketbench-app:tests"  # the one in use stays as it is
    compose = read_compose(given)
    build = compose.services["app"].build
    assert build is not None
    wanted = {
        service.image
        for service in compose.start_order(("k6", "pgbouncer", "haproxy"))
        if service.image != "ticketbench-app:tests"
    }
    wanted.add(build.args["PYTHON_IMAGE"])
    present = subprocess.run([docker, "image", "inspect", *sorted(wanted)], capture_output=True, text=True)
    if present.returncode == 0:
        return given
    script = Path(__file__).parent / "standin" / "build"
    built = subprocess.run([script], capture_output=True, text=True)
    if built.returncode != 0:
        without_docker(f"Docker: {present.stderr.strip().splitlines()[-1]}; {built.stderr.strip().splitlines()[-1]}")
    return dict(line.split("=", 1) for line in built.stdout.split()) | given
