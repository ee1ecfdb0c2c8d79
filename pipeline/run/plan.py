"""Which persona meets which scenario: all the conversations of a run, one after another, in an order that never changes.

Personas come first, so that requests which share their beginning are neighbours. A draw ranks by hash: adding a persona or
a scenario moves no other draw.
"""

import hashlib
import heapq
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pipeline.personas.load import read_personas
from pipeline.personas.macros import Meeting, with_own_name
from pipeline.personas.schema import Scenario
from pipeline.records import Item, Message
from pipeline.run.splits import TRAIN, Splitter

HISTORY = 40  # messages before a line that its prompt has; no game sends more
CONTRAST = "contrast"  # the arm of a question that is asked without the persona


@dataclass(frozen=True, slots=True)
class Count:
    """`items` are planned, `contrast` of them without their persona; `unfit` pairs of persona and scenario were left out for
    a field the persona lacks."""

    personas: int
    items: int
    unfit: int
    contrast: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`personas` is the checked file of the run; `per_persona` None means every scenario that fits; `contrast` asks every
    question once more, without the persona; `held_out` leaves out what it says is trained on."""

    personas: Path
    scenarios: list[Scenario]
    template: str
    samples: int = 1
    per_persona: int | None = None
    limit: int | None = None
    contrast: bool = False
    held_out: Splitter | None = None

    def __iter__(self) -> Iterator[Item]:
        """`limit` counts what is asked with a persona: asking for contrast, too, takes no reply away."""
        left = self.limit
        for item in self._all():
            if left is not None and item.arm != CONTRAST:
                if not left:
                    return
                left -= 1
            yield item

    def count(self) -> Count:
        personas = items = unfit = contrast = 0
        fits = _Fits(self.scenarios)
        for npc in read_personas(self.personas):
            fitting = fits(npc)
            asked = len(self._held_out(npc, fitting))
            drawn = asked if self.per_persona is None else min(asked, self.per_persona)
            personas += 1
            items += drawn * self.samples
            unfit += len(self.scenarios) - len(fitting)
            contrast += drawn if self.contrast else 0
        if self.limit is not None and items > self.limit:
            items, contrast = self.limit, sum(item.arm == CONTRAST for item in self) if self.contrast else 0
        return Count(personas, items + contrast, unfit, contrast)

    def preflight(self) -> Iterator[Item]:
        """One item for each scenario that any persona fits: enough to try every template on before a run."""
        waiting = list(self.scenarios)
        for npc in read_personas(self.personas):
            for scenario in [s for s in waiting if s.fits(npc) and self._is_asked(npc, s)]:
                waiting.remove(scenario)
                yield scenario.item(Meeting(npc)(scenario.player), template=self.template, sample=0)
            if not waiting:
                return

    def _all(self) -> Iterator[Item]:
        marks = [hashlib.blake2b(s.id.encode("utf-8", "surrogatepass")).digest() for s in self.scenarios]
        fits = _Fits(self.scenarios)
        for npc in read_personas(self.personas):
            meeting = Meeting(npc)
            for place in self._drawn(npc, self._held_out(npc, fits(npc)), marks):
                scenario = self.scenarios[place]
                met = meeting(scenario.player)
                for sample in range(self.samples):
                    yield scenario.item(met, template=self.template, sample=sample)
                if self.contrast:
                    yield scenario.item(met, template=self.template, sample=0, arm=CONTRAST)

    def _held_out(self, npc: SimpleNamespace, places: list[int]) -> list[int]:
        if self.held_out is None:
            return places
        return [place for place in places if self._is_asked(npc, self.scenarios[place])]

    def _is_asked(self, npc: SimpleNamespace, scenario: Scenario) -> bool:
        return self.held_out is None or self.held_out.split(npc.id, scenario.id) != TRAIN

    def _drawn(self, npc: SimpleNamespace, fitting: list[int], marks: list[bytes]) -> list[int]:
        if self.per_persona is None or len(fitting) <= self.per_persona:
            return fitting
        mark = hashlib.blake2b(npc.id.encode("utf-8", "surrogatepass")).digest()
        ranked = ((hashlib.blake2b(mark + marks[place], digest_size=8).digest(), place) for place in fitting)
        return sorted(place for _, place in heapq.nsmallest(self.per_persona, ranked))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """Conversations that were had elsewhere, as a plan: one item for each reply of the NPC, with what was said before it.
    `conversations` is the file of the run that `write_conversation` made; `size` is how many there are."""

    personas: Path
    conversations: Path
    template: str
    size: Count
    held_out: Splitter | None = None

    def __iter__(self) -> Iterator[Item]:
        return (item for item, _ in self.replies())

    def replies(self) -> Iterator[tuple[Item, str]]:
        """Each item with what the NPC said."""
        last, npc = "", SimpleNamespace()
        with self.conversations.open(encoding="utf-8") as file:
            for line in file:
                talk = json.loads(line)
                if (persona := json.dumps([talk["persona"], talk["player"]])) != last:
                    last, npc = persona, Meeting(with_own_name(SimpleNamespace(**talk["persona"])))(talk["player"])
                yield from self._replies_in(talk, npc)

    def count(self) -> Count:
        return self.size

    def _replies_in(self, talk: dict[str, Any], npc: SimpleNamespace) -> Iterator[tuple[Item, str]]:
        said = [Message(role=role, content=text) for role, text in talk["messages"]]
        for place in range(1, len(said)):
            if said[place].role == "assistant":
                item = Item(
                    npc=npc,
                    scenario_id=f"{talk['id']}/{place}",
                    category=talk["category"],
                    player=talk["player"],
                    lines=(said[place - 1].content,),
                    template=self.template,
                    sample=0,
                    history=tuple(said[max(0, place - 1 - HISTORY) : place - 1]),
                    system=talk["system"],
                    talk=talk["id"],
                )
                yield item, said[place].content


class _Fits:
    """The places of the scenarios that a persona fits. Personas with the same fields filled fit the same."""

    def __init__(self, scenarios: list[Scenario]) -> None:
        self._scenarios = scenarios
        self._required = sorted({field for scenario in scenarios for field in scenario.requires})
        self._known: dict[tuple[bool, ...], list[int]] = {}

    def __call__(self, npc: SimpleNamespace) -> list[int]:
        filled = tuple([bool(getattr(npc, field, None)) for field in self._required])
        if filled not in self._known:
            self._known[filled] = [place for place, scenario in enumerate(self._scenarios) if scenario.fits(npc)]
        return self._known[filled]
