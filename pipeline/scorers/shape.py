"""Whether a reply fits where a game shows it: there at all, whole, of a length for a text box, not going in circles."""

import re
import unicodedata

from pipeline.records import Score, Turn

MAX_WORDS = 60  # lines in shipped games: median 17 words, 95 % under 30
MAX_CHARACTERS = 400
_SHORT = 12  # words; a refrain in so short a reply is style

# \w has no combining marks: without them, a word of Hindi, Thai or vocalised Arabic would fall into pieces.
_LETTER = (
    r"[\w\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u064b-\u065f\u0670\u0900-\u0963\u0971-\u0df3\u0e31-\u0e4e\u0eb1-\u0ecd"
    r"\u0f71-\u0f84\u102b-\u103e\u17b4-\u17d3]"
)
WORD = re.compile(rf"{_LETTER}+(?:['’]{_LETTER}+)*")
_NOT_FINAL = frozenset(",;:-،、，：；፣၊&@#%/\\([{¿¡•·§")
_QUOTES = frozenset("\"'*_`“”‘’«»„‹›")  # which of them open and which close differs from language to language


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
    if _ends(text) or "\u0e00" <= _visible(text)[-1:] <= "\u0eff":  # Thai and Lao have no full stop
        return Score(1.0)
    completion = turn.completion
    cut = completion is not None and completion.finish_reason == "length"
    if not cut and any(line and not _ends(line) for line in turn.item.npc.examples):
        return Score(1.0, "ends like the persona's example lines")
    return Score(0.0, "cut off by the token limit" if cut else "no end of a sentence", text[-60:])


def _ends(text: str) -> bool:
    text = _visible(text)
    last, before = text[-1:], text[-2:-1]
    if last in _QUOTES and not (last == "»" and "«" in text):  # the French put a blank before it
        return bool(before) and not before.isspace()  # behind a blank it opens
    if not last or (last in _NOT_FINAL and not text.endswith("--")):
        return False
    return last in "~♪" or unicodedata.category(last) in ("Po", "Pf", "Pe", "Pd", "Sk", "So")


def _visible(text: str) -> str:
    """Without what may follow the last visible character: marks of direction, the joiners and variants of emoji."""
    end = len(text)
    while end and ((last := text[end - 1]).isspace() or last in "\ufe0e\ufe0f" or unicodedata.category(last) == "Cf"):
        end -= 1
    return text[:end]


def box_length(turn: Turn) -> Score:
    """1 for up to MAX_WORDS words and MAX_CHARACTERS characters: what a dialogue box shows without scrolling."""
    words, characters = len(turn.text.split()), len(turn.text)
    if not characters:
        return Score(None, "nothing was said")
    if words > MAX_WORDS or characters > MAX_CHARACTERS:
        return Score(0.0, f"{words} words, {characters} characters", turn.text[-60:])
    return Score(1.0)


def no_repetition(turn: Turn) -> Score:
    """The share of runs of three words that are said for the first time; 1 for replies too short to tell.

    (The fraction of duplicate n-grams of the Gopher rules, Rae et al. 2021, arXiv 2112.11446, the other way round.)
    """
    words = [word.casefold() for word in WORD.findall(turn.text)]
    if not words:
        return Score(None, "nothing was said")
    if len(words) < _SHORT:
        return Score(1.0)
    grams = list(zip(words, words[1:], words[2:], strict=False))
    first = len(set(grams))
    if first == len(grams):
        return Score(1.0)
    return Score(first / len(grams), "goes in circles", _first_repeated(turn.text, grams))


def _first_repeated(text: str, grams: list[tuple[str, str, str]]) -> str:
    """The first run of words that was said before, as it is spelled there."""
    spans = list(WORD.finditer(text))
    seen: set[tuple[str, str, str]] = set()
    for at, gram in enumerate(grams):
        if gram in seen:
            return text[spans[at].start() : spans[at + 2].end()]
        seen.add(gram)
    return ""
