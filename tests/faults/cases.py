"""All cases, in the order of the table: the rooms beside this one hold them by subject."""

from tests.faults.case import Case
from tests.faults.limits import disk_cases, limit_cases
from tests.faults.own import own_cases, terminal_cases
from tests.faults.parts import part_cases
from tests.faults.runs import pair_cases, run_cases


def all_cases() -> tuple[Case, ...]:
    """Return every case, in the order of the table."""
    return (
        *part_cases(),
        *own_cases(),
        *terminal_cases(),
        *disk_cases(),
        *limit_cases(),
        *pair_cases(),
        *run_cases(),
    )
