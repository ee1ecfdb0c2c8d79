"""What a gate may ask of an arm, with an interval: its scores, its latencies, and its usable replies.

in_character, slop ...            the mean of a score
e2e_p50, ttft_p95, tpot_p99 ...   a quantile of the latency, in seconds
in_time                           the share of replies that came within the game's "thinking" time-out
usable                            the share that came in time and in character
usable_per_second                 the same, times replies per second: what a server is worth to a game
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.comparison import Arm
from pipeline.comparison.arm import Item
from pipeline.stats import LEVEL, Mean, clustered_mean, clustered_quantile, paired, paired_quantile
from pipeline.stats.intervals import Floats, Numbers

TIMES = ("e2e", "ttft", "tpot")
QUANTILES = (50, 95, 99)
SHARES = ("in_time", "usable", "usable_per_second")
MEASURES = (*(f"{time}_p{q}" for time in TIMES for q in QUANTILES), *SHARES)
IN_CHARACTER = "in_character"

_PASSES = 0.5  # a reply with less is out of character


@dataclass(frozen=True, slots=True)
class Estimate:
    """`low` and `high` are None where too little is known to bound it; `value` is, where nothing is."""

    value: float | None
    low: float | None
    high: float | None


UNKNOWN = Estimate(None, None, None)


def measured(arm: Arm, measure: str, patience: float, *, level: float = LEVEL) -> Estimate:
    """`measure` of an arm, with an interval that holds it with probability `level`. `patience`: seconds until a reply is late."""
    if time := _time(measure):
        what, q = time
        values, clusters = arm.times(what, set(arm.items)) if what in arm.seconds else ([], [])
        if not values:
            return UNKNOWN
        found = clustered_quantile(values, clusters, q, level=level)
        return Estimate(found.value, found.low, found.high)
    values_of = _values(arm, measure, patience)
    if not values_of:
        return UNKNOWN
    mean = clustered_mean(values_of, _persona_of(values_of), level=level)
    return _scaled(mean, _scale(arm, measure))


def difference(a: Arm, b: Arm, measure: str, patience: float, *, level: float = LEVEL) -> Estimate:
    """By how much `measure` of `b` lies above that of `a`, on the items that both have."""
    if time := _time(measure):
        what, q = time
        if what not in a.seconds or what not in b.seconds:
            return UNKNOWN
        both = a.timed(what) & b.timed(what)
        (x, of_x), (y, of_y) = a.times(what, both), b.times(what, both)
        if not x or not y:
            return UNKNOWN
        found = paired_quantile(x, y, of_x, of_y, q, level=level)
        return Estimate(found.value, found.low, found.high)
    one, other = _values(a, measure, patience), _values(b, measure, patience)
    if not one.keys() & other.keys():
        return UNKNOWN
    if measure == "usable_per_second":
        # Both are rates of their own server, over different seconds: each item's share counts for as much as its arm is fast.
        one = {item: value * _scale(a, measure) for item, value in one.items()}
        other = {item: value * _scale(b, measure) for item, value in other.items()}
    rates = measure in a.less | b.less or measure == "usable_per_second"
    pair = paired(one, other, _persona_of(one), rates=rates, level=level)
    return Estimate(pair.difference, pair.low, pair.high)


def _time(measure: str) -> tuple[str, float] | None:
    """Of a latency: which one, and which quantile of it."""
    if measure not in MEASURES or measure in SHARES:
        return None
    what, _, q = measure.partition("_p")
    return what, int(q) / 100


def _values(arm: Arm, measure: str, patience: float) -> dict[Item, float]:
    """One value for each item that has any: the mean of its repeats."""
    if measure not in SHARES:
        return arm.means(measure) if measure in arm.scores else {}
    flags = _flags(arm, patience, in_character=measure != "in_time")
    return arm.means_of(flags) if flags else {}


def _flags(arm: Arm, patience: float, *, in_character: bool) -> tuple[Numbers, Floats] | None:
    """For each reply that was timed whether a game could use it. None where it cannot be known."""
    if "e2e" not in arm.seconds or (in_character and IN_CHARACTER not in arm.scores):
        return None
    replies, seconds = (np.asarray(column) for column in arm.seconds["e2e"])
    good = (seconds <= patience).astype(float)
    if in_character:
        scored, values = (np.asarray(column) for column in arm.scores[IN_CHARACTER])
        passing = np.zeros(len(arm.texts), bool)  # silence is not in character either
        passing[scored[values >= _PASSES]] = True
        good *= passing[replies]
    return replies, good


def _scale(arm: Arm, measure: str) -> float:
    if measure != "usable_per_second":
        return 1.0
    return len(arm.seconds["e2e"][0]) / arm.busy if arm.busy else 0.0


def _scaled(mean: Mean, scale: float) -> Estimate:
    value, low, high = (None if end is None else end * scale for end in (mean.value, mean.low, mean.high))
    return Estimate(value, low, high)


def _persona_of(values: Mapping[Item, float]) -> dict[Item, Hashable]:
    return {item: item[0] for item in values}
