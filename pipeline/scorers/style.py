"""How it sounds: like nobody in particular (slop), or like somebody else (voice)."""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from heapq import nsmallest
from itertools import chain, filterfalse, islice, repeat, zip_longest
from math import exp, inf, log, log1p
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.records import Score, Turn
from pipeline.scorers.lexicon import lexicon, working_folder
from pipeline.scorers.meaning import about, of_persona
from pipeline.scorers.pieces import everyday_english
from pipeline.scorers.triggers import vocabulary
from pipeline.scorers.verdict import SILENT, not_applicable
from pipeline.scorers.words import spans, words

Phrase = tuple[str, ...]
Floats = npt.NDArray[np.float32]

_PER = 1000  # words: the unit of the rate
_LEAST = 25  # words that any reply counts as: a single word of taste in "Aye, a vibrant day." is no flood of it
_WEIGHTS = {"phrases": 1.0, "names": 1.0, "words": 0.2}
_SLOT = "~"
# "This isn't just a gate, stranger. It's a promise": something is denied to be merely what it is, and then called another.
_NOT_JUST = re.compile(
    r"(?:\b(?:is|was|are|were)(?: not|n't)|\b(?:it|that|this|he|she|they|you|we)(?:'s|'re)? not|\bnot) "
    r"(?:just|merely|simply) (?:an?|the|about|some|any|my|your|our|his|her|their) (?:[\w'-]{1,30} ){0,5}[\w'-]{1,30}"
    r"(?:, [\w'-]{1,30}(?: [\w'-]{1,30})?)? ?[.,;:!–—-]{1,4} ?"
    r"(?:but )?(?:it is|it's|it was|they are|they're|this is|that's|that is|he's|he is|she's|she is|we're|we are|you're|you are"
    r"|but)"
    r" (?:also )?(?:an?|the|about|my|your|our|his|her|their) [\w'-]{1,30}"
    r"|\b(?:is not|isn't|it's not|that's not|not) (?:just |only |merely |simply )?about (?:[\w'-]{1,30} ){0,5}"
    r"[\w'-]{1,30}(?:, [\w'-]{1,30})? ?[.,;:–—-]{1,4} ?it(?:'s| is) about [\w'-]{1,30}"
)
_ENOUGH = 100  # hits; nobody has to count on
_DENYING = frozenset(("just", "merely", "simply", "about"))
_NOT = frozenset(("not", "isn't", "aren't", "wasn't", "weren't"))


def slop(turn: Turn) -> Score:
    """Stock phrases of language models (`data/lexicons/slop.txt`; "not just X, but Y") per 1,000 words; 0 for none.

    A reply of under 25 words counts as 25, so that a single word of taste passes and a single phrase does not. What the
    persona's own fields or the player's line have is no slop. (The rate follows slop-score's.)
    """
    said = words(turn.text)
    if not said:
        return SILENT
    there, listed = vocabulary(turn.text), _phrases(working_folder())
    found = [] if listed.triggers.isdisjoint(there) else list(islice(_stock(said, listed.by_key), _ENOUGH))
    if not _DENYING.isdisjoint(there) and not _NOT.isdisjoint(there):
        found += islice(_denials(turn.text), _ENOUGH)
    if not found:
        return _CLEAN
    own = _own(turn)
    found = [hit for hit in found if f" {' '.join(said[hit[1] : hit[2]])} " not in own]
    if not found:
        return _CLEAN
    rate = _PER * sum(weight for weight, _, _ in found) / max(len(said), _LEAST)
    weight, start, end = max(found, key=lambda hit: (hit[0], hit[1] - hit[2]))
    where = spans(turn.text)
    evidence = turn.text[where[start].start() : where[end - 1].end()][:120]
    return Score(rate, "stock phrases of language models" if weight == 1 else "words of taste", evidence)


_CLEAN = Score(0.0)


def _stock(said: Phrase, listed: Mapping[str, list[tuple[float, int, Phrase]]]) -> Iterator[tuple[float, int, int]]:
    """Weight, first word and end of each phrase that is said; of those that overlap, the first and longest."""
    hits = []
    for at in [at for at, word in enumerate(said) if word in listed]:
        for weight, before, phrase in listed[said[at]]:
            start = at - before
            end = _end(said, start, phrase) if start >= 0 else None
            if end is not None:
                hits.append((weight, start, end))
    hits.sort(key=lambda hit: (-hit[0], hit[1], -hit[2]))
    taken: set[int] = set()
    for weight, start, end in hits:
        if taken.isdisjoint(range(start, end)):
            taken.update(range(start, end))
            yield weight, start, end


def _end(said: Phrase, start: int, phrase: Phrase) -> int | None:
    """Where the phrase ends that begins there; a slot takes one word or two."""
    if _SLOT not in phrase:
        end = start + len(phrase)
        return end if said[start:end] == phrase else None
    ends = {start}
    for word in phrase:
        if word == _SLOT:
            ends = {end + size for end in ends for size in (1, 2)}
        else:
            ends = {end + 1 for end in ends if end < len(said) and said[end] == word}
    return max((end for end in ends if end <= len(said)), default=None)


def _denials(text: str) -> Iterator[tuple[float, int, int]]:
    straight = text.replace("’", "'").replace("\n", " ").lower()
    if len(straight) != len(text):  # a letter that is two in lower case
        return
    starts = [span.start() for span in spans(text)]
    for match in _NOT_JUST.finditer(straight):
        yield 1.0, bisect_left(starts, match.start()), bisect_left(starts, match.end())


class _Listed(NamedTuple):
    triggers: frozenset[str]  # a reply without any of these words has none of the phrases
    by_key: Mapping[str, list[tuple[float, int, Phrase]]]  # weight, number of the key word, and phrase, by the key word


@lru_cache(maxsize=4)
def _phrases(_where: str) -> _Listed:
    """The key word is a rare one in few phrases, before any slot."""
    sections, everyday = lexicon("slop"), everyday_english()
    listed = [
        (weight, tuple(word for piece in entry.split() for word in ((_SLOT,) if piece == _SLOT else words(piece))))
        for section, weight in _WEIGHTS.items()
        for entry in sections.get(section, ())
    ]
    times = Counter(word for _, phrase in listed for word in phrase)
    found: dict[str, list[tuple[float, int, Phrase]]] = {}
    triggers: set[str] = set()
    for weight, phrase in listed:
        fixed = phrase[: phrase.index(_SLOT)] if _SLOT in phrase else phrase
        if fixed:
            _, _, key = max((everyday.tells(word), -times[word], at) for at, word in enumerate(fixed))
            found.setdefault(fixed[key], []).append((weight, key, phrase))
            triggers.add(max(phrase, key=lambda word: (word != _SLOT and everyday.tells(word), len(word))))
    return _Listed(frozenset(triggers), found)


def _own(turn: Turn) -> str:
    npc = turn.item.npc
    return f" {' '.join(words(' | '.join((*about(npc), npc.hides, turn.item.player, turn.line))))} "


class Voice:
    """How surely a reply is the persona's own, judged by its example lines and greeting: near 1 where it sounds like them,
    a half where nothing tells, near 0 where it sounds like another of the run or like an assistant.

    A naive Bayes classifier over words and over marks of style (length of sentences, how they end, contractions, long words,
    punctuation), smoothed with what all say (Dirichlet prior, Zhai and Lafferty 2001); the others share a half of the chance
    before the reply is seen, and the likeliest of them is compared. Words do not come one by one, so the log-odds are
    divided by `_TEMPER`.
    What the player's line has does not tell. On purpose pass short and plain lines: what tells nothing is a half.

    The others are at most `_POOL` personas, drawn by a hash of their id. Not applicable with fewer than `example_words` words
    of its own, or to a reply of fewer than `words`.
    """

    def __init__(self, personas: Iterable[SimpleNamespace], *, example_words: int = 20, words: int = 6) -> None:
        self._example_words, self._words = example_words, words
        known = ((p.id, p.name, lines) for p in personas if _length(lines := _lines(p)) >= example_words)
        drawn = nsmallest(_POOL, known, key=lambda it: blake2b(it[0].encode("utf-8", "surrogatepass")).digest())
        flat = [(None, name or "an assistant", lines) for name, lines in lexicon("flat_voice").items()]
        self._ids = {persona_id: number for number, (persona_id, _, _) in enumerate(drawn)}
        self._names = [name for _, name, _ in (*drawn, *flat)]
        counted = [_counted(lines) for _, _, lines in (*drawn, *flat)]
        everybody: Counter[str] = Counter()
        for counts in counted:
            everybody.update(counts)
        total = everybody.total() + _UNSEEN * (len(everybody) + 1)
        self._rare = _UNSEEN / total
        self._share = {mark: (count + _UNSEEN) / total for mark, count in everybody.items()}
        self._rows = {mark: number for number, mark in enumerate(everybody, 1)}
        # What a mark speaks for whom: row 0 is of those that nobody has, which cost all of them something; the last row, of no
        # mark, is zero. The last column is nobody's.
        gains = np.zeros((len(everybody) + 2, len(counted) + 1), np.float32)
        for number, counts in enumerate(counted):
            for mark, count in counts.items():
                gains[self._rows[mark], number] = log1p(count / (_PRIOR * self._share[mark]))
        gains[:-1] += np.array([*map(_loss, counted), -inf], np.float32)
        self._gains = gains
        self._own = of_persona(self._learn)

    def score(self, turn: Turn) -> Score:
        return self.score_all((turn,))[0]

    def score_all(self, turns: Sequence[Turn]) -> list[Score]:
        """The same of each, whatever comes with it."""
        if not turns or (len(turns) > 1 and any(len(turn.text) > _LONG_REPLY for turn in turns)):
            return list(map(self.score, turns))  # all take as many rows as the longest
        lacking = list(map(self._lacks, turns))
        marks = [[] if lacks else _marks(turn) for turn, lacks in zip(turns, lacking, strict=True)]
        rows = zip_longest(*(map(self._rows.get, of, repeat(0)) for of in marks), fillvalue=len(self._gains) - 1)
        each = self._gains.take(np.fromiter(chain.from_iterable(rows), np.intp), 0).reshape(
            -1, len(turns), len(self._names) + 1
        )
        others = np.add.reduce(each, 0)
        for one, turn in enumerate(turns):
            others[one, self._ids.get(turn.item.npc.id, -1)] = -inf
        likeliest = others.argmax(1).tolist()
        return [
            lacks or self._judged(turn, of, each[: len(of), at], most, float(others[at, most]))
            for at, (turn, lacks, of, most) in enumerate(zip(turns, lacking, marks, likeliest, strict=True))
        ]

    def _lacks(self, turn: Turn) -> Score | None:
        said = words(turn.text)
        if len(said) < self._words:
            return not_applicable("too short to tell") if said else SILENT
        if self._own(turn.item.npc).length < self._example_words:
            return not_applicable("too few example lines")
        return None

    def _judged(self, turn: Turn, marks: list[str], each: Floats, most: int, highest: float) -> Score:
        """`each` has what the marks speak for whom; `most` is who of the others is the likeliest, with these log-odds."""
        if highest == -inf:
            return not_applicable("nobody to compare with")
        npc = turn.item.npc
        own, others = self._own(npc), len(self._names) - (npc.id in self._ids)
        mine = len(marks) * own.loss + sum(map(own.gains.__getitem__, filter(own.gains.__contains__, marks)))
        # All of them together have no better a chance than the likeliest among so many: Bonferroni's bound.
        anybody = highest - log(others) / 2
        value = 1 / (1 + exp(max(-50.0, min(50.0, (anybody - mine) / _TEMPER))))
        if value >= _OWN_ENOUGH:
            return Score(value)
        theirs = dict(zip(marks, (each[:, most] - self._gains[0, most]).tolist(), strict=True))
        asked = _asked(turn.line)
        telling = [0.0 if word in asked else theirs[word] - own.gains.get(word, 0.0) for word in words(turn.text)]
        start, end = _heaviest(telling)
        where = spans(turn.text)
        evidence = turn.text[where[start].start() : where[end].end()][:120]
        return Score(value, f"sounds like {self._names[most]} rather than itself", evidence)

    def _learn(self, npc: SimpleNamespace) -> "_Own":
        lines = _lines(npc)
        counts = _counted(lines)
        gains = {mark: log1p(count / (_PRIOR * self._share.get(mark, self._rare))) for mark, count in counts.items()}
        return _Own(_length(lines), _loss(counts), gains)


class _Own(NamedTuple):
    """What a persona's lines tell of it."""

    length: int  # words
    loss: float  # what each mark that is not in them costs
    gains: dict[str, float]  # what one that is gains


_POOL = 64
_PRIOR = 50  # marks that everybody's use of them stands for, beside the some 60 of a persona's own
_UNSEEN = 0.5
_TEMPER = 3.0
_OWN_ENOUGH = 0.25  # nobody asks for evidence
_MOST = 4000  # characters of a persona's lines
_LONG = 8
_LONG_REPLY = 2000  # characters
_SENTENCES = re.compile(r"[^.!?…。！？\n]+[.!?…。！？]?")
_SHOUTED = re.compile(r"\b[A-Z]{2,}\b")
_CAPITALS = bytes(
    65 if chr(code).isupper() and code < 128 else 32 for code in range(256)
)  # a quick look for two in a row
_ENDS = {sign: "#" + sign for sign in ".!?…"}
_SIGNS = [(sign, "#" + sign) for sign in ',;:—*"']


def _lines(npc: SimpleNamespace) -> tuple[str, ...]:
    return (npc.greeting, *npc.examples)


def _length(lines: tuple[str, ...]) -> int:
    return sum(len(line.split()) for line in lines)


def _counted(lines: tuple[str, ...]) -> Counter[str]:
    text = "\n".join(lines)[:_MOST]
    return Counter([*words(text), *_marks_of_style(text)])


def _loss(counts: Counter[str]) -> float:
    return -log1p(counts.total() / _PRIOR)


@lru_cache(maxsize=256)
def _asked(line: str) -> frozenset[str]:
    return frozenset(words(line))


def _marks(turn: Turn) -> list[str]:
    asked = _asked(turn.line)
    return [*filterfalse(asked.__contains__, words(turn.text)), *_marks_of_style(turn.text)]


def _marks_of_style(text: str) -> list[str]:
    """They begin with "#", which no word does."""
    marks: list[str] = []
    for sentence in _SENTENCES.findall(text):
        length = len(sentence.split())
        if length:
            marks.append(_LENGTHS[length] if length < len(_LENGTHS) else _LENGTHS[-1])
            marks.append(_ENDS.get(sentence[-1], "#-"))
    marks += ["#long" for word in words(text) if len(word) >= _LONG]
    if "'" in text or "’" in text:
        marks += ["#contraction"] * (text.count("'") + text.count("’"))
    if b"AA" in text.encode("utf-8", "replace").translate(_CAPITALS):
        marks += ["#shouted"] * len(_SHOUTED.findall(text))
    for sign, mark in _SIGNS:
        if sign in text:
            marks += [mark] * text.count(sign)
    return marks


_LENGTHS = ["#0", *["#1-3"] * 3, *["#4-6"] * 3, *["#7-12"] * 6, *["#13-22"] * 10, "#23-"]


def _heaviest(weights: list[float]) -> tuple[int, int]:
    """First and last of the neighbours that weigh most together (Kadane's algorithm); all, where no word weighs much."""
    best, span, here, start = 1.0, (0, len(weights) - 1), 0.0, 0
    for at, weight in enumerate(weights):
        if here <= 0:
            here, start = 0.0, at
        here += weight - _STEP
        if here > best:
            best, span = here, (start, at)
    return span


_STEP = 0.25  # what a word that tells nothing costs, so that the span ends
