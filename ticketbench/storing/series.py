"""A trial's series: one row a second, one column a series."""

from pathlib import Path

import pandas as pd

from ticketbench.storing.files import DAMAGE, Damaged, damaged, write_gzip


def write_series(path: Path, series: pd.DataFrame) -> None:
    """Write the frame, whose index is Unix seconds. Raises EnvironmentFailure."""
    write_gzip(path, series.to_csv(index_label="t", float_format="%.15g", lineterminator="\n"))


def read_series(path: Path, where: str) -> pd.DataFrame:
    """Read the file. Raises Damaged, which calls it ``where``."""
    try:
        frame = pd.read_csv(path, compression="gzip", dtype=float).set_index("t")
    except DAMAGE as error:
        raise damaged(where, error) from error
    if not frame.index.is_monotonic_increasing or not frame.index.is_unique or frame.index.hasnans:
        raise Damaged(f"{where} is damaged: its times do not rise")
    return frame
