"""Planned faults done to the processes of a real local stack: what they do, and that the sale goes on afterwards."""

import time
import uuid
from collections.abc import Iterator

import httpx
import psycopg
import pytest

from tests.integration.local_stacks import running_stack
from ticketbench import factors
from ticketbench.binaries import Binaries
from ticketbench.errors import EnvironmentFailure
from ticketbench.fault_plan import PlannedFault, parse_faults
from ticketbench.model import Level
from ticketbench.stack import Endpoints
from ticketbench.stack.idle import idle
from ticketbench.stack.local import LocalStack
from ticketbench.stack.process import identify
from ticketbench.stack.protocol import Component, Faults
from ticketbench.stack.state import running

WITHIN_S = 60.0


@pytest.fixture(scope="module")
def stack(all_binaries: Binaries) -> Iterator[LocalStack]:
    """One stack for all tests; each applies its own variant."""
    with running_stack("faults", all_binaries, most_workers=2) as stack:
        yield stack


def applied(stack: LocalStack, **levels: Level) -> Endpoints:
    return stack.apply({**factors.defaults(), **levels})


def faults_of(endpoints: Endpoints) -> Faults:
    assert endpoints.faults is not None
    return endpoints.faults


def fault(text: str) -> PlannedFault:
    return parse_faults([text])[0]


def buy(endpoints: Endpoints, patience_s: float = 30.0) -> httpx.Response:
    key = uuid.uuid4().hex
    return httpx.post(
        f"{endpoints.base_url}/matches/2/purchases", headers={"Idempotency-Key": key}, json={"buyer": key},
        timeout=patience_s,
    )  # fmt: skip


def undone(endpoints: Endpoints, planned: PlannedFault) -> Component:
    """Undo a fault and wait until the component answers."""
    faults_of(endpoints).end(planned)
    give_up_s = time.monotonic() + WITHIN_S
    while (component := faults_of(endpoints).answers(planned)) is None:
        assert time.monotonic() < give_up_s
        time.sleep(0.02)
    return component


def pid_of(endpoints: Endpoints, name: str) -> int:
    return next(component.pid for component in endpoints.components if component.name == name)


def sells_again(endpoints: Endpoints) -> None:
    give_up_s = time.monotonic() + WITHIN_S
    while buy(endpoints).status_code != httpx.codes.CREATED:
        assert time.monotonic() < give_up_s
        time.sleep(0.05)


@pytest.mark.integration
def test_a_paused_component_stands_still_and_goes_on_as_if_nothing_had_been(stack: LocalStack) -> None:
    endpoints = applied(stack, workers=2)
    assert buy(endpoints).status_code == httpx.codes.CREATED
    planned = fault("pause app at 1 for 1")
    faults_of(endpoints).begin(planned)
    with pytest.raises(httpx.ReadTimeout):
        buy(endpoints, patience_s=0.5)
    assert undone(endpoints, planned) == Component("app", pid_of(endpoints, "app"))
    assert buy(endpoints).status_code == httpx.codes.CREATED
    assert endpoints.dead() == {}


@pytest.mark.integration
def test_a_killed_postgres_keeps_what_was_acknowledged_and_is_found_where_it_was(stack: LocalStack) -> None:
    endpoints = applied(stack)
    for _ in range(3):
        assert buy(endpoints).status_code == httpx.codes.CREATED
    planned = fault("kill postgres at 1 for 1")
    faults_of(endpoints).begin(planned)
    assert buy(endpoints).status_code == httpx.codes.SERVICE_UNAVAILABLE
    component = undone(endpoints, planned)
    assert component.name == "postgres"
    assert component.pid != pid_of(endpoints, "postgres")
    sells_again(endpoints)
    with psycopg.connect(endpoints.own_access.postgres_dsn, connect_timeout=5) as connection:
        count = connection.execute("SELECT count(*) FROM tickets").fetchone()
    assert count is not None
    assert count[0] >= 4
    assert endpoints.dead() == {}  # its log tells of a recovery, and nobody takes that for an accident


@pytest.mark.integration
def test_a_sale_that_is_killed_or_started_again_listens_where_it_did_and_is_known_to_down(stack: LocalStack) -> None:
    endpoints = applied(stack, workers=2)
    for text in ("kill app at 1", "restart app at 2"):
        before = next(each.pid for each in endpoints.components if each.name == "app")
        planned = fault(text)
        faults_of(endpoints).begin(planned)
        after = undone(endpoints, planned)
        assert after.pid != before
        assert identify(before) is None
        assert buy(endpoints).status_code == httpx.codes.CREATED
        assert idle(endpoints.app_metrics)  # each worker tells its figures where it did
        state = next(state for state in running() if state.stack_id == stack.stack_id)
        assert after.pid in {process.process.pid for process in state.processes}
        assert endpoints.dead() == {}


@pytest.mark.integration
@pytest.mark.parametrize(
    "text", ["restart redis at 1", "restart postgres at 1", "kill haproxy at 1", "kill app-2 at 1"]
)
def test_every_component_can_be_started_again(stack: LocalStack, text: str) -> None:
    endpoints = applied(stack, replicas=2)
    planned = fault(text)
    faults_of(endpoints).begin(planned)
    component = undone(endpoints, planned)
    assert component.pid != pid_of(endpoints, planned.component)
    sells_again(endpoints)
    assert endpoints.dead() == {}


@pytest.mark.integration
def test_a_component_that_dies_while_it_is_started_again_is_told_of(stack: LocalStack) -> None:
    endpoints = applied(stack)
    planned = fault("kill app at 1")
    faults_of(endpoints).begin(planned)
    give_up_s = time.monotonic() + WITHIN_S
    faults_of(endpoints).end(planned)
    with pytest.raises(EnvironmentFailure, match="app ended: "):
        while time.monotonic() < give_up_s:
            component = faults_of(endpoints).answers(planned)
            assert component is None
            state = next(state for state in running() if state.stack_id == stack.stack_id)
            for process in state.processes:
                if process.component == "app" and process.process.pid != pid_of(endpoints, "app"):
                    process.process.signal(9)
