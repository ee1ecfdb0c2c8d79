"""What a reply has to have before a scorer looks at it closely. Nearly every reply lacks it, and is done in a microsecond.

listed = Triggers({"phrases": lexicon("refusals")["phrases"], ...})
if not listed.pulled_by(turn.text):
    return GOOD
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from pipeline.scorers.pieces import everyday_english
from pipeline.scorers.words import plain, words

_NONE: frozenset[str] = frozenset()
# Marks of emphasis that stand inside what a pattern reads as one word, or as two.
_EMPHASIS = (("*", ""), ("_", " "))


@lru_cache(maxsize=256)
def vocabulary(text: str) -> frozenset[str]:
    """Every word of `words(text)`, the parts of those with an apostrophe ("reward" of "reward's"), and what is a word once marks
    of emphasis are gone: whatever a literal may be found by."""
    said = words(text)
    for mark, instead in _EMPHASIS:
        if mark in text:
            said += words(text.replace(mark, instead))
    if "'" in text or "’" in text:
        said += tuple(" ".join([word for word in said if "'" in word]).replace("'", " ").split())
    return frozenset(said)


class Triggers:
    """Plain phrases, each by the word of it that is likely to be the rarest, and by the name of what looks for it."""

    def __init__(self, phrases: Mapping[str, Iterable[str]]) -> None:
        everyday = everyday_english()
        by_word: dict[str, list[tuple[str, str]]] = {}
        for name, listed in phrases.items():
            for phrase in listed:
                key = max(words(phrase), key=lambda word: (everyday.tells(word), len(word)), default="")
                by_word.setdefault(key if len(key) > 1 else "", []).append((phrase, name))
        self._odd = by_word.pop("", [])  # "a.i.": no word of it tells anything
        self._by_word = by_word
        self._words = frozenset(by_word)

    def pulled_by(self, text: str) -> frozenset[str]:
        """The names of which some phrase is in `plain(text)`: what is not named need not look."""
        odd = [phrase for phrase, _ in self._odd if phrase in text or phrase.upper() in text] if self._odd else ()
        said = vocabulary(text)
        if self._words.isdisjoint(said) and not odd:
            return _NONE
        simple = plain(text)
        found = [found for word in self._words & said for found in self._by_word[word]] + self._odd
        return frozenset([name for phrase, name in found if phrase in simple])
