"""Where are two arms different? Each score in each category by itself: something to look into, and no verdict.

So many looks find something by chance. Benjamini and Hochberg (1995) keep the share of what is found by chance among all that
is listed under 5 %.
"""

from dataclasses import asdict
from typing import Any

from pipeline.comparison.arm import Arm, Item
from pipeline.stats import LEAST_CLUSTERS, Paired, benjamini_hochberg, paired

Means = tuple[dict[Item, float], dict[Item, float]]  # of A and B, of the same items

_CHANCE = 0.05


def explored(a: Arm, b: Arm, means: dict[str, Means]) -> dict[str, Any]:
    """`looks` taken, and those that stand out: the strongest first. No look is taken where too few personas differ to tell."""
    less = a.less | b.less
    looks: list[tuple[str, str, Paired]] = []
    for name, (one, other) in means.items():
        of_group: dict[str, list[Item]] = {}
        for item in one:
            if group := a.groups.get(item):
                of_group.setdefault(group, []).append(item)
        for group, items in sorted(of_group.items()):
            if len(items) == len(one):  # all there is: that is the verdict's
                continue
            cluster_of = {item: item[0] for item in items}
            found = paired(
                {item: one[item] for item in items},
                {item: other[item] for item in items},
                cluster_of,
                rates=name in less,
            )
            if found.p is not None and found.differing >= LEAST_CLUSTERS:
                looks.append((group, name, found))
    adjusted = benjamini_hochberg([found.p or 0.0 for _, _, found in looks])
    out = [
        {
            "group": group,
            "scorer": name,
            "difference": asdict(found),
            "p_bh": p,
            "share": _is_share(means[name], name, less),
        }
        for (group, name, found), p in zip(looks, adjusted, strict=True)
        if p <= _CHANCE
    ]
    return {"looks": len(looks), "found": sorted(out, key=lambda one: (one["p_bh"], one["group"], one["scorer"]))}


def _is_share(means: Means, name: str, less: frozenset[str]) -> bool:
    return name not in less and all(0 <= value <= 1 for arm in means for value in arm.values())
