"""Whether an NPC still knows, some turns later, what it was told."""

from pipeline.records import Score, Turn
from pipeline.scorers.verdict import GOOD, SILENT, not_applicable
from pipeline.scorers.words import words


def remembers(turn: Turn) -> Score:
    """1 if the reply has any of the words that the scenario's `remembers` names for this line, as whole words in their order; a
    genitive or plural counts too. Not applicable to other lines.
    """
    wanted = turn.item.remembers.get(turn.number + 1)
    if not wanted:
        return not_applicable("there is nothing to remember")
    if not turn.text:
        return SILENT
    said = [_bare(word) for word in words(turn.text)]
    for phrase in wanted:
        looked_for = [_bare(word) for word in words(phrase)]
        if any(said[at : at + len(looked_for)] == looked_for for at in range(len(said) - len(looked_for) + 1)):
            return GOOD
    return Score(0.0, f"does not say {' or '.join(map(repr, wanted))}", turn.text[:120])


def _bare(word: str) -> str:
    word = word.removesuffix("'s").removesuffix("'")
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
