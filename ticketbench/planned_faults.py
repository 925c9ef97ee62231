"""Carries planned faults out while a trial's load runs, and writes down when they came and went."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ticketbench.errors import EnvironmentFailure
from ticketbench.events import Emit, Notice
from ticketbench.fault_plan import CarriedFault, PlannedFault
from ticketbench.stack.protocol import Component, Faults

# From a fault's end until the component answers. PostgreSQL recovers 2 GB of WAL at most, the sale imports for 1 s.
RECOVERY_LIMIT_S: Final = 60.0
_POLL_S: Final = 0.02


class Watch(Protocol):
    """Who looks for components that died or were stopped, and has to know which of them are meant to be."""

    def expect(self, name: str) -> None:
        """Do not look after this component: what happens to it is planned."""

    def back(self, component: Component) -> None:
        """Look after it again; its root process may be another one now."""


@dataclass
class _Course:
    """How far one fault has come. ``asked_s`` is when its end was asked for, by the monotonic clock."""

    fault: PlannedFault
    began_s: float | None = None
    ended_s: float | None = None
    answered_s: float | None = None
    asked_s: float = 0.0
    due_s: float = 0.0
    problem: str = ""

    @property
    def under_way(self) -> bool:
        return self.began_s is not None and self.answered_s is None and not self.problem


class PlannedFaults:
    """The planned faults of one trial, done to the components that ``stack`` can reach.

    :meth:`on_tick` is called from the load's own loop; what it asks of the stack returns at once. A fault that cannot
    be done or undone ends the load: :meth:`trouble` says why.
    """

    def __init__(
        self,
        faults: Sequence[PlannedFault],
        window_start_s: float,
        stack: Faults | None,
        watch: Watch,
        emit: Emit,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._stack = stack
        self._window_start_s = window_start_s
        self._watch = watch
        self._emit = emit
        self._clock = clock
        self._now = now
        self._courses = [_Course(fault) for fault in sorted(faults, key=lambda fault: fault.at_s)]

    def on_tick(self, elapsed_s: float) -> None:
        """Do what is due ``elapsed_s`` after the start of the load."""
        for course in self._courses:
            if course.began_s is None and not course.problem:
                if elapsed_s >= self._window_start_s + course.fault.at_s:
                    self._begin(course)
            elif course.under_way:
                self._go_on(course)

    def trouble(self) -> str | None:
        """Return why the load cannot go on, None where all is as planned."""
        return next((course.problem for course in self._courses if course.problem), None)

    def finish(self) -> None:
        """Undo what is under way, whatever was planned, and wait until the components answer. Idempotent."""
        for course in self._courses:
            course.due_s = 0.0
        while any(course.under_way for course in self._courses):
            for course in self._courses:
                if course.under_way:
                    self._go_on(course)
            time.sleep(_POLL_S)

    def carried_out(self) -> tuple[CarriedFault, ...]:
        """Return what became of each, in the order of their beginnings."""
        return tuple(
            CarriedFault(
                fault=course.fault,
                began_s=course.began_s,
                ended_s=course.ended_s,
                answered_s=course.answered_s,
                problem=course.problem,
            )
            for course in self._courses
        )

    def _begin(self, course: _Course) -> None:
        fault = course.fault
        self._watch.expect(fault.component)
        began_s = self._now()
        with _noting(course):
            self._there().begin(fault)
            course.began_s = began_s
            course.due_s = self._clock() + fault.for_s
            self._emit(Notice(f"planned fault: {fault.text}"))

    def _go_on(self, course: _Course) -> None:
        fault = course.fault
        with _noting(course):
            if course.ended_s is None and self._clock() >= course.due_s:
                self._there().end(fault)
                course.ended_s, course.asked_s = self._now(), self._clock()
            if course.ended_s is None:
                return
            component = self._there().answers(fault)
            if component is not None:
                course.answered_s = self._now()
                self._watch.back(component)
            elif self._clock() - course.asked_s > RECOVERY_LIMIT_S:
                raise EnvironmentFailure(
                    f"{fault.component} gives no answer {RECOVERY_LIMIT_S:g} s after it was undone"
                )

    def _there(self) -> Faults:
        if self._stack is None:
            raise RuntimeError("this stack does no faults")
        return self._stack


@contextlib.contextmanager
def _noting(course: _Course) -> Iterator[None]:
    try:
        yield
    except EnvironmentFailure as error:
        course.problem = f"planned fault {course.fault.text!r} failed: {error.message}"
