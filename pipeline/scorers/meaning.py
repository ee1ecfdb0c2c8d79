"""Whether two texts say the same: how much a word says, which word stands for which (`data/lexicons/meaning.txt`)."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from types import SimpleNamespace
from typing import NamedTuple, TypeVar

from pipeline.scorers.lexicon import lexicon, working_folder
from pipeline.scorers.words import words

_LONG = 24  # characters; a longer word has no endings that we know, and no place in a cache
_KEPT = 32_768  # stems
_PERSONAS = 256
_INDEXED = 30_000  # characters of a persona
_ENDING = re.compile(r"(?:'s|s'|')$")


class Meaning(NamedTuple):
    function: frozenset[str]  # as they are
    common: frozenset[str]  # stems
    alike: Mapping[str, frozenset[str]]  # stems by stem, without itself


def meaning() -> Meaning:
    return _meaning(working_folder())  # whose own lexicon goes first


@lru_cache(maxsize=4)
def _meaning(_where: str) -> Meaning:
    lists = lexicon("meaning")
    function, common, synonyms = (lists.get(name, ()) for name in ("function", "common", "synonyms"))
    alike: dict[str, set[str]] = defaultdict(set)
    for line in synonyms:
        stems = {stem(word) for word in line.split()}
        for one in stems:
            alike[one] |= stems - {one}
    return Meaning(
        frozenset(word for line in function for word in line.split()),
        frozenset(stem(word) for line in common for word in line.split()),
        {one: frozenset(others) for one, others in alike.items()},
    )


class _Stems(dict[str, str]):
    def __missing__(self, word: str) -> str:
        if len(word) > _LONG:
            return word
        if len(self) >= _KEPT:
            self.clear()
        found = self[word] = _stem(word)
        return found


_STEMS = _Stems()


def stem(word: str) -> str:
    """Without the endings of English inflection, the same for "smuggle", "smuggles", "smuggled" and "smuggling"."""
    return _STEMS[word]


def stems_of(said: Iterable[str]) -> list[str]:
    """The stem of each of these words."""
    return [*map(_STEMS.__getitem__, said)]


@lru_cache(maxsize=256)
def stems(text: str) -> tuple[str, ...]:
    """The stem of each word of `words(text)`."""
    return tuple(map(_STEMS.__getitem__, words(text)))


def _stem(word: str) -> str:
    if "'" in word:
        word = _ENDING.sub("", word)
    if len(word) <= 3:
        return word
    if word.endswith("ies"):
        word = word[:-3] + "y"
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed", "ly"):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            word = word[: -len(ending)]
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiouls":
        word = word[:-1]  # "stopped"
    if len(word) > 3 and word.endswith("e"):
        word = word[:-1]
    return word[:-1] + "i" if len(word) > 3 and word.endswith("y") else word


T = TypeVar("T")


def of_persona(make: Callable[[SimpleNamespace], T]) -> Callable[[SimpleNamespace], T]:
    """What is made of a persona, kept for as long as replies of that very object come: those of a run share it.

    (To hash all of its fields for each reply would take longer than most scorers.)
    """
    made: dict[int, tuple[SimpleNamespace, T]] = {}

    def of(npc: SimpleNamespace) -> T:
        found = made.get(id(npc))
        if found is None or found[0] is not npc:  # an id may come again once its object is gone
            if len(made) >= _PERSONAS:
                made.clear()
            found = made[id(npc)] = npc, make(npc)
        return found[1]

    return of


def about(npc: SimpleNamespace) -> tuple[str, ...]:
    """All that is said of a persona or by it, but for what it hides."""
    fields = (
        npc.name,
        npc.description,
        npc.world,
        npc.setting,
        npc.personality,
        npc.speech,
        npc.home,
        npc.trade,
        npc.kin,
    )
    return (*fields, npc.wants, npc.greeting, *npc.knows, *npc.examples)


@of_persona
def own_words(npc: SimpleNamespace) -> frozenset[str]:
    """Every word of that."""
    return frozenset(words(_indexed(npc)))


@of_persona
def own_stems(npc: SimpleNamespace) -> frozenset[str]:
    """The stem of every word of that."""
    return frozenset(map(_STEMS.__getitem__, own_words(npc)))


def _indexed(npc: SimpleNamespace) -> str:
    return "\n".join(about(npc))[:_INDEXED]
