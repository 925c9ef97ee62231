"""Bad weather on the Docker stack: each is one message, exit code 4, and leaves nothing."""

import json
import os
import socket
import threading

import pytest
from engines import DOCKER, Engine, said_to_be
from program import Program, await_line

from ticketbench import docker_socket
from ticketbench.errors import EnvironmentFailure

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("docker")]

SHORT = ("--set", "duration=8", "--set", "rate=60")


def stack_of(program: Program) -> str:
    """The stack that its only run was made on."""
    (path,) = program.runs()
    stack: str = json.loads((path / "run.json").read_text())["plan"]["stack"]
    return stack


def refused(in_docker: Program, *arguments: str, **env: str) -> str:
    """Run smoke; it must end with exit code 4 and one message, which is returned."""
    done = in_docker("run", "smoke", *DOCKER, *arguments, **env)
    assert done.code == 4, done.err
    said = [line for line in done.err.splitlines() if line.startswith("ticketbench: ")]
    assert len(said) == 1, done.err
    assert "Traceback" not in done.err
    return done.err[done.err.index("ticketbench: ") :]


def test_no_engine(in_docker: Program) -> None:
    said = refused(in_docker, DOCKER_HOST=f"unix://{in_docker.folder}/none.sock")
    assert "no Docker engine runs here" in said
    assert "--stack local" in said


def test_a_remote_engine(in_docker: Program) -> None:
    assert "remote engine" in refused(in_docker, DOCKER_HOST="tcp://127.0.0.1:2375")


def test_an_engine_that_is_too_old(in_docker: Program) -> None:
    path = in_docker.folder / "old.sock"
    with said_to_be(path, "19.03.15", "1.40"):
        old = {"DOCKER_HOST": f"unix://{path}"}
        said = refused(in_docker, **old)
        # it has nothing of ours, and is no reason not to take down what else there is
        assert [in_docker(*words, **old).code for words in (("status",), ("down",), ("logs",))] == [0, 0, 0]
    assert "Docker 19.03.15 is too old: it speaks API 1.40, and API 1.41 is needed (Docker 20.10)" in said
    assert "--stack local" in said


def test_an_engine_that_does_not_answer_is_never_taken_for_none(in_docker: Program) -> None:
    path = in_docker.folder / "odd.sock"

    def hang_up() -> None:
        while True:
            try:
                listening.accept()[0].close()
            except OSError:
                return

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        threading.Thread(target=hang_up, daemon=True).start()
        odd = {"DOCKER_HOST": f"unix://{path}"}
        assert "does not tell its version" in refused(in_docker, **odd)
        for words in (("status",), ("status", "--json"), ("down",), ("logs",)):
            done = in_docker(*words, **odd)
            assert done.code == 4
            assert "does not tell its version" in done.err
            assert "nothing of ticketbench is up" not in done.out
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a socket that another user may not use")
def test_an_engine_that_may_not_be_used(in_docker: Program) -> None:
    path = in_docker.folder / "closed.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0o600)
        in_docker.folder.chmod(0o711)
        # in this very process: another user may be unable to read the interpreter's folder
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.setgid(65534)
                os.setuid(65534)
                docker_socket.reach(str(path))
            except EnvironmentFailure as error:
                status = 0 if "group docker" in error.hint else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_auto_is_the_local_stack_where_no_engine_answers_and_says_why(in_docker: Program) -> None:
    done = in_docker("run", "smoke", "--stack", "auto", DOCKER_HOST=f"unix://{in_docker.folder}/none.sock")
    assert done.code == 0, done.err
    assert "on the local stack, because not on Docker: no Docker engine runs here" in done.err
    assert stack_of(in_docker) == "local"


def test_auto_is_the_local_stack_where_an_image_of_this_variant_cannot_be_had(in_docker: Program) -> None:
    missing = {"TICKETBENCH_IMAGE_HAPROXY": "ticketbench.invalid/no-such-image:1"}
    done = in_docker("run", "smoke", "--stack", "auto", "--set", "balancer=haproxy", **missing)
    assert done.code == 0, done.err
    assert "measuring on the local stack, because not on Docker: " in done.err
    assert "ticketbench.invalid/no-such-image:1" in done.err
    assert stack_of(in_docker) == "local"


def test_auto_is_docker_where_it_can_be(in_docker: Program) -> None:
    done = in_docker("run", "smoke", "--stack", "auto")
    assert done.code == 0, done.err
    assert "on the docker stack" in done.err
    assert stack_of(in_docker) == "docker"


def test_a_factor_of_docker_alone(in_docker: Program) -> None:
    done = in_docker("run", "smoke", "--stack", "local", "--set", "app_memory_mb=64")
    assert done.code == 2
    assert "'app_memory_mb' cannot be had on the local stack: only on docker" in done.err


def test_an_image_that_is_not_there(in_docker: Program) -> None:
    said = refused(in_docker, TICKETBENCH_IMAGE_REDIS="127.0.0.1:9/none:1")
    assert "the image 127.0.0.1:9/none:1 (redis) is not here and cannot be pulled" in said
    assert "TICKETBENCH_IMAGE_REDIS" in said


def test_a_port_that_is_taken(in_docker: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        said = refused(in_docker, TICKETBENCH_PORT_REDIS=str(port))
    assert str(port) in said
    assert "TICKETBENCH_PORT_REDIS" in said


def test_a_container_that_ends_while_starting(in_docker: Program, stack_images: dict[str, str]) -> None:
    k6 = stack_images.get("TICKETBENCH_IMAGE_K6", "grafana/k6:1.1.0")
    said = refused(in_docker, TICKETBENCH_IMAGE_REDIS=k6, TICKETBENCH_PORT_REDIS="")
    assert "redis" in said.lower()
    assert "its log ends" in said or "cannot start redis" in said


def test_a_container_that_is_short_of_memory_says_so_with_its_limit(in_docker: Program) -> None:
    said = refused(in_docker, "--set", "app_memory_mb=24")
    # its first process, or the worker that it had started
    assert "the sale ended while starting: " in said
    assert "killed for want of memory (its limit is 24 MiB)" in said
    assert "app_memory_mb" in said


def test_a_container_that_is_killed_in_mid_trial(in_docker: Program, engine: Engine) -> None:
    process = in_docker.start("run", "spike", *DOCKER, *SHORT)
    await_line(process, "window")
    engine("kill", engine.container("redis", in_docker.runs()[0].name))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 4, err
    assert "redis died in mid-trial: killed by signal 9; its log ends:" in err
    trial = json.loads((in_docker.runs()[0] / "trials" / "001" / "trial.json").read_text())
    assert trial["status"] == "failed"
    assert (in_docker.runs()[0] / "trials" / "001" / "series.csv.gz").exists()


def test_a_container_that_is_paused_in_mid_trial(in_docker: Program, engine: Engine) -> None:
    process = in_docker.start("run", "spike", *DOCKER, *SHORT)
    await_line(process, "window")
    engine("pause", engine.container("postgres", in_docker.runs()[0].name))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 4, err
    assert "postgres died in mid-trial: it was paused (docker pause)" in err
    # it was let go on, so that the ledger could be read
    assert (in_docker.runs()[0] / "trials" / "001" / "ledger.csv.gz").exists()


def test_names_that_somebody_else_has_taken(in_docker: Program, engine: Engine) -> None:
    # the random part of the stack's id made certain, so that its names can be taken before it
    (in_docker.folder / "sitecustomize.py").write_text(
        "import secrets\n"
        "drawn = secrets.token_hex\n"
        "secrets.token_hex = lambda size=None: 'abcdef' if size == 3 else drawn(size)\n"
    )
    in_docker.env["PYTHONPATH"] = str(in_docker.folder)
    for kind, name in (("volume", "ticketbench-up-abcdef_postgres-data"), ("network", "ticketbench-up-abcdef_default")):
        engine(kind, "create", "--label", "theirs=yes", name)
        try:
            done = in_docker("up", *DOCKER)
            assert done.code == 4, done.err
            assert f"{name} is not ticketbench's and is left alone: rename or remove it" in done.err
            assert engine(kind, "ls", "-q", "--filter", "label=theirs=yes")
            assert not engine.left("ticketbench.run=up")
        finally:
            engine(kind, "rm", name)


def test_somebody_elses_project_is_never_touched(
    in_docker: Program, engine: Engine, stack_images: dict[str, str]
) -> None:
    image = stack_images.get("TICKETBENCH_IMAGE_REDIS", "redis:8.0.3")
    # as `docker compose -f compose/compose.yaml up` labels what it makes
    theirs = engine(
        "create", "--label", "ticketbench.stack=compose", "--label", "com.docker.compose.project=theirs", image
    )
    try:
        assert in_docker("run", "smoke", *DOCKER).code == 0
        in_docker("down")
        assert engine("inspect", "-f", "{{.Id}}", theirs) == theirs
    finally:
        engine("rm", "-v", theirs)
