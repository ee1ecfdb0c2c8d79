"""What replies are compared by: words, or characters in a script without blanks; runs of them; and everyday English."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.scorers.lexicon import lexicon, working_folder
from pipeline.scorers.words import spans, words

Keys = npt.NDArray[np.uint64]

READ = 2000  # words of a reply or a line that are looked at where the whole run is compared
SOLID_SCALE = 2  # characters of a script without blanks to a word
SOLID_RUN = 5  # characters that are as telling as three words
_LONGEST = 6
_SMALL_SHARE = 0.2
# Thai and Lao, Myanmar, Khmer, kana, Han.
_SOLID = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


@lru_cache(maxsize=256)
def pieces_of(text: str) -> tuple[tuple[str, ...], bool]:
    """The words, and whether they are characters, as in a script without blanks."""
    said = words(text)
    if text.isascii() or not _SOLID.search(text):
        return said, False
    pieces = tuple(piece for word in said for piece in (word if _SOLID.search(word) else (word,)))
    return pieces, 2 * (len(pieces) - len(said)) > len(pieces)


def places_of(text: str) -> list[tuple[int, int]]:
    """Where each of what `pieces_of` gives stands in the text."""
    found: list[tuple[int, int]] = []
    for span in spans(text):
        if _SOLID.search(span[0]):
            found += ((at, at + 1) for at in range(span.start(), span.end()) for _ in text[at].casefold())
        else:
            found.append(span.span())
    return found


@lru_cache(maxsize=64)
def runs_of(text: str) -> frozenset[tuple[str, ...]]:
    """All runs of three words, or of so many characters as tell as much."""
    said, solid = pieces_of(text)
    return frozenset(zip(*(said[at:] for at in range(SOLID_RUN if solid else 3)), strict=False))


def stretches_of(hits: Sequence[bool], run: int, gap: int = 0) -> list[tuple[int, int]]:
    """Stretches (first word, end) of the words that lie in a run that is hit; those up to `gap` words apart are one."""
    found: list[tuple[int, int]] = []
    for at, hit in enumerate(hits):
        if not hit:
            continue
        if found and at <= found[-1][1] + gap:
            found[-1] = (found[-1][0], at + run)
        else:
            found.append((at, at + run))
    return found


def phrases_in(said: tuple[str, ...], frequent: list[bool]) -> Iterator[tuple[str, ...]]:
    """Runs of three to six words all of whose runs of three words are frequent."""
    for start, hit in enumerate(frequent):
        for size in range(3, _LONGEST + 1):
            if not hit or start + size > len(said) or not frequent[start + size - 3]:
                break
            yield said[start : start + size]


class Everyday(NamedTuple):
    small: frozenset[str]  # function words
    words: frozenset[str]  # and those that are in everybody's mouth
    phrases: Mapping[tuple[str, ...], list[tuple[str, ...]]]  # by their first two words

    def tells(self, word: str) -> float:
        """How much a word says about who says it."""
        return 0.0 if word in self.small else 0.5 if word in self.words else 1.0

    def knows(self, said: tuple[str, ...]) -> bool:
        """Whether this is its language: in English, about half of the words are small."""
        return len([*filter(self.small.__contains__, said)]) >= _SMALL_SHARE * len(said)


def everyday_english() -> Everyday:
    try:
        return _everyday_of(working_folder())
    except OSError:  # somebody has removed the working directory
        return _everyday_of("")


@lru_cache(maxsize=4)
def _everyday_of(_where: str) -> Everyday:
    """`_where` is the working directory, whose own lexicon goes first."""
    listed = lexicon("common_phrases")
    small = frozenset(word for entry in listed.get("function words", ()) for word in words(entry))
    parts = {
        part
        for phrase in map(words, listed.get("phrases", ()))
        for part in phrases_in(phrase, [True] * (len(phrase) - 2))
    }
    return Everyday(small, small.union(*map(words, listed.get("everyday words", ()))), by_start(parts))


def by_start(phrases: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], list[tuple[str, ...]]]:
    """By the first two words, the longest first."""
    found: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for phrase in sorted(set(phrases), key=lambda phrase: (-len(phrase), phrase)):
        if len(phrase) > 1:
            found.setdefault(phrase[:2], []).append(phrase)
    return found


class _Hashes(dict[str, bytes]):
    def __missing__(self, word: str) -> bytes:
        if len(self) >= _KEPT:
            self.clear()
        found = self[word] = blake2b(word.encode("utf-8", "surrogatepass"), digest_size=HASH).digest()
        return found


HASH = 8  # bytes
_KEPT = 1 << 16  # words
_HASHES = _Hashes()


@lru_cache(maxsize=64)
def hashes_of(text: str) -> bytes:
    """`HASH` bytes for each of the first pieces of a text, the same on any machine; `hash` is not."""
    return b"".join(map(_HASHES.__getitem__, pieces_of(text)[0][:READ]))


def keys_of(hashes: bytes, run: int) -> Keys:
    """One key for each `run` of neighbours: a polynomial in an odd number, stirred."""
    if len(hashes) < run * HASH:
        return _NONE
    keys = np.correlate(np.frombuffer(hashes, "<u8"), _POWERS[:run])
    keys ^= keys >> _HALF
    keys *= _ODD
    keys ^= keys >> _HALF
    return keys


_NONE = np.zeros(0, np.uint64)
_ODD, _HALF = np.uint64(0xFF51AFD7ED558CCD), np.uint64(32)
_POWERS = np.array([pow(0x9E3779B97F4A7C15, power, 1 << 64) for power in range(8)], np.uint64)
