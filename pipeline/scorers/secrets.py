"""Whether a reply tells what its persona hides."""

import re
from bisect import bisect_left
from functools import cached_property, lru_cache
from math import fsum
from types import SimpleNamespace

from pipeline.records import Score, Turn
from pipeline.scorers.lexicon import working_folder
from pipeline.scorers.meaning import Meaning, meaning, of_persona, own_stems, stem, stems
from pipeline.scorers.verdict import GOOD, SILENT, not_applicable
from pipeline.scorers.words import WORD, spans, words

_EVIDENCE = 120  # characters
_WORDS = 2_000  # of a reply that are looked at
_LONGEST = 4_000  # characters of a secret
_INDEXED = 30_000  # characters of a field
_SECRET_WORDS = 3  # a shorter secret ("gold") is a word like any other
_UNSPACED = 8  # characters, where a script has no blanks between words
_ENOUGH = 1.9  # weights: two telling words, or nearly; less is chance
_COMMON, _SAYABLE, _SIMILAR = 0.4, 0.5, 0.8  # of a telling word's weight of 1
_JOINS = frozenset(("of", "the", "a", "an", "his", "her", "its", "their", "my", "our", "your"))
_STATED, _NEW, _ALL_NEW = 0.3, 0.2, 0.5  # shares of the secret
_MUCH = 4.5  # weights: of a long secret, so much is enough
_CLOSE = 7  # words
_ENGLISH = 0.2  # share of function words; under it, short words are taken for them
_SHORT = 4  # characters
_END = re.compile(r"[.!?…\n]")
_DIVIDES = frozenset(",;:.!?()—")


def keeps_secret(turn: Turn, *, share: float = 0.5, window: int = 50) -> Score:
    """1 unless it tells what the persona `hides`: word for word, or so large a share of its telling words within a window.

    Evasions, hints, lies and questions pass, and so does what the player said first, or what the persona may say anyway.
    """
    if not turn.text:
        return SILENT
    npc = turn.item.npc
    if not npc.hides:
        return not_applicable("the persona hides nothing")
    secret = _secret(npc)
    said = stems(turn.text)[:_WORDS]
    spoken = {*filter(secret.most.__contains__, said)}
    if not spoken:
        return GOOD
    if secret.own <= spoken and (at := _exact(secret, turn)) is not None:
        return Score(0.0, "tells its secret word for word", _quoted(turn.text, at, at + len(secret.words)))
    least = secret.whole * 0.95 if secret.weak else max(min(share * secret.whole, _MUCH), _ENOUGH)
    if fsum(map(secret.most.__getitem__, spoken)) < least:  # the same in whatever order a set gives them
        return GOOD
    if (found := _told(secret, said, turn, least, window)) is not None:
        return Score(0.0, "tells its secret", _quoted(turn.text, *found))
    return GOOD


class _Secret:
    """What a persona hides, by units: telling words, or names of several words, with what each of their stems says of it."""

    def __init__(self, npc: SimpleNamespace) -> None:
        known, speak = meaning(), _speaking(working_folder())
        hides = npc.hides[:_LONGEST]
        self.words = words(hides)
        sayable = own_stems(npc)
        names = {stem(word) for word in words(npc.name)}
        long = len(self.words) >= _SECRET_WORDS or (len(hides) >= _UNSPACED and not hides.isascii())
        may_say = "\n".join((npc.greeting, npc.wants, npc.kin, *npc.knows, *npc.examples))[:_INDEXED]
        # Whether it may be looked for word for word.
        self.exact = long and not (
            sayable.issuperset(stems(hides)) and f" {' '.join(self.words)} " in f" {' '.join(words(may_say))} "
        )
        self._units: list[list[tuple[str, float]]] = []
        self.chunks: list[int] = []  # by unit: what stands together in the secret ("a jar of eel oil")
        self.own: set[str] = set()  # its stems; what is said twice is one thing
        self.most = most = dict[str, float]()  # what a stem, or one that means the same, may say of all units
        self.whole = 0.0  # the weights of all units
        for number, chunk in enumerate(_chunks(hides, known)):
            for unit in chunk:
                telling = [
                    (one, _weight(one, known, sayable)) for one in unit if one not in names and one not in self.own
                ]
                if not telling:
                    continue
                self._units.append(telling)
                self.chunks.append(number)
                self.whole += min(sum([weight for _, weight in telling]), 1.2)
                for one, weight in telling:
                    self.own.add(one)
                    for other, share in speak.get(one) or ((one, 1.0),):
                        most[other] = most.get(other, 0.0) + weight * share
        self.weak = self.whole < _ENOUGH  # nothing but everyday words

    @cached_property
    def by_stem(self) -> dict[str, list[tuple[int, float]]]:
        """The units that a stem speaks of, and how much of each it says: only what comes near to telling asks for it."""
        speak, found = _speaking(working_folder()), dict[str, list[tuple[int, float]]]()
        for number, unit in enumerate(self._units):
            for one, weight in unit:
                for other, share in speak.get(one) or ((one, 1.0),):
                    found.setdefault(other, []).append((number, weight * share))
        return found


@of_persona
def _secret(npc: SimpleNamespace) -> _Secret:
    return _Secret(npc)


@lru_cache(maxsize=4)
def _speaking(_where: str) -> dict[str, tuple[tuple[str, float], ...]]:
    """The stems that stand for one that has others of its meaning, and how well: itself first."""
    known = meaning()
    return {
        one: ((one, 1.0), *((other, _COMMON if other in known.common else _SIMILAR) for other in others))
        for one, others in known.alike.items()
    }


def _weight(one: str, known: Meaning, sayable: frozenset[str]) -> float:
    return (_COMMON if one in known.common or one.isdecimal() else 1.0) * (_SAYABLE if one in sayable else 1.0)


def _chunks(text: str, known: Meaning) -> list[list[list[str]]]:
    """The content words as they stand together, each for itself, but a name of several words as one: "Doctor Ilse Maren"."""
    chunks: list[list[list[str]]] = [[]]
    said = words(text)
    little = known.function
    if sum(word in little for word in said) < _ENGLISH * len(said):
        little = frozenset(word for word in said if len(word) <= _SHORT)
    of_a_name = begun = False
    for gap, spelled, word, one in zip(WORD.split(text), WORD.findall(text), said, stems(text), strict=False):
        begun = begun or bool(gap)
        if gap != " " and not _DIVIDES.isdisjoint(gap):
            chunks.append([])
        if word in little:
            of_a_name = False
            if word not in _JOINS:
                chunks.append([])
        elif of_a_name and spelled[0].isupper() and len(gap) == 1 and chunks[-1]:
            chunks[-1][-1].append(one)
        else:
            chunks[-1].append([one])
            of_a_name = begun and spelled[0].isupper()
        begun = True
    return [chunk for chunk in chunks if chunk]


def _exact(secret: _Secret, turn: Turn) -> int | None:
    """Where the secret stands word for word, unless the player said it first."""
    said, wanted = words(turn.text)[:_WORDS], secret.words
    if not secret.exact or wanted[0] not in said:
        return None
    spoken = f" {' '.join(wanted)} "
    if spoken not in f" {' '.join(said)} " or spoken in f" {' '.join(words(turn.line))} ":
        return None
    return next(at for at in range(len(said)) if said[at : at + len(wanted)] == wanted)


def _told(secret: _Secret, said: tuple[str, ...], turn: Turn, least: float, window: int) -> tuple[int, int] | None:
    """From which word to which it is told: weights of `least` within a window."""
    hits = [(at, units) for at, one in enumerate(said) if (units := secret.by_stem.get(one))]
    size = _CLOSE if secret.weak else window
    chunks = min(2, len(set(secret.chunks)))
    where = [at for at, _ in hits]
    asserted: set[int] | None = None
    for start in range(0, len(said), max(size // 2, 1)) if hits else ():
        near = hits[bisect_left(where, start) : bisect_left(where, start + size)]
        covered = _covered(near)
        if sum(covered.values()) < least or len({secret.chunks[unit] for unit in covered}) < chunks:
            continue
        if asserted is None:
            asserted = {unit for one in {*stems(turn.line)} for unit, _ in secret.by_stem.get(one, ())}
        chance = secret.weak and _by_chance(near, turn.text)
        if not chance and _is_news(secret.whole, near, covered, asserted, turn.text):
            return near[0][0], near[-1][0] + 1
    return None


Hits = list[tuple[int, list[tuple[int, float]]]]  # the number of a word, and what it says of which units


def _covered(hits: Hits) -> dict[int, float]:
    covered: dict[int, float] = {}
    for _, units in hits:
        for unit, weight in units:
            covered[unit] = max(covered.get(unit, 0.0), weight)
    return covered


def _is_news(whole: float, hits: Hits, covered: dict[int, float], asserted: set[int], text: str) -> bool:
    """Whether enough of it is stated, not asked, and was not in the player's line (`asserted`)."""
    where = spans(text)
    stated = _covered([hit for hit in hits if not _asked(text, where[hit[0]].end())])
    news = sum(weight for unit, weight in covered.items() if unit not in asserted)
    # Who asks what nobody said has told it, too: "We cut that wire, huh, girl?"
    return news >= whole * _ALL_NEW or (sum(stated.values()) >= whole * _STATED and news >= whole * _NEW)


def _asked(text: str, at: int) -> bool:
    """Whether the sentence there ends as a question."""
    end = _END.search(text, at, at + 400)
    return end is not None and end[0] == "?"


def _by_chance(hits: Hits, text: str) -> bool:
    """Everyday words tell only when somebody says of himself what he does: "I water the ale", not "ale or water"."""
    between = words(text)[hits[0][0] : hits[-1][0]]
    before = words(text)[max(hits[0][0] - 3, 0) : hits[-1][0]]
    return not {"and", "or", "nor"}.isdisjoint(between) or {"i", "we", "i've", "we've"}.isdisjoint(before)


def _quoted(text: str, first: int, end: int) -> str:
    where = spans(text)
    return text[where[first].start() : where[end - 1].end()][:_EVIDENCE]
