"""From a run's answers to the dataset: scored, kept or dropped, split, written as Parquet with a card.

    dataset/README.md                      the card; its `configs` make load_dataset(folder, "sft") work
    dataset/sft/<split>.parquet            prompt, completion (lists of {role, content}: TRL's format) and provenance
    dataset/rejected/train.parquet         the same, with filter, reason and evidence

Nothing in these tables depends on when or how fast a reply came: the same answers give the same bytes. Latency stands in
`replies.parquet` and on the card.
"""

import contextlib
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.autolimit import Change
from pipeline.card import write_card
from pipeline.curate import DUPLICATE, FILTERS, Curator, Drop
from pipeline.latency import quantile
from pipeline.produce import Produced, Steps, exhaust
from pipeline.records import Score, Turn
from pipeline.scored import Load, scored, scorer_names
from pipeline.splits import SPLITS, splitter
from pipeline.tables import TableWriter

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_PROVENANCE: list[tuple[str, pa.DataType]] = [
    ("item_id", pa.string()),
    ("persona_id", pa.string()),
    ("scenario_id", pa.string()),
    ("category", pa.string()),
    ("sample", pa.int32()),
    ("template", pa.string()),
    ("model", pa.string()),
    ("seed", pa.int64()),
    *((f"score_{name}", pa.float64()) for name in scorer_names()),
]
SFT = pa.schema([("prompt", _MESSAGES), ("completion", _MESSAGES), *_PROVENANCE])
REJECTED = pa.schema([*SFT, ("filter", pa.string()), ("reason", pa.string()), ("evidence", pa.string())])


@dataclass(slots=True)
class Made:
    """What became of a run's replies. `dropped` has a count for every filter, in their order; `examples` one drop of each."""

    asked: int = 0
    answered: int = 0
    failed: int = 0
    missing: int = 0  # not asked yet: the run was interrupted
    open: int = 0  # of the failed and the missing, those that resuming will ask (again)
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: dict.fromkeys([*FILTERS, DUPLICATE], 0))
    examples: dict[str, str] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    words: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    load: Load = field(default_factory=Load)
    price: tuple[float, float] | None = None
    at_a_time: int | str = "auto"
    limits: list[Change] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """As it is printed and stored: times in seconds. `concurrency.history` is of the last that asked anything."""
        return {
            "asked": self.asked,
            "answered": self.answered,
            "failed": self.failed,
            "missing": self.missing,
            "open": self.open,
            "kept": self.kept,
            "dropped": {name: count for name, count in self.dropped.items() if count},
            "examples": self.examples,
            "errors": self.load.errors(),
            "splits": {name: count for name, count in self.splits.items() if count},
            "notes": self.notes,
            "latency": {
                "e2e_p50": quantile(self.load.e2e, 0.5).value,
                "e2e_p95": quantile(self.load.e2e, 0.95).value,
            }
            if self.load.e2e
            else None,
            "client_bound": self.load.client_bound(),
            "concurrency": {"asked": self.at_a_time, "history": [change._asdict() for change in self.limits]},
            "tokens": self.load.tokens(self.price),
        }


def make_dataset(produced: Produced) -> Made:
    """The dataset of a run as it stands."""
    return exhaust(making_dataset(produced))


def making_dataset(produced: Produced) -> Steps[Made]:
    """Score, curate and write everything under `dataset/`; the old one is replaced only when the new one is whole."""
    made = Made(asked=produced.count.items, at_a_time=produced.target.at_a_time, price=produced.config.price)
    split, note = splitter(produced.config.split_by, produced.count.personas)
    if note:
        made.notes.append(note)
    curator = Curator()
    final = produced.folder.dataset
    aside = final.with_name(f".{final.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    with contextlib.ExitStack() as stack:
        tables = {name: stack.enter_context(TableWriter(aside / "sft" / f"{name}.parquet", SFT)) for name in SPLITS}
        rejected = stack.enter_context(TableWriter(aside / "rejected" / "train.parquet", REJECTED, keep_empty=True))
        for turn, scores in scored(produced, made.load):
            yield
            if turn.completion is None:
                made.open += turn.open
                if turn.error is None:
                    made.missing += 1
                else:
                    made.failed += 1
                    made.load.fail(turn.error)
                continue
            made.answered += 1
            drop = curator.verdict(turn, scores)
            row = _row(turn, scores, produced)
            if drop is not None:
                made.dropped[drop.filter] += 1
                made.examples.setdefault(drop.filter, _example(turn, drop))
                rejected.add({**row, "filter": drop.filter, "reason": drop.reason, "evidence": drop.evidence})
                continue
            made.kept += 1
            made.words.append(len(turn.text.split()))
            name = split.split(turn.item.npc.id, turn.item.scenario_id)
            made.splits[name] += 1
            tables[name].add(row)
    made.limits = produced.limits
    if made.kept and (empty := [name for name, count in made.splits.items() if not count]):
        made.notes.append(f"no rows for {' and '.join(empty)}: left out")
    write_card(aside, produced, made.summary(), made.words)
    _replace(final, aside)
    return made


def _row(turn: Turn, scores: dict[str, Score], produced: Produced) -> dict[str, Any]:
    item, request = turn.item, turn.request
    assert request is not None
    return {
        "prompt": [{"role": m.role, "content": m.content} for m in request.messages],
        "completion": [{"role": "assistant", "content": turn.text}],
        "item_id": item.item_id,
        "persona_id": item.npc.id,
        "scenario_id": item.scenario_id,
        "category": item.category,
        "sample": item.sample,
        "template": item.template,
        "model": produced.target.model or produced.target.identity,
        "seed": request.config.seed,
        **{f"score_{name}": score.value for name, score in scores.items()},
    }


def _example(turn: Turn, drop: Drop) -> str:
    said = _one_line(turn.text)
    return f"{_one_line(turn.item.npc.name)}: {said[:100]}{'...' if len(said) > 100 else ''} ({drop.reason})"


def _one_line(text: str) -> str:
    """The summary is shown in terminals, also as JSON: nothing in it that they would obey."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _replace(final: Path, aside: Path) -> None:
    old = final.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        os.replace(final, old)
    os.replace(aside, final)
    shutil.rmtree(old, ignore_errors=True)
