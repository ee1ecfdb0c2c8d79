"""How long replies took: quantiles with intervals, and what "speed" means here. All times in seconds.

* e2e    from sending a request to the end of its reply
* TTFT   from sending to the first piece of content (streamed replies)
* TPOT   (last piece - first piece) / (tokens - 1): seconds per token once it speaks, where somebody counted them
* gap    (last piece - first piece) / (reads - 1): a read of the network is often a token, and sometimes several
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.records import Completion


@dataclass(frozen=True, slots=True)
class Quantile:
    """An estimate with its 95 % interval; an end is None where too few values bound it."""

    value: float
    low: float | None
    high: float | None


def tpot(completion: Completion) -> float | None:
    timing, tokens = completion.timing, completion.usage.completion_tokens
    if timing is None or timing.ttft is None or timing.last is None or tokens is None or tokens < 2:
        return None
    if completion.usage.source == "estimate":
        return None
    if timing.last == timing.ttft:  # all of it came in one read: something on the way holds streams back
        return None
    return (timing.last - timing.ttft) / (tokens - 1)


def client_bound(lags: Sequence[float], latencies: Sequence[float]) -> bool:
    """Whether our own delay is more than a twentieth of the latency that is reported (medians, in seconds): then the figures
    tell about this machine. What came waited about as long for its stamp as it did from there on, hence twice the lag."""
    return bool(lags and latencies) and bool(2 * np.median(lags) > np.median(latencies) / 20)


def busy_seconds(sent: Sequence[float], e2e: Sequence[float]) -> float:
    """Seconds in which at least one reply was under way, from when each was sent and how long it took. Pauses between a run and
    its resumption do not count."""
    if not len(sent):
        return 0.0
    order = np.argsort(sent)
    start = np.asarray(sent, float)[order]
    end = np.maximum.accumulate(start + np.asarray(e2e, float)[order])
    gaps = np.maximum(start[1:] - end[:-1], 0.0)
    return float(end[-1] - start[0] - gaps.sum())


def quantile(values: Sequence[float], q: float, level: float = 0.95) -> Quantile:
    """The `q`-quantile (linear interpolation) with a distribution-free interval from order statistics.

    The number of values below the true quantile is binomial(n, q); the interval runs between the two values whose ranks hold
    it with probability `level` at least (Conover, Practical Nonparametric Statistics, 3.2). Raises ValueError for no values.
    """
    if not values:
        raise ValueError("no values")
    ordered = np.sort(np.asarray(values, dtype=float))
    n = len(ordered)
    low, high = ranks(n, q, level)
    value = float(np.quantile(ordered, q))
    return Quantile(
        value,
        min(value, float(ordered[low - 1])) if low >= 1 else None,  # `value` is interpolated, and may lie below
        max(value, float(ordered[high])) if high < n else None,
    )


def ranks(n: int, q: float, level: float) -> tuple[int, int]:
    """How many of `n` independent values lie below their true `q`-quantile: at least the first, at most the second, with
    probability `level`."""
    below = np.cumsum(_binomial(n, q))
    tail = (1 - level) / 2
    low = int(np.searchsorted(below, tail, side="right"))  # P(count < low) <= tail
    return low, min(n, int(np.searchsorted(below, 1 - tail)))  # P(count > high) <= tail


def _binomial(n: int, p: float) -> npt.NDArray[np.float64]:
    """P(count = k) for k = 0..n, by logarithms of ratios so that large n does not underflow at the start."""
    k = np.arange(1, n + 1)
    ratios = np.log((n - k + 1) / k) + np.log(p / (1 - p))
    logs = np.concatenate([[0.0], np.cumsum(ratios)]) + n * np.log1p(-p)
    return np.asarray(np.exp(logs))
