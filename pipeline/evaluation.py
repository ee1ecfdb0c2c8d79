"""Is this model, with this prompt, good at these NPCs, and how fast? Scores with their intervals, latency with its load.

The intervals are clustered by persona: what they say holds for more personas like these. A failed request is a state with
a count, never a score.
"""

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import asdict
from typing import Any

from pipeline.criteria import load_criteria
from pipeline.latency import quantile
from pipeline.personas.load import read_personas
from pipeline.plan import CONTRAST
from pipeline.produce import Produced, Steps, exhaust
from pipeline.records import Score
from pipeline.scored import Load, Scored
from pipeline.stats import Mean, clustered_mean, reduce_repeats


def evaluate(produced: Produced) -> dict[str, Any]:
    """The scores of a run as it stands."""
    return exhaust(evaluating(produced))


def evaluating(produced: Produced) -> Steps[dict[str, Any]]:
    """Score what the run's journal has; writes `replies.parquet` and `scores.parquet`. Returns the summary, ready for JSON.

    Means are in the scorer's own unit; for most, 1 is good and 0 bad. `bounds` say what passes when a dataset is made. Times are
    in seconds, at `load.concurrency` requests at a time ("auto" for what `generate` asked for).
    """
    criteria = load_criteria(produced.config.settings, produced.config.scorers)
    panel = criteria.panel(lambda: read_personas(produced.plan.personas))
    load = Load()
    persona_of: dict[Hashable, Hashable] = {}
    values: dict[str, list[tuple[Hashable, float]]] = {name: [] for name in panel.names}
    not_applicable = dict.fromkeys(values, 0)
    categories: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    answered = failed = missing = still_open = 0
    scored_ones: list[tuple[Hashable, str]] = []

    def note(item: Hashable, category: str, scores: dict[str, Score]) -> None:
        for name, score in scores.items():
            if score.value is None:
                not_applicable[name] += 1
            else:
                values[name].append((item, score.value))
                categories[category][name].append(score.value)

    with Scored(produced, panel, load) as scored:
        for turn, scores in scored.turns():
            yield
            if turn.item.arm == CONTRAST:
                continue
            if turn.completion is None:
                still_open += turn.open
                failed += turn.error is not None
                if turn.error is not None:
                    load.fail(turn.error)
                missing += turn.error is None
                continue
            answered += 1
            item: Hashable = (turn.item.npc.id, turn.item.scenario_id)
            persona_of[item] = turn.item.npc.id
            scored_ones.append((item, turn.item.category))
            note(item, turn.item.category, scores)
        for (item, category), scores in zip(scored_ones, scored.of_run(), strict=True):
            note(item, category, scores)
    means: dict[str, Any] = {}
    for name, found in values.items():
        if found:
            reduced = reduce_repeats([value for _, value in found], [item for item, _ in found])
            means[name] = {**asdict(clustered_mean(reduced, persona_of)), "not_applicable": not_applicable[name]}
        elif not_applicable[name]:
            means[name] = {**asdict(Mean(None, None, None, 0, 0)), "not_applicable": not_applicable[name]}
    return {
        "asked": produced.count.items - produced.count.contrast,
        "answered": answered,
        "failed": failed,
        "missing": missing,
        "open": still_open,
        "errors": load.errors(),
        "personas": len(set(persona_of.values())),
        "items": len(persona_of),
        "scores": means,
        "bounds": {name: asdict(criteria.filters[name]) for name in means},
        "by_category": {
            category: {name: sum(v) / len(v) for name, v in by_name.items()}
            for category, by_name in sorted(categories.items())
        },
        "load": {
            "concurrency": produced.target.at_a_time,
            "streaming": bool(load.ttft),
            "client_bound": load.client_bound(),
        },
        "latency": {
            name: {f"p{q}": asdict(quantile(seconds, q / 100)) for q in (50, 95)} | {"n": len(seconds)}
            for name, seconds in (
                ("e2e", load.e2e),
                ("ttft", load.ttft),
                ("ttfv", load.hidden()),
                ("tpot", load.tpot),
                ("gap", load.gap),
            )
            if seconds
        },
        "tokens": load.tokens(produced.config.price),
    }
