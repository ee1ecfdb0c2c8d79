"""Phrases that many NPCs of the run have in their mouths."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from pipeline.records import Score
from pipeline.scorers.pieces import (
    HASH,
    READ,
    Everyday,
    by_start,
    everyday_english,
    hashes_of,
    keys_of,
    phrases_in,
    pieces_of,
    places_of,
)
from pipeline.scorers.verdict import SILENT
from pipeline.scorers.words import words

if TYPE_CHECKING:
    from pipeline.scorers import Said


class Overused:
    """How many phrases of three to six words a reply has that are over-represented in the run; 0 is good.

    A phrase is, where at least `share` of the replies have it, of at least `personas` personas, and no persona alone has
    more than half of them: ordinary English has a phrase of such words in one reply of some thousands. What everybody says
    anyway (`data/lexicons/common_phrases.txt`), what the player's line has, and names do not count; nor does a part of a
    longer phrase ("I have seen many", where nearly all go on with "things"). Runs of under `replies` replies have no such
    phrases, and replies that are not in the language of the list are not judged.

    (To derive slop from the run itself is auto-antislop's idea. Runs of three words are counted in a sketch of one row,
    Cormode and Muthukrishnan 2005; what is frequent there is counted exactly.)
    """

    def __init__(self, *, share: float = 0.01, personas: int = 3, replies: int = 50) -> None:
        self._share, self._least_personas, self._least_replies = share, personas, replies
        self._everyday = everyday_english()
        self._personas: dict[str, int] = {}
        self._replies = 0
        self._waiting: list[tuple[int, str, tuple[str, ...], bytes]] = []
        self._sketch = np.zeros(1 << _SKETCH_BITS, np.uint32)
        self._uses: dict[tuple[str, ...], _Uses] = {}
        self._phrases: dict[tuple[str, ...], list[tuple[str, ...]]] | None = None

    def add(self, said: "Said") -> None:
        speaker = self._personas.setdefault(said.persona_id, len(self._personas))
        self._replies += 1
        self._phrases = None
        heard = pieces_of(said.text)[0][:READ]
        if self._everyday.knows(heard):
            self._waiting.append((speaker, said.line, heard, hashes_of(said.text)))
        if len(self._waiting) >= _AT_ONCE:
            self._count()

    def score(self, said: "Said") -> Score:
        if self._replies < self._least_replies:
            return Score(None, f"fewer than {self._least_replies} replies")
        if len(self._personas) < self._least_personas:
            return Score(None, f"fewer than {self._least_personas} personas")
        if self._phrases is None:
            self._count()
            self._phrases = by_start(self._overused())
        heard = pieces_of(said.text)[0][:READ]
        if not heard:
            return SILENT
        if not self._everyday.knows(heard):
            return Score(None, "no language whose everyday phrases are listed")
        if self._phrases.keys().isdisjoint(pairwise(heard)):
            return _NONE
        found = list(self._found(said, heard, self._phrases))
        if not found:
            return _NONE
        phrase, start, end = max(found, key=lambda it: self._uses[it[0]].replies)
        uses = self._uses[phrase]
        reason = f"in {uses.replies} replies of {uses.personas} personas"
        return Score(float(len(found)), reason, said.text[start:end][:120])

    def _found(
        self, said: "Said", heard: tuple[str, ...], phrases: Mapping[tuple[str, ...], list[tuple[str, ...]]]
    ) -> Iterator[tuple[tuple[str, ...], int, int]]:
        asked = _spelled(pieces_of(said.line)[0][:READ])
        where: list[tuple[int, int]] = []
        at = 0
        while at < len(heard) - 2:
            listed = phrases.get(heard[at : at + 2], ())
            phrase = next((phrase for phrase in listed if heard[at : at + len(phrase)] == phrase), None)
            if phrase is not None and _spelled(phrase) not in asked:
                where = where or places_of(said.text)
                start, end = where[at][0], where[at + len(phrase) - 1][1]
                if not _is_name(said.text[start:end], self._everyday):
                    yield phrase, start, end
                at += len(phrase)
            else:
                at += 1

    def _count(self) -> None:
        """Take in the replies that wait: all runs of three words into the sketch, frequent ones and those around into the
        table."""
        heard = [hashes for _, _, _, hashes in self._waiting]
        keys = keys_of(b"".join(heard), 3)
        lengths = np.fromiter(map(len, heard), np.int64, len(heard)) // HASH
        ends = np.cumsum(lengths)
        reply = np.repeat(np.arange(len(heard)), lengths)[: len(keys)]
        whole = np.arange(len(keys)) + 3 <= ends[reply] if len(keys) else np.zeros(0, bool)
        place = (keys >> np.uint64(64 - _SKETCH_BITS)).astype(np.int64)
        pairs = np.sort(place[whole] * len(heard) + reply[whole])  # by place: the sketch is larger than a cache
        np.add.at(self._sketch, pairs[np.diff(pairs, prepend=-1) > 0] // max(1, len(heard)), 1)
        frequent = whole & (self._sketch[place] >= max(_FEW, self._share / 2 * self._replies))
        for number in np.unique(reply[frequent]).tolist():
            speaker, line, said, _ = self._waiting[number]
            hits = frequent[ends[number] - len(said) : ends[number] - 2].tolist()
            asked = _spelled(pieces_of(line)[0][:READ])
            for phrase in {phrase for phrase in phrases_in(said, hits) if _spelled(phrase) not in asked}:
                self._uses.setdefault(phrase, _Uses()).add(speaker)
        self._waiting.clear()
        if len(self._uses) > _TABLE:
            most = sorted(self._uses.items(), key=lambda item: (-item[1].replies, item[0]))
            self._uses = dict(most[: _TABLE // 2])

    def _overused(self) -> list[tuple[str, ...]]:
        least = max(_FLOOR, self._share * self._replies)
        longer: dict[tuple[str, ...], int] = {}  # of a phrase's uses, those within one longer phrase that is overused
        found = []
        for phrase in sorted(self._uses, key=len, reverse=True):
            uses, within = self._uses[phrase], longer.get(phrase, 0)
            if (
                uses.replies >= least
                and uses.personas >= self._least_personas
                and 2 * uses.most <= uses.replies
                and within < _MOSTLY * uses.replies
                and not _ordinary(phrase, self._everyday)
            ):
                found.append(phrase)
                within = uses.replies
            for part in (phrase[1:], phrase[:-1]):
                longer[part] = max(longer.get(part, 0), within)
        return found


class _Uses:
    """How many replies have a phrase, and of how many personas (`_COUNTED` or more are only so many)."""

    __slots__ = ("_of", "replies")

    def __init__(self) -> None:
        self.replies = 0
        self._of: dict[int, int] = {}

    def add(self, speaker: int) -> None:
        self.replies += 1
        if speaker in self._of or len(self._of) < _COUNTED:
            self._of[speaker] = self._of.get(speaker, 0) + 1

    @property
    def personas(self) -> int:
        return len(self._of)

    @property
    def most(self) -> int:
        return max(self._of.values())


_SKETCH_BITS = 21
_AT_ONCE = 4096  # replies; what is frequent among so many is counted exactly from there on
_FEW = 3  # replies in which a run of words has to be, to be looked at
_FLOOR = 5  # replies in which a phrase has to be, however small the run
_MOSTLY = 0.6  # of its uses in one longer phrase: then it is only a part of that
_TABLE = 1 << 16
_COUNTED = 256
_NONE = Score(0.0)


def _spelled(phrase: Iterable[str]) -> str:
    """With blanks around, so that `in` finds whole words only."""
    return f" {' '.join(phrase)} "


def _ordinary(phrase: tuple[str, ...], everyday: Everyday) -> bool:
    """Whether it is what anybody says: everyday phrases and small words, or up to four words that hardly tell anything. (Five
    small words in the same order, as in "be that as it may", do not meet by chance.)"""
    covered = [False] * len(phrase)
    for at in range(len(phrase) - 1):
        for listed in everyday.phrases.get(phrase[at : at + 2], ()):
            if phrase[at : at + len(listed)] == listed:
                covered[at : at + len(listed)] = [True] * len(listed)
                break
    if any(covered) and all(word in everyday.small or inside for word, inside in zip(phrase, covered, strict=True)):
        return True
    return len(phrase) <= _SMALL_TALK and sum(map(everyday.tells, phrase)) < 1


_SMALL_TALK = 4


def _is_name(span: str, everyday: Everyday) -> bool:
    """Whether all its telling words are spelled as names are: The Marchpane Flotilla."""
    telling = [word for word in span.split() if not everyday.small.issuperset(words(word))]
    return bool(telling) and all(word[:1].isupper() and not word.isupper() for word in telling)
