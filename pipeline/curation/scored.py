"""Replies read again from the journal, scored, and written as two tables: `replies.parquet` and `scores.parquet`.

Whoever needs the replies iterates over them here, once: the tables are written while the rows pass by. What is said of many
replies is kept and passed on in columns. The second pass, with what needed the whole run, reads the texts from
`replies.parquet`: nothing of them stays in memory.
"""

import json
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import RunConfig
from pipeline.curation.criteria import Panel
from pipeline.records import Score, Turn, Usage
from pipeline.run.plan import CONTRAST
from pipeline.run.produce import Produced
from pipeline.run.tables import TableWriter, column, taken
from pipeline.scorers import Said
from pipeline.stats.latency import busy_seconds, client_bound, tpot

ROWS = 512  # replies in a batch

# What they mean stands at Timing; `total` is all that whoever asked has waited.
_SECONDS = (
    *("e2e", "ttft", "ttfv", "last", "tpot", "gap", "stall", "first_event", "lag"),
    *("queue", "limiter", "backoff", "earlier", "connect", "total"),
)
REPLIES = pa.schema(
    [
        ("item_id", pa.string()),
        ("persona_id", pa.string()),
        ("scenario_id", pa.string()),
        ("category", pa.string()),
        ("world", pa.string()),
        ("sample", pa.int32()),
        ("turn", pa.int32()),  # from 0
        ("arm", pa.string()),  # "contrast" where the persona was left out; else empty
        ("line", pa.string()),
        ("lore", pa.string()),  # what the prompt has out of the lorebook, a list of texts as JSON; null: nothing
        ("reply", pa.string()),  # null: no answer, `error` says why
        ("raw", pa.string()),  # as it came, where thinking or the speaker's name was taken out
        ("error", pa.string()),
        ("outcome", pa.string()),  # reply, empty, error, open (asking again may help) or missing (not asked yet)
        ("finish_reason", pa.string()),
        ("ended", pa.string()),  # why the conversation did (see run/ending.py); null where it goes on, or is open
        ("attempts", pa.int32()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("tokens_by", pa.string()),  # server, tokenizer or estimate
        ("line_prompt_tokens", pa.int64()),  # of the line, where a simulated player said it
        ("line_completion_tokens", pa.int64()),
        ("sent", pa.float64()),  # Unix time
        *((name, pa.float64()) for name in _SECONDS),
        ("reads", pa.int32()),
        ("server", pa.string()),  # its own figures, as JSON
    ]
)
SCORES = pa.schema(
    [
        ("item_id", pa.string()),
        ("persona_id", pa.string()),
        ("scenario_id", pa.string()),
        ("turn", pa.int32()),
        ("scorer", pa.string()),
        ("value", pa.float64()),  # null: not applicable
        ("reason", pa.string()),
        ("evidence", pa.string()),
    ]
)


class Batch(NamedTuple):
    """Replies in the order of the plan, and the scores of those that have any."""

    replies: pa.RecordBatch  # REPLIES
    scored: npt.NDArray[np.int64]  # places in `replies`
    scorers: tuple[str, ...]
    values: npt.NDArray[np.float64]  # a row for each of `scored`, a column for each of `scorers`; NaN: not applicable
    scores: pa.RecordBatch  # SCORES: the same, one after another


class Judge:
    """Asks the scorers about replies, and hands these and their scores over in columns.

    A reply asked for contrast, without its persona, has no scores.
    """

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self._turns: list[Turn] = []
        self._scored: list[int] = []
        self._scores: list[Score] = []

    def __len__(self) -> int:
        return len(self._turns)

    def add(self, *turns: Turn) -> list[dict[str, Score]]:
        """The scores of each; dozens of turns at once are read faster than one after another."""
        judged = [turn for turn in turns if has_scores(turn)]
        found = self._panel.read(judged)
        self._scored += [at for at, turn in enumerate(turns, len(self._turns)) if has_scores(turn)]
        self._turns += turns
        for scores in found:
            self._scores.extend(scores.values())
        left = iter(found)
        return [next(left) if has_scores(turn) else {} for turn in turns]

    def batch(self) -> Batch:
        """What was added since the last one."""
        replies, names, scored = replies_of(self._turns), tuple(self._panel.of_reply), np.array(self._scored, np.int64)
        values = np.array([score.value for score in self._scores], np.float64).reshape(len(scored), len(names))
        batch = Batch(replies, scored, names, values, _scores_of(replies, scored, names, self._scores))
        self._turns, self._scored, self._scores = [], [], []
        return batch


def has_scores(turn: Turn) -> bool:
    return turn.completion is not None and turn.item.arm != CONTRAST


@dataclass(slots=True)
class Load:
    """What the replies took, gathered as they pass: seconds and tokens."""

    sent: "array[float]" = field(default_factory=lambda: array("d"))
    e2e: "array[float]" = field(default_factory=lambda: array("d"))
    ttft: "array[float]" = field(default_factory=lambda: array("d"))
    lag: "array[float]" = field(default_factory=lambda: array("d"))
    prompt_tokens: int = 0
    completion_tokens: int = 0
    player: Counter[str] = field(default_factory=Counter)  # the same, of a simulated player's lines
    counted: Counter[str] = field(default_factory=Counter)  # replies by who counted their tokens
    _failures: Counter[str] = field(default_factory=Counter)
    _kinds: dict[str, str] = field(default_factory=dict)

    def add(self, replies: pa.RecordBatch) -> None:
        for name in ("sent", "e2e", "ttft", "lag"):
            getattr(self, name).extend(replies.column(name).drop_null().to_pylist())
        tokens = (
            replies.column(name).to_pylist() for name in ("sent", "completion_tokens", "prompt_tokens", "tokens_by")
        )
        for sent, completion, prompt, source in zip(*tokens, strict=True):
            if sent is not None and completion is not None:
                self.counted[source] += 1
                self.completion_tokens += completion
                self.prompt_tokens += prompt or 0
        for what in ("prompt", "completion"):
            for count in replies.column(f"line_{what}_tokens").drop_null().to_pylist():
                self.player[what] += count

    def tokens(self, config: RunConfig) -> dict[str, Any]:
        """For a summary: how many tokens by whose count, how fast they came in all, and what they cost (replies that came;
        nobody knows what a failed attempt was charged with)."""
        busy = self.busy()
        used = Usage(prompt_tokens=self.prompt_tokens, completion_tokens=self.completion_tokens)
        player = Usage(prompt_tokens=self.player["prompt"], completion_tokens=self.player["completion"])
        prices = ((used, config.price), (player, config.for_player().price))
        costs = [usage.cost(price) for usage, price in prices if price is not None]
        return {
            **({"cost": sum(costs)} if costs else {}),
            **({"player": dict(self.player)} if self.player else {}),
            "counted_by": dict(self.counted),
            "prompt": self.prompt_tokens,
            "completion": self.completion_tokens,
            "completion_per_second": self.completion_tokens / busy if busy and self.counted else None,
        }

    def fail(self, error: str) -> None:
        """Count a failure: those that differ in nothing but numbers are one."""
        error = " ".join(error.split())[:300]
        kind = re.sub(r"\d+", "#", error)
        self._kinds.setdefault(kind, error)
        self._failures[kind] += 1

    def errors(self) -> dict[str, int]:
        """The most frequent kinds of failures, each by its first."""
        return {self._kinds[kind]: count for kind, count in self._failures.most_common(5)}

    def client_bound(self) -> bool:
        """Whether these figures tell more about this machine than about the server."""
        return client_bound(self.lag, self.ttft or self.e2e)

    def busy(self) -> float:
        """Seconds in which at least one reply was under way."""
        return busy_seconds(self.sent, self.e2e)


class Scored:
    """The replies of a run, once, with their scores; both tables are written while they pass.

        with Scored(produced, panel, load) as scored:
            for turn, scores in scored.turns(): ...      every planned reply in the order of the plan; no answer, no scores
            for scores in scored.of_run(): ...           then, batch by batch, what needed the whole run: by scorer the scores
                                                         of some more of the replies that have any

    Instead of `turns`, `take` has them by the batch.
    """

    def __init__(self, produced: Produced, panel: Panel, load: Load) -> None:
        self._produced, self._panel, self._load = produced, panel, load
        self._replies = TableWriter(produced.folder.replies, REPLIES, keep_empty=True)
        self._scores = TableWriter(produced.folder.scores, SCORES, keep_empty=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._replies.__exit__(kind, exc, traceback)
        self._scores.__exit__(kind, exc, traceback)

    def turns(self) -> Iterator[tuple[Turn, dict[str, Score]]]:
        judge = Judge(self._panel)
        for turn in self._produced.turns():
            (scores,) = judge.add(turn)
            if len(judge) == ROWS:
                self.take(judge.batch())
            yield turn, scores
        if len(judge):
            self.take(judge.batch())

    def take(self, batch: Batch) -> None:
        self._replies.write(batch.replies)
        self._scores.write(batch.scores)
        self._load.add(batch.replies)
        late = self._panel.of_run.values()
        for said in _said(batch.replies.take(column(batch.scored, pa.int64()))):
            for scorer in late:
                scorer.add(said)

    def of_run(self) -> Iterator[dict[str, list[Score]]]:
        names, scorers = tuple(self._panel.of_run), tuple(self._panel.of_run.values())
        self._replies.close(whole=True)
        with pq.ParquetFile(self._produced.folder.replies) as table:
            for replies in table.iter_batches(ROWS, columns=["item_id", *_SAID, "scenario_id", "turn", "arm"]):
                told = zip(
                    replies.column("arm").to_pylist(), replies.column("reply").is_null().to_pylist(), strict=True
                )
                scored = np.array([at for at, (arm, null) in enumerate(told) if arm != CONTRAST and not null], np.int64)
                said = _said(replies.take(column(scored, pa.int64())))
                found = [scorer.score(one) for one in said for scorer in scorers]
                yield {name: found[at :: len(names)] for at, name in enumerate(names)}
                self._scores.write(_scores_of(replies, scored, names, found))


_SAID = ("persona_id", "line", "reply")


def _said(replies: pa.RecordBatch) -> Iterator[Said]:
    return map(Said, *(replies.column(name).to_pylist() for name in _SAID))


def _scores_of(
    replies: pa.RecordBatch, scored: npt.NDArray[np.int64], names: tuple[str, ...], scores: list[Score]
) -> pa.RecordBatch:
    """Rows by scorer for so many replies at once: twenty dictionaries for each would cost more than the scores."""
    of = column(np.repeat(scored, len(names)), pa.int64())
    scorers = np.tile(np.arange(len(names), dtype=np.int32), len(scored))
    return pa.RecordBatch.from_arrays(
        [
            *(replies.column(name).take(of) for name in ("item_id", "persona_id", "scenario_id", "turn")),
            taken(names, scorers),
            column([score.value for score in scores], pa.float64()),
            column([score.reason for score in scores], pa.string()),
            column([score.evidence for score in scores], pa.string()),
        ],
        schema=SCORES,
    )


def replies_of(turns: Sequence[Turn]) -> pa.RecordBatch:
    rows = [_reply_row(turn) for turn in turns]
    return pa.RecordBatch.from_arrays(
        [column([row[field.name] for row in rows], field.type) for field in REPLIES], schema=REPLIES
    )


def _reply_row(turn: Turn) -> dict[str, object]:
    item, completion = turn.item, turn.completion
    timing = completion.timing if completion else None
    return {
        "item_id": item.item_id,
        "persona_id": item.npc.id,
        "scenario_id": item.scenario_id,
        "category": item.category,
        "world": item.npc.world,
        "sample": item.sample,
        "turn": turn.number,
        "arm": item.arm,
        "line": turn.line,
        "lore": json.dumps(turn.lore, ensure_ascii=False) if turn.lore else None,
        "reply": completion.text if completion else None,
        "raw": completion.raw if completion else None,
        "error": None if completion else (turn.error or "not asked yet"),
        "outcome": _outcome(turn),
        "finish_reason": completion.finish_reason if completion else None,
        "ended": turn.ended or None,
        "attempts": completion.attempts if completion else None,
        "prompt_tokens": completion.usage.prompt_tokens if completion else None,
        "completion_tokens": completion.usage.completion_tokens if completion else None,
        "tokens_by": completion.usage.source if completion else None,
        "line_prompt_tokens": turn.line_usage.prompt_tokens if turn.line_usage else None,
        "line_completion_tokens": turn.line_usage.completion_tokens if turn.line_usage else None,
        "sent": timing.sent if timing else None,
        **{name: getattr(timing, name, None) for name in _SECONDS},
        "tpot": tpot(completion) if completion else None,
        "reads": timing.reads if timing else None,
        "server": json.dumps(dict(completion.server)) if completion and completion.server else None,
    }


def _outcome(turn: Turn) -> str:
    if turn.completion is not None:
        return "empty" if turn.completion.empty else "reply"
    if turn.error is None:
        return "missing"
    return "open" if turn.open else "error"
