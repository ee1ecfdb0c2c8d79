"""Means with intervals that can be believed (numpy only; scipy is the oracle in the tests).

Items of one persona are not independent: a persona that is hard to play is hard in each of its scenarios. The intervals are
therefore clustered by persona, with the t distribution on clusters - 1 degrees of freedom (Miller 2024, arXiv 2411.00640).
Repeats of one item are reduced to their mean before anything else.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean with its 95 % interval over `n` items in `clusters` clusters; no interval for a single cluster, and no mean
    of nothing."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    clusters: int


def reduce_repeats(values: Sequence[float], items: Sequence[Hashable]) -> dict[Hashable, float]:
    """One mean for each item, in order of first appearance."""
    collected: dict[Hashable, list[float]] = {}
    for item, value in zip(items, values, strict=True):
        collected.setdefault(item, []).append(value)
    return {item: sum(group) / len(group) for item, group in collected.items()}


def clustered_mean(values: Mapping[Hashable, float], cluster_of: Mapping[Hashable, Hashable]) -> Mean:
    """Mean of scores in [0, 1] with a 95 % interval clustered by `cluster_of`.

    Passes and failures (all values 0 or 1) get Wilson's interval at the effective sample size p(1-p)/SE^2, with t in place
    of z: a normal interval is wrong near 0 and 1. Where all clusters agree, no variance can be estimated and each counts as
    one observation. Other scores get mean +- t * SE, cut to [0, 1]. Raises ValueError for no values.
    """
    if not values:
        raise ValueError("no values")
    x = np.fromiter(values.values(), dtype=float)
    numbers: dict[Hashable, int] = {}
    member = np.array([numbers.setdefault(cluster_of[item], len(numbers)) for item in values])
    n, clusters, mean = len(x), len(numbers), float(x.mean())
    if clusters < 2:
        return Mean(mean, None, None, n, clusters)
    se = clustered_se(x, member)
    t = t_quantile(0.975, clusters - 1)
    if np.isin(x, (0.0, 1.0)).all():
        effective = float(clusters) if se < 1e-12 else min(mean * (1 - mean) / se**2, float(n))
        low, high = wilson(mean, effective, t)
    else:
        low, high = max(0.0, mean - t * se), min(1.0, mean + t * se)
    return Mean(mean, low, high, n, clusters)


def clustered_se(x: "np.typing.NDArray[np.float64]", member: "np.typing.NDArray[np.int64]") -> float:
    """Standard error of the mean of `x` with clusters numbered 0.. in `member`: sqrt(sum of squared cluster sums of
    residuals) / n, times sqrt(C / (C - 1)) for the number of clusters C."""
    sums = np.bincount(member, weights=x - x.mean())
    c = len(sums)
    return float(np.sqrt((sums**2).sum()) / len(x) * math.sqrt(c / (c - 1)))


def wilson(p: float, n: float, z: float = NormalDist().inv_cdf(0.975)) -> tuple[float, float]:
    """Wilson's score interval for a share `p` of `n` (Wilson 1927); `n` need not be whole."""
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At p = 0 or 1 an end is p itself, but for the last bit.
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


@lru_cache(maxsize=64)
def t_quantile(p: float, df: int) -> float:
    """Student's t: the value that a fraction `p` >= 0.5 lies below.

    By bisection of the distribution function; from df = 500 on by its expansion around the normal distribution (Abramowitz
    and Stegun 26.7.5), which is as good there and takes no time.
    """
    if df >= 500:
        z = NormalDist().inv_cdf(p)
        first = (z**3 + z) / 4
        second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
        third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
        return z + first / df + second / df**2 + third / df**3
    low, high = 0.0, 1.0
    while 0.5 + 0.5 * t_central(high, df) < p:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if 0.5 + 0.5 * t_central(middle, df) < p else (low, middle)
    return (low + high) / 2


def t_central(t: float, df: int) -> float:
    """P(-t < T < t) for `df` degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4, exact for whole df)."""
    theta = math.atan(t / math.sqrt(df))
    cosine, sine = math.cos(theta), math.sin(theta)
    odd = df % 2 == 1
    if df == 1:
        return 2 * theta / math.pi
    term = cosine if odd else 1.0
    total = term
    for k in range(3 if odd else 2, df - 1, 2):
        term *= (k - 1) / k * cosine * cosine
        total += term
    return 2 / math.pi * (theta + sine * total) if odd else sine * total
