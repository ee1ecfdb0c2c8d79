"""Keep or drop, and why. A filter is a scorer with the least value that passes; the first one that fails names the reason.

A score that is not applicable drops nothing. What is dropped is kept elsewhere, with filter, reason and evidence: an author
must be able to see what a filter costs.
"""

import unicodedata
from dataclasses import dataclass

from pipeline.records import Score, Turn

FILTERS: dict[str, float] = {
    "non_empty": 1.0,
    "in_character": 1.0,
    "no_prompt_leak": 1.0,
    "no_player_speech": 1.0,
    "finished": 1.0,
    "box_length": 1.0,
    "no_repetition": 0.75,
}
DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class Drop:
    filter: str
    reason: str
    evidence: str


class Curator:
    """Decides row by row, in the order of the plan: of equal replies the first one stays.

    A reply is a duplicate when the same persona has said the same before, spelled the same but for case, blanks and
    punctuation. Two personas may well say the same.
    """

    def __init__(self) -> None:
        self._persona = ""
        self._said: dict[str, str] = {}  # of one persona only: personas come one after another

    def verdict(self, turn: Turn, scores: dict[str, Score]) -> Drop | None:
        """None: keep."""
        for name, least in FILTERS.items():
            score = scores[name]
            if score.value is not None and score.value < least:
                return Drop(name, score.reason, score.evidence)
        if turn.item.npc.id != self._persona:
            self._persona = turn.item.npc.id
            self._said.clear()
        heard = _heard(turn.text)
        if heard in self._said:
            return Drop(DUPLICATE, "this persona has said it before", self._said[heard])
        self._said[heard] = turn.item.item_id
        return None


def _heard(text: str) -> str:
    """Letters and digits only, with their marks: in Hindi, these are the vowels."""
    spelled = unicodedata.normalize("NFC", text.casefold())
    return "".join(c for c in spelled if c.isalnum() or unicodedata.category(c)[0] == "M")
