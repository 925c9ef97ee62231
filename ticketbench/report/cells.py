"""The cells that several tables share: each a figure of a variant or a trial, or the reason why there is none."""

from typing import Final

from ticketbench.conclusions import Integrity, Saturation, TrialAnalysis, Validity, VariantAnalysis
from ticketbench.report import wording
from ticketbench.report.table import Cell, Tone, figure

VALIDITY: Final[dict[str, tuple[str, str, Tone]]] = {
    "valid": ("✓", "valid", "good"),
    "lower_bound": ("≥", "lower bound", "warn"),
    "invalid": ("✕", "invalid", "bad"),
}
INTEGRITY: Final[dict[str, tuple[str, str, Tone]]] = {
    "pass": ("✓", "pass", "good"),
    "violated": ("✕", "violated", "bad"),
    "unknown": ("?", "unknown", "warn"),
    "not_audited": ("○", "not audited", ""),
}

# What stands between the load and the sale. The others are the load itself, the machine as a whole and its other
# tenants: they head the list only where nothing else was measured.
_AROUND: Final = frozenset({"load_generator", "host_cpu", "other_cpu"})
_QUEUE_WORTH_NAMING: Final = 0.95  # about one request waiting at any time
_GENERATOR_NEARLY_SPENT: Final = 0.9
_HELD_BACK_S: Final = 0.05  # of each second: half of a period of the limit, once in a second, is an accident

Judged = VariantAnalysis | TrialAnalysis


def validity_cell(validity: Validity) -> Cell:
    """Return validity as symbol and word; its reasons stand beside the stamp."""
    symbol, word, tone = VALIDITY[validity.status]
    return Cell(f"{symbol} {word}", "", tone)


def integrity_cell(integrity: Integrity) -> Cell:
    """Return integrity as symbol and word, with the counts that decide it."""
    symbol, word, tone = INTEGRITY[integrity.status]
    note = (
        ", ".join(f"{n:,} {name}" for name, n in integrity.wrongs.items() if n)
        if integrity.status == "violated"
        else ""
    )
    return Cell(f"{symbol} {word}", note, tone)


def reason_for(judged: Judged, otherwise: str) -> str:
    """Why a figure is missing: what made the measurement invalid, else what this kind of figure needs."""
    reasons = judged.validity.reasons
    return reasons[0] if judged.validity.status == "invalid" and reasons else otherwise


def latency_cell(judged: Judged, seconds: float | None) -> Cell:
    """Return a latency, or why there is none: no answer to measure, or nothing that measured it."""
    why = reason_for(judged, "no successful answer" if judged.signals.latency_s.count == 0 else "no histogram")
    return figure(wording.latency(seconds), why)


def errors_cell(judged: Judged) -> Cell:
    """Return the share of failed requests with their most frequent kind, and those about as frequent."""
    errors = judged.signals.errors
    kinds = sorted(errors.by_kind.items(), key=lambda item: (-item[1], item[0]))
    most = kinds[0][1] if kinds else 0
    note = ", ".join(f"{kind}: {count:,}" for kind, count in kinds[:3] if count and count >= most / 2)
    return figure(wording.percent(errors.ratio), reason_for(judged, "no request was counted"), note)


def ranked(saturation: dict[str, Saturation]) -> list[tuple[str, Saturation]]:
    """Return the resources with a utilisation, the busiest first; what belongs to the system before what is around."""
    known = [(name, s) for name, s in saturation.items() if s.utilisation is not None]
    return sorted(known, key=lambda item: (item[0] in _AROUND, -round(item[1].utilisation or 0, 2), item[0]))


def queue_text(queue: float | None, unit: str) -> str:
    """Return mean queued work with its unit, which says what waits: ``41 requests waiting for a connection``."""
    text = wording.rough(queue)
    if text is None:
        return "queue not measured"
    if unit == "s" or unit.startswith("seconds"):
        return f"timers fire {wording.latency(queue)} late"
    return f"{text} {unit}" if unit else f"queue {text}"


def held_back(saturation: Saturation) -> str | None:
    """Return for how long a CPU limit held a component back: ``0.62 s of each second``. None where nothing tells."""
    text = wording.rough(saturation.throttled)
    return None if text is None else f"{text} s of each second"


def is_held_back(saturation: Saturation) -> bool:
    """Tell whether a CPU limit holds a component back for long enough to be worth a word."""
    return (saturation.throttled or 0.0) >= _HELD_BACK_S


def busiest_cell(judged: Judged) -> Cell:
    """Return the busiest resource with utilisation and queue, and other queues that are worth a look."""
    saturation = judged.signals.saturation
    order = ranked(saturation)
    if not order:
        return figure(None, reason_for(judged, "no series of any resource"))
    name, top = order[0]
    notes = [queue_text(top.queue, top.unit)]
    notes += [
        f"{'' if other == name else f'{wording.resource(other)}: '}held back by its CPU limit {held_back(s)}"
        for other, s in sorted(saturation.items(), key=lambda item: item[0] != name)
        if is_held_back(s)
    ]
    notes += [
        f"{wording.resource(other)}: {queue_text(s.queue, s.unit)}"
        for other, s in sorted(saturation.items())
        if other != name and s.utilisation is None and (s.queue or 0) >= _QUEUE_WORTH_NAMING
    ]
    generator = saturation.get("load_generator")
    if name != "load_generator" and generator and (generator.utilisation or 0) >= _GENERATOR_NEARLY_SPENT:
        notes.append(f"load generator {wording.busy(generator.utilisation)}")
    of_limit = " of its limit" if top.limit_cores is not None else ""
    return Cell(f"{wording.resource(name)} {wording.busy(top.utilisation)}{of_limit}", "; ".join(notes))
