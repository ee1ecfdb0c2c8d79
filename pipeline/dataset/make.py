"""From a run's answers to the dataset: scored, kept or dropped, paired, split, written as Parquet with a card.

    dataset/README.md                      the card; its `configs` make load_dataset(folder, "sft") work
    dataset/curation.yaml                  the criteria it was made by
    dataset/<config>/<split>.parquet       see configs.py

Nothing in these tables depends on when or how fast a reply came: the same answers give the same bytes. Latency stands in
`replies.parquet` and on the card.
"""

import shutil
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import yaml

from pipeline.client.autolimit import Change
from pipeline.config import RunConfig
from pipeline.curation.changes import Before, Changes, changes
from pipeline.curation.criteria import (
    AFTER_FLAW,
    DUPLICATE,
    LIMITS,
    TRAINING_PROMPT,
    UNTRAINABLE,
    Criteria,
    load_criteria,
)
from pipeline.curation.curator import Candidates, Curator, Drop
from pipeline.curation.diversity import Diversity, diversity
from pipeline.curation.pairs import Pair, pairs
from pipeline.curation.scored import Load, Scored
from pipeline.dataset.card import write_card
from pipeline.dataset.configs import Waiting
from pipeline.dataset.judging import Judged, judged, rows_of
from pipeline.dataset.training import TrainingPrompt
from pipeline.personas.load import read_personas
from pipeline.prompts.templates import Templates
from pipeline.run.folder import RunFolder, replace_folder, restore_folder
from pipeline.run.plan import CONTRAST
from pipeline.run.prepare import Seen
from pipeline.run.produce import Produced, Steps
from pipeline.run.splits import SPLITS, Splitter, splitter
from pipeline.stats.latency import quantile


@dataclass(slots=True)
class Made:
    """What became of a run's replies. `dropped` has a count for every filter, in their order; `examples` one drop of each."""

    config: RunConfig
    asked: int = 0  # replies: one a turn
    answered: int = 0
    failed: int = 0
    missing: int = 0  # not asked yet: the run was interrupted
    open: int = 0  # of the failed and the missing, those that resuming will ask (again)
    contrast: int = 0  # of the answered, those without their persona
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    configs: dict[str, dict[str, int]] = field(default_factory=dict)  # rows by config and split
    pairs: dict[str, int] = field(default_factory=dict)  # by kind
    split_by: str = ""
    diversity: Diversity | None = None
    by_persona: dict[str, Diversity] = field(default_factory=dict)
    tokens_a_row: "array[int]" = field(default_factory=lambda: array("q"))  # of kept ones, prompt and completion
    tokens_by: str = ""
    words: "array[int]" = field(default_factory=lambda: array("q"))  # of kept replies
    training: str = ""
    notes: list[str] = field(default_factory=list)
    load: Load = field(default_factory=Load)
    at_a_time: int | str = "auto"
    limits: list[Change] = field(default_factory=list)
    ended: Counter[str] = field(default_factory=Counter)  # conversations, by why they did; see run/ending.py
    changes: Changes | None = None  # against the dataset that was there before

    def summary(self) -> dict[str, Any]:
        """As it is printed and stored: times in seconds. `concurrency.history` is of the last that asked anything."""
        return {
            "asked": self.asked,
            "answered": self.answered,
            "failed": self.failed,
            "missing": self.missing,
            "ended": dict(self.ended.most_common()),
            "open": self.open,
            "contrast": self.contrast,
            "kept": self.kept,
            "dropped": {name: count for name, count in self.dropped.items() if count},
            "examples": self.examples,
            "errors": self.load.errors(),
            "splits": self.configs.get("sft", {}),
            "configs": self.configs,
            "pairs": self.pairs,
            "split_by": self.split_by,
            "training_prompt": self.training,
            "diversity": self.diversity,
            "diversity_by_persona": self.by_persona,
            "row_tokens": {
                "counted_by": self.tokens_by,
                "p50": int(quantile(self.tokens_a_row, 0.5).value),
                "p95": int(quantile(self.tokens_a_row, 0.95).value),
                "max": max(self.tokens_a_row),
            }
            if self.tokens_a_row
            else None,
            "notes": self.notes,
            "latency": {
                "e2e_p50": quantile(self.load.e2e, 0.5).value,
                "e2e_p95": quantile(self.load.e2e, 0.95).value,
            }
            if self.load.e2e
            else None,
            "client_bound": self.load.client_bound(),
            "concurrency": {"asked": self.at_a_time, "history": [change._asdict() for change in self.limits]},
            "tokens": self.load.tokens(self.config),
        }


def making_dataset(produced: Produced) -> Steps[Made]:
    """Score, curate and write everything under `dataset/`; the old one is replaced only when the new one is whole."""
    config, folder = produced.config, produced.folder
    criteria = load_criteria(config.settings, config.scorers)
    training = TrainingPrompt(config, Templates(config.prompts))
    made = Made(config=config, at_a_time=produced.target.at_a_time, training=training.name)
    restore_folder(folder.dataset)
    before = Before(folder.dataset)
    split, note = _splitter(folder, config.split_by, produced.count.personas)
    made.split_by = split.by
    if note:
        made.notes.append(note)
    aside = folder.dataset.with_name(f".{folder.dataset.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    panel = criteria.panel(lambda: read_personas(produced.plan.personas))
    curator, tokens, counted_by = Curator(criteria, folder.path), array("q"), set[str]()
    rows = rows_of(produced, panel, training)
    with Scored(produced, panel, made.load) as scored, Waiting(aside, rows, training) as waiting:
        seen = Seen()
        for found in judged(produced, panel, rows, training, split):
            if isinstance(found, Judged):
                scored.take(found.batch)
                curator.take(found.batch, found.splits, found.unfit)
                waiting.add(found.rows)
                tokens.extend(found.tokens)
                counted_by |= found.counted_by
                _count(made, found.batch.replies)
                dropped = len(curator.candidates.drops)
                seen = Seen(made.asked, len(curator.candidates) - dropped, dropped)
            else:
                seen = seen.next(criteria.passes(found) if found else None)
            yield seen
        candidates = curator.decide(scored.of_run())
    paired = pairs(candidates, curator.contrast, criteria.preference)
    made.configs = waiting.write(aside, candidates, curator.late, _counted(paired, made.pairs))
    made.limits = produced.limits
    made.tokens_by = " and ".join(sorted(counted_by))
    _tell(made, candidates, criteria, tokens)
    made_by = {TRAINING_PROMPT: training.name, **criteria.plain()}
    made.changes = changes(before, candidates, made_by)
    plain = yaml.safe_dump(made_by, sort_keys=False, allow_unicode=True)
    (aside / "curation.yaml").write_text(plain, "utf-8", newline="\n")
    write_card(aside, produced, made.summary(), made.words)
    replace_folder(folder.dataset, aside)
    return made


def _counted(paired: Iterable[Pair], counts: dict[str, int]) -> Iterator[Pair]:
    for pair in paired:
        counts[pair.kind] = counts.get(pair.kind, 0) + 1
        yield pair


def _count(made: Made, replies: pa.RecordBatch) -> None:
    """What came of the asking."""
    outcomes = Counter(replies.column("outcome").to_pylist())
    made.asked += len(replies)
    made.ended.update(replies.column("ended").drop_null().to_pylist())
    made.answered += outcomes["reply"] + outcomes["empty"]
    made.failed += outcomes["error"] + outcomes["open"]
    made.missing += outcomes["missing"]
    made.open += outcomes["open"] + outcomes["missing"]
    told = (replies.column(name).to_pylist() for name in ("outcome", "arm", "error"))
    for outcome, arm, error in zip(*told, strict=True):
        if outcome in ("error", "open"):
            made.load.fail(error)
        elif outcome != "missing":
            made.contrast += arm == CONTRAST


def _tell(made: Made, candidates: Candidates, criteria: Criteria, tokens: "array[int]") -> None:
    """What the candidates' fate adds up to."""
    order = (UNTRAINABLE, *criteria.filters, AFTER_FLAW, DUPLICATE, *LIMITS)
    dropped = Counter(drop.filter for drop in candidates.drops.values())
    made.dropped = {name: dropped[name] for name in order}
    for place, drop in candidates.drops.items():
        if drop.filter not in made.examples:
            made.examples[drop.filter] = _example(candidates, place, drop)
    kept = candidates.kept()
    made.kept = len(kept)
    made.words.extend(len(candidates.texts[place].split()) for place in kept)
    made.tokens_a_row.extend(tokens[place] for place in kept)
    personas: dict[str, array[int]] = {}
    for place in kept:
        persona = candidates.personas[place]
        if len(personas) < _PERSONAS or persona in personas:
            personas.setdefault(persona, array("q")).append(place)

    def varied(places: Iterable[int]) -> Diversity:
        return diversity((candidates.item_ids[place], candidates.texts[place]) for place in places)

    made.diversity = varied(kept)
    made.by_persona = {persona: varied(places) for persona, places in personas.items()}
    empty = [name for name in SPLITS if name not in made.configs.get("sft", {})]
    if made.kept and empty:
        made.notes.append(f"no rows for {' and '.join(empty)}: left out")


_PERSONAS = 200  # whose diversity is told one by one


def _splitter(folder: RunFolder, asked: str, personas: int) -> tuple[Splitter, str]:
    """What a run was split by before holds: else a twentieth persona would move rows that were trained on."""
    found, note = splitter(asked, personas)
    if found.by != "scenario" and folder.results_of("generate").get("split_by") == "scenario":
        return Splitter("scenario"), "split by scenario only, as before: else rows that were trained on would move"
    return found, note


def _example(candidates: Candidates, place: int, drop: Drop) -> str:
    said = one_line(candidates.texts[place])
    persona = one_line(candidates.personas[place])
    return f"{persona}: {said[:100]}{'...' if len(said) > 100 else ''} ({one_line(drop.reason)})"


def one_line(text: str) -> str:
    """The summary is shown in terminals, also as JSON: nothing in it that they would obey."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
