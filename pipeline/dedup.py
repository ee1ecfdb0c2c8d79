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
from collections.abc import Iterable, Iterator, Sequence
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
Equal = str | tuple[str, str]  # what the words are spelled like; with the persona, where they count for it only
Hashes = npt.NDArray[np.uint64]

ROWS = 4  # hashes in a band: at a similarity of 0.1, one text in 10,000 is a candidate in vain, in each band
MISSED = 0.01  # of the pairs that are just alike enough, this share has no band in common
BUCKET = 16  # texts that a bucket holds
COMPARED = 8  # candidates of the own persona that are compared, and as many of others


@dataclass(frozen=True, slots=True)
class Match:
    """The text that stayed, by its number in the order of `admit`, from 0; how alike, 0 to 1; and what the two share."""

    number: int
    similarity: float
    scope: Scope


class NearDuplicates:
    """Takes texts one after another, the best first. One that is like an earlier one that stayed is its duplicate; else it
    stays.

    How alike, depends on what two texts share: the prompt, the persona, or nothing. Under `short` words only the same persona
    counts, as any two may say "Aye."; in scripts without blanks a character is half a word.

    Equal words are always found. Of what is otherwise alike, 99 in 100 are found at the least similarity that counts, and
    more above. What one text may cost is bounded, whatever came before: a bucket that is full takes no more, and only the
    candidates with most bands in common are compared. So where very many of the texts that stayed have half of their
    shingles in common, some duplicates are overlooked (1 in 80 among 10,000 variants of 100 lines); nothing is ever taken
    for one that is not.

    The same texts in the same order have the same duplicates on any machine.
    """

    def __init__(self, *, prompt: float = 0.7, persona: float = 0.7, anyone: float = 0.8, short: int = 6) -> None:
        self._least: dict[Scope, float] = {"prompt": prompt, "persona": persona, "anyone": anyone}
        if not all(0.5 <= least <= 1 for least in self._least.values()):
            raise ValueError("a similarity must lie between 0.5 and 1")
        self._short = short
        self._taken = 0
        # Of each text that stayed: its words, the hashes of its persona and its prompt, its number.
        self._texts: list[str] = []
        self._personas, self._prompts, self._numbers = array("Q"), array("Q"), array("Q")
        self._equal: dict[Equal, int] = {}
        bands = bands_for(min(self._least.values()))
        self._common = common_bands(bands, anyone)
        self._buckets = _Buckets(bands)

    def __len__(self) -> int:
        """Texts that stayed."""
        return len(self._texts)

    def admit(self, text: str, *, persona: str, prompt: str) -> Match | None:
        """What the text is a duplicate of; None: it stays. A prompt is of one persona."""
        return next(self.admit_all([(text, persona, prompt)]))

    def admit_all(self, said: Iterable[tuple[str, str, str]]) -> Iterator[Match | None]:
        """The same for many, as (text, persona, prompt): three times as fast."""
        rest = iter(said)
        while some := list(islice(rest, _AT_ONCE)):
            words = [heard(text) for text, _, _ in some]
            owners = [_hash(persona) for _, persona, _ in some]
            alone = [self._is_short(one) for one in words]
            # What counts for one persona only has buckets of its own.
            salts = [owner if short else 0 for owner, short in zip(owners, alone, strict=True)]
            keys = self._buckets.keys_of(words, salts)
            for number, (_, persona, prompt) in enumerate(some):
                spelled = " ".join(words[number])
                same = (persona, spelled) if alone[number] else spelled
                yield self._admit(words[number], same, keys[number], owners[number], _hash(prompt))

    def _admit(self, words: list[str], same: Equal, keys: Hashes, owner: int, asked: int) -> Match | None:
        number, self._taken = self._taken, self._taken + 1
        equal = self._equal.get(same)
        if equal is not None:
            return Match(self._numbers[equal], 1.0, self._scope(equal, owner, asked))
        found = self._best(self._buckets.find(keys), words, owner, asked)
        if found is None:
            self._equal[same] = len(self._texts)
            self._buckets.add(len(self._texts))
            self._texts.append(same if isinstance(same, str) else same[1])
            self._personas.append(owner)
            self._prompts.append(asked)
            self._numbers.append(number)
        return found

    def _is_short(self, words: list[str]) -> bool:
        if len(words) >= 2 * self._short:
            return False
        return sum(0.5 if _without_blanks(word[:1]) else 1 for word in words) < self._short

    def _scope(self, stayed: int, owner: int, asked: int) -> Scope:
        if self._prompts[stayed] == asked:
            return "prompt"
        return "persona" if self._personas[stayed] == owner else "anyone"

    def _best(self, candidates: list[tuple[int, int]], words: list[str], owner: int, asked: int) -> Match | None:
        """The most similar of the candidates that are alike enough; of equally similar ones the first."""
        if not candidates:
            return None
        own = (text for text, _ in candidates if self._personas[text] == owner)
        others = (text for text, common in candidates if common >= self._common and self._personas[text] != owner)
        ours = shingles(words)
        best, most = None, (0.0, 0)
        for text in (*islice(own, COMPARED), *islice(others, COMPARED)):
            alike = similarity(ours, _shingles(self._texts[text]))
            scope = self._scope(text, owner, asked)
            if alike >= self._least[scope] and (alike, -text) > most:
                best, most = Match(self._numbers[text], alike, scope), (alike, -text)
        return best


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


@lru_cache(1 << 10)
def _shingles(spelled: str) -> Shingles:
    """Where a bucket is full, it is always the same texts that are compared."""
    return shingles(spelled.split())


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


class _Buckets:
    """Texts by their hashes: a table for each band, in which a text lies in one of the `BUCKET` places from that on which its
    key points to, wherever one is free.

    A place holds 32 bits of the key and 32 bits of the number of the text. It can be found with neither the key nor
    the text kept, and moved when the tables grow: the places are in the order of the keys, by their first bits.
    """

    def __init__(self, bands: int) -> None:
        random = np.frombuffer(shake_128(b"near-duplicates").digest(8 * ROWS * (bands + 1)), "<u8").astype(np.uint64)
        self._mixed = random[:ROWS] | np.uint64(1)
        self._times = (random[ROWS:] >> _HALF).astype(np.uint32) | np.uint32(1)
        self._bands = np.arange(bands)
        self._lay_out(10)

    def _lay_out(self, bits: int) -> None:
        width = (1 << bits) + BUCKET
        self._texts = 1 << bits - 1  # more than this, and the tables grow: they are half empty at least
        self._shift = np.uint64(64 - bits)
        self._starts = self._bands * width
        self._steps = self._starts[:, None] + np.arange(BUCKET)
        self._places = np.zeros(len(self._bands) * width, np.uint64)

    def find(self, keys: Hashes) -> list[tuple[int, int]]:
        """Texts that have keys in common with these, and how many; those with most of them first."""
        self._keys = keys
        self._window = self._steps + self._home(self._keys)[:, None]
        self._there = self._places.take(self._window)
        near = self._there[(self._there & ~_TEXT) == self._keys[:, None]] & _TEXT
        if not len(near):
            return []  # as it mostly is
        return Counter(near.tolist()).most_common()

    def add(self, text: int) -> None:
        """Puts in what was last looked for; `text` counts up from 0."""
        free = self._there == 0
        first = free.argmax(axis=1)
        room = free[self._bands, first]
        self._places[self._window[self._bands, first][room]] = self._keys[room] | np.uint64(text)
        if text + 1 > self._texts:
            self._grow()

    def keys_of(self, texts: Sequence[list[str]], salts: Sequence[int]) -> Hashes:
        """For each text one key for each band, in the upper 32 bits; never 0."""
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
        keys: Hashes = np.einsum("r,rbt->tb", self._mixed, least.reshape(ROWS, -1, len(texts)))
        return (keys + np.array(salts, np.uint64)[:, None] | _KEY) & ~_TEXT

    def _home(self, keys: Hashes) -> npt.NDArray[np.int64]:
        return (keys >> self._shift).view(np.int64)

    def _grow(self) -> None:
        old = self._places.reshape(len(self._bands), -1)
        self._lay_out(self._texts.bit_length() + 1)
        for start, places in zip(self._starts, old, strict=True):
            entries = np.sort(places[places > 0])
            home, order = self._home(entries), np.arange(len(entries))
            at = np.maximum.accumulate(home - order) + order  # the first free place from home on
            near = at - home < BUCKET
            self._places[start + at[near]] = entries[near]


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


@lru_cache(1 << 16)
def _hash(word: str) -> int:
    """The same on any machine; `hash` is not."""
    return int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


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
_KEY, _TEXT = np.uint64(1 << 32), np.uint64((1 << 32) - 1)  # the last bit of the key; the bits of the text
