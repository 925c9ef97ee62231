"""What came over a trial from outside, and how much it weighs.

*clock_step*: series are joined by the wall clock, so wherever it was set they do not belong together: invalid.

*shared_machine*: another run takes CPU, so the system can do at least what was seen: a lower bound.

*standstill*: ticketbench did not run. What it spoils depends on what else stood still, and on when.

- k6 writes to files and pushes to Prometheus; servers and sampler are processes of their own. None of them waits for
  ticketbench. Where it alone stood still (a SIGSTOP), the arrivals went on as scheduled, pools and caches were warmed
  as ever, and every figure was taken. Wholly outside of the window that is worth a note and no more.
- Before k6's start was seen, that start is known to half of the standstill only, and so is where the window lies:
  invalid.
- Within the window nobody looked after the components, and a window that ends with k6 ends late: invalid.
- Where everything stood still (a machine asleep, a frozen virtual machine or control group), so did k6. Its schedule
  goes by a clock that may not count the pause: then the window came later than noted. Or that does: then the warm-up
  lacks those arrivals, or has them in one burst, and pool and caches are not as warm as they would be, or still busy.
  Invalid, wherever it was. The sampler tells, because it stood still as well; without its series nobody knows, which
  is no better.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from ticketbench.analysis.series import Series, known
from ticketbench.model import Disturbance

if TYPE_CHECKING:
    from ticketbench.store import TrialData

Weight = Literal["invalid", "lower_bound", "note"]

# The sampler tells of a gap when it runs again; its push and the row that shows it follow within two seconds.
_TOLD_WITHIN_S: Final = 3.0
# The sampler's gap is counted beyond its period and only above half a second: half is well clear of that and of chance.
_SHARED: Final = 0.5


def disturbed(trial: "TrialData", series: Series, *, performance: bool) -> Iterator[tuple[Weight, str]]:
    """Yield the weight and the sentence of each disturbance; for a scenario without performance claim all are notes."""
    for disturbance in trial.record.disturbances:
        yield _judged(trial, series, disturbance) if performance else ("note", disturbance.text)


def _judged(trial: "TrialData", series: Series, disturbance: Disturbance) -> tuple[Weight, str]:
    if disturbance.kind == "standstill":
        weight, consequence = _standstill(trial, series, disturbance)
        return weight, f"{disturbance.text}: {consequence}"
    return ("invalid" if disturbance.kind == "clock_step" else "lower_bound"), disturbance.text


def _standstill(trial: "TrialData", series: Series, disturbance: Disturbance) -> tuple[Weight, str]:
    record = trial.record
    begun_s, ended_s = disturbance.at_s, disturbance.at_s + disturbance.seconds
    if record.window is None or record.load is None:
        return "invalid", "where its window lay is not known"
    if begun_s <= record.load.started_s:
        return "invalid", "when k6 began, and so where the window lies, is not known"
    if begun_s < record.window.end_s and ended_s > record.window.start_s:
        return "invalid", "that was in the window, which is not to be believed"
    missed_s = known(series.increase("sampler.gap_s", np.array([begun_s - 1, ended_s + _TOLD_WITHIN_S]))[0])
    if missed_s is None:
        return "invalid", "whether the load stood still as well is not known, for want of the sampler's series"
    if missed_s > _SHARED * disturbance.seconds:
        return "invalid", "so did the whole machine and with it the load, so the window is not the one that was planned"
    where = "the warm-up" if ended_s <= record.window.start_s else "what came after the window"
    return "note", f"that was in {where}, the load went on as scheduled, and the window is whole"
