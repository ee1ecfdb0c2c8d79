"""Keep or drop, and why: a funnel of named filters over the replies of a run.

    the scorers' bounds, in their order  ->  after_flaw  ->  duplicate  ->  max_per_prompt  ->  max_per_persona  ->  max_per_scenario

The first that fails names the reason. A score that is not applicable drops nothing. What is dropped is kept elsewhere, with
filter, reason and evidence: an author must be able to see what a filter costs. Of replies that say nearly the same, and
where only so many may stay, the best do: by the product of their scores, and among equals by a hash, never by who came first.

A conversation counts up to its first flaw: what an NPC says after it answers for what it should not have said.
"""

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.curation.criteria import AFTER_FLAW, DUPLICATE, LIMITS, Bounds, Criteria
from pipeline.curation.dedup import near_duplicates
from pipeline.curation.scored import Batch
from pipeline.curation.texts import Few, Repeated, Scattered, Texts
from pipeline.records import Score, reply_id
from pipeline.run.plan import CONTRAST
from pipeline.run.splits import TRAIN
from pipeline.run.tables import column

Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Drop:
    filter: str
    reason: str
    evidence: str


class Drops(Mapping[int, Drop]):
    """What was dropped, by place."""

    def __init__(self, folder: Path | None = None) -> None:
        self._written = Scattered(folder)

    def __setitem__(self, place: int, drop: Drop) -> None:
        self._written[place] = json.dumps([drop.filter, drop.reason, drop.evidence])

    def __getitem__(self, place: int) -> Drop:
        return Drop(*json.loads(self._written[place]))

    def __contains__(self, place: object) -> bool:
        return place in self._written

    def __iter__(self) -> Iterator[int]:
        return iter(self._written)

    def __len__(self) -> int:
        return len(self._written)


@dataclass(slots=True)
class Candidates:
    """The scored replies of a run, in the order of the plan. Replies to one `prompt` are siblings: the first ones of several
    conversations between the same two. `turns` are their numbers in the conversation."""

    item_ids: Sequence[str]  # of replies: see `records.reply_id`
    texts: Sequence[str]
    personas: Sequence[str]
    scenarios: Sequence[str]
    splits: Sequence[str]
    prompts: "array[int]"
    turns: "array[int]"
    quality: "array[float]"
    drops: Mapping[int, Drop]  # by place
    scorers: frozenset[str]  # names of filters that judge a reply by itself, and not by what else is there

    def __len__(self) -> int:
        return len(self.prompts)

    def siblings(self) -> Iterator[Sequence[int]]:
        """The places of the replies to each prompt, which is that of the first turns of conversations between the same two."""
        order = np.argsort(np.frombuffer(self.prompts, np.int64), kind="stable") if self.prompts else np.empty(0, int)
        numbers = np.asarray(self.prompts, np.int64)[order]
        first = 0
        for last in (*(np.flatnonzero(np.diff(numbers)) + 1), len(order)):
            if first < last:
                yield order[first:last].tolist()
            first = last

    def kept(self) -> "array[int]":
        """The places of what is kept so far."""
        return array("q", (place for place in range(len(self)) if place not in self.drops))

    def ranked(self) -> Places:
        """The same, the best first."""
        kept = np.array(self.kept(), np.int64)
        longest = max(map(len, self.item_ids), default=1)
        ids = np.fromiter((item_id.encode() for item_id in self.item_ids), f"S{longest}", len(self))
        return kept[np.lexsort((ids[kept], -np.array(self.quality)[kept]))]


class _Ranked(Sequence[tuple[str, str, int]]):
    """Text, persona and prompt of candidates, in an order of their own."""

    def __init__(self, candidates: Candidates, order: Places) -> None:
        self._candidates, self._order = candidates, order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, number: Any) -> Any:
        found, place = self._candidates, self._order[number]
        return found.texts[place], found.personas[place], found.prompts[place]


class Curator:
    """Takes the replies batch by batch, with their scores, and decides when it has all."""

    def __init__(self, criteria: Criteria, folder: Path | None = None) -> None:
        """What has to wait for the last reply waits in files in `folder`."""
        self._criteria = criteria
        self._pair: tuple[str, str] | None = None  # persona and scenario
        self._first = 0  # the prompt that their conversations begin with
        self._prompts = 0  # how many there are
        self._ids, self._texts = Texts(folder), Texts(folder)
        self._personas, self._scenarios, self._splits = Repeated(folder), Repeated(folder), Few()
        self._drops = Drops(folder)
        self.candidates = Candidates(
            *(self._ids, self._texts, self._personas, self._scenarios, self._splits),
            *(array("q"), array("q"), array("d"), self._drops, frozenset(criteria.filters)),
        )
        self.contrast = Scattered(folder)  # what was said without the persona, by prompt
        self.late: dict[str, array[float]] = {}  # by scorer that needed the whole run; NaN: not applicable

    def take(self, batch: Batch, splits: Sequence[str], unfit: Mapping[int, Drop]) -> None:
        """`splits` of those that have scores; `unfit` are, by their number among them, dropped for a reason that goes before
        any score."""
        found, first = self.candidates, len(self._texts)
        for number, drop in unfit.items():
            self._drops[first + number] = drop
        self._splits.extend(splits)
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
            if not same:
                self._pair, self._first = (persona, scenario), self._new_prompt()
            # Later in a conversation everybody has a history of its own, and no siblings.
            found.prompts.append(self._new_prompt() if turn else self._first)
            found.turns.append(turn)
            self._ids.append(reply_id(item_id, turn))
            self._texts.append(reply)
            self._personas.append(persona)
            self._scenarios.append(scenario)
        self._judge_all(first, batch)

    def _new_prompt(self) -> int:
        self._prompts += 1
        return self._prompts - 1

    def _judge_all(self, first: int, batch: Batch) -> None:
        """By the scorers' bounds, in their order."""
        drops, names, values = self._drops, batch.scorers, batch.values
        failed, quality = np.zeros(values.shape, bool), np.ones(len(values))
        for at, name in enumerate(names):
            failed[:, at] = _fails(self._criteria.filters[name], values[:, at])
            quality *= self._goodness(name, values[:, at])
        self.candidates.quality.extend(quality.tolist())
        rows = np.array(
            [row for row in np.flatnonzero(failed.any(axis=1)).tolist() if first + row not in drops], np.int64
        )
        if not len(rows):
            return
        at = failed[rows].argmax(axis=1)
        told = batch.scores.take(column(rows * len(names) + at, pa.int64()))
        said = (told.column(name).to_pylist() for name in ("value", "reason", "evidence"))
        for row, filter_, score in zip(rows.tolist(), at.tolist(), map(Score, *said), strict=True):
            drops[first + row] = self._drop(names[filter_], score)

    def decide(self, of_run: Iterable[Mapping[str, Sequence[Score]]]) -> Candidates:
        """With the scores that needed the whole run: batch by batch, by scorer those of the next replies."""
        found = self.candidates
        for scores in of_run:
            self._judge_late(scores)
        self._drop_after_flaws()
        quality = np.frombuffer(found.quality)  # of which these are the last factors
        for name, values in self.late.items():
            quality *= self._goodness(name, np.frombuffer(values))
        self._drop_duplicates()
        self._drop_beyond_limits()
        return found

    def _judge_late(self, by_name: Mapping[str, Sequence[Score]]) -> None:
        drops = self._drops
        for name, scores in by_name.items():
            values = np.array([score.value for score in scores], np.float64)  # None: not a number
            late = self.late.setdefault(name, array("d"))
            for row in np.flatnonzero(_fails(self._criteria.filters[name], values)).tolist():
                if len(late) + row not in drops:
                    drops[len(late) + row] = self._drop(name, scores[row])
            late.frombytes(values.tobytes())

    def _drop(self, name: str, score: Score) -> Drop:
        assert score.value is not None
        return Drop(name, score.reason or _reason(score.value, self._criteria.filters[name]), score.evidence)

    def _goodness(self, name: str, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """A reply's quality is the product of those that apply, as if each said how likely that side of the reply is good."""
        return np.nan_to_num(self._criteria.filters[name].goodness(values), nan=1.0)

    def _drop_after_flaws(self) -> None:
        flaw: Drop | None = None
        if not any(self.candidates.turns):  # nothing follows on anything
            return
        for place, turn in enumerate(self.candidates.turns):
            flaw = self._drops.get(place, flaw if turn else None)
            if flaw is not None and place not in self._drops:
                why = f"an earlier reply of this conversation was dropped by {flaw.filter}"
                self._drops[place] = Drop(AFTER_FLAW, why, flaw.evidence)

    def _drop_duplicates(self) -> None:
        found, least = self.candidates, self._criteria.duplicates
        # What is held out for testing comes first: it stays, and what is nearly the same leaves the training split.
        order = found.ranked()
        order = order[np.argsort([found.splits[place] == TRAIN for place in order.tolist()], kind="stable")]
        near = near_duplicates(
            _Ranked(found, order),
            np.argsort(order),  # as they lie in their files
            prompt=least.prompt,
            persona=least.persona,
            anyone=least.anyone,
            short=least.words,
        )
        for place, match in zip(order.tolist(), near, strict=True):
            if match is None:
                continue
            other = order[match.number]
            who = "this persona" if found.personas[place] == found.personas[other] else found.personas[other]
            where = "" if found.splits[place] == found.splits[other] else f", in {found.splits[other]}"
            how = "the same" if match.similarity == 1 else f"nearly the same ({match.similarity:.2f})"
            self._drops[place] = Drop(DUPLICATE, f"{who} says {how}{where}", found.item_ids[other])

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
            for place in found.ranked().tolist():
                group = groups[name][place]
                if taken[group] >= most:
                    self._drops[place] = Drop(name, f"only the best {most} stay", f"quality {found.quality[place]:.3f}")
                taken[group] += 1


def _fails(bounds: Bounds, values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which are out of bounds; what is not a number is not."""
    low = values < bounds.least if bounds.least is not None else np.zeros(len(values), bool)
    return low | (values > bounds.most) if bounds.most is not None else low


def _reason(value: float, bounds: Bounds) -> str:
    if bounds.least is not None and value < bounds.least:
        return f"{value:g} is under {bounds.least:g}"
    return f"{value:g} is over {bounds.most:g}"
