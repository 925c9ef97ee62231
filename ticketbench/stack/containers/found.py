"""What the engine holds of ours, by label alone: stacks in use, kept, or left behind by a killed ticketbench."""

import hashlib
from typing import Any

from ticketbench import paths
from ticketbench.stack.containers import bodies
from ticketbench.stack.containers.bodies import Changes
from ticketbench.stack.containers.engine import Engine, connect, spoken
from ticketbench.stack.containers.project import remove_all
from ticketbench.stack.process import Process
from ticketbench.stack.state import ContainerState, StackState


def stacks(engine: Engine) -> tuple[StackState, ...]:
    """Return every stack of ours on the engine. One that somebody brought up with `docker compose` is not ours."""
    api = engine.client.api
    labelled = {"label": [bodies.STACK, bodies.OWNER]}
    with spoken("tell what is there of ticketbench"):
        containers: list[dict[str, Any]] = api.containers(all=True, filters=labelled)
        others: list[dict[str, Any]] = [
            *api.networks(filters=labelled),
            *(api.volumes(filters=labelled)["Volumes"] or []),
        ]
    found: dict[str, StackState] = {}
    for thing in (*containers, *others):
        labels: dict[str, str] = thing["Labels"]
        stack_id = labels[bodies.STACK]
        found.setdefault(stack_id, _state(labels, engine.socket))
    for container in containers:
        labels = container["Labels"]
        part = ContainerState(component=_part(labels), state=container["State"])
        stack_id = labels[bodies.STACK]
        found[stack_id] = found[stack_id].model_copy(update={"containers": (*found[stack_id].containers, part)})
    return tuple(found.values())


def _part(labels: dict[str, str]) -> str:
    number = int(labels.get("com.docker.compose.container-number", "1"))
    return Changes(number=number).part(labels.get("com.docker.compose.service", "?"))


def _state(labels: dict[str, str], socket: str) -> StackState:
    boot, owner = read_owner(labels[bodies.OWNER])
    return StackState(
        stack_id=labels[bodies.STACK],
        run_id=labels.get(bodies.RUN, ""),
        created=labels.get(bodies.CREATED, ""),
        boot=boot,
        owner=owner,
        keep=labels.get(bodies.KEEP) == "yes",
        engine=socket,
        elsewhere=labels.get(bodies.STATE) != state_text(),
    )


def state_text() -> str:
    """Return what stands for this state folder in a label: no path."""
    return hashlib.sha256(str(paths.state_dir()).encode()).hexdigest()[:16]


def owner_text(boot: str, owner: Process | None) -> str:
    """Return a label's text for the ticketbench that owns a stack."""
    return f"{boot}/{owner.pid}/{owner.started_ticks}" if owner is not None else boot


def read_owner(text: str) -> tuple[str, Process | None]:
    """Return what :func:`owner_text` wrote: boot and process; no process where it cannot be read."""
    boot, _, process = text.partition("/")
    pid, _, ticks = process.partition("/")
    if pid.isdecimal() and ticks.isdecimal():
        return boot, Process(pid=int(pid), started_ticks=int(ticks))
    return boot, None


def logs(engine: Engine, stack_id: str, lines: int) -> dict[str, list[str]]:
    """Return the last lines that each container of a stack has printed, by component."""
    api = engine.client.api
    with spoken("give the logs"):
        containers: list[dict[str, Any]] = api.containers(all=True, filters={"label": f"{bodies.STACK}={stack_id}"})
        return {
            _part(it["Labels"]): api.logs(it["Id"], tail=lines).decode(errors="replace").splitlines()
            for it in containers
        }


def remove(stack_id: str) -> None:
    """Remove all of a stack from this machine's engine. Raises EnvironmentFailure, also where no engine answers."""
    remove_all(connect(), stack_id)
