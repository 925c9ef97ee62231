"""Progress as plain lines: for a log, a pipe, and a terminal that cannot do more."""

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Final, Self

from ticketbench.cli import output
from ticketbench.events import Event, Figures, Notice, Phase, Planned, Progress, Provide, TrialStored
from ticketbench.levels import variant_words

# In a long phase a line this often tells whoever reads along that it is alive.
ALIVE_EVERY_S: Final = 10.0
# A download tells of itself this often.
PROVIDE_EVERY_S: Final = 1.0


class Lines:
    """Draws events as lines on standard error, one for each phase, with the time since the start."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun_s = clock()
        self._said_s = self._begun_s
        self._provided: dict[str, tuple[str, float]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing: a line is whole as soon as it is written."""

    def __call__(self, event: Event) -> None:
        """Draw one event."""
        match event:
            case Planned():
                pass  # it is announced
            case Phase():
                self._say(phase_text(event))
            case Progress():
                if self._clock() - self._said_s >= ALIVE_EVERY_S:
                    self._say(progress_text(event))
            case Provide():
                self._provide(event)
            case Notice():
                self._say(f"note: {event.text}")
            case TrialStored():
                self._say(stored_text(event))

    def announce(self, text: str) -> None:
        """Print what is about to happen, without a time."""
        with contextlib.suppress(OSError, ValueError):
            for line in text.split("\n"):
                print(output.plain(line), file=sys.stderr, flush=True)

    def _provide(self, event: Provide) -> None:
        """Tell of a download, at most once a second."""
        detail, at_s = self._provided.get(event.part, ("", 0.0))
        now_s = self._clock()
        if detail == event.detail and now_s - at_s < PROVIDE_EVERY_S:
            return
        self._provided[event.part] = (event.detail, now_s)
        self._say(provide_text(event))

    def _say(self, text: str) -> None:
        self._said_s = self._clock()
        # Progress is told while servers are being stopped, too: a terminal that went away must not end that.
        with contextlib.suppress(OSError, ValueError):
            print(f"{self._said_s - self._begun_s:6.1f} s  {output.plain(text)}", file=sys.stderr, flush=True)


def phase_text(event: Phase) -> str:
    """Return a phase in a line: ``[1/4] window pool_size=2 (30 s)``."""
    detail = f" {variant_words(event.detail)}" if event.detail else ""
    planned = f" ({output.duration_text(event.expected_s)})" if event.expected_s else ""
    return f"{_place(event.trial, event.of)}{event.name}{detail}{planned}"


def progress_text(event: Progress) -> str:
    """Return how a load goes on in a line; what is not known is left out."""
    left = f", {output.duration_text(event.left_s)} left" if event.left_s is not None else ""
    told = ", ".join(f"{name} {text}" for name, text in figure_texts(event.offered_per_s, event.figures) if text != "-")
    time_text = f"{output.duration_text(event.elapsed_s)}{left}"
    return f"{_place(event.trial, event.of)}{event.phase} {time_text}: {told or 'no figures yet'}"


def figure_texts(offered_per_s: float | None, figures: Figures) -> tuple[tuple[str, str], ...]:
    """Return the live figures with their names; a dash for what is not known."""
    return (
        ("offered", output.rate_text(offered_per_s)),
        ("finished", output.rate_text(figures.finished_per_s)),
        ("goodput", output.rate_text(figures.goodput_per_s)),
        ("p95", output.time_text(figures.p95_s)),
        ("errors", output.percent_text(figures.error_ratio)),
        ("dropped", output.count_text(figures.dropped)),
    )


def stored_text(event: TrialStored) -> str:
    """Return a finished trial in a line."""
    return f"{_place(event.trial, event.of)}{variant_words(event.variant)}: {event.status}; {event.summary}"


def provide_text(event: Provide) -> str:
    """Return the state of a download in a line."""
    amount = f" {event.done_bytes / 1e6:.1f} MB" if event.done_bytes else ""
    total = f" of {event.total_bytes / 1e6:.1f} MB" if event.total_bytes else ""
    return f"{event.part}: {event.detail}{amount}{total}"


def _place(trial: int, of: int) -> str:
    return f"[{trial}/{of}] " if of else ""
