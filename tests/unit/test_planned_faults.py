"""The course of planned faults over a load, on a stack and a clock of the test's own."""

from dataclasses import dataclass, field

import pytest

from ticketbench.errors import EnvironmentFailure
from ticketbench.events import Event
from ticketbench.fault_plan import PlannedFault, parse_faults
from ticketbench.planned_faults import RECOVERY_LIMIT_S, PlannedFaults
from ticketbench.stack.protocol import Component

WINDOW_START_S = 5.0


@dataclass
class Scene:
    """A load of one second a tick: a stack that answers at ``answers_at``, and what the course of faults asked for."""

    answers_at: float = 0.0
    refuses: str = ""
    now: float = 100.0
    asked: list[tuple[float, str]] = field(default_factory=list)
    expected: set[str] = field(default_factory=set)
    pids: dict[str, int] = field(default_factory=dict)
    told: list[Event] = field(default_factory=list)

    def begin(self, fault: PlannedFault) -> None:
        assert fault.component in self.expected
        self._ask("begin", fault)

    def end(self, fault: PlannedFault) -> None:
        self._ask("end", fault)

    def answers(self, fault: PlannedFault) -> Component | None:
        return Component(fault.component, 4711) if self.now >= self.answers_at else None

    def expect(self, name: str) -> None:
        self.expected.add(name)

    def back(self, component: Component) -> None:
        self.expected.remove(component.name)
        self.pids[component.name] = component.pid

    def _ask(self, what: str, fault: PlannedFault) -> None:
        if what == self.refuses:
            raise EnvironmentFailure("it is made of stone")
        self.asked.append((self.now - 100.0, f"{what} {fault.component}"))

    def faults(self, *texts: str) -> PlannedFaults:
        return PlannedFaults(
            parse_faults(texts), WINDOW_START_S, self, self, self.told.append,
            clock=lambda: self.now, now=lambda: 1_000_000 + self.now,
        )  # fmt: skip

    def tick(self, faults: PlannedFaults, until: float) -> None:
        while self.now < 100.0 + until:
            self.now += 1.0
            faults.on_tick(self.now - 100.0)


def test_a_fault_is_done_and_undone_when_it_is_due_and_nobody_looks_meanwhile() -> None:
    scene = Scene(answers_at=112.0)
    faults = scene.faults("pause redis at 2 for 3")
    scene.tick(faults, 6)
    assert (scene.asked, scene.expected) == ([], set())
    scene.tick(faults, 11)
    assert scene.asked == [(7.0, "begin redis"), (10.0, "end redis")]
    assert scene.expected == {"redis"}  # it is let go on, and does not answer yet
    scene.tick(faults, 12)
    assert (scene.expected, scene.pids) == (set(), {"redis": 4711})
    (carried,) = faults.carried_out()
    assert (carried.began_s, carried.ended_s, carried.answered_s) == (1_000_107.0, 1_000_110.0, 1_000_112.0)
    assert carried.problem == ""
    assert faults.trouble() is None
    assert len(scene.told) == 1


def test_faults_of_several_components_may_be_under_way_at_a_time() -> None:
    scene = Scene()
    faults = scene.faults("pause redis at 2 for 3", "kill postgres at 1 for 10")
    scene.tick(faults, 20)
    assert scene.asked == [(6.0, "begin postgres"), (7.0, "begin redis"), (10.0, "end redis"), (16.0, "end postgres")]
    assert [carried.fault.component for carried in faults.carried_out()] == ["postgres", "redis"]


def test_a_load_that_ends_early_undoes_what_is_under_way_and_begins_nothing_more() -> None:
    scene = Scene()
    faults = scene.faults("pause redis at 2 for 30", "pause app at 20 for 5")
    scene.tick(faults, 8)
    faults.finish()
    assert scene.asked == [(7.0, "begin redis"), (8.0, "end redis")]
    assert scene.expected == set()
    second = faults.carried_out()[1]
    assert (second.began_s, second.ended_s, second.answered_s) == (None, None, None)
    faults.finish()
    assert len(scene.asked) == 2


@pytest.mark.parametrize("what", ["begin", "end"])
def test_a_fault_that_the_stack_refuses_ends_the_load_with_its_reason(what: str) -> None:
    scene = Scene(refuses=what)
    faults = scene.faults("pause redis at 2 for 3")
    scene.tick(faults, 12)
    assert faults.trouble() == "planned fault 'pause redis at 2 for 3' failed: it is made of stone"
    assert faults.carried_out()[0].problem == faults.trouble()
    faults.finish()


def test_a_component_that_never_answers_again_ends_the_load() -> None:
    scene = Scene(answers_at=1e9)
    faults = scene.faults("kill postgres at 2")
    scene.tick(faults, 7 + RECOVERY_LIMIT_S)
    assert faults.trouble() is None
    scene.tick(faults, 10 + RECOVERY_LIMIT_S)
    assert "postgres gives no answer 60 s after it was undone" in (faults.trouble() or "")
    assert "postgres" in scene.expected
