"""Whether a reply is what another NPC of the run says."""

import os
from array import array
from collections import Counter
from collections.abc import Iterator
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.records import Score
from pipeline.scorers.pieces import (
    HASH,
    READ,
    SOLID_SCALE,
    Keys,
    everyday_english,
    hashes_of,
    keys_of,
    pieces_of,
    places_of,
    runs_of,
    stretches_of,
)
from pipeline.scorers.verdict import GOOD, SILENT

if TYPE_CHECKING:
    from pipeline.scorers import Said


class OwnWords:
    """1 unless most of a reply, or a stretch of `words` words, is what another persona of the run says, but for a word or
    two.

    What two say belongs to the one that says it more often, of equals to the one that came first: a catchword that another
    one catches stays its own. On purpose pass: stretches of everyday English (under three words in them tell), what the
    player just said, and, up to twice `words`, what `everybody` says (so many personas: the run's stock phrases, which are
    `overused`) and what is not in the language of `data/lexicons/common_phrases.txt`. A very long run is compared with its
    first 400,000 replies or so.
    """

    def __init__(self, *, words: int = 7, everybody: int = 4) -> None:
        self._words, self._everybody = words, everybody
        self._everyday = everyday_english()
        self._personas: dict[str, int] = {}
        self._names: list[str] = []
        self._speakers, self._texts = array("i"), array("q")  # of each reply: who, and a hash of it
        self._heard: list[bytes] = []  # hashes of the words of replies not yet taken
        self._waiting = 0  # bytes of them
        self._runs = _Runs()
        self._remembered = 0
        self._shared: _Shared | None = None
        self._suspects: set[int] = set()

    def add(self, said: "Said") -> None:
        speaker = self._personas.setdefault(said.persona_id, len(self._personas))
        self._shared = None
        if self._remembered >= _REMEMBERED:
            self._suspects.add(hash(said))
            return
        self._speakers.append(speaker)
        self._texts.append(hash(said))
        self._heard.append(hashes_of(said.text))
        self._waiting += len(self._heard[-1])
        if self._waiting >= _BATCH:
            self._take()

    def score(self, said: "Said") -> Score:
        if len(self._personas) < 2:
            return Score(None, "only one persona speaks")
        if self._shared is None:
            self._shared = self._share()
        if not said.text:
            return SILENT
        if hash(said) not in self._suspects:
            return GOOD
        pieces, solid = pieces_of(said.text)
        pieces, scale = pieces[:READ], SOLID_SCALE if solid else 1
        least = self._words * scale
        if len(pieces) < max(least, _RUN):
            return GOOD
        keys = keys_of(hashes_of(said.text), _RUN)
        at = self._shared.keys.searchsorted(keys)
        others = (self._shared.keys[at] == keys) & (self._shared.owners[at] != self._personas.get(said.persona_id, -1))
        rare = others & (self._shared.speakers[at] < self._everybody)
        owners = self._shared.owners[at]
        # Of another language we do not know what everybody says.
        first = [(rare, least)] if self._everyday.knows(pieces) else []
        for hits, enough in (*first, (others, 2 * least)):
            found = self._taken(said, pieces, hits.tolist(), owners.tolist(), enough, solid)
            if found is not None:
                return found
        return GOOD

    def _taken(
        self, said: "Said", pieces: tuple[str, ...], hits: list[bool], owners: list[int], enough: int, solid: bool
    ) -> Score | None:
        stretches = stretches_of(hits, _RUN, gap=_CHANGED)
        if not stretches:
            return None
        asked = runs_of(said.line)
        counts = [True] * len(pieces)
        for at, run in enumerate(zip(pieces, pieces[1:], pieces[2:], strict=False)):
            if run in asked:
                counts[at : at + 3] = [False] * 3
        telling = [counts[at] * (1.0 if solid else self._everyday.tells(word)) for at, word in enumerate(pieces)]
        stretches = [
            (a, b)
            for a, b in stretches
            if sum(telling[a:b]) >= _TELLING and _of_one(owners[a : b - _RUN + 1], hits[a : b - _RUN + 1])
        ]
        taken = sum(sum(counts[a:b]) for a, b in stretches)
        longest = max(stretches, key=lambda stretch: stretch[1] - stretch[0], default=(0, 0))
        if sum(counts[slice(*longest)]) < enough and (taken < enough or 2 * taken <= len(pieces)):
            return None
        start, end = longest
        owner = Counter(
            owner for owner, hit in zip(owners[start:end], hits[start:end], strict=False) if hit
        ).most_common(1)
        name = self._names[owner[0][0]]
        where = places_of(said.text)
        return Score(0.0, f"what {name} says", said.text[where[start][0] : where[end - 1][1]][:120])

    def _take(self) -> None:
        """Turn what was heard into runs of words."""
        heard = b"".join(self._heard)
        lengths = np.fromiter(map(len, self._heard), np.int64, len(self._heard)) // HASH
        ends = np.cumsum(lengths)
        self._heard, self._waiting = [], 0
        keys = keys_of(heard, _RUN)
        reply = np.repeat(np.arange(len(ends)), lengths)[: len(keys)]
        whole = np.arange(len(keys)) + _RUN <= ends[reply]
        numbers = (reply[whole] + len(self._speakers) - len(ends)).astype(np.int32)
        self._runs.add(keys[whole], numbers)
        self._remembered += len(numbers)

    def _share(self) -> "_Shared":
        """What more than one persona says, and whose it is."""
        self._take()
        self._names = list(self._personas)
        speakers = np.array(self._speakers)
        parts = [self._share_of(keys, replies, speakers[replies]) for keys, replies in self._runs.parts()]
        return _Shared(*(np.concatenate(column) for column in zip(*parts, _END, strict=True)))

    def _share_of(self, keys: Keys, replies: npt.NDArray[np.int32], who: npt.NDArray[np.int32]) -> "_Shared":
        came = np.argsort(keys, kind="stable")
        same = keys[came][1:] == keys[came][:-1]
        came = again = came[(np.append(same, False) | np.append(False, same))[: len(came)]]  # the others are said once
        # Once a key and persona, where it came first, with the number of times.
        came = came[np.lexsort((came, who[came], keys[came]))]
        first = _first(keys[came], who[came])
        times = np.diff(first, append=len(came))
        came = came[first]
        # Once a key, by the persona that says it most; of equals the one that came first.
        order = np.lexsort((came, -times, keys[came]))
        came = came[order]
        first = _first(keys[came])
        speakers = np.diff(first, append=len(came))
        own = came[first[speakers > 1]]
        shared = _Shared(keys[own], who[own], speakers[speakers > 1])
        if len(own):
            at = np.minimum(shared.keys.searchsorted(keys[again]), len(own) - 1)
            others = (shared.keys[at] == keys[again]) & (shared.owners[at] != who[again])
            # Only these can score less than 1: they are few, and all others need no second look.
            self._suspects |= {self._texts[number] for number in np.unique(replies[again[others]])}
        return shared


class _Runs:
    """Runs of words, each with the number of its reply, by the million: they stand in a file, and come back part by part."""

    def __init__(self) -> None:
        self._file = TemporaryFile()  # noqa: SIM115 -- closed in __del__
        self._starts: list[npt.NDArray[np.int64]] = []  # of the parts of each batch

    def __del__(self) -> None:
        self._file.close()

    def add(self, keys: Keys, replies: npt.NDArray[np.int32]) -> None:
        part = keys >> _PART
        rows = np.empty(len(keys), _ROW)
        order = np.argsort(part, kind="stable")
        rows["key"], rows["reply"] = keys[order], replies[order]
        start = self._file.seek(0, os.SEEK_END)
        self._starts.append(start + part[order].searchsorted(np.arange(_PARTS + 1, dtype=np.uint64)) * _ROW.itemsize)
        self._file.write(rows.tobytes())

    def parts(self) -> Iterator[tuple[Keys, npt.NDArray[np.int32]]]:
        """The keys from the smallest to the largest, so many at a time, each part in the order they came."""
        for part in range(_PARTS):
            pieces = [b""]
            for starts in self._starts:
                self._file.seek(starts[part])
                pieces.append(self._file.read(starts[part + 1] - starts[part]))
            rows = np.frombuffer(b"".join(pieces), _ROW)
            yield np.ascontiguousarray(rows["key"]), np.ascontiguousarray(rows["reply"])


def _first(*columns: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
    """Where in sorted rows another value begins."""
    differs = np.zeros(max(0, len(columns[0]) - 1), bool)
    for column in columns:
        differs |= column[1:] != column[:-1]
    return np.flatnonzero(np.append(True, differs)) if len(columns[0]) else np.zeros(0, np.int64)


class _Shared(NamedTuple):
    """Runs of words that several personas say, in order; whose each is, and of how many."""

    keys: Keys
    owners: npt.NDArray[np.int32]
    speakers: npt.NDArray[np.int64]


_RUN = 5  # words in a row that are looked up; in a stretch that a word or two has changed, such runs are left
_CHANGED = 2  # words between two runs of the same stretch
_TELLING = (
    3  # words that are not everyday English (those in everybody's mouth are half one), in a stretch that is somebody's
)
_BATCH = HASH << 16  # bytes: so many words
_REMEMBERED = 1 << 23  # runs of words: 100 MB of a file, 400,000 replies of 25 words
_PARTS, _PART = 16, np.uint64(60)  # by the first four bits
_ROW = np.dtype([("key", np.uint64), ("reply", np.int32)])
_END = _Shared(np.array([0xFFFF_FFFF_FFFF_FFFF], np.uint64), np.array([-1], np.int32), np.array([0]))  # none's


def _of_one(owners: list[int], hits: list[bool]) -> bool:
    """Whether most of a stretch is the same persona's, not put together from what many say."""
    theirs = Counter(owner for owner, hit in zip(owners, hits, strict=False) if hit)
    return 2 * max(theirs.values()) >= sum(theirs.values())
