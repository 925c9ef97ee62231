"""Planned faults on the Docker stack: containers that are paused, killed, started again, unplugged or short of CPU."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from ticketbench.errors import EnvironmentFailure
from ticketbench.fault_plan import PlannedFault
from ticketbench.model import Level
from ticketbench.stack.containers import bodies
from ticketbench.stack.containers.engine import Engine, spoken
from ticketbench.stack.containers.project import Container, Project
from ticketbench.stack.containers.watch import ContainerWatch
from ticketbench.stack.protocol import Component
from ticketbench.stack.replicas import component_of

# One that was asked to end and does not is killed after that.
ENDING_S: Final = 10
# One that was started again, or plugged in, is asked for so long.
ASKED_S: Final = 60.0
_ASK_S: Final = 0.05
_AT_ONCE: Final = 4


class DockerFaults:
    """Does planned faults to containers; implements :class:`ticketbench.stack.protocol.Faults`.

    The engine takes up to half a second for each request, so all is done in threads. ``containers`` is the stack's own
    register, by component: one that was started again has another first process there afterwards. ``answers`` tells
    whether a component gives a real answer. A container that dies or is paused meanwhile is no matter for ``watch``.
    """

    def __init__(
        self,
        engine: Engine,
        project: Project,
        containers: dict[str, Container],
        watch: ContainerWatch,
        levels: Mapping[str, Level],
        answers: Callable[[str], bool],
    ) -> None:
        self._engine = engine
        self._project = project
        self._containers = containers
        self._watch = watch
        self._levels = levels
        self._answers = answers
        self._workers = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="fault")
        self._begun: dict[PlannedFault, Future[None]] = {}
        self._undone: dict[PlannedFault, Future[Container]] = {}

    def begin(self, fault: PlannedFault) -> None:
        """Have it done; :meth:`answers` raises what the engine refuses."""
        self._watch.expect(self._containers[fault.component].id)
        self._begun[fault] = self._workers.submit(self._begin, fault)

    def end(self, fault: PlannedFault) -> None:
        """Have it undone, once it is done."""
        self._undone[fault] = self._workers.submit(self._end, fault)

    def answers(self, fault: PlannedFault) -> Component | None:
        """Return the component once it answers, None until then. Raises EnvironmentFailure."""
        if not self._undone[fault].done():
            return None
        container = self._undone[fault].result()
        # one whose processes cannot be seen from here has no pid: the engine tells of it by its name
        return Component(fault.component, container.pid or 0)

    def _begin(self, fault: PlannedFault) -> None:
        container = self._containers[fault.component]
        client = self._engine.another_client()
        try:
            with spoken(f"{fault.action} {fault.component}"):
                _do(client.api, fault, container, self._project.belonging.network())
        finally:
            client.close()

    def _end(self, fault: PlannedFault) -> Container:
        self._begun[fault].result()
        container = self._containers[fault.component]
        client = self._engine.another_client()
        try:
            with spoken(f"undo {fault.text}"):
                self._undo(client.api, fault, container)
            if fault.action in ("kill", "restart"):
                container = self._containers[fault.component] = self._project.again(container, client.api)
        finally:
            client.close()
        self._await(fault.component)
        self._watch.look_after(container.id)
        return container

    def _undo(self, api: Any, fault: PlannedFault, container: Container) -> None:
        if fault.action == "pause":
            api.unpause(container.id)
        elif fault.action in ("kill", "restart"):
            self._project.follow_on(container)
            api.start(container.id)
        elif fault.action == "disconnect":
            api.connect_container_to_network(container.id, self._project.belonging.network(), aliases=[fault.component])
        else:
            cpus = float(self._levels.get(f"{component_of(fault.component)}_cpus", 0))
            api.update_container(container.id, **bodies.cpu_limit(cpus))

    def _await(self, name: str) -> None:
        give_up_s = time.monotonic() + ASKED_S
        while not self._answers(name):
            if time.monotonic() > give_up_s:
                raise EnvironmentFailure(
                    f"{name} gives no answer; its log ends: {self._project.last_lines(name)}",
                    "is the machine overloaded? look at it and try again",
                )
            time.sleep(_ASK_S)


def _do(api: Any, fault: PlannedFault, container: Container, network: str) -> None:
    if fault.action == "pause":
        api.pause(container.id)
    elif fault.action == "kill":
        api.kill(container.id)
        api.wait(container.id, timeout=ENDING_S)  # one that still runs cannot be started
    elif fault.action == "restart":
        api.stop(container.id, timeout=ENDING_S)
    elif fault.action == "disconnect":
        api.disconnect_container_from_network(container.id, network)
    else:
        api.update_container(container.id, **bodies.cpu_limit(fault.cores or 0.0))
