"""One signal compared: effect, interval, and a verdict with its reason (METHOD.md section 5).

The effect is d = log(candidate / baseline), turned so that worse is positive. With replicates on both sides it has a
95 % t interval: paired by block (n blocks) or Welch's for two independent groups. Then

    regressed     lower end > 0 and d >= log(1 + margin)
    improved      upper end < 0 and d <= -log(1 + margin)
    unchanged     upper end < log(1 + margin): not worse by more than the margin (it may be better)
    inconclusive  otherwise

With one trial on a side there is no interval. Noise of one margin is usual, so a change counts from two margins on, is
inconclusive between one and two, and within one margin reads as unchanged. Nothing measured is always inconclusive.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ticketbench.analysis import wording
from ticketbench.analysis.wording import number, percent, signed_percent
from ticketbench.conclusions import Verdict

CONFIDENCE: Final = 0.95
# Where one trial alone has to tell: twice the margin (see above).
ONE_TRIAL_MARGINS: Final = 2.0
# Seeing none of n events still leaves 3/n possible at 95 % (the rule of three: 0.05 = (1 - p)^n).
RULE_OF_THREE: Final = 3.0
# An interval that reaches a factor of a hundred says only that there are too few trials.
FARTHEST_END: Final = 100.0


@dataclass(frozen=True)
class Judged:
    """A verdict with its figures.

    ``ratio`` is candidate / baseline (of geometric means over the trials, as logarithms are compared); ``interval`` is
    of the ratio, or for a risk of the difference.
    """

    verdict: Verdict
    reason: str
    ratio: float | None = None
    difference: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Sample:
    """A share of failed requests in one trial, and of how many."""

    ratio: float
    requests: int


def compare_ratio(
    baseline: Sequence[float], candidate: Sequence[float], *, margin: float, lower_is_better: bool, paired: bool
) -> Judged:
    """Judge a positive quantity by its replicates. ``paired``: values of one index belong to one block."""
    if not baseline or not candidate:
        return Judged("inconclusive", f"no data: {_absent(baseline, candidate)}")
    if min(*baseline, *candidate) <= 0:
        return _with_zero(baseline, candidate, lower_is_better=lower_is_better)
    logs_b, logs_c = [math.log(x) for x in baseline], [math.log(x) for x in candidate]
    d = _mean(logs_c) - _mean(logs_b)
    sign = 1.0 if lower_is_better else -1.0
    limit = math.log1p(margin)
    half = _half_width(logs_b, logs_c, paired=paired)
    ratio = math.exp(d)
    if half is None:
        verdict, reason = _one_trial(sign * d, limit, margin, ratio, lower_is_better=lower_is_better)
        return Judged(verdict, reason, ratio)
    interval = (math.exp(d - half), math.exp(d + half))
    verdict = _decide(sign * d, half, limit)
    return Judged(verdict, _reason(verdict, ratio, interval, margin, lower_is_better), ratio, interval=interval)


def compare_risk(baseline: Sequence[Sample], candidate: Sequence[Sample], *, margin: float) -> Judged:
    """Judge shares of failed requests by their difference; none seen of n reads as up to 3/n."""
    if not baseline or not candidate:
        return Judged("inconclusive", f"no data: {_absent(baseline, candidate)}")
    of_b, of_c = [one.ratio for one in baseline], [one.ratio for one in candidate]
    d = _mean(of_c) - _mean(of_b)
    below, above = _unseen(baseline), _unseen(candidate)  # how far each side's zero may be from the truth
    half = _half_width(of_b, of_c, paired=False)
    ratio = _mean(of_c) / _mean(of_b) if _mean(of_b) > 0 else None
    points = f"from {percent(_mean(of_b))} to {percent(_mean(of_c))} of the requests failed"
    if below and above:
        settled = max(below, above) < margin
        counts = f"none of {_requests(baseline)} and none of {_requests(candidate)} requests failed"
        needed = math.floor(RULE_OF_THREE / margin) + 1
        reason = (
            f"{counts}: a change is below {percent(max(below, above))}"
            if settled
            else f"{counts}, which still reads as up to {percent(max(below, above))}:"
            f" more than {needed - 1} requests on each side would settle it"
        )
        return Judged("unchanged" if settled else "inconclusive", reason, None, 0.0, (-below, above))
    if half is None:
        low, high = d - below, d + above
        verdict, reason = _one_trial_risk(d, low, high, margin)
        return Judged(verdict, f"{points}: {reason}", ratio, d)
    low, high = d - max(half, below), d + max(half, above)
    if low > 0 and d >= margin:
        return Judged("regressed", f"{points}, beyond the margin of {percent(margin)}", ratio, d, (low, high))
    if high < 0 and d <= -margin:
        return Judged("improved", f"{points}, beyond the margin of {percent(margin)}", ratio, d, (low, high))
    if high < margin:
        return Judged("unchanged", f"{points}: at worst {percent(high)} more", ratio, d, (low, high))
    reason = f"{points}: from {signed_percent(low)} to {signed_percent(high)} is possible; more trials would tell"
    return Judged("inconclusive", reason, ratio, d, (low, high))


# --- the rules --------------------------------------------------------------------------------------------------------


def _decide(worse: float, half: float, limit: float) -> Verdict:
    if worse - half > 0 and worse >= limit:
        return "regressed"
    if worse + half < 0 and worse <= -limit:
        return "improved"
    return "unchanged" if worse + half < limit else "inconclusive"


def _half_width(baseline: Sequence[float], candidate: Sequence[float], *, paired: bool) -> float | None:
    """Return half of the 95 % interval of the difference of means; None where a side has one value only."""
    if len(baseline) < 2 or len(candidate) < 2:
        return None
    from scipy.special import stdtrit  # heavy

    if paired and len(baseline) == len(candidate):
        differences = [c - b for b, c in zip(baseline, candidate, strict=True)]
        error2 = _variance(differences) / len(differences)
        freedom = float(len(differences) - 1)
    else:
        part_b, part_c = _variance(baseline) / len(baseline), _variance(candidate) / len(candidate)
        error2 = part_b + part_c
        if error2 == 0:
            return 0.0
        freedom = error2**2 / (
            part_b**2 / (len(baseline) - 1) + part_c**2 / (len(candidate) - 1)
        )  # Welch-Satterthwaite
    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * math.sqrt(error2)


def _one_trial(
    worse: float, limit: float, margin: float, ratio: float, *, lower_is_better: bool
) -> tuple[Verdict, str]:
    change = signed_percent(ratio - 1)
    caution = "one trial cannot tell noise from change"
    if abs(worse) < limit:
        return "unchanged", f"{change}, within the margin of {percent(margin)}; {caution}"
    if abs(worse) < ONE_TRIAL_MARGINS * limit:
        return (
            "inconclusive",
            f"{change}, beyond the margin of {percent(margin)} and not beyond twice of it: {caution}; repeat with"
            " --trials 3 or more",
        )
    verdict: Verdict = "regressed" if worse > 0 else "improved"
    return verdict, f"{_change(ratio, lower_is_better)}, more than twice the margin of {percent(margin)}; {caution}"


def _one_trial_risk(d: float, low: float, high: float, margin: float) -> tuple[Verdict, str]:
    caution = "one trial cannot tell noise from change"
    if d >= ONE_TRIAL_MARGINS * margin and low > 0:
        return "regressed", f"more than twice the margin of {percent(margin)}; {caution}"
    if d <= -ONE_TRIAL_MARGINS * margin and high < 0:
        return "improved", f"more than twice the margin of {percent(margin)}; {caution}"
    if abs(d) < margin and high < margin:
        return "unchanged", f"within the margin of {percent(margin)}; {caution}"
    return (
        "inconclusive",
        f"not beyond twice the margin of {percent(margin)}: {caution}; repeat with --trials 3 or more",
    )


def _reason(
    verdict: Verdict,
    ratio: float,
    interval: tuple[float, float],
    margin: float,
    lower_is_better: bool,  # noqa: FBT001
) -> str:
    of = f"{_change(ratio, lower_is_better)} ({_end(interval[0])} to {_end(interval[1])})"
    if verdict == "unchanged":
        return f"{of}: not worse by more than the margin of {percent(margin)}"
    if verdict == "inconclusive":
        return f"{of}: the interval holds both a change beyond the margin of {percent(margin)} and none; add trials"
    return f"{of}: beyond the margin of {percent(margin)}"


def _with_zero(baseline: Sequence[float], candidate: Sequence[float], *, lower_is_better: bool) -> Judged:
    """Judge where a zero was measured, of which there is no logarithm: only all against nothing is a change."""
    if max(baseline) > 0 and max(candidate) <= 0:
        verdict: Verdict = "improved" if lower_is_better else "regressed"
        return Judged(verdict, f"{number(_mean(baseline))} came down to 0", 0.0)
    if max(baseline) <= 0 and min(candidate) > 0:
        verdict = "regressed" if lower_is_better else "improved"
        return Judged(verdict, f"it was 0 and is {number(_mean(candidate))}")
    return Judged("inconclusive", "it is 0 in some trials of a side, or in both: no ratio can be taken")


# --- small parts ------------------------------------------------------------------------------------------------------


def _change(ratio: float, lower_is_better: bool) -> str:  # noqa: FBT001
    word = "better" if (ratio < 1) == lower_is_better else "worse"
    times = ratio if ratio >= 1 else 1 / ratio
    if times >= 2:
        return f"{wording.times(times)} {'higher' if ratio > 1 else 'lower'}, which is {word}"
    return signed_percent(ratio - 1)


def _end(ratio: float) -> str:
    """Return an end of an interval; few trials give ends that no digits can make sense of."""
    if ratio > FARTHEST_END:
        return f"more than {number(FARTHEST_END)}x"
    if ratio < 1 / FARTHEST_END:
        return f"less than 1/{number(FARTHEST_END)}"
    return f"{number(ratio)}x" if ratio >= 2 else signed_percent(ratio - 1)


def _unseen(samples: Sequence[Sample]) -> float:
    """Return how large a risk may be that was not seen at all; 0 where it was seen."""
    count = _requests(samples)
    return RULE_OF_THREE / count if count > 0 and all(one.ratio == 0 for one in samples) else 0.0


def _requests(samples: Sequence[Sample]) -> int:
    return sum(one.requests for one in samples)


def _absent(baseline: Sequence[object], candidate: Sequence[object]) -> str:
    if not baseline and not candidate:
        return "no believable trial of either side measured it"
    return f"no believable trial of the {'candidate' if baseline else 'baseline'} measured it"


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.fsum((x - mean) ** 2 for x in values) / (len(values) - 1)
