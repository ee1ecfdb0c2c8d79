"""What curating again has changed: which criteria, and which replies were kept before and are dropped now, or the other way."""

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline.curation.curator import Candidates
from pipeline.records import reply_id

_EXAMPLES = 3  # of each kind of change
KEPT = ""  # instead of a filter


@dataclass(frozen=True, slots=True)
class Change:
    """`count` replies that `before` dropped ("": kept) and `now` drops; the first of them with persona, text and reason."""

    before: str
    now: str
    count: int
    examples: list[tuple[str, str, str]]


@dataclass(frozen=True, slots=True)
class Changes:
    """`criteria` as "slop.max 20 -> 8"; `added` and `gone` replies are new since, or not there any more."""

    criteria: list[str]
    replies: list[Change]
    added: int
    gone: int

    def summary(self) -> dict[str, Any]:
        return asdict(self)


class Before:
    """The fate of each reply in the dataset that is there; of none if there is none, or none that can be read.

    Held are 9 bytes a reply: a hash of its id, and the number of its filter.
    """

    def __init__(self, dataset: Path) -> None:
        self._ids, self._fates = array("q"), bytearray()
        self._filters = [KEPT]
        self.criteria: dict[str, Any] = {}
        self.there = dataset.is_dir()
        if not self.there:
            return
        import pyarrow as pa

        try:
            if (made_by := dataset / "curation.yaml").exists():
                self.criteria = yaml.safe_load(made_by.read_text("utf-8")) or {}
            for path in sorted(dataset.glob("sft/*.parquet")):
                for batch in _read(path, "item_id", "turn"):
                    ids = _reply_ids(batch)
                    self._add(ids, [KEPT] * len(ids))
            for path in dataset.glob("rejected/*.parquet"):
                for batch in _read(path, "item_id", "turn", "filter"):
                    self._add(_reply_ids(batch), batch.column("filter").to_pylist())
        except (OSError, ValueError, yaml.YAMLError, LookupError, pa.ArrowException):
            self.there, self.criteria = False, {}

    def __len__(self) -> int:
        return len(self._ids)

    def _add(self, item_ids: list[str], filters: list[str]) -> None:
        for name in set(filters).difference(self._filters):
            self._filters.append(name)
        self._ids.extend(map(hash, item_ids))
        self._fates.extend(map(self._filters.index, filters))

    def fates(self, item_ids: Iterable[str]) -> list[str | None]:
        """Of each, the filter that dropped it or KEPT; None: it was not there."""
        known, fates = np.frombuffer(self._ids, np.int64), np.frombuffer(self._fates, np.uint8)
        wanted = np.fromiter(map(hash, item_ids), np.int64)
        if not len(known):
            return [None] * len(wanted)
        order = np.argsort(known, kind="stable")
        place = order[np.minimum(known.searchsorted(wanted, sorter=order), len(known) - 1)]
        found = np.where(known[place] == wanted, fates[place], len(self._filters))
        names = [*self._filters, None]
        return [names[number] for number in found.tolist()]


def _read(path: Path, *columns: str) -> Any:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)  # older datasets know nothing of turns
    return file.iter_batches(columns=[name for name in columns if name in file.schema_arrow.names])


def _reply_ids(batch: Any) -> list[str]:
    ids: list[str] = batch.column("item_id").to_pylist()
    if "turn" not in batch.schema.names:
        return ids
    return [reply_id(item_id, turn) for item_id, turn in zip(ids, batch.column("turn").to_pylist(), strict=True)]


def changes(before: Before, candidates: Candidates, criteria: Mapping[str, Any]) -> Changes | None:
    """None: there was no dataset before."""
    if not before.there:
        return None
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
    fates = before.fates(candidates.item_ids)
    added = fates.count(None)
    for place, was in enumerate(fates):
        drop = candidates.drops.get(place)
        now = drop.filter if drop else KEPT
        if was is not None and was != now:
            counts[was, now] += 1
            shown = examples.setdefault((was, now), [])
            if len(shown) < _EXAMPLES:
                shown.append((candidates.personas[place], candidates.texts[place], drop.reason if drop else ""))
    return Changes(
        criteria=_differences(before.criteria, criteria),
        replies=[Change(was, now, count, examples[was, now]) for (was, now), count in counts.most_common()],
        added=added,
        gone=len(before) - (len(fates) - added),
    )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    old, new = _flat(before), _flat(now)
    if not old:
        return []
    return [
        f"{name} {_spelled(old.get(name, 'not there'))} -> {_spelled(new.get(name, 'left out'))}"
        for name in dict.fromkeys([*new, *old])
        if old.get(name) != new.get(name)
    ]


def _spelled(value: Any) -> str:
    """As --set takes it."""
    return "none" if value is None else {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def _flat(table: Mapping[str, Any]) -> dict[str, Any]:
    """Names as --set has them: slop.max, duplicates.prompt."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        if name == "filters" and isinstance(value, Mapping):
            flat.update(_flat(value))
        elif isinstance(value, Mapping):
            flat.update({f"{name}.{key}": inner for key, inner in value.items()})
        elif value is not False:  # left out
            flat[name] = value
    return flat
