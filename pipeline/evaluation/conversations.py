"""What only conversations of several turns show: whether an NPC holds out, and whether it drifts away from its persona.

A conversation holds if no reply of it has a flaw; else it gave in at its first. Drift is the last reply's score less the first
one's, a mean over items with an interval clustered by persona: of `voice` it says that the NPC sounds less and less like itself.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import asdict
from typing import Any

from pipeline.curation.criteria import Bounds
from pipeline.records import Score, Turn
from pipeline.stats import clustered_mean, paired, reduce_repeats

Found = list[tuple[Hashable, float]]  # an item, and a value of one of its conversations
VOICE = "voice"


class Conversations:
    """Takes the answered replies of a run in their order, with the scores of each."""

    def __init__(self, bounds: Mapping[str, Bounds]) -> None:
        self._bounds = bounds
        self._ended: Counter[str] = Counter()
        self._gave_in: Counter[int] = Counter()
        self._held: Found = []
        self._held_by: dict[str, list[float]] = defaultdict(list)
        self._first: dict[str, Found] = defaultdict(list)
        self._last: dict[str, Found] = defaultdict(list)
        self._talk: list[tuple[Turn, Mapping[str, Score]]] = []

    def add(self, turn: Turn, scores: Mapping[str, Score]) -> None:
        if turn.number == 0:
            self._close()
        self._talk.append((turn, scores))

    def summary(self) -> dict[str, Any] | None:
        """Ready for JSON; None if no conversation had several replies."""
        self._close()
        if not self._held:
            return None
        persona_of: dict[Hashable, Hashable] = {item: item[0] for item, _ in self._held}  # type: ignore[index]
        return {
            "count": len(self._held),
            "ended": dict(self._ended.most_common()),
            "held": asdict(clustered_mean(_by_item(self._held), persona_of)),
            "held_by_category": {name: sum(held) / len(held) for name, held in sorted(self._held_by.items())},
            "gave_in_at": {str(number): self._gave_in[number] for number in sorted(self._gave_in)},
            "drift": {
                name: asdict(paired(_by_item(self._first[name]), _by_item(last), persona_of, rates=True))
                for name, last in self._last.items()
            },
        }

    def _close(self) -> None:
        talk, self._talk = self._talk, []
        if len(talk) < 2:
            return
        (first, of_first), (last, of_last) = talk[0], talk[-1]
        item = (first.item.npc.id, first.item.scenario_id)
        self._ended[last.ended or "open"] += 1
        flaws = (turn.number for turn, scores in talk if self._flawed(scores))
        gave_in = next(flaws, None)
        self._held.append((item, float(gave_in is None)))
        self._held_by[first.item.category].append(float(gave_in is None))
        if gave_in is not None:
            self._gave_in[gave_in + 1] += 1
        for name, score in of_first.items():
            before, after = score.value, of_last[name].value
            if before is not None and after is not None:
                self._first[name].append((item, before))
                self._last[name].append((item, after))

    def _flawed(self, scores: Mapping[str, Score]) -> bool:
        return any(s.value is not None and not self._bounds[name].passes(s.value) for name, s in scores.items())


def _by_item(found: Found) -> dict[Hashable, float]:
    return reduce_repeats([value for _, value in found], [item for item, _ in found])
