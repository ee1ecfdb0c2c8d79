"""Whether a reply fits where a game shows it: there at all, whole, of a length for a text box, not going in circles."""

import re
import unicodedata

from pipeline.records import Score, Turn

MAX_WORDS = 60  # lines in shipped games: median 17 words, 95 % under 30
MAX_CHARACTERS = 400
_SHORT = 12  # words; a refrain in so short a reply is style

_WORD = re.compile(r"\w+(?:['’]\w+)*")
_NOT_FINAL = frozenset(",;:-،、，：；&@#%/\\([{«“‘<")


def non_empty(turn: Turn) -> Score:
    """1 if there is any letter or digit in it."""
    if any(c.isalnum() for c in turn.text):
        return Score(1.0)
    return Score(0.0, "nothing was said", turn.text[:80])


def finished(turn: Turn) -> Score:
    """1 if the reply ends where a sentence may end, in any script, or as this persona's own example lines do.

    The server's finish reason alone is no guide: some report "length" for a stop string.
    """
    text = turn.text.rstrip()
    if not text:
        return Score(None, "nothing was said")
    if _ends(text):
        return Score(1.0)
    completion = turn.completion
    cut = completion is not None and completion.finish_reason == "length"
    if not cut and any(line and not _ends(line) for line in turn.item.npc.examples):
        return Score(1.0, "ends like the persona's example lines")
    return Score(0.0, "cut off by the token limit" if cut else "no end of a sentence", text[-60:])


def _ends(text: str) -> bool:
    last = text.rstrip()[-1:]
    if not last or last in _NOT_FINAL:
        return False
    return last in "~♪" or unicodedata.category(last) in ("Po", "Pf", "Pe", "Pd", "Sk", "So")


def box_length(turn: Turn) -> Score:
    """1 for up to MAX_WORDS words and MAX_CHARACTERS characters: what a dialogue box shows without scrolling."""
    words, characters = len(turn.text.split()), len(turn.text)
    if not characters:
        return Score(None, "nothing was said")
    if words > MAX_WORDS or characters > MAX_CHARACTERS:
        return Score(0.0, f"{words} words, {characters} characters", turn.text[MAX_CHARACTERS - 60 : MAX_CHARACTERS])
    return Score(1.0)


def no_repetition(turn: Turn) -> Score:
    """The share of runs of three words that are said for the first time; 1 for replies too short to tell.

    (The fraction of duplicate n-grams of the Gopher rules, Rae et al. 2021, arXiv 2112.11446, the other way round.)
    """
    words = [word.casefold() for word in _WORD.findall(turn.text)]
    if not words:
        return Score(None, "nothing was said")
    if len(words) < _SHORT:
        return Score(1.0)
    seen: set[tuple[str, ...]] = set()
    again: tuple[str, ...] = ()
    total = len(words) - 2
    for gram in zip(words, words[1:], words[2:], strict=False):
        if gram in seen:
            again = again or gram
        seen.add(gram)
    return Score(len(seen) / total, "goes in circles" if again else "", " ".join(again))
