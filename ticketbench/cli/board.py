"""What the live panel shows: events in, lines of text out. Nothing here touches a terminal or a clock."""

from dataclasses import dataclass
from typing import Final

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ticketbench.cli import output
from ticketbench.cli.lines import figure_texts, provide_text
from ticketbench.events import Event, Figures, Phase, Planned, PlannedTrial, Progress, Provide, TrialStored
from ticketbench.levels import variant_words

# A name and a figure: "finished  999,999/s".
_NAME_WIDTH: Final = 8
_FIGURE_WIDTH: Final = 10
_GAP: Final = 3
_PAIR_WIDTH: Final = _NAME_WIDTH + _FIGURE_WIDTH
# On a wide terminal lines as wide as this are easier to read than wider ones.
_WIDEST: Final = 100
# As wide as "1 h 20 min, at most 2 h 10 min left".
_TIMES_WIDTH: Final = 35
_SHORTEST_BAR: Final = 8
# What a trial still needs once its load is over (plan.OVERHEAD_PER_TRIAL_S without the reset).
_AFTER_LOAD: Final = ("drain", "audit", "collect")
_AFTER_LOAD_S: Final = 4.0


@dataclass
class Board:
    """The state of a run as the events told it. Times are seconds of any one monotonic clock.

    What a line shows of the outside (names of variants and scripts) is stripped of control codes, cut to the width and
    never read as markup. Every frame of a width has the same number of lines, so that nothing jumps.
    """

    begun_s: float
    planned: Planned | None = None
    phase: Phase | None = None
    phase_begun_s: float = 0.0
    trial_begun_s: float = 0.0
    progress: Progress | None = None
    provide: Provide | None = None
    stored: int = 0

    def apply(self, event: Event, now_s: float) -> None:
        """Take in an event that arrived at ``now_s``."""
        match event:
            case Planned():
                self.planned, self.begun_s, self.provide = event, now_s, None
            case Phase():
                if event.trial and (self.phase is None or self.phase.trial != event.trial):
                    self.trial_begun_s = now_s
                self.phase, self.phase_begun_s = event, now_s
                self.progress, self.provide = None, None
            case Progress():
                self.progress, self.provide = event, None
            case Provide():
                self.provide = event
            case TrialStored():
                self.stored += 1
            case _:
                pass  # a notice is a line above the panel

    # --- times ---

    def phase_left_s(self, now_s: float) -> float | None:
        """Return how long the phase will still take; None where nobody can know."""
        if self.phase is None or self.phase.expected_s is None:
            return None
        return max(0.0, self.phase.expected_s - (now_s - self.phase_begun_s))

    def left_s(self, now_s: float) -> float | None:
        """Return how long everything will still take, by the plan; None before there is one."""
        if self.planned is None:
            return None
        all_trials_s = sum(trial.expected_s for trial in self.planned.trials)
        ending_s = self.planned.expected_s - all_trials_s
        if self.phase is None or not self.phase.trial:
            if self.stored:  # being taken down
                return ending_s
            return max(all_trials_s, self.planned.expected_s - (now_s - self.begun_s))
        place = next((i for i, trial in enumerate(self.planned.trials) if trial.position == self.phase.trial), None)
        if place is None:
            return None
        this = self.planned.trials[place]
        # The first trial's time begins with the stack's start, before its own first phase.
        begun_s = self.begun_s if place == 0 else self.trial_begun_s
        rest_s = max(this.expected_s - (now_s - begun_s), self.phase_left_s(now_s) or 0.0, 0.0)
        if self.phase.name in _AFTER_LOAD:  # a closed model may have come here long before its schedule's end
            rest_s = min(rest_s, _AFTER_LOAD_S)
        return rest_s + sum(trial.expected_s for trial in self.planned.trials[place + 1 :]) + ending_s

    def next_trial(self) -> PlannedTrial | None:
        """Return the trial after the one that is under way; None where none is left."""
        if self.planned is None:
            return None
        here = self.phase.trial if self.phase is not None else 0
        if here == 0 and self.stored:
            return None
        return next((trial for trial in self.planned.trials if trial.position > here), None)

    # --- lines ---

    def frame(self, now_s: float, width: int) -> RenderableType:
        """Return the panel for a terminal of ``width`` columns."""
        # The last column stays free: writing there makes some terminals begin a new line.
        width = max(1, min(width - 1, _WIDEST))
        if self.planned is None:
            said = provide_text(self.provide) if self.provide is not None else "getting ready"
            return Group(Text(), _line(Text(output.plain(said), style="dim"), width))
        rows: list[RenderableType] = [Text(), _line(self._headline(), width)]
        rows.append(self._times("phase", now_s, width))
        rows.append(self._times("plan", now_s, width))
        rows.append(self._figures(width))
        rows.append(_line(self._next(), width))
        return Group(*rows)

    def _headline(self) -> Text:

        assert self.planned is not None  # noqa: S101 - frame() looked
        text = Text(output.plain(self.planned.scenario), style="bold")
        if self.phase is not None and self.phase.trial:
            text.append(f"  trial {self.phase.trial} of {self.phase.of}  ", style="default not bold")
            text.append(output.plain(variant_words(self.phase.detail)), style="cyan not bold")
        return text

    def _times(self, which: str, now_s: float, width: int) -> Table:
        """Return a line of a name, a bar as far as the end is known, and the times."""
        if which == "plan":
            left_s, elapsed_s = self.left_s(now_s), now_s - self.begun_s
            name = "plan"
        else:
            left_s, elapsed_s = self.phase_left_s(now_s), now_s - self.phase_begun_s
            name = self.phase.name if self.phase is not None else "start"
            elapsed_s = elapsed_s if self.phase is not None else now_s - self.begun_s
        bound = "at most " if which == "plan" and self.planned is not None and self.planned.at_most else ""
        left = f", {bound}{output.duration_text(left_s)} left" if left_s is not None else ""
        times = Text(f"{output.duration_text(elapsed_s)}{left}", no_wrap=True, overflow="ellipsis")
        grid = Table.grid(padding=(0, 1, 0, 0))
        grid.add_column(width=_NAME_WIDTH, no_wrap=True, overflow="ellipsis")
        cells: list[RenderableType] = [Text(name, style="bold" if which == "phase" else "")]
        bar_width = width - _NAME_WIDTH - _TIMES_WIDTH - 2
        times_width = width - _NAME_WIDTH - 1
        if bar_width >= _SHORTEST_BAR:
            times_width = _TIMES_WIDTH
            total_s = elapsed_s + left_s if left_s is not None else 0.0
            grid.add_column(width=bar_width)
            cells.append(ProgressBar(total=max(total_s, 1e-9), completed=elapsed_s if total_s else 0, width=bar_width))
        grid.add_column(no_wrap=True, overflow="ellipsis", max_width=max(1, times_width))
        grid.add_row(*cells, times)
        return grid

    def _figures(self, width: int) -> Table:
        """Return the figures in three, two or one columns of name and figure; always in the same places."""
        progress = self.progress
        told = figure_texts(
            progress.offered_per_s if progress is not None else None,
            progress.figures if progress is not None else Figures(),
        )
        fit = [n for n in (3, 2) if n * _PAIR_WIDTH + (n - 1) * _GAP <= width]
        columns = fit[0] if fit else 1
        rows = len(told) // columns
        grid = Table.grid(padding=0)
        for column in range(columns):
            grid.add_column(width=min(_NAME_WIDTH, width), no_wrap=True, overflow="ellipsis")
            grid.add_column(width=_FIGURE_WIDTH, justify="right", no_wrap=True, overflow="ellipsis")
            if column < columns - 1:
                grid.add_column(width=_GAP)
        for row in range(rows):
            cells: list[Text] = []
            for column in range(columns):
                name, text = told[column * rows + row]
                bad = name in ("errors", "dropped") and text not in ("-", "0", "0.0 %")
                cells += [Text(name, style="dim"), Text(text, style="yellow" if bad else "bold")]
                if column < columns - 1:
                    cells.append(Text())
            grid.add_row(*cells)
        return grid

    def _next(self) -> Text:

        trial = self.next_trial()
        text = Text(f"{'next':{_NAME_WIDTH + 1}}", style="dim")
        if trial is not None:
            text.append(output.plain(variant_words(trial.variant)), style="default not dim")
            text.append(f"  ({output.duration_text(trial.expected_s)})", style="dim")
        else:
            text.append("the report", style="default not dim")
        return text


def _line(text: Text, width: int) -> Text:
    """Return the text as one line: cut where it is too long, and never wrapped."""
    text.no_wrap = True
    text.truncate(width, overflow="ellipsis")
    return text
