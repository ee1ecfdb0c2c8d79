"""Keep or drop, and why: a funnel of named filters over the replies of a run.

    the scorers' bounds, in their order  ->  after_flaw  ->  duplicate  ->  max_per_prompt  ->  max_per_persona  ->  max_per_scenario

The first that fails names the reason. A score that is not applicable drops nothing. What is dropped is kept elsewhere, with
filter, reason and evidence: an author must be able to see what a filter costs. Of replies that say nearly the same, and
where only so many may stay, the best do: by the product of their scores, and among equals by a hash, never by who came first.

A conversation counts up to its first flaw: what an NPC says after it answers for what it should not have said.
"""

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.criteria import AFTER_FLAW, DUPLICATE, LIMITS, Bounds, Criteria
from pipeline.dedup import NearDuplicates
from pipeline.plan import CONTRAST
from pipeline.records import Score, reply_id
from pipeline.scored import Batch
from pipeline.splits import TRAIN


@dataclass(frozen=True, slots=True)
class Drop:
    filter: str
    reason: str
    evidence: str


class Texts(Sequence[str]):
    """Many short texts as one long one: an object for each would take as much memory again."""

    def __init__(self) -> None:
        self._bytes, self._ends = bytearray(), array("q", [0])

    def append(self, text: str) -> None:
        self._bytes += text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, place: Any) -> Any:
        return self._bytes[self._ends[place] : self._ends[place + 1]].decode("utf-8", "surrogatepass")


@dataclass(slots=True)
class Candidates:
    """The scored replies of a run, in the order of the plan. Replies to one `prompt` are siblings: the first ones of several
    conversations between the same two. `turns` are their numbers in the conversation."""

    item_ids: Sequence[str]  # of replies: see `records.reply_id`
    texts: Sequence[str]
    personas: list[str]
    scenarios: list[str]
    splits: list[str]
    prompts: "array[int]"
    turns: "array[int]"
    quality: "array[float]"
    drops: dict[int, Drop]  # by place
    scorers: frozenset[str]  # names of filters that judge a reply by itself, and not by what else is there

    def __len__(self) -> int:
        return len(self.texts)

    def siblings(self) -> Iterator[Sequence[int]]:
        """The places of the replies to each prompt, which is that of the first turns of conversations between the same two."""
        order = np.argsort(np.frombuffer(self.prompts, np.int64), kind="stable") if self.prompts else np.empty(0, int)
        numbers = np.asarray(self.prompts, np.int64)[order]
        for places in np.split(order, np.flatnonzero(np.diff(numbers)) + 1):
            if len(places):
                yield places.tolist()

    def ranked(self) -> list[int]:
        """The places of what is kept so far, the best first."""
        kept = (place for place in range(len(self)) if place not in self.drops)
        return sorted(kept, key=lambda place: (-self.quality[place], self.item_ids[place]))


class Curator:
    """Takes the replies batch by batch, with their scores, and decides when it has all."""

    def __init__(self, criteria: Criteria) -> None:
        self._criteria = criteria
        self._pair: tuple[str, str] | None = None  # persona and scenario
        self._first = 0  # the prompt that their conversations begin with
        self._prompts = 0  # how many there are
        self._ids, self._texts = Texts(), Texts()
        self.candidates = Candidates(
            self._ids, self._texts, [], [], [], array("q"), array("q"), array("d"), {}, frozenset(criteria.filters)
        )
        self.contrast: dict[int, str] = {}  # what was said without the persona, by prompt
        self.values: dict[str, array[float]] = {}  # by scorer; NaN: not applicable

    def take(self, batch: Batch, splits: Iterable[str], unfit: Mapping[int, Drop]) -> None:
        """`splits` of those that have scores; `unfit` are, by their number among them, dropped for a reason that goes before
        any score."""
        found, first = self.candidates, len(self._texts)
        found.drops.update({first + number: drop for number, drop in unfit.items()})
        found.splits.extend(splits)
        scored = set(batch.scored.tolist())
        rows = (
            batch.replies.column(name).to_pylist()
            for name in ("item_id", "turn", "persona_id", "scenario_id", "arm", "reply")
        )
        for row, (item_id, turn, persona, scenario, arm, reply) in enumerate(zip(*rows, strict=True)):
            same = (persona, scenario) == self._pair
            if row not in scored:
                # What was said without the persona comes after the replies to the same prompt.
                if same and arm == CONTRAST and reply is not None and reply.strip():
                    self.contrast[self._first] = reply
                continue
            if same:
                # Equal texts side by side in memory are one: there are as many ids as replies otherwise.
                persona, scenario = found.personas[-1], found.scenarios[-1]
            else:
                self._pair, self._first = (persona, scenario), self._new_prompt()
            # Later in a conversation everybody has a history of its own, and no siblings.
            found.prompts.append(self._new_prompt() if turn else self._first)
            found.turns.append(turn)
            self._ids.append(reply_id(item_id, turn))
            self._texts.append(reply)
            found.personas.append(persona)
            found.scenarios.append(scenario)
        self._judge_all(first, batch)

    def _new_prompt(self) -> int:
        self._prompts += 1
        return self._prompts - 1

    def _judge_all(self, first: int, batch: Batch) -> None:
        """By the scorers' bounds, in their order."""
        drops, names, values = self.candidates.drops, batch.scorers, batch.values
        failed = np.zeros(values.shape, bool)
        for at, name in enumerate(names):
            self.values.setdefault(name, array("d")).extend(values[:, at].tolist())
            failed[:, at] = _fails(self._criteria.filters[name], values[:, at])
        for row in np.flatnonzero(failed.any(axis=1)).tolist():
            if first + row not in drops:
                at = int(failed[row].argmax())
                told = batch.scores.slice(row * len(names) + at, 1).to_pylist()[0]
                drops[first + row] = self._drop(names[at], Score(told["value"], told["reason"], told["evidence"]))

    def decide(self, of_run: Iterable[dict[str, Score]]) -> Candidates:
        """With the scores that needed the whole run, in the same order."""
        found = self.candidates
        for place, scores in enumerate(of_run):
            self._judge(place, scores)
        self._drop_after_flaws()
        found.quality.extend(self._quality())
        self._drop_duplicates()
        self._drop_beyond_limits()
        return found

    def _judge(self, place: int, scores: dict[str, Score]) -> None:
        drops = self.candidates.drops
        for name, score in scores.items():
            value = score.value
            self.values.setdefault(name, array("d")).append(math.nan if value is None else value)
            if value is not None and place not in drops and not self._criteria.filters[name].passes(value):
                drops[place] = self._drop(name, score)

    def _drop(self, name: str, score: Score) -> Drop:
        assert score.value is not None
        return Drop(name, score.reason or _reason(score.value, self._criteria.filters[name]), score.evidence)

    def _quality(self) -> Iterable[float]:
        """The product of the scores that apply, as if each said how likely that side of the reply is good."""
        product = np.ones(len(self.candidates))
        for name, values in self.values.items():
            product *= np.nan_to_num(self._criteria.filters[name].goodness(np.frombuffer(values)), nan=1.0)
        quality: list[float] = product.tolist()
        return quality

    def _drop_after_flaws(self) -> None:
        found = self.candidates
        flaw: Drop | None = None
        for place, turn in enumerate(found.turns):
            flaw = found.drops.get(place, flaw if turn else None)
            if flaw is not None and place not in found.drops:
                why = f"an earlier reply of this conversation was dropped by {flaw.filter}"
                found.drops[place] = Drop(AFTER_FLAW, why, flaw.evidence)

    def _drop_duplicates(self) -> None:
        found, least = self.candidates, self._criteria.duplicates
        near = NearDuplicates(prompt=least.prompt, persona=least.persona, anyone=least.anyone, short=least.words)
        # What is held out for testing comes first: it stays, and what is nearly the same leaves the training split.
        order = sorted(found.ranked(), key=lambda place: found.splits[place] == TRAIN)
        said = ((found.texts[place], found.personas[place], str(found.prompts[place])) for place in order)
        for place, match in zip(order, near.admit_all(said), strict=True):
            if match is None:
                continue
            other = order[match.number]
            who = "this persona" if found.personas[place] == found.personas[other] else found.personas[other]
            where = "" if found.splits[place] == found.splits[other] else f", in {found.splits[other]}"
            how = "the same" if match.similarity == 1 else f"nearly the same ({match.similarity:.2f})"
            found.drops[place] = Drop(DUPLICATE, f"{who} says {how}{where}", found.item_ids[other])

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


def _fails(bounds: Bounds, values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which are out of bounds; what is not a number is not."""
    low = values < bounds.least if bounds.least is not None else np.zeros(len(values), bool)
    return low | (values > bounds.most) if bounds.most is not None else low


def _reason(value: float, bounds: Bounds) -> str:
    if bounds.least is not None and value < bounds.least:
        return f"{value:g} is under {bounds.least:g}"
    return f"{value:g} is over {bounds.most:g}"
