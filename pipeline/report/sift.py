"""What is wrong with each reply of a run, and which replies a page shows. No text of a reply is in memory here.

A page shows SHOWN replies, or as many as have TEXTS bytes: a run of 100,000 would make one that no browser likes. What has a
flaw goes first, in turns of what is wrong with it, so that a rare flaw is not lost among thousands of a common one; a fifth
is kept for replies without any. Who is drawn is settled by the hash that an item's id is.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.curation.criteria import Bounds
from pipeline.run.folder import RunFolder
from pipeline.run.plan import CONTRAST
from pipeline.run.tables import column as column_of

SHOWN = 5_000  # replies, of all arms together
TEXTS = 16 * 2**20  # bytes of their texts as JSON has them
CUT = 4_000  # characters of a text
_WHOLE = 5  # one of so many has no flaw, where there are enough of both
_MISSING = -1  # instead of a flaw: it was not asked for yet, and is not shown
_ESCAPED = r'[<>&"\\\x00-\x1f]'  # characters that take about six bytes in JSON

Ints = npt.NDArray[np.int64]
Small = npt.NDArray[np.int32]


class Numbers(dict[str, int]):
    """Texts by number, in the order they were met."""

    def of(self, text: str) -> int:
        return self.setdefault(text, len(self))

    def column(self, column: pa.DictionaryArray) -> Ints:
        return np.array([self.of(text) for text in column.dictionary.to_pylist()], np.int64)[places(column)]


class FirstMet:
    """Where texts were met first, by number from 0: 12 bytes each, and nothing of the texts but a hash of 64 bits."""

    def __init__(self, hashes: Ints) -> None:
        self._order = np.argsort(hashes, kind="stable").astype(np.int32)
        self._sorted = hashes[self._order]

    def of(self, texts: Iterable[str]) -> Ints:
        """-1 for what was never met."""
        wanted = hashes_of(texts)
        if not len(self._sorted):
            return np.full(len(wanted), -1, np.int64)
        at = np.minimum(self._sorted.searchsorted(wanted), len(self._sorted) - 1)
        return np.where(self._sorted[at] == wanted, self._order[at], -1)


def hashes_of(texts: Iterable[str]) -> Ints:
    return np.fromiter(map(hash, texts), np.int64)


@dataclass(slots=True)
class Sifted:
    """One arm, reply by reply in the order of its table. `flaws` number what is wrong with a reply first (0: nothing), `fates`
    what became of it (0: it came to no dataset); `below` counts the replies beyond a scorer's bound, `contrast` the replies
    that came without their persona."""

    folder: RunFolder
    bounds: Mapping[str, Bounds]
    items: FirstMet = field(default_factory=lambda: FirstMet(np.empty(0, np.int64)))  # by item id
    keys: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    drawn: Ints = field(default_factory=lambda: np.empty(0, np.int64))  # who goes first, all else being equal
    sizes: Small = field(default_factory=lambda: np.empty(0, np.int32))
    flaws: Small = field(default_factory=lambda: np.empty(0, np.int32))
    fates: Small = field(default_factory=lambda: np.empty(0, np.int32))
    below: Counter[str] = field(default_factory=Counter)
    contrast: int = 0

    @property
    def count(self) -> int:
        """Replies that were asked for, as far as the run has come."""
        return int((self.flaws != _MISSING).sum())

    @property
    def whole(self) -> int:
        """Those with nothing wrong, contrast apart."""
        return int((self.flaws == 0).sum()) - self.contrast


class Sieve:
    """Arms that are shown together: `sift` each, then `choose`."""

    def __init__(self) -> None:
        self.fates = Numbers({"": 0})
        self._flaws = Numbers({"": 0})
        self._personas, self._scenarios = Numbers(), Numbers()

    def sift(self, folder: RunFolder, bounds: Mapping[str, Bounds]) -> Sifted:
        arm = Sifted(folder, bounds)
        parts: list[tuple[npt.NDArray[Any], ...]] = []
        for batch in batches(folder.replies, _REPLIES, as_numbers=("persona_id", "scenario_id", "outcome", "arm")):
            ids = batch["item_id"].to_pylist()
            contrast, replied = _equal(batch["arm"], CONTRAST), _equal(batch["outcome"], "reply")
            arm.contrast += int((contrast & replied).sum())
            who, what = self._personas.column(batch["persona_id"]), self._scenarios.column(batch["scenario_id"])
            key = ((who << 21 | what) << 12 | integers(batch["sample"])) << 1 | contrast
            drawn = np.array([int(item_id[:12], 16) for item_id in ids], np.int64)
            size = _size(batch["reply"]) + _size(batch["line"]) + _size(batch["error"])
            flaw = np.where(replied, 0, self._flaws.column(batch["outcome"]))
            flaw = np.where(_equal(batch["outcome"], "missing"), _MISSING, flaw)
            parts.append((hashes_of(ids), key, drawn, size.astype(np.int32), flaw.astype(np.int32)))
        if parts:
            hashes, arm.keys, arm.drawn, arm.sizes, arm.flaws = map(np.concatenate, zip(*parts, strict=True))
            arm.items = FirstMet(hashes)
        del parts
        arm.fates = np.zeros(len(arm.keys), np.int32)
        self._find_below(arm)
        self._find_fates(arm)
        return arm

    def _find_below(self, arm: Sifted) -> None:
        """The first scorer, in the order of the filters, whose bound a reply is beyond."""
        order = Numbers({name: number for number, name in enumerate(arm.bounds)})
        least = [-math.inf if own.least is None else own.least for own in arm.bounds.values()]
        most = [math.inf if own.most is None else own.most for own in arm.bounds.values()]
        first, below = np.full(len(arm.keys), len(arm.bounds), np.int32), np.zeros(len(arm.bounds), np.int64)
        for batch in batches(arm.folder.scores, ("item_id", "scorer", "value"), as_numbers=("item_id", "scorer")):
            scorers, values = order.column(batch["scorer"]), floats(batch["value"])
            rows = rows_of(arm, batch["item_id"])
            known = (scorers < len(arm.bounds)) & (rows >= 0)
            scorers, rows, values = scorers[known], rows[known], values[known]
            beyond = (values < np.array(least)[scorers]) | (values > np.array(most)[scorers])  # never of no value
            np.minimum.at(first, rows[beyond], scorers[beyond].astype(np.int32))
            below += np.bincount(scorers[beyond], minlength=len(arm.bounds))
        arm.below.update({name: int(count) for name, count in zip(arm.bounds, below, strict=True)})
        flaws = np.array([*(self._flaws.of(name) for name in arm.bounds), 0], np.int32)
        arm.flaws = np.where(arm.flaws == 0, flaws[first], arm.flaws)

    def _find_fates(self, arm: Sifted) -> None:
        for path in sorted(arm.folder.dataset.glob("sft/*.parquet")):
            for batch in batches(path, ("item_id",)):
                arm.fates[_known(arm, batch["item_id"])] = self.fates.of(f"kept in {path.stem}")
        for path in sorted(arm.folder.dataset.glob("rejected/*.parquet")):
            for batch in batches(path, ("item_id", "filter"), as_numbers=("filter",)):
                rows = rows_of(arm, batch["item_id"])
                there = rows >= 0
                fates = np.array(
                    [self.fates.of(f"dropped by {name}") for name in batch["filter"].dictionary.to_pylist()]
                )
                arm.fates[rows[there]] = fates[places(batch["filter"])][there]
                arm.flaws[rows[there]] = self._flaws.column(batch["filter"])[there]

    def choose(self, arms: Sequence[Sifted]) -> list[npt.NDArray[np.bool_]]:
        """For each arm the replies that are shown: the same items in all of them."""
        keys, where, back = np.unique(
            np.concatenate([arm.keys for arm in arms]), return_index=True, return_inverse=True
        )
        flaws, sizes = np.full(len(keys), _MISSING, np.int64), np.zeros(len(keys), np.int64)
        np.maximum.at(flaws, back, np.concatenate([arm.flaws for arm in arms]))
        np.add.at(sizes, back, np.concatenate([arm.sizes for arm in arms]))
        drawn = np.concatenate([arm.drawn for arm in arms])[where]
        order = np.lexsort((drawn, flaws))
        whole = order[flaws[order] == 0]
        flawed = order[flaws[order] > 0]
        turn = np.arange(len(flawed)) - np.searchsorted(flaws[flawed], flaws[flawed])  # of those with the same flaw
        flawed = flawed[np.argsort(turn, kind="stable")]
        room = max(1, SHOWN // len(arms))
        kept_free = min(len(whole), max(room // _WHOLE, room - len(flawed)))
        best = np.concatenate([flawed[: room - kept_free], whole[:kept_free]])
        best = best[np.cumsum(sizes[best]) <= TEXTS]
        return [np.isin(arm.keys, keys[best]) for arm in arms]


_REPLIES = ("item_id", "persona_id", "scenario_id", "sample", "arm", "outcome", "line", "reply", "error")


def rows_of(arm: Sifted, ids: pa.Array) -> Ints:
    """Where these items stand in the arm; -1 for what it does not have."""
    if isinstance(ids, pa.DictionaryArray):
        return rows_of(arm, ids.dictionary)[places(ids)]
    return arm.items.of(ids.to_pylist())


def _known(arm: Sifted, ids: pa.Array) -> Ints:
    rows = rows_of(arm, ids)
    return rows[rows >= 0]


def batches(
    path: Path, columns: Sequence[str], *, as_numbers: Sequence[str] = (), rows: int = 16384
) -> Iterator[dict[str, Any]]:
    """A table's columns by name, some rows at a time; none where there is no table. `item_id` is that of the reply: of several
    turns, each has its own."""
    if not path.exists():
        return
    with pq.ParquetFile(path, read_dictionary=list(as_numbers)) as table:
        turns = ["turn"] if "turn" in table.schema_arrow.names else []
        for batch in table.iter_batches(rows, columns=[*columns, *turns]):
            found = {name: batch.column(name) for name in columns}
            if turns and "item_id" in found and integers(batch.column("turn")).any():
                found["item_id"] = _reply_ids(found["item_id"], batch.column("turn"))
            yield found


def _reply_ids(items: pa.Array, turns: pa.Array) -> pa.Array:
    """As `records.reply_id` has it; numbered, if the items are."""
    numbered = isinstance(items, pa.DictionaryArray)
    items = items.dictionary_decode() if numbered else items
    # No Python value is handed to pyarrow: to make an array of one, it imports pandas.
    later = pc.binary_join_element_wise(items, turns.cast(pa.string()), column_of(["/"], pa.string())[0])
    ids = pc.if_else(turns.cast(pa.bool_()), later, items)
    return ids.dictionary_encode() if numbered else ids


def _equal(column: pa.DictionaryArray, text: str) -> npt.NDArray[np.bool_]:
    return np.array([other == text for other in column.dictionary.to_pylist()], bool)[places(column)]


def places(column: pa.DictionaryArray) -> Ints:
    """In its dictionary."""
    return integers(column.indices)


def integers(column: pa.Array) -> Ints:
    """0 where it is null."""
    return np.where(_there(column), _values(column), 0).astype(np.int64)


def floats(column: pa.Array) -> npt.NDArray[np.float64]:
    """Not a number where it is null."""
    return np.where(_there(column), _values(column), np.nan)


def lengths(texts: pa.Array) -> Ints:
    """In bytes."""
    return integers(pc.binary_length(texts))


def _values(column: pa.Array) -> npt.NDArray[Any]:
    """As they lie in memory: pyarrow's own `to_numpy` imports pandas at the first call, which takes half a second."""
    kind = np.dtype(column.type.to_pandas_dtype())
    return np.frombuffer(column.buffers()[1], kind, len(column), column.offset * kind.itemsize)


def _there(column: pa.Array) -> npt.NDArray[np.bool_]:
    bits = column.buffers()[0]
    if bits is None:
        return np.ones(len(column), bool)
    flags = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")
    return flags[column.offset : column.offset + len(column)].astype(bool)


def _size(texts: pa.Array) -> Ints:
    """Bytes of each as JSON, about."""
    cut = pc.utf8_slice_codeunits(texts, 0, CUT)
    return integers(pc.count_substring_regex(cut, _ESCAPED)) * 5 + lengths(cut)
