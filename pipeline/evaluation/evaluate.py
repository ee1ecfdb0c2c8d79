"""Is this model, with this prompt, good at these NPCs, and how fast? Scores with their intervals, latency with its load.

The intervals are clustered by persona: what they say holds for more personas like these. A failed request is a state with
a count, never a score; neither is silence.
"""

import heapq
from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from pipeline.comparison import Arm, read_run
from pipeline.comparison.arm import Item
from pipeline.curation.criteria import load_criteria
from pipeline.curation.scored import Load, Scored
from pipeline.evaluation.conversations import Conversations
from pipeline.evaluation.gates import decide, parse_gate, plain
from pipeline.evaluation.measures import QUANTILES, SHARES, measured
from pipeline.personas.load import read_personas
from pipeline.records import Score
from pipeline.run.plan import CONTRAST
from pipeline.run.prepare import Seen
from pipeline.run.produce import Produced, Steps
from pipeline.stats import Mean, clustered_mean, clustered_quantile, reduce_repeats

_SLOWEST = 20  # personas that are told one by one

Values = dict[str, list[tuple[Hashable, float]]]  # by scorer: an item, and the value of a reply to it


def evaluating(produced: Produced) -> Steps[dict[str, Any]]:
    """Score what the run's journal has; writes `replies.parquet` and `scores.parquet`. Returns the summary, ready for JSON.

    Means are in the scorer's own unit; for most, 1 is good and 0 bad. `bounds` say what passes when a dataset is made. Times are
    in seconds, at `load.concurrency` requests at a time ("auto" for what `generate` asked for).
    """
    config = produced.config
    criteria = load_criteria(config.settings, config.scorers)
    gates = [parse_gate(gate, criteria.filters) for gate in config.gates]
    panel = criteria.panel(lambda: read_personas(produced.plan.personas))
    load = Load()
    conversations = Conversations(criteria.filters)
    persona_of: dict[Hashable, Hashable] = {}
    categories: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    splits: dict[str, Values] = defaultdict(lambda: defaultdict(list))
    values: Values = {name: [] for name in panel.names}
    not_applicable = dict.fromkeys(values, 0)
    answered = failed = missing = still_open = 0
    scored_ones: list[tuple[Hashable, str, str]] = []

    def note(item: Hashable, category: str, split: str, scores: Mapping[str, Score]) -> None:
        for name, score in scores.items():
            if score.value is None:
                not_applicable[name] += 1
                continue
            values[name].append((item, score.value))
            categories[category][name].append(score.value)
            if split:
                splits[split][name].append((item, score.value))

    with Scored(produced, panel, load) as scored:
        for read, (turn, scores) in enumerate(scored.turns(), 1):
            yield Seen(read)
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
            persona, scenario = turn.item.npc.id, turn.item.scenario_id
            item: Hashable = (persona, scenario)
            persona_of[item] = persona
            split = produced.plan.held_out.split(persona, scenario) if produced.plan.held_out else ""
            scored_ones.append((item, turn.item.category, split))
            note(item, turn.item.category, split, scores)
            conversations.add(turn, scores)
        left = iter(scored_ones)
        for found in scored.of_run():
            for late in zip(*found.values(), strict=True):
                note(*next(left), dict(zip(found, late, strict=True)))
        assert not panel.of_run or next(left, None) is None
    means = _means(values, persona_of)
    nothing = asdict(Mean(None, None, None, 0, 0))
    means = {
        name: means.get(name, nothing) | {"not_applicable": none, "selected_on": name in config.selected_on}
        for name, none in not_applicable.items()
        if none or name in means
    }
    arm = read_run(produced.folder)
    arm.less = frozenset(name for name, bounds in criteria.filters.items() if bounds.less_is_better)
    return {
        "asked": answered + failed + missing,
        "answered": answered,
        "failed": failed,
        "missing": missing,
        "open": still_open,
        "errors": load.errors(),
        "states": dict(sorted(arm.states.items())),
        "coverage": arm.coverage,
        "personas": len(set(persona_of.values())),
        "items": len(persona_of),
        "scores": means,
        "bounds": {name: asdict(criteria.filters[name]) for name in means},
        "by_category": {
            category: {name: sum(v) / len(v) for name, v in by_name.items()}
            for category, by_name in sorted(categories.items())
        },
        "by_split": {split: _means(found, persona_of) for split, found in sorted(splits.items())},
        "conversations": conversations.summary(),
        "load": {
            "concurrency": produced.target.at_a_time,
            "streaming": bool(load.ttft),
            "client_bound": load.client_bound(),
        },
        "latency": _latency(arm),
        "slowest": _slowest(arm),
        "latency_by_category": {
            category: _times(seconds) for category, seconds in sorted(_seconds_by(arm, arm.groups).items())
        },
        "thinking_timeout": config.thinking_timeout,
        **{share: asdict(measured(arm, share, config.thinking_timeout)) for share in SHARES},
        "tokens": load.tokens(config),
        "gates": plain(decide(gates, {"": arm}, config.thinking_timeout)),
    }


def _means(values: Values, persona_of: Mapping[Hashable, Hashable]) -> dict[str, dict[str, Any]]:
    means = {}
    for name, found in values.items():
        if found:
            reduced = reduce_repeats([value for _, value in found], [item for item, _ in found])
            means[name] = asdict(clustered_mean(reduced, persona_of))
    return means


def _latency(arm: Arm) -> dict[str, Any]:
    """Seconds. The time to the first visible content is told where a reply began with what a player does not see."""
    latency: dict[str, Any] = {}
    for what in arm.seconds:
        seconds, personas = arm.times(what, set(arm.items))
        if what == "ttfv" and seconds == arm.times("ttft", set(arm.items))[0]:
            continue
        quantiles = {f"p{q}": asdict(clustered_quantile(seconds, personas, q / 100)) for q in QUANTILES}
        latency[what] = quantiles | {"n": len(seconds)}
    return latency


def _slowest(arm: Arm) -> list[dict[str, Any]]:
    """The personas that keep a player waiting longest, by their median."""
    seconds = _seconds_by(arm, {item: item[0] for item in arm.items})
    slowest = heapq.nlargest(_SLOWEST, seconds.items(), key=lambda one: float(np.median(one[1])))
    return [{"persona": persona, **_times(waited)} for persona, waited in slowest]


def _seconds_by(arm: Arm, group_of: Mapping[Item, str]) -> dict[str, list[float]]:
    """Seconds to the end of each reply, by what its item belongs to."""
    seconds: dict[str, list[float]] = defaultdict(list)
    items = list(arm.items)
    for reply, second in zip(*arm.seconds.get("e2e", ((), ())), strict=True):
        seconds[group_of.get(items[arm.item_of[int(reply)]], "")].append(float(second))
    return seconds


def _times(seconds: list[float]) -> dict[str, Any]:
    return {"n": len(seconds), **{f"p{q}": float(np.quantile(seconds, q / 100)) for q in QUANTILES}}
