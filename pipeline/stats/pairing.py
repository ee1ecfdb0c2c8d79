"""Two arms on the same items: is B different from A, by how much, and what could not have been seen?

Everything goes by the differences d = b - a of items that both arms have, summed within clusters.

                       interval                              test
    up to 20 clusters  sign-flip, exact                      sign-flip, exact
    more               mean +- t * SE, clustered             sign-flip, exact, if up to 20 clusters differ at all; else
                                                             clustered t
    passes (0 or 1)    Newcombe's, clustered (MOVER),        McNemar, exact, if every item is a cluster of its own; else
                       if more than 20 clusters or           as above
                       fewer than 6 that differ

A sign-flip test takes nothing for granted but that, without a difference, each cluster's sum of differences might as well have
had the other sign. With `LEAST_CLUSTERS - 1` clusters it can never say "different": 2 / 2^5 is more than 5 %.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.stats.intervals import (
    LEVEL,
    NOTHING,
    Floats,
    Item,
    Numbers,
    are_passes,
    clustered_quantile,
    clustered_se,
    effective_size,
    numbered,
    residual_sums,
    wilson,
)
from pipeline.stats.latency import Quantile
from pipeline.stats.student import t_central, t_quantile

LEAST_CLUSTERS = 6
_MOST_FLIPPED = 20  # clusters whose 2^20 signs are gone through: a million
_ROUNDING = 1e-9  # what would be zero in whole numbers is zero: 0.1 + 0.2 - 0.3 has no sign

Ends = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Paired:
    """B against A, in the score's own unit.

    `difference` is the mean of b - a, (`low`, `high`) its 95 % interval, `se` its clustered standard error, `p` two-sided.
    `detectable` is the least difference that such a comparison finds in 80 % of cases. `differing` of the `clusters` are not
    the same in both. Under LEAST_CLUSTERS clusters there is a difference, and nothing else.
    """

    difference: float
    low: float | None
    high: float | None
    se: float | None
    p: float | None
    detectable: float | None
    n: int
    clusters: int
    differing: int
    test: Literal["", "mcnemar", "sign-flip", "t"]


def paired(
    a: Mapping[Item, float],
    b: Mapping[Item, float],
    cluster_of: Mapping[Item, Hashable],
    *,
    rates: bool = False,
    level: float = LEVEL,
) -> Paired:
    """Compares B with A on the items that both have; values are one an item (see `reduce_repeats`).

    What stands in the table above is taken by what the values are; `rates` may be above 1, and are no passes even where all
    are 0 or 1. If no item differs in a score that is no pass, there is neither an interval nor an effect that could have been
    seen. `level` is that of the interval alone. Raises ValueError without shared items.
    """
    shared = [item for item in a if item in b]
    if not shared:
        raise ValueError("no shared items")
    x, y = (np.array([arm[item] for item in shared], float) for arm in (a, b))
    member = numbered([cluster_of[item] for item in shared])
    d, n, clusters = y - x, len(shared), int(member.max()) + 1
    difference = float(d.mean())
    sums = np.asarray(np.bincount(member, weights=d), np.float64)
    sums[np.abs(sums) <= _ROUNDING * max(np.abs(x).max(), np.abs(y).max())] = 0.0
    differing = int(np.count_nonzero(sums))
    if clusters < LEAST_CLUSTERS:
        return Paired(difference, None, None, None, None, None, n, clusters, differing, "")
    se, t = clustered_se(d, member), t_quantile((1 + level) / 2, clusters - 1)
    passes = not rates and are_passes(x) and are_passes(y)
    ends: Ends | None = None
    if passes and (clusters > _MOST_FLIPPED or differing < LEAST_CLUSTERS):
        ends = _difference_of_shares(x, y, member, level)
    elif differing and clusters <= _MOST_FLIPPED:
        ends = sign_flip_interval(sums, np.bincount(member), level=level)
    elif differing:
        ends = difference - t * se, difference + t * se
    test: Literal["mcnemar", "sign-flip", "t"]
    if passes and clusters == n:
        test, p = "mcnemar", mcnemar(int((d > 0).sum()), int((d < 0).sum()))
    elif differing <= _MOST_FLIPPED:
        test, p = "sign-flip", sign_flip(sums)
    else:
        test, p = "t", 1 - t_central(abs(difference) / se, clusters - 1)
    detectable = minimum_detectable_effect(se, clusters) if ends else None
    if detectable is not None and test != "t":
        # On counts an exact test is as strict as one with Edwards's correction for continuity (1948): one step of the scores
        # in one item.
        detectable += (float(np.abs(d[d != 0]).min()) if d.any() else 1.0) / n
    if detectable is not None and passes:
        apart = float(d.var()) / se**2 / clusters if se > NOTHING else 1.0
        detectable = min(1.0, max(detectable, least_visible_change(clusters, apart)))
    return Paired(
        difference,
        ends[0] if ends else None,
        ends[1] if ends else None,
        se,
        p,
        detectable,
        n,
        clusters,
        differing,
        test,
    )


def minimum_detectable_effect(se: float, clusters: int) -> float:
    """The true difference that a paired comparison over so many clusters calls different in 80 % of cases, in the unit of `se`,
    the standard error of the mean difference: (t(1 - alpha/2) + t(0.80)) * SE with clusters - 1 degrees of freedom (Miller 2024,
    section 5, with t for z; Bloom 1995).

    alpha is 0.05, or what of it a sign-flip test can use: 2/64 with six clusters. Raises ValueError for fewer.
    """
    alpha = 0.05
    if clusters <= _MOST_FLIPPED:
        signs = 2**clusters
        alpha = 2 * math.floor(0.025 * signs) / signs
    if not alpha:
        raise ValueError(f"{clusters} clusters can never tell")
    return (t_quantile(1 - alpha / 2, clusters - 1) + t_quantile(0.80, clusters - 1)) * se


def least_visible_change(clusters: int, items: float = 1.0) -> float:
    """The least change of a pass rate, 0 to 1, that moves LEAST_CLUSTERS of the `clusters` in 80 % of cases; with fewer, no
    exact test can tell, however small the standard error was. `items` is how many independent items a cluster is worth, at
    least one: none of them moves with probability (1 - change) ** items.
    """
    low, high = 0.0, 1.0
    for _ in range(50):
        moved = (low + high) / 2
        fewer = sum(math.comb(clusters, k) * moved**k * (1 - moved) ** (clusters - k) for k in range(LEAST_CLUSTERS))
        low, high = (moved, high) if fewer > 0.2 else (low, moved)
    return float(1 - (1 - high) ** (1 / max(items, 1.0)))


def mcnemar(better: int, worse: int) -> float:
    """Exact two-sided p-value for `better` and `worse` items that changed sides, all items independent: the binomial test of
    1/2 (McNemar 1947)."""
    n, k = better + worse, min(better, worse)
    log_half = n * math.log(0.5)
    below = sum(
        math.exp(math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) + log_half) for i in range(k + 1)
    )
    return min(1.0, 2 * below)


def sign_flip(sums: Floats) -> float:
    """Exact two-sided p-value of a sign-flip permutation over clusters' `sums` of differences: the share of the 2^C choices of
    signs whose total is at least as far from zero as the total seen (Fisher 1935). At most 20 sums other than zero."""
    moved = sums[sums != 0]
    if len(moved) > _MOST_FLIPPED:
        raise ValueError(f"{len(moved)} sums are too many to go through")
    if not len(moved):
        return 1.0
    total = float(moved.sum())
    flipped = _sums_of_sets(moved[1:])  # by symmetry one sign may stay
    flipped *= -2
    flipped += total
    slack = NOTHING * float(np.abs(moved).sum())  # equal totals, but for rounding
    return float(np.mean(np.abs(flipped, out=flipped) >= abs(total) - slack))


def sign_flip_interval(sums: Floats, sizes: Numbers, *, level: float = LEVEL) -> Ends | None:
    """The differences that a sign-flip test over clusters does not refuse at 1 - `level`: an interval for the mean difference.

    `sums` are the clusters' sums of differences, `sizes` how many items each has. Flipping the signs of some clusters gives a
    total as large as the one seen, at a supposed difference, just when their own mean lies below it: the ends are order
    statistics of the means of all 2^C - 1 sets of clusters (Hartigan 1969). None for too few clusters; at most 20.
    """
    if len(sums) > _MOST_FLIPPED:
        raise ValueError(f"{len(sums)} clusters are too many to go through")
    rank = math.floor((1 - level) / 2 * 2 ** len(sums) + NOTHING)
    if not rank:
        return None
    means = _sums_of_sets(sums)[1:]
    means /= _sums_of_sets(sizes.astype(float))[1:]
    means[np.abs(means) <= _ROUNDING * float(np.abs(sums).max())] = 0.0
    means.partition((rank - 1, len(means) - rank))
    return float(means[rank - 1]), float(means[len(means) - rank])


def _sums_of_sets(values: Floats) -> Floats:
    """The sums of all sets of values, that of the empty set first."""
    sums = np.zeros(2 ** len(values))
    for place, value in enumerate(values):
        np.add(sums[: 2**place], value, out=sums[2**place : 2 ** (place + 1)])
    return sums


def paired_quantile(
    a: Sequence[float],
    b: Sequence[float],
    clusters_a: Sequence[Hashable],
    clusters_b: Sequence[Hashable],
    q: float,
    *,
    level: float = LEVEL,
) -> Quantile:
    """By how much the `q`-quantile of `b` lies above that of `a`, in their unit, with an interval.

    The intervals of both (`clustered_quantile`) are joined by MOVER (Zou and Donner 2008), with the correlation of the two
    quantiles over the clusters. An end is None where one of theirs is. Raises ValueError for no values.
    """
    one = clustered_quantile(a, clusters_a, q, level=level)
    other = clustered_quantile(b, clusters_b, q, level=level)
    every = numbered([*clusters_a, *clusters_b])
    c = int(every.max()) + 1
    below_a, below_b = (
        _padded(residual_sums((np.asarray(x, float) <= found.value).astype(float), member), c)
        for x, found, member in ((a, one, every[: len(a)]), (b, other, every[len(a) :]))
    )
    together = _correlation(below_a, below_b)
    difference = other.value - one.value
    return Quantile(
        difference,
        None
        if other.low is None or one.high is None
        else difference - _joined(other.value - other.low, one.high - one.value, together),
        None
        if other.high is None or one.low is None
        else difference + _joined(other.high - other.value, one.value - one.low, together),
    )


def _difference_of_shares(x: Floats, y: Floats, member: Numbers, level: float) -> Ends:
    """Newcombe's interval for paired shares (1998, method 10, without its continuity correction), from the clustered intervals
    of both. An arm whose clusters do not differ is worth as many items as the other."""
    clusters = int(member.max()) + 1
    t = t_quantile((1 + level) / 2, clusters - 1)
    worth_a, worth_b = effective_size(x, member), effective_size(y, member)
    share_a, share_b = float(x.mean()), float(y.mean())
    low_a, high_a = wilson(share_a, worth_a or worth_b or float(clusters), t)
    low_b, high_b = wilson(share_b, worth_b or worth_a or float(clusters), t)
    together = _correlation(residual_sums(x, member), residual_sums(y, member))
    return (
        share_b - share_a - _joined(share_b - low_b, high_a - share_a, together),
        share_b - share_a + _joined(high_b - share_b, share_a - low_a, together),
    )


def _joined(one: float, other: float, together: float) -> float:
    """MOVER: the half width of a difference from those of its parts, which go together as far as `together`, -1 to 1."""
    return math.sqrt(max(0.0, one * one - 2 * together * one * other + other * other))


def _correlation(x: Floats, y: Floats) -> float:
    """Of residuals that add up to zero; 0 if one side has none."""
    size = math.sqrt(float((x * x).sum()) * float((y * y).sum()))
    return float((x * y).sum()) / size if size > NOTHING else 0.0


def _padded(x: Floats, length: int) -> Floats:
    return np.pad(x, (0, length - len(x)))
