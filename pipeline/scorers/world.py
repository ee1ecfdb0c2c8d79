"""Whether a persona keeps to what its world knows (`data/lexicons/worlds.txt`)."""

import re
from collections.abc import Mapping
from functools import lru_cache
from types import SimpleNamespace
from typing import NamedTuple

from pipeline.records import Score, Turn
from pipeline.scorers.lexicon import any_of, lexicon, working_folder
from pipeline.scorers.meaning import of_persona
from pipeline.scorers.verdict import GOOD, SILENT, not_applicable
from pipeline.scorers.words import plain, spans, words

_ERAS = ("gunpowder", "machines", "late", "computers", "online")  # who lacks one lacks those behind it
_SHOW = 2  # words that a persona does not know, before we believe that it knows nothing of the kind
_EVIDENCE = 120  # characters
_WORDS = 2_000  # of a reply that are looked at
_INDEXED = 30_000  # characters of a field
_LONGEST = 6  # words of a thing's name
_SENTENCE = 300  # characters; a longer one is looked at in part
_ECHO = 3  # words: "Internet." and "The internet!" only repeat what was said
_END = re.compile(r"[.!?…\n]+")
_QUOTES = frozenset("\"'‘’“”„«»")
_SOUNDS = re.compile(r"(?:s|x|z|ch|sh)$")  # the plural has "es"

Phrase = tuple[str, ...]


def knows_its_world(turn: Turn, *, inferred: bool = True) -> Score:
    """1 unless it speaks of a thing that its world does not know as if it knew it.

    Such things are the persona's `unknown_words`; `inferred`: and what is of the same age as two of them, or as magical. To
    ask what a word means, to deny it, to puzzle over the player's word pass.
    """
    if not turn.text:
        return SILENT
    npc = turn.item.npc
    if not npc.unknown_words:
        return not_applicable("the persona has no unknown words")
    world = _world(npc)
    said = words(turn.text)[:_WORDS]
    if world.firsts.isdisjoint(said):
        return GOOD
    for at, word in enumerate(said):
        if word not in world.firsts:
            continue
        for named, phrases in (
            (True, world.named.get(word, ())),
            (False, world.of_a_kind.get(word, ()) if inferred else ()),
        ):
            for phrase in phrases:
                end = at + len(phrase)
                if said[at:end] == phrase and not _puzzled(turn, world, at, end, named):
                    where = spans(turn.text)
                    found = turn.text[where[at].start() : where[end - 1].end()]
                    return Score(0.0, "knows what its world does not", found[:_EVIDENCE])
    return GOOD


class _World(NamedTuple):
    named: Mapping[str, tuple[Phrase, ...]]  # what the persona names itself, in all its forms, by the first word
    capital: frozenset[Phrase]  # those of them that are names
    of_a_kind: Mapping[str, tuple[Phrase, ...]]  # what follows from them
    firsts: frozenset[str]  # the first words of all
    lists: "_Lists"


class _Lists(NamedTuple):
    forms: Mapping[
        str, Mapping[str, tuple[Phrase, ...]]
    ]  # the phrases of each section in all their forms, by the first word
    shows: Mapping[Phrase, tuple[str, ...]]  # the sections that a phrase shows to be unknown
    takes_endings: frozenset[str]
    innocent: re.Pattern[str]
    knowing: re.Pattern[str]
    doubting: re.Pattern[str]


@of_persona
def _world(npc: SimpleNamespace) -> _World:
    return _unknown("\n".join(npc.unknown_words)[:_INDEXED], working_folder())


@lru_cache(maxsize=256)
def _unknown(listed: str, where: str) -> _World:
    """A world's personas mostly share their list."""
    lists = _lists(where)
    forms: list[Phrase] = []
    capital: set[Phrase] = set()
    for line in listed.split("\n"):
        found = _forms(words(line), lists.takes_endings)
        forms += found
        if line[:1].isupper() and not line.isupper():
            capital |= set(found)
    named = _by_first(forms)
    of_a_kind = _of_a_kind(_shown(forms, lists), where)
    return _World(named, frozenset(capital), of_a_kind, frozenset((*named, *of_a_kind)), lists)


@of_persona
def _own(npc: SimpleNamespace) -> str:
    """Its own words, with blanks around: what it says of itself it knows."""
    return _in_a_row(
        "\n".join((npc.name, npc.description, npc.home, npc.trade, npc.kin, npc.greeting, *npc.knows, *npc.examples))
    )


@of_persona
def _about(npc: SimpleNamespace) -> str:
    """What else is said about it; what is named there has its place in that world, though not on every tongue."""
    return _in_a_row("\n".join((npc.world, npc.setting, npc.personality, npc.speech, npc.wants, npc.hides)))


@lru_cache(maxsize=4)
def _lists(_where: str) -> _Lists:
    """`_where` is the working directory, whose own lexicon goes first."""
    lists = lexicon("worlds")
    takes_endings = frozenset(lists.get("verbs", ()))
    shows: dict[Phrase, list[str]] = {}
    families = {}
    for line in lists.get("families", ()):
        family = _by_first([form for word in line.split() for form in _forms(words(word), takes_endings)])
        families[line] = family
        for word in line.split():
            shows.setdefault(words(word), []).append(line)
    for section in (*_ERAS, *(f"signs of {era}" for era in _ERAS), "magic words"):
        for phrase in lists.get(section, ()):
            shows.setdefault(words(phrase), []).append(section.removeprefix("signs of "))
    forms = {
        section: _by_first([form for phrase in lists.get(section, ()) for form in _forms(words(phrase), takes_endings)])
        for section in (*_ERAS, "daily", "magic")
    } | families
    ways = (re.compile(r"(?<!\w)" + any_of(lists.get(name, ()))) for name in ("innocent", "knowing", "doubting"))
    return _Lists(forms, {phrase: tuple(found) for phrase, found in shows.items()}, takes_endings, *ways)


def _shown(forms: list[Phrase], lists: _Lists) -> tuple[str, ...]:
    """The sections of which a world that does not know these words knows nothing."""
    shown = [section for form in dict.fromkeys(forms) for section in dict.fromkeys(lists.shows.get(form, ()))]
    found: list[str] = []
    count = 0
    for era in _ERAS:
        count += shown.count(era)
        if count >= _SHOW:
            found += (era, "daily") if era == "machines" else (era,)
    if shown.count("magic words") >= _SHOW:
        found.append("magic")
    families = [section for section in dict.fromkeys(shown) if section not in _ERAS and section != "magic words"]
    return (*found, *families)


@lru_cache(maxsize=64)
def _of_a_kind(sections: tuple[str, ...], where: str) -> Mapping[str, tuple[Phrase, ...]]:
    lists = _lists(where)
    return _by_first([form for section in sections for forms in lists.forms[section].values() for form in forms])


def _by_first(forms: list[Phrase]) -> Mapping[str, tuple[Phrase, ...]]:
    found: dict[str, list[Phrase]] = {}
    for form in dict.fromkeys(forms):
        found.setdefault(form[0], []).append(form)
    return {first: tuple(same) for first, same in found.items()}


def _in_a_row(text: str) -> str:
    """With blanks around, so that `in` finds whole words only."""
    return f" {' '.join(words(text[:_INDEXED]))} "


def _forms(phrase: Phrase, takes_endings: frozenset[str]) -> list[Phrase]:
    """With the endings that its last word may have."""
    if not 0 < len(phrase) <= _LONGEST:
        return []
    word = phrase[-1]
    plural = word[:-1] + "ies" if word.endswith("y") else word + ("es" if _SOUNDS.search(word) else "s")
    forms = [word, plural, f"{word}'s"]
    if word in takes_endings:
        stem = word.removesuffix("e")
        forms += [f"{stem}ed", f"{stem}ing"]
    return [(*phrase[:-1], form) for form in forms]


def _puzzled(turn: Turn, world: _World, at: int, end: int, named: bool) -> bool:
    """Whether the words `at` to `end` are only asked about, denied, played with, or mean something else."""
    text, said, where = turn.text, words(turn.text), spans(turn.text)
    first, last = where[at], where[end - 1]
    if said[at:end] in world.capital and not first[0][0].isupper():
        return True  # "Paris" is unknown, "paris green" is not
    phrase = _in_a_row(" ".join(said[at:end]))
    if phrase in _own(turn.item.npc) or (not named and phrase in _about(turn.item.npc)):
        return True
    around = " ".join(said[max(at - 3, 0) : end + 3])
    if any(_holds(match[0], said[at]) for match in world.lists.innocent.finditer(around)):
        return True
    if text[first.start() - 1 : first.start()] in _QUOTES and text[last.end() : last.end() + 1] in _QUOTES:
        return True  # "Your 'computer' may be a fine mule."
    before = said[max(at - 2, 0) : at]
    if before[-1:] in (("no",), ("without",)) or (not named and ("like" in before or "as" in before)):
        return True
    start, stop = _sentence(text, first.start(), last.end())
    sentence = plain(text[start:stop])
    if world.lists.knowing.search(sentence):
        return True
    if not _brought_up(turn.line, said[at:end]):
        return False
    if "?" in text[stop - 1 : stop] or len(words(text[start:stop])) <= _ECHO:
        return True
    following = _sentence(text, min(stop + 1, len(text)), min(stop + 1, len(text)))[1]
    return (
        world.lists.doubting.search(sentence) is not None
        or world.lists.doubting.search(plain(text[stop:following])) is not None
    )


def _holds(phrase: str, word: str) -> bool:
    return word in phrase.split()


def _brought_up(line: str, phrase: Phrase) -> bool:
    """Whether the player said it, in whatever number."""
    return "".join(phrase).removesuffix("s").removesuffix("'") in "".join(words(line))  # "smartphone" or "smart phone"


def _sentence(text: str, start: int, end: int) -> tuple[int, int]:
    """From where to where the sentence goes that holds this stretch; its mark belongs to it."""
    begins = 0
    for match in _END.finditer(text, max(start - _SENTENCE, 0), start):
        begins = match.end()
    found = _END.search(text, end, end + _SENTENCE)
    return max(begins, start - _SENTENCE), found.end() if found else min(end + _SENTENCE, len(text))
