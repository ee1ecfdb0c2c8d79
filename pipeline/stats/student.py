"""Student's t without scipy."""

import math
from functools import lru_cache
from statistics import NormalDist


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
