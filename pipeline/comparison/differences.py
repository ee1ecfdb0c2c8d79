"""Both arms, item by item. What one of them lacks falls out, and is counted.

A scorer's verdict needs two things: a p-value of at most 0.05 after Holm's adjustment over all scorers that could tell at all,
and an interval without zero. A score that chose what a model was trained on is shown, and is no ground for the verdict: on it, the
model was bound to be better. (A scorer in which fewer than six personas differ cannot come under 0.05 whatever the signs, and
takes nothing from the others: Tarone 1990.) The median latency is one question asked beside them, decided by its interval.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pipeline.comparison.arm import Arm, Item
from pipeline.comparison.explore import Means, explored
from pipeline.stats import LEAST_CLUSTERS, Paired, clustered_mean, clustered_quantile, holm, paired, paired_quantile

_ALPHA = 0.05
_COVERED = 0.95  # share of the items that may be taken for all of them
_FLIPPED = 3  # items that are shown of a scorer, and scorers


def compare_arms(a: Arm, b: Arm) -> dict[str, Any]:
    """B against A, ready for JSON. `verdict` is "better", "worse", "mixed" or "none" for the scores together; "inconclusive" with
    a `why` where nothing can be said: no shared items, no shared scores, too few personas."""
    same = {item for item in a.items if item in b.items and _same_question(a, b, item)}
    means = {name: _means(a, b, name, same) for name in a.scores if name in b.scores}
    means = {name: (one, other) for name, (one, other) in means.items() if one}
    less = a.less | b.less
    found = {name: paired(one, other, _clusters(one), rates=name in less) for name, (one, other) in means.items()}
    selected_on = a.selected_on | b.selected_on
    telling = [name for name, pair in found.items() if pair.p is not None and pair.differing >= LEAST_CLUSTERS]
    families = [[name for name in telling if (name in selected_on) is selected] for selected in (False, True)]
    adjusted = {
        name: p
        for family in families
        for name, p in zip(family, holm([found[name].p or 0.0 for name in family]), strict=True)
    }
    scores = {
        name: _score(means[name], pair, adjusted.get(name), name in less)
        | {"not_applicable": [a.without[name], b.without[name]], "selected_on": name in selected_on}
        for name, pair in found.items()
    }
    summary: dict[str, Any] = {
        "a": a.path,
        "b": b.path,
        "clusters": len({item[0] for item in same}),
        "cluster": a.clusters if a.clusters == b.clusters else (a.clusters or b.clusters),
        "items": len(same),
        "only_a": len(a.items.keys() - b.items.keys()),
        "only_b": len(b.items.keys() - a.items.keys()),
        "asked_otherwise": len(a.items.keys() & b.items.keys()) - len(same),
        "family": len(families[0]),
        "scores": scores,
        "latency": _latencies(a, b, same),
        "states": {state: [a.states[state], b.states[state]] for state in sorted(a.states | b.states)},
        "explored": explored(a, b, means),
        "flips": _flips(a, b, means, scores),
        "notes": [*_coverage(len(same), found), *_notes(a, b)],
    }
    return {**_verdict(summary), **summary}


def _verdict(summary: dict[str, Any]) -> dict[str, Any]:
    scores = summary["scores"]
    if not summary["items"]:
        return {"verdict": "inconclusive", "why": _nothing_shared(summary)}
    if not scores:
        return {"verdict": "inconclusive", "why": "A and B have no score in common on the items that both were asked."}
    scores = {name: score for name, score in scores.items() if not score["selected_on"]}
    if not scores:
        return {
            "verdict": "inconclusive",
            "why": "Every score that A and B have in common chose what the training data has, and is no evidence for a model "
            "trained on it. Leave one out of the next curation (--set NAME=off), or add one of your own (--scorer).",
        }
    if all(score["difference"]["p"] is None for score in scores.values()):
        most = max(score["difference"]["clusters"] for score in scores.values())
        what = summary["cluster"] or "items"
        why = f"Too few {what} to compare: {most}, and {LEAST_CLUSTERS} are the least of which any test can tell."
        return {"verdict": "inconclusive", "why": why}
    said = {score["verdict"] for score in scores.values()} & {"better", "worse"}
    return {"verdict": "mixed" if len(said) == 2 else next(iter(said), "none"), "why": None}


def _nothing_shared(summary: dict[str, Any]) -> str:
    why = f"A and B share no items: {summary['only_a']} are in A only, {summary['only_b']} in B only"
    if other := summary["asked_otherwise"]:
        why += f", and {other} have the same name, but were asked something else"
    return f"{why}."


def _score(means: Means, pair: Paired, adjusted: float | None, less: bool) -> dict[str, Any]:
    one, other = means
    sure = pair.low is not None and pair.high is not None and (pair.low > 0 or pair.high < 0)
    if pair.p is None:
        verdict = "too few"
    elif adjusted is not None and adjusted <= _ALPHA and sure:
        verdict = "better" if (pair.difference > 0) != less else "worse"
    else:
        verdict = "not seen"
    return {
        "verdict": verdict,
        "less_is_better": less,
        "share": not less and all(0 <= value <= 1 for arm in means for value in arm.values()),
        "a": asdict(clustered_mean(one, _clusters(one))),
        "b": asdict(clustered_mean(other, _clusters(other))),
        "difference": asdict(pair),
        "p_holm": adjusted,
    }


def _latencies(a: Arm, b: Arm, same: set[Item]) -> dict[str, Any]:
    """Seconds, of replies to items that both have answered; empty where they do not hold for the same load."""
    if a.load is None or b.load is None or a.load.concurrency is None or not _same_load(a, b):
        return {}
    latencies: dict[str, Any] = {}
    for what in ("e2e", "ttft"):
        if what not in a.seconds or what not in b.seconds:
            continue
        both = a.timed(what) & b.timed(what) & same
        (x, personas_x), (y, personas_y) = a.times(what, both), b.times(what, both)
        if not x or not y:
            continue
        latencies[what] = {
            f"p{round(100 * q)}": {
                "a": asdict(clustered_quantile(x, personas_x, q)),
                "b": asdict(clustered_quantile(y, personas_y, q)),
                "difference": asdict(paired_quantile(x, y, personas_x, personas_y, q)),
            }
            for q in (0.5, 0.95)
        } | {"n": [len(x), len(y)], "clusters": len(set(personas_x))}
    if latencies:
        latencies["concurrency"] = a.load.concurrency
    return latencies


def _same_load(a: Arm, b: Arm) -> bool:
    return bool(a.load and b.load and (a.load.concurrency, a.load.streaming) == (b.load.concurrency, b.load.streaming))


def _flips(a: Arm, b: Arm, means: Mapping[str, Means], scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The items that moved most, of the scorers that moved most surely."""
    moved = [name for name, score in scores.items() if score["difference"]["differing"]]
    moved.sort(key=lambda name: (scores[name]["verdict"] not in ("better", "worse"), _p(scores[name])))
    flips = []
    for name in moved[:_FLIPPED]:
        one, other = means[name]
        items = sorted(one, key=lambda item: -abs(other[item] - one[item]))
        for item in items[:_FLIPPED]:
            if (rises := other[item] - one[item]) == 0:
                break
            flips.append(
                {
                    "scorer": name,
                    "item": list(item),
                    "asked": a.asked[a.items[item]] or b.asked[b.items[item]],
                    "a": {"score": one[item], "text": a.example(item, name, highest=rises < 0)},
                    "b": {"score": other[item], "text": b.example(item, name, highest=rises > 0)},
                }
            )
    return flips


def _p(score: Mapping[str, Any]) -> float:
    p = score["difference"]["p"]
    return 1.0 if p is None else float(p)


def _coverage(items: int, found: Mapping[str, Paired]) -> list[str]:
    most = max((pair.n for pair in found.values()), default=0)
    if most >= _COVERED * items:
        return []
    return [f"Only {most} of {items} items have a score in both: what fell out may have been the hardest."]


def _notes(a: Arm, b: Arm) -> list[str]:
    notes = []
    if a.load and b.load:
        if a.load.concurrency is None or b.load.concurrency is None:
            notes.append("Latency is not compared: it was measured while --concurrency auto was finding out.")
        elif not _same_load(a, b):
            how = [
                f"concurrency {load.concurrency}, {'streaming' if load.streaming else 'not streaming'}"
                for load in (a.load, b.load)
            ]
            notes.append(f"Latency is not compared: A was measured at {how[0]}, B at {how[1]}.")
        for name, arm_load in (("A", a.load), ("B", b.load)):
            if arm_load.client_bound:
                notes.append(f"The latencies of {name} are client-bound: they tell about the machine that asked.")
    if a.scored_by is not None and b.scored_by is not None and a.scored_by != b.scored_by:
        notes.append(
            "A and B were scored with other settings (--set, --scorer): score one again with pipeline eval RUN."
        )
    for name, other, own in (
        ("A", "B", a.scores.keys() - b.scores.keys()),
        ("B", "A", b.scores.keys() - a.scores.keys()),
    ):
        if own:
            notes.append(f"Scores of {name} that {other} does not have: {', '.join(sorted(own))}.")
    if not a.clusters or not b.clusters:
        notes.append(
            "Items count as independent: --cluster COL would name what they have in common, such as the persona."
        )
    return notes


def _same_question(a: Arm, b: Arm, item: Item) -> bool:
    one, other = a.asked[a.items[item]], b.asked[b.items[item]]
    return not one or not other or one == other


def _means(a: Arm, b: Arm, name: str, same: set[Item]) -> Means:
    """Of the items that were the same and have a score in both."""
    one, other = a.means(name), b.means(name)
    items = [item for item in one if item in other and item in same]
    return {item: one[item] for item in items}, {item: other[item] for item in items}


def _clusters(means: Mapping[Item, float]) -> dict[Item, str]:
    return {item: item[0] for item in means}
