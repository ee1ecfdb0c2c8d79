"""Near-duplicates among short texts: what is said once more, in nearly the same words.

Alike is Jaccard's similarity of two sets of shingles (Jaccard 1901): what both have, by what either has. A shingle is a word
or a pair of words that follow each other. The word 5-grams and the 0.8 of the field (Lee et al. 2022, arXiv 2107.06499) are
made for documents: of a line of 17 words, one other word takes five of its 13 5-grams. Measured, on lines of 10 to 20 words:

    what differs             words and pairs   word 3-grams   character 5-grams
    one word of 20                 0.84            0.71             0.85
    the same in Finnish            0.73            0.45             0.78
    one character of 27, Chinese   0.89            0.79             0.67
    two words of 20                0.74            0.64             0.67
    two clauses, swapped           0.94            0.80             0.95
    three words of 20              0.66            0.57             0.60
    three words of 16              0.59            0.40             0.54
    a paraphrase                   0.15            0.00             0.14

With words and pairs, one other word is alike at 0.8 and two are at 0.7, and neither where in the line they stand nor the
script matters much. Two lines of different NPCs have 0.02 on average.

Candidates come from MinHash (Broder 1997) in bands (Leskovec, Rajaraman and Ullman 2020, 3.4), and each is compared exactly:
the hashes decide what is found, never what is called alike.
"""

import unicodedata
from array import array
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b, shake_128
from itertools import islice, pairwise
from math import ceil, comb, log
from typing import Literal

import numpy as np
import numpy.typing as npt

Scope = Literal["prompt", "persona", "anyone"]
Shingles = frozenset[str | tuple[str, str]]

ROWS = 4  # hashes in a band: at a similarity of 0.1, one text in 10,000 is a candidate in vain, in each band
MISSED = 0.01  # of the pairs that are just alike enough, this share has no band in common
BUCKET = 16  # texts that a bucket holds
COMPARED = 8  # candidates of the own persona that are compared, and as many of others


@dataclass(frozen=True, slots=True)
class Match:
    """The text that stayed, by its number from 0; how alike, 0 to 1; and what the two share."""

    number: int
    similarity: float
    scope: Scope


def near_duplicates(
    said: Sequence[tuple[str, str, Hashable]],
    reading: Sequence[int] | npt.NDArray[np.int64] | None = None,
    *,
    prompt: float = 0.7,
    persona: float = 0.7,
    anyone: float = 0.8,
    short: int = 6,
) -> Iterator[Match | None]:
    """What each text is a duplicate of; None: it stays. `said` has (text, persona, prompt), the best first; a prompt is of one
    persona. A text that is like an earlier one that stayed is its duplicate. `reading` has all numbers in the order in which
    they are read fastest.

    How alike, depends on what two texts share: the prompt, the persona, or nothing. Under `short` words only the same persona
    counts, as any two may say "Aye."; in scripts without blanks a character is half a word.

    Equal words are always found. Of what is otherwise alike, 99 in 100 are found at the least similarity that counts, and
    more above. What one text may cost is bounded, whatever came before: a bucket that is full takes no more, and only the
    candidates with most bands in common are compared. So where very many of the texts that stayed have half of their
    shingles in common, some duplicates are overlooked (1 in 100 among 10,000 variants of 100 lines); nothing is ever taken
    for one that is not.

    The same texts in the same order have the same duplicates on any machine. In memory, a text takes 17 keys of 4 bytes
    (at the similarities that are given here), and as much again at most.
    """
    least: dict[Scope, float] = {"prompt": prompt, "persona": persona, "anyone": anyone}
    if not all(0.5 <= one <= 1 for one in least.values()):
        raise ValueError("a similarity must lie between 0.5 and 1")
    bands = bands_for(min(least.values()))
    common = common_bands(bands, anyone)
    hashing, keys = _Hashing(bands), [np.empty(len(said), np.uint32) for _ in range(bands)]
    spelled = np.empty(
        len(said), np.uint64
    )  # of all words in their order; with the persona, where they count for it only
    personas, prompts = array("Q", bytes(8 * len(said))), array("q", bytes(8 * len(said)))
    reading = range(len(said)) if reading is None else reading
    for first in range(0, len(said), _AT_ONCE):
        place = np.array(reading[first : first + _AT_ONCE], np.int64)
        some = [said[number] for number in place.tolist()]
        words = [heard(text) for text, _, _ in some]
        owners = [_hash(owner) for _, owner, _ in some]
        # What counts for one persona only has keys of its own.
        salts = [owner if _is_short(one, short) else 0 for owner, one in zip(owners, words, strict=True)]
        for row, found in zip(keys, hashing.keys_of(words, salts), strict=True):
            row[place] = found
        spelled[place] = [_digest(" ".join(one)) ^ salt for one, salt in zip(words, salts, strict=True)]
        for number, owner, (_, _, asked) in zip(place.tolist(), owners, some, strict=True):
            personas[number], prompts[number] = owner, hash(asked)
    twins, near = _Buckets([spelled], 1), _Buckets(keys, BUCKET)

    def words_of(number: int) -> list[str]:
        return heard(said[number][0])

    @lru_cache(1 << 10)  # where a bucket is full, it is always the same texts that are compared
    def shingled(number: int) -> Shingles:
        return shingles(words_of(number))

    def scope(number: int, other: int) -> Scope:
        if prompts[number] == prompts[other]:
            return "prompt"
        return "persona" if personas[number] == personas[other] else "anyone"

    def is_twin(number: int, other: int) -> bool:
        words = words_of(number)
        return words == words_of(other) and (personas[number] == personas[other] or not _is_short(words, short))

    def best(number: int, candidates: list[tuple[int, int]]) -> Match | None:
        """The most similar of the candidates that are alike enough; of equally similar ones the first."""
        own = (other for other, _ in candidates if personas[other] == personas[number])
        others = (other for other, many in candidates if many >= common and personas[other] != personas[number])
        ours = shingles(words_of(number))
        found, most = None, (0.0, 0)
        for other in (*islice(own, COMPARED), *islice(others, COMPARED)):
            alike, shared = similarity(ours, shingled(other)), scope(number, other)
            if alike >= least[shared] and (alike, -other) > most:
                found, most = Match(other, alike, shared), (alike, -other)
        return found

    for number, (equal, alike) in enumerate(zip(twins.of_each(), near.of_each(), strict=True)):
        twin = next((other for other, _ in twins.find(equal) if is_twin(number, other)), None)
        if twin is not None:
            yield Match(twin, 1.0, scope(number, twin))
            continue
        candidates = near.find(alike)
        found = best(number, candidates) if candidates else None
        if found is None:
            twins.add(number, equal)
            near.add(number, alike)
        yield found


def _is_short(words: list[str], short: int) -> bool:
    if len(words) >= 2 * short:
        return False
    return sum(0.5 if _without_blanks(word[:1]) else 1 for word in words) < short


def heard(text: str) -> list[str]:
    """The words as they are spoken: letters and digits with their marks, without case and apostrophes. In scripts without
    blanks each character begins a word."""
    if text.isascii():
        return text.lower().translate(_SOUNDS).split()
    spelled = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return spelled.translate(_SOUNDS).split()


def shingles(words: list[str]) -> Shingles:
    """Words, and pairs of neighbours; a text without words is like another one without."""
    return frozenset((*words, *pairwise(words))) or frozenset(("",))


def similarity(a: Shingles, b: Shingles) -> float:
    common = len(a & b)
    return common / (len(a) + len(b) - common)


def bands_for(least: float) -> int:
    """Bands with which two texts that are `least` alike have one in common, but for `MISSED`: they agree in all the hashes
    of one with a probability of least ** ROWS."""
    return ceil(log(MISSED) / log(1 - min(least, 0.99) ** ROWS))


def common_bands(bands: int, least: float) -> int:
    """Bands that two texts which are `least` alike have in common at least, but for `MISSED`."""
    one, missed = least**ROWS, 0.0
    for common in range(bands):
        missed += comb(bands, common) * one**common * (1 - one) ** (bands - common)
        if missed > MISSED:
            return common
    return bands


class _Hashing:
    """For texts one key for each band: texts that are alike have some in common."""

    def __init__(self, bands: int) -> None:
        random = np.frombuffer(shake_128(b"near-duplicates").digest(8 * ROWS * (bands + 1)), "<u8").astype(np.uint64)
        self._mixed = random[:ROWS] | np.uint64(1)
        self._times = (random[ROWS:] >> _HALF).astype(np.uint32) | np.uint32(1)

    def keys_of(self, texts: Sequence[list[str]], salts: Sequence[int]) -> npt.NDArray[np.uint32]:
        """A row for each band, a column for each text."""
        lengths = np.array([len(words) or 1 for words in texts])
        single = np.array([_hash(word) for words in texts for word in words or [""]], np.uint64).astype(np.uint32)
        both = single.copy()
        both[:-1] *= _ODD
        both[:-1] += single[1:]
        ends = np.cumsum(lengths)
        both[ends - 1] = single[ends - 1]  # the last word has no neighbour
        # A product with an odd number puts all 32-bit numbers into another order, and each order has a least shingle.
        least = np.empty((len(self._times), len(texts)), np.uint64)
        for row, times in zip(least, self._times, strict=True):
            row[:] = np.minimum.reduceat(np.minimum(single * times, both * times), ends - lengths)
        # Of a sum of products with random numbers the upper half is well mixed (Dietzfelbinger 1996).
        mixed = np.einsum("r,rbt->bt", self._mixed, least.reshape(ROWS, -1, len(texts)))
        keys: npt.NDArray[np.uint32] = (mixed + np.array(salts, np.uint64) >> _HALF).astype(np.uint32)
        return keys


class _Buckets:
    """Texts by their keys, of which each band has one for every text. What several texts have in a band is a bucket, and takes up
    to `size` of them; what only one has needs none."""

    def __init__(self, bands: "list[npt.NDArray[np.uint32]] | list[npt.NDArray[np.uint64]]", size: int) -> None:
        """Takes the keys out of `bands`: they take as much memory as what is made of them."""
        self._of: list[npt.NDArray[np.int32]] = []  # in each band the bucket of every text, or -1
        room = [np.zeros(1, np.int64)]  # of each bucket
        count = 0
        while bands:
            keys = bands.pop(0)
            order = np.argsort(keys, kind="stable")
            again = np.append(False, keys[order[1:]] == keys[order[:-1]])[: len(keys)]  # the same as the one before
            several = again | np.append(again[1:], False)[: len(keys)]
            number = np.cumsum(~again[several]) - 1
            of = np.full(len(keys), -1, np.int32)
            of[order[several]] = number + count
            self._of.append(of)
            room.append(np.minimum(np.bincount(number), size))
            count += len(room[-1])
        ends = np.cumsum(np.concatenate(room))
        self._start = array("q", ends.astype(np.int64).tobytes())
        self._texts = array("i", bytes(4 * int(ends[-1])))
        self._filled = bytearray(count)

    def of_each(self) -> Iterator[list[int]]:
        """The buckets of each text."""
        for first in range(0, len(self._of[0]), _AT_ONCE):
            for row in np.stack([of[first : first + _AT_ONCE] for of in self._of], axis=1).tolist():
                yield [bucket for bucket in row if bucket >= 0]

    def find(self, buckets: list[int]) -> list[tuple[int, int]]:
        """The texts in these, and in how many; those in most of them first."""
        start, filled = self._start, self._filled
        near = [text for of in buckets for text in self._texts[start[of] : start[of] + filled[of]]]
        return Counter(near).most_common() if near else []  # mostly there are none

    def add(self, text: int, buckets: list[int]) -> None:
        for of in buckets:
            at = self._start[of] + self._filled[of]
            if at < self._start[of + 1]:
                self._texts[at] = text
                self._filled[of] += 1


class _Sounds(dict[int, str]):
    """What is heard of a character, found out when it is first met."""

    def __missing__(self, code: int) -> str:
        self[code] = sound = _sound(chr(code))
        return sound


def _sound(character: str) -> str:
    if character in "'\N{RIGHT SINGLE QUOTATION MARK}\N{MODIFIER LETTER APOSTROPHE}":
        return ""  # don't, dont
    if character.isalnum():
        return " " + character if _without_blanks(character) else character
    category = unicodedata.category(character)
    if "VARIATION SELECTOR" in unicodedata.name(character, ""):
        return ""
    if category in ("Mn", "Mc"):
        return character  # in Hindi and Thai, these are vowels
    return "" if category == "Cf" else " "  # joiners and soft hyphens stand inside words


@lru_cache(1 << 12)
def _without_blanks(character: str) -> bool:
    """Thai and Lao, Myanmar, Khmer, kana, Han."""
    return any(first <= character <= last for first, last in _WITHOUT_BLANKS)


def _digest(text: str) -> int:
    """The same on any machine; `hash` is not."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


_hash = lru_cache(1 << 14)(_digest)  # of words and personas
_SOUNDS = _Sounds()
_WITHOUT_BLANKS = (
    ("\u0e00", "\u0eff"),
    ("\u1000", "\u109f"),
    ("\u1780", "\u17ff"),
    ("\u3005", "\u3007"),
    ("\u3040", "\u30ff"),
    ("\u3400", "\u9fff"),
    ("\uf900", "\ufaff"),
    ("\U00020000", "\U0003ffff"),
)
_AT_ONCE = 256  # texts that are hashed together
_ODD = np.uint32(0x9E3779B1)
_HALF = np.uint64(32)
