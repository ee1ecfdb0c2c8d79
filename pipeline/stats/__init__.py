"""Statistics that can be believed (numpy only; scipy and statsmodels are the oracles in the tests).

Items of one persona are not independent: a persona that is hard to play is hard in each of its scenarios. The persona is
therefore the cluster, and what is said holds for more personas like these (Miller 2024, arXiv 2411.00640). Repeats of one item
are reduced to their mean before anything else. Everywhere, intervals are of 95 % and tests two-sided.

    latency.py     how long replies took
    intervals.py   means, pass rates and quantiles of one arm
    pairing.py     two arms on the same items: difference, test, and what could not have been seen
    multiple.py    many comparisons at once
    student.py     Student's t

What is random here are the personas. Scenarios are taken as they are: nothing is said about other scenarios.
"""

from pipeline.stats.intervals import (
    LEVEL,
    Mean,
    clustered_mean,
    clustered_quantile,
    clustered_se,
    reduce_repeats,
    wilson,
)
from pipeline.stats.multiple import benjamini_hochberg, holm
from pipeline.stats.pairing import (
    LEAST_CLUSTERS,
    Paired,
    least_visible_change,
    mcnemar,
    minimum_detectable_effect,
    paired,
    paired_quantile,
    sign_flip,
    sign_flip_interval,
)
from pipeline.stats.student import t_central, t_quantile

__all__ = [
    "LEAST_CLUSTERS",
    "LEVEL",
    "Mean",
    "Paired",
    "benjamini_hochberg",
    "clustered_mean",
    "clustered_quantile",
    "clustered_se",
    "holm",
    "least_visible_change",
    "mcnemar",
    "minimum_detectable_effect",
    "paired",
    "paired_quantile",
    "reduce_repeats",
    "sign_flip",
    "sign_flip_interval",
    "t_central",
    "t_quantile",
    "wilson",
]
