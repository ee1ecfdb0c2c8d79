"""Many comparisons at once. Who looks at twenty scorers finds one at 5 % where nothing is."""

from collections.abc import Sequence

import numpy as np


def holm(p: Sequence[float]) -> list[float]:
    """P-values adjusted by Holm (1979), in the order given: those up to 0.05 are wrong in any place in at most 5 % of cases,
    however the comparisons hang together. For decisions."""
    order = np.argsort(p, kind="stable")
    ranked = np.asarray(p, float)[order] * np.arange(len(p), 0, -1)
    return _back(np.minimum(np.maximum.accumulate(ranked), 1.0), order)


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """P-values adjusted by Benjamini and Hochberg (1995), in the order given: of those up to 0.05, at most 5 % are wrong on
    average, if the comparisons do not work against each other. For looking around."""
    order = np.argsort(p, kind="stable")
    ranked = np.asarray(p, float)[order] * len(p) / np.arange(1, len(p) + 1)
    return _back(np.minimum(np.minimum.accumulate(ranked[::-1])[::-1], 1.0), order)


def _back(adjusted: "np.typing.NDArray[np.float64]", order: "np.typing.NDArray[np.intp]") -> list[float]:
    result = np.empty_like(adjusted)
    result[order] = adjusted
    return [float(value) for value in result]
