"""Keep or drop, and why: a funnel of named filters over the replies of a run.

    the scorers' bounds, in their order  ->  duplicate  ->  max_per_prompt  ->  max_per_persona  ->  max_per_scenario

The first that fails names the reason. A score that is not applicable drops nothing. What is dropped is kept elsewhere, with
filter, reason and evidence: an author must be able to see what a filter costs. Of replies that say nearly the same, and
where only so many may stay, the best do: by the product of their scores, and among equals by a hash, never by who came first.
"""

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.criteria import DUPLICATE, LIMITS, Bounds, Criteria
from pipeline.dedup import NearDuplicates
from pipeline.records import Score, Turn
from pipeline.splits import TRAIN


@dataclass(frozen=True, slots=True)
class Drop:
    filter: str
    reason: str
    evidence: str


@dataclass(slots=True)
class Candidates:
    """The scored replies of a run, in the order of the plan. Replies to one `prompt` are siblings, and stand together."""

    item_ids: list[str]
    texts: list[str]
    personas: list[str]
    scenarios: list[str]
    splits: list[str]
    prompts: "array[int]"
    quality: "array[float]"
    drops: dict[int, Drop]  # by place
    scorers: frozenset[str]  # names of filters that judge a reply by itself, and not by what else is there

    def __len__(self) -> int:
        return len(self.texts)

    def siblings(self) -> Iterator[range]:
        """The places of the replies to each prompt."""
        start = 0
        for place in range(1, len(self) + 1):
            if place == len(self) or self.prompts[place] != self.prompts[start]:
                yield range(start, place)
                start = place

    def ranked(self) -> list[int]:
        """The places of what is kept so far, the best first."""
        kept = (place for place in range(len(self)) if place not in self.drops)
        return sorted(kept, key=lambda place: (-self.quality[place], self.item_ids[place]))


class Curator:
    """Takes the replies one by one, with their scores, and decides when it has all."""

    def __init__(self, criteria: Criteria) -> None:
        self._criteria = criteria
        self._prompt: tuple[str, str] | None = None
        self.candidates = Candidates([], [], [], [], [], array("q"), array("d"), {}, frozenset(criteria.filters))
        self.contrast: dict[int, str] = {}  # what was said without the persona, by prompt
        self.values: dict[str, array[float]] = {}  # by scorer; NaN: not applicable

    def add(self, turn: Turn, scores: dict[str, Score], split: str) -> None:
        found, item = self.candidates, turn.item
        persona, scenario = item.npc.id, item.scenario_id
        if (persona, scenario) != self._prompt:
            self._prompt = (persona, scenario)
            found.prompts.append(found.prompts[-1] + 1 if found.prompts else 0)
        else:
            found.prompts.append(found.prompts[-1])
            # Equal texts side by side in memory are one: there are as many ids as replies otherwise.
            persona, scenario = found.personas[-1], found.scenarios[-1]
        found.item_ids.append(item.item_id)
        found.texts.append(turn.text)
        found.personas.append(persona)
        found.scenarios.append(scenario)
        found.splits.append(split)
        self._judge(len(found) - 1, scores)

    def drop(self, drop: Drop) -> None:
        """The reply that came last, for a reason that goes before any score."""
        self.candidates.drops[len(self.candidates) - 1] = drop

    def add_contrast(self, turn: Turn) -> None:
        """What was said without the persona, after the replies to the same prompt."""
        if self._prompt == (turn.item.npc.id, turn.item.scenario_id) and turn.text.strip():
            self.contrast[self.candidates.prompts[-1]] = turn.text

    def decide(self, of_run: Iterable[dict[str, Score]]) -> Candidates:
        """With the scores that needed the whole run, in the same order."""
        found = self.candidates
        for place, scores in enumerate(of_run):
            self._judge(place, scores)
        found.quality.extend(self._quality())
        self._drop_duplicates()
        self._drop_beyond_limits()
        return found

    def _judge(self, place: int, scores: dict[str, Score]) -> None:
        drops = self.candidates.drops
        for name, score in scores.items():
            value = score.value
            if name not in self.values:
                self.values[name] = array("d")
            self.values[name].append(math.nan if value is None else value)
            # Nearly all are 1, and pass.
            if value is not None and place not in drops and not (bounds := self._criteria.filters[name]).passes(value):
                drops[place] = Drop(name, score.reason or _reason(value, bounds), score.evidence)

    def _quality(self) -> Iterable[float]:
        """The product of the scores that apply, as if each said how likely that side of the reply is good."""
        product = np.ones(len(self.candidates))
        for name, values in self.values.items():
            product *= np.nan_to_num(self._criteria.filters[name].goodness(np.frombuffer(values)), nan=1.0)
        quality: list[float] = product.tolist()
        return quality

    def _drop_duplicates(self) -> None:
        found, least = self.candidates, self._criteria.duplicates
        near = NearDuplicates(prompt=least.prompt, persona=least.persona, anyone=least.anyone, short=least.words)
        # What is held out for testing comes first: it stays, and what is nearly the same leaves the training split.
        order = sorted(found.ranked(), key=lambda place: found.splits[place] == TRAIN)
        for place in order:
            match = near.admit(found.texts[place], persona=found.personas[place], prompt=str(found.prompts[place]))
            if match is None:
                continue
            other = order[match.number]
            who = "this persona" if found.personas[place] == found.personas[other] else found.personas[other]
            where = "" if found.splits[place] == found.splits[other] else f", in {found.splits[other]}"
            said = "the same" if match.similarity == 1 else f"nearly the same ({match.similarity:.2f})"
            found.drops[place] = Drop(DUPLICATE, f"{who} says {said}{where}", found.item_ids[other])

    def _drop_beyond_limits(self) -> None:
        found, selection = self.candidates, self._criteria.selection
        groups: dict[str, Any] = {
            "max_per_prompt": found.prompts,
            "max_per_persona": found.personas,
            "max_per_scenario": found.scenarios,
        }
        for name in LIMITS:
            most = getattr(selection, name)
            if most is None:
                continue
            taken: Counter[Any] = Counter()
            for place in found.ranked():
                group = groups[name][place]
                if taken[group] >= most:
                    found.drops[place] = Drop(name, f"only the best {most} stay", f"quality {found.quality[place]:.3f}")
                taken[group] += 1


def _reason(value: float, bounds: Bounds) -> str:
    if bounds.least is not None and value < bounds.least:
        return f"{value:g} is under {bounds.least:g}"
    return f"{value:g} is over {bounds.most:g}"
