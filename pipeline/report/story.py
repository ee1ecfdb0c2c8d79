"""What the page says: from the summaries that `results.json` keeps to what page.html shows. Sentences and figures, no HTML."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import pipeline.report.figures as figures
from pipeline.comparison.text import difference, figure, sentence
from pipeline.report.figures import Mark
from pipeline.report.sift import Sifted, batches, floats

Summary = Mapping[str, Any]
_NAMED = 4  # scorers or gates in a sentence
_TIMES = {
    "e2e": "whole reply",
    "ttft": "first token",
    "ttfv": "first visible token",
    "tpot": "each further token",
    "gap": "between two reads",
}
_LOOKS = 20  # at categories
_SLOWEST = 5  # personas
_LEAST = 0.995  # a mean from here on is no weak spot


def verdict(summary: Summary, arms: Mapping[str, Sifted]) -> dict[str, Any]:
    """The page's first sentence, its tone (good, bad, unsure or plain), and what else belongs beside it.

    Gates come first, then comparisons; where there is neither, how many replies are well.
    """
    gates = Counter(gate["verdict"] for gate in summary.get("gates") or ())
    found = list(summary.get("comparisons") or ())
    tone = next((tone for word, tone in _TONES.items() if gates[word]), "plain")
    compared = [f"{one['b']} (B) against {one['a']} (A): {sentence(one)}" for one in found]
    if "kept" in summary:
        passing = f"{summary['kept']} of {summary['answered'] - summary['contrast']} replies were kept."
        common = _most("Most were dropped by", summary["dropped"])
    else:
        passing = " ".join(
            f"{f'{name}: ' if len(arms) > 1 else ''}{arm.whole} of {arm.count} replies pass every scorer."
            for name, arm in arms.items()
        )
        common = [
            line for arm in arms.values() for line in _most("What most often fails:", arm.below) if len(arms) == 1
        ]
    if not any(own["answered"] for own in of_arms(summary).values()):
        said, tone, more = "Nothing was answered.", "bad", []
    elif gates:
        said, more = _gates(summary["gates"], gates), [*compared, passing, *common]
    elif found:
        said, more = " ".join(map(_shortly, found)), [*compared, passing]
    else:
        said, more = passing, common
        tone = "bad" if summary.get("kept") == 0 else tone
    return {"sentence": said, "tone": tone, "more": [*more, *_unfinished(summary)]}


_TONES = {"failed": "bad", "inconclusive": "unsure", "passed": "good"}


def _shortly(found: Summary) -> str:
    a, b = found["a"], found["b"]
    return {
        "better": f"{b} is better than {a}.",
        "worse": f"{b} is worse than {a}.",
        "mixed": f"{b} is better than {a} in some scores, and worse in others.",
        "none": f"No difference was seen between {a} and {b}.",
    }.get(found["verdict"], f"Nothing can be said of {b} against {a}.")


def _gates(gates: Sequence[Summary], counts: Counter[str]) -> str:
    """The worst that came of them, by name."""
    worst = next(word for word in _TONES if counts[word])
    if worst == "passed":
        return "All gates passed."
    said = {"failed": "failed", "inconclusive": "cannot be decided"}[worst]
    named = [f"{g['arm']}: {g['gate']}" if g["arm"] else g["gate"] for g in gates if g["verdict"] == worst]
    named[_NAMED:] = [f"and {len(named) - _NAMED} more"] if len(named) > _NAMED else []
    return f"{counts[worst]} of {len(gates)} {'gate' if len(gates) == 1 else 'gates'} {said}: {', '.join(named)}."


def _most(said: str, counts: Mapping[str, int]) -> list[str]:
    most = sorted(((count, name) for name, count in counts.items() if count), key=lambda one: (-one[0], one[1]))
    named = ", ".join(f"{name} ({count})" for count, name in most[:_NAMED])
    return [f"{said} {named}."] if named else []


def _unfinished(summary: Summary) -> list[str]:
    lines = []
    for name, own in of_arms(summary).items():
        here = f"{name}: " if name else ""
        if own.get("failed"):
            lines.append(f"{here}{own['failed']} of {own['asked']} requests failed.")
        for state, what in (("empty", "had nothing to say"), ("truncated", "were cut off by the token limit")):
            if count := (own.get("states") or {}).get(state):
                lines.append(f"{here}{count} replies {what}.")
        if own.get("open"):
            lines.append(f"{here}{own['open']} replies are still open: the same command asks for them.")
    return lines


def of_arms(summary: Summary) -> dict[str, Summary]:
    """The summary of each arm; of an ordinary run, its own."""
    return dict(summary["arms"]) if "arms" in summary else {"": summary}


def tiles(summary: Summary, manifest: Summary) -> list[tuple[str, str]]:
    """What is known of the run, as few words each."""
    target, asked, inputs = (manifest.get(name) or {} for name in ("target", "asked", "inputs"))
    told = [
        ("model", target.get("model") or target.get("identity")),
        ("server", target.get("product") or target.get("server")),
        ("prompt", (inputs.get("template") or {}).get("name")),
        ("temperature", asked.get("temperature")),
        ("seed", asked.get("seed")),
        ("begun", str(manifest.get("started", ""))[:16].replace("T", " ")),
    ]
    arms = of_arms(summary)
    if len(arms) == 1:
        (own,) = arms.values()
        tokens = own.get("tokens") or {}
        rate = tokens.get("completion_per_second")
        told[:0] = [
            ("replies", f"{own['answered']} of {own['asked']}"),
            ("personas", own.get("personas")),
            ("median reply", f"{median:.3g} s" if (median := _median(own)) is not None else None),
            ("tokens a second", f"{rate:.0f}" if rate else None),
            ("cost", f"{tokens['cost']:.4g}" if "cost" in tokens else None),
        ]
    elif arms:
        told = [("arms", ", ".join(arms)), told[-1]]
    return [(name, str(value)) for name, value in told if value not in (None, "")]


def _median(own: Summary) -> float | None:
    latency = own.get("latency") or {}
    return latency["e2e"]["p50"]["value"] if "e2e" in latency else latency.get("e2e_p50")


def dimensions(summary: Summary, arms: Mapping[str, Sifted]) -> dict[str, Any] | None:
    """A row for each scorer that applied to any reply: its mean with interval, for each arm. Those that any reply fails stand
    apart from those that none does."""
    of = {name: own for name, own in of_arms(summary).items() if "scores" in own}
    if not of:
        return None
    below = dict(zip(of, arms.values(), strict=False))
    failed: list[dict[str, Any]] = []
    passed: list[dict[str, Any]] = []
    without: list[str] = []
    for scorer in dict.fromkeys(name for own in of.values() for name in own["scores"]):
        means = [own["scores"].get(scorer) for own in of.values()]
        if all(mean is None or mean["value"] is None for mean in means):
            without.append(scorer)
            continue
        bounds = next(own["bounds"][scorer] for own in of.values() if scorer in own.get("bounds", {}))
        less = bounds["least"] is None and bounds["most"] is not None
        bound = bounds["most"] if less else bounds["least"]
        highest = max(mean["high"] or mean["value"] for mean in means if mean and mean["value"] is not None)
        top = 1.0 if not less and highest <= 1 else max(highest, bound or 0.0) * 1.1 or 1.0
        marks = [Mark(m["value"], m["low"], m["high"]) if m and m["value"] is not None else None for m in means]
        told = failed if any(below[name].below[scorer] for name in of) else passed
        told.append(
            {
                "name": scorer,
                "less": less,
                "selected": any(mean and mean.get("selected_on") for mean in means),
                "figure": figures.intervals(marks, bound, top),
                "arms": [
                    {"mean": mean, "below": below[name].below[scorer]} for name, mean in zip(of, means, strict=True)
                ],
            }
        )
    return {"failed": failed, "passed": passed, "without": without, "arms": list(of)}


def held_out(summary: Summary) -> list[dict[str, Any]]:
    """For each arm that was asked what a dataset holds out: known NPCs in new scenarios, and new NPCs, beside each other."""
    found = []
    for name, own in of_arms(summary).items():
        if splits := own.get("by_split"):
            scorers = [scorer for scorer in own["scores"] if any(scorer in split for split in splits.values())]
            rows = [(scorer, [split.get(scorer) for split in splits.values()]) for scorer in scorers]
            found.append({"arm": name, "splits": list(splits), "rows": rows})
    return found


def games(summary: Summary) -> list[dict[str, Any]]:
    """What an arm is worth to a game that waits so long for a reply."""
    found = []
    for name, own in of_arms(summary).items():
        if "in_time" in own and own["in_time"]["value"] is not None:
            slowest = [f"{one['persona']} {one['p50']:.3g} s" for one in own["slowest"][:_SLOWEST]]
            found.append({"arm": name, "own": own, "slowest": slowest if len(own["slowest"]) > 1 else []})
    return found


def categories(summary: Summary) -> list[dict[str, Any]]:
    """For each arm: what kinds of scenario it is weak at, of the scorers for which more is better."""
    found = []
    for name, own in of_arms(summary).items():
        table = own.get("by_category") or {}
        bounds = own.get("bounds", {})
        scorers = [
            scorer
            for scorer in own.get("scores", {})
            if bounds[scorer]["most"] is None
            and any(0 <= row.get(scorer, 1.0) < _LEAST for row in table.values())
            and all(0 <= row.get(scorer, 1.0) <= 1 for row in table.values())
        ]
        if scorers and len(table) > 1:
            rows = [(category, [row.get(scorer) for scorer in scorers]) for category, row in table.items()]
            found.append({"arm": name, "scorers": scorers, "rows": rows})
    return found


def funnel(summary: Summary, arms: Mapping[str, Sifted]) -> list[dict[str, Any]]:
    """Step by step, what each filter took out of what the one before it had left. Empty for what is no dataset."""
    if "kept" not in summary:
        return []
    (arm,) = arms.values()
    all_of_them = summary["answered"] - summary["contrast"]
    rows, before = [], all_of_them
    for name, count in summary["dropped"].items():
        after = before - count
        rows.append(
            {
                "name": name,
                "dropped": count,
                "left": after,
                "failing": arm.below[name] if name in arm.bounds else count,
                "figure": figures.left(before, after, all_of_them),
                "example": summary["examples"].get(name, ""),
            }
        )
        before = after
    return rows


def comparison(found: dict[str, Any]) -> dict[str, Any]:
    """One of `compare_arms`."""
    shares = [score["difference"] for score in found["scores"].values() if score["share"]]
    extent = max(
        [abs(d[end]) for d in shares for end in ("difference", "low", "high") if d[end] is not None], default=1.0
    )
    rows = []
    for name, score in found["scores"].items():
        paired = score["difference"]
        mark = Mark(paired["difference"], paired["low"], paired["high"])
        own = max(abs(end) for end in (mark.value, mark.low or 0.0, mark.high or 0.0)) * 1.1
        p = score["p_holm"]
        rows.append(
            {
                "name": name,
                "verdict": score["verdict"],
                "less": score["less_is_better"],
                "selected": score["selected_on"],
                "said": difference(score),
                "figure": figures.difference(mark, extent if score["share"] else own, score["verdict"]),
                "a": score["a"]["value"],
                "b": score["b"]["value"],
                "p": "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}",
                "unseen": "" if paired["detectable"] is None else figure(score, paired["detectable"]),
                "clusters": paired["clusters"],
            }
        )
    # What moved goes first; what is the same in every item is told in one sentence.
    rows.sort(key=lambda row: row["verdict"] not in ("better", "worse"))
    same = [name for name, score in found["scores"].items() if not score["difference"]["differing"]]
    latency = [
        (_TIMES[what], q, found["latency"][what][q])
        for what in ("e2e", "ttft")
        if what in found["latency"]
        for q in ("p50", "p95")
    ]
    return {
        "sentence": sentence(found),
        "a": found["a"],
        "b": found["b"],
        "found": found,
        "rows": [row for row in rows if row["name"] not in same],
        "same": same,
        "latency": latency,
        "looks": [one | {"said": difference(one)} for one in found["explored"]["found"][:_LOOKS]],
    }


def latencies(summary: Summary, arms: Mapping[str, Sifted]) -> list[dict[str, Any]]:
    """How long replies took, as curves with the quantiles that the summary has."""
    of = of_arms(summary)
    found = []
    for what in ("e2e", "ttft"):
        series = [(name, seconds) for name, arm in arms.items() if len(seconds := _seconds(arm, what))]
        if not series:
            continue
        rows = []
        for name, own in of.items():
            for kind, times in (own.get("latency") or {}).items():
                if kind == what or (what == "ttft" and kind in ("ttfv", "tpot", "gap")):
                    rows.append({"arm": name, "what": _TIMES[kind], "times": times, "ms": kind in ("tpot", "gap")})
        if "kept" in summary:
            rows = []
        median = ", ".join(
            f"{name} {q} {np.quantile(seconds, share):.3g} s".strip()
            for name, seconds in series
            for q, share in (("half", 0.5), ("95 %", 0.95))
        )
        label = f"Share of replies by seconds to the {'end of the reply' if what == 'e2e' else 'first token'}: {median}"
        found.append({"what": _TIMES[what], "figure": figures.curves(series, label), "rows": rows, "median": median})
    return found


def _seconds(arm: Sifted, what: str) -> npt.NDArray[np.float64]:
    parts = [floats(batch[what]) for batch in batches(arm.folder.replies, (what,))]
    seconds: npt.NDArray[np.float64] = np.concatenate(parts) if parts else np.empty(0)
    return seconds[~np.isnan(seconds)]


def load(summary: Summary, manifest: Summary) -> str:
    """What the latencies hold for."""
    loads = [own["load"] for own in of_arms(summary).values() if "load" in own]
    if not loads:
        at_a_time = (manifest.get("target") or {}).get("concurrency")
        loads = [{"concurrency": at_a_time, "streaming": False, "client_bound": summary.get("client_bound")}]
    said = dict.fromkeys(
        f"At concurrency {load['concurrency']}, {'streaming' if load['streaming'] else 'not streaming'}."
        for load in loads
    )
    bound = ["Client-bound: the machine that asked was too busy to keep up; the server is faster than it looks."]
    return " ".join([*said, *(bound if any(load["client_bound"] for load in loads) else [])])


def dataset(summary: Summary) -> list[tuple[str, str, int]]:
    """Rows of the dataset by config and split."""
    configs: Mapping[str, Mapping[str, int]] = summary.get("configs") or {}
    return [(config, split, rows) for config, splits in configs.items() for split, rows in splits.items()]


def errors(summary: Summary) -> list[tuple[str, str, int]]:
    return [
        (name, error, count)
        for name, own in of_arms(summary).items()
        for error, count in (own.get("errors") or {}).items()
    ]


def asked(manifests: Mapping[str, Summary]) -> list[tuple[str, list[Any]]]:
    """What each arm was asked with, and by which versions: options that none of them has are left out."""
    told = [{**(manifest.get("asked") or {}), **(manifest.get("versions") or {})} for manifest in manifests.values()]
    rows = [(name, [of.get(name) for of in told]) for name in dict.fromkeys(name for of in told for name in of)]
    return [(name, values) for name, values in rows if any(value not in (None, [], False, "") for value in values)]


def notes(summary: Summary) -> Sequence[str]:
    found: Sequence[str] = summary.get("notes") or ()
    return found
