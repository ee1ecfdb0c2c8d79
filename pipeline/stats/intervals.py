"""One arm: means, pass rates and quantiles with intervals clustered by persona."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.stats.latency import Quantile, ranks
from pipeline.stats.student import t_quantile

Item = TypeVar("Item", bound=Hashable)
Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]  # the cluster of each value, numbered from 0

LEVEL = 0.95  # how often an interval holds what it is about
NOTHING = 1e-12  # a standard error under this is rounding


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean with its 95 % interval over `n` items in `clusters` clusters, and its standard error `se`, clustered as well; no
    interval for a single cluster, and no mean of nothing."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    clusters: int
    se: float | None = None


def reduce_repeats(values: Sequence[float], items: Sequence[Item]) -> dict[Item, float]:
    """One mean for each item, in order of first appearance."""
    collected: dict[Item, list[float]] = {}
    for item, value in zip(items, values, strict=True):
        collected.setdefault(item, []).append(value)
    return {item: sum(group) / len(group) for item, group in collected.items()}


def numbered(clusters: Sequence[Hashable]) -> Numbers:
    """The clusters as numbers from 0, in order of first appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], np.int64)


def clustered_mean(values: Mapping[Item, float], cluster_of: Mapping[Item, Hashable], *, level: float = LEVEL) -> Mean:
    """Mean of scores, in their own unit, with an interval clustered by `cluster_of` that holds it with probability `level`.

    Passes and failures (all values 0 or 1) get Wilson's interval at the effective sample size p(1-p)/SE^2, with t in place
    of z: a normal interval is wrong near 0 and 1. Where all clusters agree, no variance can be estimated and each counts as
    one observation. Other scores get mean +- t * SE, cut to [0, 1] if all of them are in there. Raises ValueError for no
    values.
    """
    if not values:
        raise ValueError("no values")
    x = np.fromiter(values.values(), dtype=float)
    member = numbered([cluster_of[item] for item in values])
    n, clusters, mean = len(x), int(member.max()) + 1, float(x.mean())
    if clusters < 2:
        return Mean(mean, None, None, n, clusters)
    se = clustered_se(x, member)
    if are_passes(x):
        low, high = clustered_wilson(x, member, level)
    else:
        half = t_quantile((1 + level) / 2, clusters - 1) * se
        low, high = mean - half, mean + half
        if x.min() >= 0 and x.max() <= 1:
            low, high = max(0.0, low), min(1.0, high)
    return Mean(mean, low, high, n, clusters, se)


def are_passes(x: Floats) -> bool:
    return bool(np.isin(x, (0.0, 1.0)).all())


def clustered_se(x: Floats, member: Numbers) -> float:
    """Standard error of the mean of `x` with clusters numbered 0.. in `member`: sqrt(sum of squared cluster sums of
    residuals) / n, times sqrt(C / (C - 1)) for the number of clusters C (at least two)."""
    sums = residual_sums(x, member)
    c = len(sums)
    return float(np.sqrt((sums**2).sum()) / len(x) * math.sqrt(c / (c - 1)))


def residual_sums(x: Floats, member: Numbers) -> Floats:
    """For each cluster the sum of its values' distances from the mean of all."""
    return np.asarray(np.bincount(member, weights=x - x.mean()), np.float64)


def clustered_wilson(x: Floats, member: Numbers, level: float = LEVEL) -> tuple[float, float]:
    """Interval for the share of ones in `x`, a value of 0 or 1 for each item: Wilson's at the effective sample size."""
    clusters = int(member.max()) + 1
    t = t_quantile((1 + level) / 2, clusters - 1)
    return wilson(float(x.mean()), effective_size(x, member) or float(clusters), t)


def effective_size(x: Floats, member: Numbers) -> float | None:
    """How many independent items the values of 0 or 1 are worth: p(1-p)/SE^2, at most all. None where clusters do not differ."""
    share, se = float(x.mean()), clustered_se(x, member)
    return None if se < NOTHING else min(share * (1 - share) / se**2, float(len(x)))


def wilson(p: float, n: float, z: float = NormalDist().inv_cdf(0.975)) -> tuple[float, float]:
    """Wilson's score interval for a share `p` of `n` (Wilson 1927); `n` need not be whole."""
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At p = 0 or 1 an end is p itself, but for the last bit.
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def clustered_quantile(
    values: Sequence[float], clusters: Sequence[Hashable], q: float, *, level: float = LEVEL
) -> Quantile:
    """The `q`-quantile (linear interpolation) of `values`, in their unit, with an interval that knows about clusters.

    How many of n independent values lie below the true quantile is binomial (`latency.quantile`); clusters make them worth
    fewer: the effective size of the share of values up to the quantile, less again for what is not known of it with few clusters
    (Korn and Graubard 1998, who do so for the exact interval of a share). The ends are read off the ordered values. An end is
    None where the values do not reach so far, and for a single cluster. Raises ValueError for no values.
    """
    if not len(values):
        raise ValueError("no values")
    x, member = np.asarray(values, float), numbered(clusters)
    value, n, c = float(np.quantile(x, q)), len(x), int(member.max()) + 1
    if c < 2:
        return Quantile(value, None, None)
    worth = effective_size((x <= value).astype(float), member) or float(c)
    tail = (1 + level) / 2
    worth *= (NormalDist().inv_cdf(tail) / t_quantile(tail, c - 1)) ** 2
    worth = max(1.0, min(worth, float(n)))
    low, high = (rank / int(worth) for rank in ranks(int(worth), q, level))
    ordered = np.sort(x)
    first, last = math.floor(low * n) - 1, math.floor(high * n)
    return Quantile(
        value,
        min(value, float(ordered[first])) if first >= 0 else None,  # `value` is interpolated, and may lie below
        max(value, float(ordered[last])) if last < n else None,
    )
