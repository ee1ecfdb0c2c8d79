"""The configs of a dataset as Parquet: what a trainer takes as it stands.

    sft             prompt, completion                        every reply that was kept
    conversations   messages, turns                           conversations of several turns, each up to its first flaw
    preference      prompt, chosen, rejected, kind, margin    pairs (see curation/pairs.py)
    kto             prompt, completion, label                 kept ones, and those that a scorer dropped
    rejected        the same as sft, with filter, reason, evidence

Prompts and completions are lists of {role, content}, TRL's conversational format, or texts where the training prompt is one. The
other columns say where a row comes from and how it scored.

Rows wait in a file of their own until all are judged; then each batch goes to where it belongs, column by column.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.curation.criteria import DUPLICATE, LIMITS
from pipeline.curation.curator import Candidates
from pipeline.curation.pairs import Pair
from pipeline.dataset.training import Side, TrainingPrompt
from pipeline.records import Turn
from pipeline.run.splits import SPLITS
from pipeline.run.tables import TableWriter, Values, column

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_PROVENANCE: list[tuple[str, pa.DataType]] = [
    ("item_id", pa.string()),
    ("persona_id", pa.string()),
    ("scenario_id", pa.string()),
    ("category", pa.string()),
    ("sample", pa.int32()),
    ("turn", pa.int32()),
    ("template", pa.string()),
    ("model", pa.string()),
    ("seed", pa.int64()),
]
_ROWS = 2048  # at once: with fewer, each column of a few hundred costs more than what is in it
CONFIGS = ("sft", "conversations", "preference", "kto", "rejected")
_NO_FLAW = (DUPLICATE, *LIMITS)  # why a reply of a whole conversation need not leave

Counts = dict[str, dict[str, int]]


class Rows:
    """Makes rows of replies, one after another, and hands them over in columns. What becomes of them is not known yet.

    `several`: their conversations may have several turns, and want to be put together again.
    """

    def __init__(
        self, *, model: str, training: TrainingPrompt, several: bool = False, scorers: Iterable[str] = ()
    ) -> None:
        self._model, self._training = model, training
        self._rows: list[tuple[Any, ...]] = []
        self.side = pa.string() if training.is_text else _MESSAGES
        # A text does not say which of its words are the player's, who is not to be learned from.
        self.several = several and not training.is_text
        more = [("said", _MESSAGES)] if self.several else []
        self._said = pa.schema([("prompt", self.side), ("completion", self.side), *_PROVENANCE, *more])
        self.schema = pa.schema([*self._said, *((f"score_{name}", pa.float64()) for name in scorers)])

    def add(self, turn: Turn, prompt: Side) -> None:
        item, request = turn.item, turn.request
        assert request is not None
        self._rows.append(
            (
                *(prompt, self._training.completion(prompt, turn.text)),
                *(item.item_id, item.npc.id, item.scenario_id, item.category, item.sample, turn.number),
                *(item.template, self._model, request.config.seed),
                *((self._training.said(turn, prompt) if prompt else [],) if self.several else ()),
            )
        )

    def batch(self, scores: npt.NDArray[np.float64]) -> pa.RecordBatch:
        """What was added since the last one. `scores` has a row for each, and a column for each scorer (NaN: not applicable)."""
        columns = zip(*self._rows, strict=True) if self._rows else ((),) * len(self._said)
        arrays = [column(values, field.type) for values, field in zip((*columns, *scores.T), self.schema, strict=True)]
        self._rows = []
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


class Waiting:
    """The rows of all candidates, until they are judged."""

    def __init__(self, folder: Path, rows: Rows, training: TrainingPrompt) -> None:
        self._side, self._several, self._training = rows.side, rows.several, training
        self._path = folder / "waiting.arrow"
        self._batches: list[pa.RecordBatch] = []
        # Of what is read once from its beginning to its end, nothing has to be kept in memory: no places, no statistics.
        self._stream = pa.ipc.new_stream(self._path, rows.schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))

    def add(self, batch: pa.RecordBatch) -> None:
        self._batches.append(batch)
        if sum(map(len, self._batches)) >= _ROWS:
            self._put_down()

    def _put_down(self) -> None:
        self._stream.write(pa.Table.from_batches(self._batches).combine_chunks())
        self._batches.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if self._batches and kind is None:
            self._put_down()
        self._stream.close()
        if kind is not None:
            self._path.unlink()

    def write(
        self,
        folder: Path,
        candidates: Candidates,
        scores: Mapping[str, Values],
        pairs: Iterable[Pair],
    ) -> Counts:
        """All configs, under `folder`; returns the rows by config and split. `scores` by name (NaN: not applicable) are those that
        a row has not yet; `pairs` come in the order of the rows."""
        waiting = _Until(pairs)
        split_of = np.array([SPLITS.index(split) for split in candidates.splits], np.int8)
        counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        with ExitStack() as stack:
            tables: dict[tuple[str, str], TableWriter] = {}

            def put(config: str, split: str, batch: pa.RecordBatch) -> None:
                if not batch.num_rows:
                    return
                if (config, split) not in tables:
                    path = folder / config / f"{split}.parquet"
                    tables[config, split] = stack.enter_context(TableWriter(path, batch.schema))
                tables[config, split].write(batch)
                counts[config][split] += batch.num_rows

            talks = _Conversations(candidates)
            end = 0
            for batch in stack.enter_context(pa.ipc.open_stream(stack.enter_context(pa.OSFile(str(self._path))))):
                places = range(end, end := end + batch.num_rows)
                if self._several:
                    talks.add(batch, places)
                    for name, rows in talks.take():
                        put("conversations", name, rows)
                    batch = batch.drop_columns(["said"])
                batch = _with(
                    batch,
                    {
                        f"score_{name}": (pa.float64(), values[places.start : places.stop])
                        for name, values in scores.items()
                    },
                )
                drops = [candidates.drops.get(place) for place in places]
                kept = np.array([drop is None for drop in drops], bool)
                told = np.array(
                    [
                        drop is None or (drop.filter in candidates.scorers and bool(candidates.texts[place].strip()))
                        for place, drop in zip(places, drops, strict=True)
                    ],
                    bool,
                )
                split = split_of[places.start : places.stop]
                put("rejected", "train", _rejected(_chosen(batch, ~kept), [drop for drop in drops if drop is not None]))
                labelled = _labelled(batch, kept)
                pairs_here = self._pairs(batch, waiting.take(places.stop), candidates, places.start)
                paired = np.array([split_of[pair.chosen] for pair in pairs_here[1]], np.int8)
                for index, name in enumerate(SPLITS):
                    put("sft", name, _chosen(batch, kept & (split == index)))
                    put("kto", name, _chosen(labelled, told & (split == index)))
                    if pairs_here[0] is not None:
                        put("preference", name, _chosen(pairs_here[0], paired == index))
                pa.default_memory_pool().release_unused()
            if self._several:
                for name, rows in talks.take(whole=True):
                    put("conversations", name, rows)
        self._path.unlink()
        return {
            config: {split: counts[config][split] for split in SPLITS if counts[config][split]}
            for config in CONFIGS
            if counts[config]
        }

    def _pairs(
        self, batch: pa.RecordBatch, pairs: list[Pair], candidates: Candidates, start: int
    ) -> tuple[pa.RecordBatch | None, list[Pair]]:
        if not pairs:
            return None, []
        rows = batch.take(column([pair.chosen - start for pair in pairs], pa.int64()))
        prompts = rows.column("prompt").to_pylist() if self._training.is_text else [[]] * len(pairs)
        rejected = [
            self._training.completion(prompt, pair.rejected) for prompt, pair in zip(prompts, pairs, strict=True)
        ]
        names = ["chosen" if name == "completion" else name for name in rows.schema.names]
        rows = pa.RecordBatch.from_arrays(rows.columns, names=names)
        extra: dict[str, tuple[pa.DataType, Values]] = {
            "rejected": (self._side, rejected),
            "kind": (pa.string(), [pair.kind for pair in pairs]),
            "margin": (pa.float64(), [pair.margin for pair in pairs]),
            "rejected_item_id": (pa.string(), [pair.of or None for pair in pairs]),
        }
        return _with(rows, extra, at=2), pairs


class _Until:
    """The pairs, batch by batch: nobody holds them all."""

    def __init__(self, pairs: Iterable[Pair]) -> None:
        self._rest = iter(pairs)
        self._next = next(self._rest, None)

    def take(self, end: int) -> list[Pair]:
        """Those that are left with something chosen before `end`."""
        found = []
        while self._next is not None and self._next.chosen < end:
            found.append(self._next)
            self._next = next(self._rest, None)
        return found


class _Conversations:
    """Puts the turns of each conversation together again, up to its first flaw."""

    _SCHEMA = pa.schema(
        [
            ("messages", _MESSAGES),
            ("turns", pa.int32()),
            *(one for one in _PROVENANCE if one[0] not in ("turn", "seed")),
        ]
    )

    def __init__(self, candidates: Candidates) -> None:
        self._candidates = candidates
        self._rows: list[tuple[str, dict[str, Any]]] = []  # with their splits, in the order of the plan
        self._flawed = False

    def add(self, batch: pa.RecordBatch, places: range) -> None:
        for place, row in zip(places, batch.to_pylist(), strict=True):
            drop = self._candidates.drops.get(place)
            self._flawed = (self._flawed and row["turn"] > 0) or (drop is not None and drop.filter not in _NO_FLAW)
            if self._flawed:
                continue
            if row["turn"] == 0:
                self._rows.append((self._candidates.splits[place], {**row, "messages": [], "turns": 0}))
            talk = self._rows[-1][1]
            talk["messages"] += row["said"] + row["completion"]
            talk["turns"] += 1

    def take(self, *, whole: bool = False) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Rows by split; the last conversation may go on unless all is `whole`."""
        end = len(self._rows) if whole else max(len(self._rows) - 1, 0)
        ready, self._rows = self._rows[:end], self._rows[end:]
        for split in SPLITS:
            rows = [row for of, row in ready if of == split]
            columns = [column([row[one.name] for row in rows], one.type) for one in self._SCHEMA]
            yield split, pa.RecordBatch.from_arrays(columns, schema=self._SCHEMA)


def _rejected(batch: pa.RecordBatch, drops: Sequence[Any]) -> pa.RecordBatch:
    return _with(
        batch,
        {name: (pa.string(), [getattr(drop, name) for drop in drops]) for name in ("filter", "reason", "evidence")},
    )


def _labelled(batch: pa.RecordBatch, kept: Values) -> pa.RecordBatch:
    return _with(batch, {"label": (pa.bool_(), kept)}, at=2)


def _chosen(batch: pa.RecordBatch, mask: Any) -> pa.RecordBatch:
    return batch.take(column(np.flatnonzero(mask), pa.int64()))


def _with(
    batch: pa.RecordBatch, extra: Mapping[str, tuple[pa.DataType, Values]], at: int | None = None
) -> pa.RecordBatch:
    """The batch with more columns, at its end or from column `at` on."""
    at = batch.num_columns if at is None else at
    added = [column(values, kind) for kind, values in extra.values()]
    names = batch.schema.names
    return pa.RecordBatch.from_arrays(
        [*batch.columns[:at], *added, *batch.columns[at:]], names=[*names[:at], *extra, *names[at:]]
    )
