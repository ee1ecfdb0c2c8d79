"""Whether an NPC takes for real what the player only claims in brackets (`data/lexicons/claims.txt`)."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from pipeline.records import Score, Turn
from pipeline.scorers.lexicon import any_of, lexicon, working_folder
from pipeline.scorers.meaning import Meaning, meaning, stem, stems
from pipeline.scorers.triggers import Triggers, vocabulary
from pipeline.scorers.verdict import GOOD, SILENT, not_applicable
from pipeline.scorers.words import as_written, has_word, plain, spans, words

_EVIDENCE = 120  # characters
_LOOKED_AT = 4_000  # characters of a reply or a line: what they do with a claim they do at once
_LONGEST = 600  # characters of a claim
_BRACKETED = re.compile(
    rf"\(([^()]{{3,{_LONGEST}}})\)|\[([^\[\]]{{3,{_LONGEST}}})\]|\{{([^{{}}]{{3,{_LONGEST}}})\}}|\*([^*]{{3,{_LONGEST}}})\*"
)
_BEGINS = re.compile(r"(?:\A|[.!?*\"] ?)\Z")
_CALLED = re.compile(r"(?:\? ([\w'-]+))?!")
_INTERRUPTS = re.compile(r"(?:\A|, |[.!?*\"] )\Z")
_ENDS = re.compile(r"[.,!]")
_GREETING = 40  # characters
_YOU_ARE_NOW = re.compile(r"\byou(?: are|'re) now\b")
_SCORE = re.compile(r"[+-] ?\d")  # "[Loyalty +100]"
_TOLD = 4  # words
_SHARED = 2  # telling words of the claim in a sentence
_MUCH = 0.4  # share of them, where that is no exclamation
_NOW_I_AM = re.compile(r"\b(?:i'm|i am|i have|i've|i can|i feel) (?:\w+ ){0,6}now(?=[.!,]| and\b)")
_STATED = re.compile(r"([^.!?…]+)([.!…]|$)")
# What makes a sentence no plain yes.
_HELD_BACK = re.compile(
    r"\b(?:no|not|nothing|nobody|none|never|nor|neither|only|if|unless|until|till|when|whoever|would|could|might|should|supposed?"
    r"|suppose|i wish|cute|sure you|says? who|they all|they say|asleep|another|other|last (?:man|one|time|fool)|yet)\b|n't\b"
)
_OPEN = ("reward", "welcome", "payment", "prize", "majesty", "gold", "trust")
_GOES_ON = re.compile(r" (?:is|was|will|would|to|hath|has|had|costs?|for|in|on)\b")
_TAKEN = ("paying", "yielding", "accepting")


def checks_claims(turn: Turn) -> Score:
    """1 unless it takes for real what the player claims in brackets, and what would change the world: a quest that is over,
    a king who stands here, an NPC that now obeys.

    Doubt, questions, mockery and silence pass. A gesture of the player's own body is no claim.
    """
    if not turn.text:
        return SILENT
    line = turn.line[:_LOOKED_AT]
    claim = None
    if "(" in line or "*" in line or "[" in line or "{" in line:
        name = plain(turn.item.npc.name)
        claim = _claim(line, name if name in plain(line) else "", working_folder())
    if claim is None:
        return not_applicable("the player claims nothing in brackets")
    if not _may_be_taken(turn.text, claim):
        return GOOD
    text = plain(turn.text[:_LOOKED_AT])
    lists = _lists(working_folder())
    if any(lists["doubting"].within(text)):
        return GOOD
    if taken := _taken(text, claim, lists, turn):
        return Score(0.0, "takes a claim in brackets for real", as_written(taken, turn.text)[:_EVIDENCE])
    return GOOD


class _Phrases:
    """Phrases by their first word: of several hundred, only those are tried that may stand here."""

    def __init__(self, phrases: tuple[str, ...]) -> None:
        by_first: dict[str, list[str]] = {}
        for phrase in phrases:
            if first := spans(phrase)[:1]:
                by_first.setdefault(first[0][0], []).append(phrase)
        self._by_first = {first: re.compile(any_of(found)) for first, found in by_first.items()}

    def within(self, text: str) -> Iterator[re.Match[str]]:
        if self._by_first.keys().isdisjoint(words(text)):
            return
        for span in spans(text):
            pattern = self._by_first.get(span[0])
            if pattern and (match := pattern.match(text, span.start())):
                yield match

    def begins(self, text: str) -> str:
        pattern = self._by_first.get(spans(text)[0][0]) if spans(text) else None
        match = pattern.match(text, spans(text)[0].start()) if pattern else None
        return match[0] if match else ""


class _Claim(NamedTuple):
    telling: frozenset[str]  # stems
    news: frozenset[str]  # those of them that say what has changed: "the gate is open", "the snow has melted"
    of_npc: bool  # whether the NPC itself is said to have changed
    names: frozenset[str]  # who is said to be there
    titles: frozenset[str]  # what somebody is said to be


@lru_cache(maxsize=512)
def _claim(line: str, name: str, where: str) -> _Claim | None:
    """`name`: the NPC's, plain, if the line has it: else one claim is the same for all. `where` is the working directory, whose
    own lexicon goes first."""
    lists, known = _lists(where), meaning()
    claimed = []
    for match in _BRACKETED.finditer(line):
        said = plain(next(filter(None, match.groups())))
        changes = any(lists["fiat"].within(said)) or _SCORE.search(said)
        if changes or (_is_told(said, name, lists) and not _gesture(said, lists)):
            claimed.append(said)
    if not claimed:
        return None
    telling = [word for text in claimed for word in words(text) if word not in known.function]
    itself = f"{name} is now"
    return _Claim(
        frozenset(map(stem, telling)),
        frozenset(stem(word) for text in claimed for word in _news(words(text), lists, known)),
        any(_YOU_ARE_NOW.search(text) or (name and has_word(itself, text)) for text in claimed),
        frozenset(form for word in telling for form in (word, word.removesuffix("s"), word + "s")),
        frozenset(word for word in telling if lists["titles"].begins(word) == word),
    )


def _news(said: tuple[str, ...], lists: Mapping[str, _Phrases], known: Meaning) -> Iterator[str]:
    """The words that say what has become of something: behind "is" and "has", and those in -ed."""
    waits = False
    for word in said:
        if lists["copulas"].begins(word) == word:
            waits = True
        elif word not in known.function and not word.endswith("ly"):
            if (waits or word.endswith("ed")) and stem(word) not in known.common:
                yield word
            waits = False


def _is_told(said: str, name: str, lists: Mapping[str, _Phrases]) -> bool:
    """Whether it tells of somebody, and is no mere manner of speaking: "(whispering)", "(in a low voice)"."""
    if any(lists["addressed"].within(said)) or (name and name in said):
        return True
    first = words(said)[:1]
    return len(words(said)) >= _TOLD and not lists["manner"].begins(said) and not first[0].endswith("ly")


def _gesture(said: str, lists: Mapping[str, _Phrases]) -> bool:
    """Whether that is what the player himself does: "bows", "smiling at you", "I sit down"."""
    first = words(said)[:1]
    if lists["own gestures"].begins(said):
        return True
    return bool(first) and first[0].endswith(("s", "ing")) and first[0] not in ("is", "this", "his", "yes", "as", "us")


@lru_cache(maxsize=4)
def _lists(_where: str) -> Mapping[str, _Phrases]:
    return defaultdict(lambda: _Phrases(()), {name: _Phrases(phrases) for name, phrases in lexicon("claims").items()})


@lru_cache(maxsize=4)
def _greeted(_where: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){any_of(lexicon('claims').get('greetings', ()))},? \Z")


@lru_cache(maxsize=4)
def _triggers(_where: str) -> Triggers:
    lists = lexicon("claims")
    return Triggers({name: lists.get(name, ()) for name in (*_TAKEN, "agreeing")})


def _may_be_taken(text: str, claim: _Claim) -> bool:
    """Whether `_taken` has to look: some phrase is there, or a word of the claim."""
    if claim.of_npc or not claim.telling.isdisjoint(stems(text)):
        return True
    if not (claim.names.isdisjoint(vocabulary(text)) and claim.titles.isdisjoint(vocabulary(text))):
        return True
    return bool(_triggers(working_folder()).pulled_by(text))


def _taken(text: str, claim: _Claim, lists: Mapping[str, _Phrases], turn: Turn) -> str:
    """The words that take it for real, or ""."""
    for section in _TAKEN:
        for match in lists[section].within(text):
            if match[0] not in _own_words(turn) and not _held_back(text, match):
                return match[0]
    for called in (_named(text, claim), _titled(text, claim)):
        if called and called not in _own_words(turn):
            return called
    agreed = lists["agreeing"].begins(text)
    if agreed and text[len(agreed) :][:1] in ("", ".", ",", "!") and not claim.telling.isdisjoint(stems(turn.text)):
        return agreed
    if claim.of_npc and (changed := _NOW_I_AM.search(text)):
        return changed[0]
    for sentence in _STATED.finditer(text):
        if (
            _states(sentence[1], sentence[2] == "!", claim)
            and not _HELD_BACK.search(sentence[1])
            and not any(lists["denying"].within(sentence[1]))
        ):
            return sentence[1].strip()
    return ""


def _named(text: str, claim: _Claim) -> str:
    """Who is said to be there, spoken to: "Tobin!", "Tobin? Tobin!", "Oh, Tobin." """
    for word in spans(text) if not claim.names.isdisjoint(words(text)) else ():
        if word[0] not in claim.names:
            continue
        start, end = word.span()
        called = _CALLED.match(text, end)
        if called and (called[1] or word[0]) in claim.names and _BEGINS.search(text, max(start - 2, 0), start):
            return text[start : called.end() - 1]
        greeted = _greeted(working_folder()).search(text, max(start - _GREETING, 0), start)
        if greeted and _ENDS.match(text, end):
            return text[greeted.start() : end]
    return ""


def _titled(text: str, claim: _Claim) -> str:
    """What somebody is said to be, spoken to, as the first so called: ", partner!" """
    for word in spans(text) if not claim.titles.isdisjoint(words(text)) else ():
        start, end = word.span()
        if word[0] in claim.titles and _INTERRUPTS.search(text, max(start - 2, 0), start) and _ENDS.match(text, end):
            return word[0] if text[end] == "!" else ""
    return ""


def _held_back(text: str, match: re.Match[str]) -> bool:
    """Whether the sentence takes it back: "your reward is a dry road", "you're welcome to go look", "I would, if you had"."""
    start = max(text.rfind(mark, 0, match.start()) for mark in ".!?") + 1
    end = _STATED.match(text, match.end())
    sentence = text[start : end.end() if end else match.end()]
    goes_on = match[0].endswith(_OPEN) and _GOES_ON.match(text, match.end())
    return bool(goes_on or _HELD_BACK.search(sentence)) or text[end.end() if end else len(text) :][:1] == "?"


def _states(sentence: str, exclaims: bool, claim: _Claim) -> bool:
    """Whether it says what was claimed: "The doors are unlocked", "He is healed", "A silver whistle!", "The deed!" """
    said = stems(sentence)
    shared = len(claim.telling.intersection(said))
    if not claim.news.isdisjoint(said) or (exclaims and 0 < shared >= len(words(sentence)) - 1):
        return True
    return shared >= _SHARED and (exclaims or shared >= _MUCH * len(claim.telling))


def _own_words(turn: Turn) -> str:
    """Habits of speech say nothing: some call everyone brother."""
    npc = turn.item.npc
    return plain(" ".join((npc.speech, npc.greeting, *npc.examples)))
