"""Replies read again from the journal, scored, and written as two tables: `replies.parquet` and `scores.parquet`.

Whoever needs the replies iterates over them here, once: the tables are written while the rows pass by. Between the two passes
only the texts stay in memory.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from pipeline.criteria import Panel
from pipeline.latency import busy_seconds, client_bound, tpot
from pipeline.plan import CONTRAST
from pipeline.produce import Produced
from pipeline.records import Score, Turn, Usage
from pipeline.scorers import Said
from pipeline.tables import TableWriter, column, repeated, taken

_ROWS = 1024  # replies whose scores are written at once

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
        ("arm", pa.string()),  # "contrast" where the persona was left out; else empty
        ("line", pa.string()),
        ("reply", pa.string()),  # null: no answer, `error` says why
        ("raw", pa.string()),  # as it came, where thinking or the speaker's name was taken out
        ("error", pa.string()),
        ("outcome", pa.string()),  # reply, empty, error, open (asking again may help) or missing (not asked yet)
        ("finish_reason", pa.string()),
        ("attempts", pa.int32()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("tokens_by", pa.string()),  # server, tokenizer or estimate
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
        ("scorer", pa.string()),
        ("value", pa.float64()),  # null: not applicable
        ("reason", pa.string()),
        ("evidence", pa.string()),
    ]
)


@dataclass(slots=True)
class Load:
    """What the replies took, gathered as they pass: seconds and tokens."""

    sent: list[float] = field(default_factory=list)
    e2e: list[float] = field(default_factory=list)
    ttft: list[float] = field(default_factory=list)
    tpot: list[float] = field(default_factory=list)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    gap: list[float] = field(default_factory=list)
    lag: list[float] = field(default_factory=list)
    ttfv: list[float] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)  # replies by who counted their tokens
    _failures: Counter[str] = field(default_factory=Counter)
    _kinds: dict[str, str] = field(default_factory=dict)

    def add(self, turn: Turn) -> None:
        completion = turn.completion
        if completion is None or completion.timing is None:
            return
        timing, usage = completion.timing, completion.usage
        self.sent.append(timing.sent)
        self.e2e.append(timing.e2e)
        if timing.lag is not None:
            self.lag.append(timing.lag)
        if timing.ttft is not None:
            self.ttft.append(timing.ttft)
        if timing.ttfv is not None:
            self.ttfv.append(timing.ttfv)
        if timing.gap is not None:
            self.gap.append(timing.gap)
        if (per_token := tpot(completion)) is not None:
            self.tpot.append(per_token)
        if usage.completion_tokens is not None:
            self.counted[usage.source] += 1
            self.completion_tokens += usage.completion_tokens
            self.prompt_tokens += usage.prompt_tokens or 0

    def tokens(self, price: tuple[float, float] | None) -> dict[str, Any]:
        """For a summary: how many tokens by whose count, how fast they came in all, and what they cost (replies that came;
        nobody knows what a failed attempt was charged with)."""
        busy = self.busy()
        used = Usage(prompt_tokens=self.prompt_tokens, completion_tokens=self.completion_tokens)
        return {
            **({"cost": used.cost(price)} if price is not None else {}),
            "counted_by": dict(self.counted),
            "prompt": self.prompt_tokens,
            "completion": self.completion_tokens,
            "completion_per_second": self.completion_tokens / busy if busy and self.counted else None,
        }

    def hidden(self) -> list[float]:
        """Times to the first visible content, where any reply began with what a player does not see."""
        return self.ttfv if self.ttfv != self.ttft else []

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
            for scores in scored.of_run(): ...           then, for each scored one again, what needed the whole run

    A reply asked for contrast, without its persona, is in `replies.parquet` and has no scores.
    """

    def __init__(self, produced: Produced, panel: Panel, load: Load) -> None:
        self._produced, self._panel, self._load = produced, panel, load
        self._replies = TableWriter(produced.folder.replies, REPLIES, keep_empty=True)
        self._scores = TableWriter(produced.folder.scores, SCORES, keep_empty=True)
        self._said: list[tuple[Said, str, str]] = []
        self._rows: list[tuple[str, str, str, dict[str, Score]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None and self._rows:
            self._flush()
        self._replies.__exit__(kind, exc, traceback)
        self._scores.__exit__(kind, exc, traceback)

    def turns(self) -> Iterator[tuple[Turn, dict[str, Score]]]:
        of_reply, of_run = self._panel.of_reply, self._panel.of_run.values()
        for turn in self._produced.turns():
            self._load.add(turn)
            self._replies.add(_reply_row(turn))
            if turn.completion is None or turn.item.arm == CONTRAST:
                yield turn, {}
                continue
            item = turn.item
            scores = {name: scorer(turn) for name, scorer in of_reply.items()}
            self._write(item.item_id, item.npc.id, item.scenario_id, scores)
            said = Said(item.npc.id, turn.line, turn.text)
            for late in of_run:
                late.add(said)
            self._said.append((said, item.item_id, item.scenario_id))
            yield turn, scores

    def of_run(self) -> Iterator[dict[str, Score]]:
        for said, item_id, scenario_id in self._said:
            scores = {name: scorer.score(said) for name, scorer in self._panel.of_run.items()}
            self._write(item_id, said.persona_id, scenario_id, scores)
            yield scores

    def _write(self, item_id: str, persona_id: str, scenario_id: str, scores: dict[str, Score]) -> None:
        self._rows.append((item_id, persona_id, scenario_id, scores))
        if len(self._rows) == _ROWS:
            self._flush()

    def _flush(self) -> None:
        """Rows by scorer for so many replies at once: twenty dictionaries for each would cost more than the scores."""
        rows, self._rows = self._rows, []
        sizes = np.array([len(row[3]) for row in rows], np.int32)
        if not sizes.sum():
            return
        item_ids, personas, scenarios, _ = zip(*rows, strict=True)
        names = list(dict.fromkeys(name for row in rows for name in row[3]))
        number_of = {name: number for number, name in enumerate(names)}
        scorers = np.array([number_of[name] for row in rows for name in row[3]], np.int32)
        flat = [score for row in rows for score in row[3].values()]
        self._scores.write(
            pa.RecordBatch.from_arrays(
                [
                    *(repeated(ids, sizes) for ids in (item_ids, personas, scenarios)),
                    taken(names, scorers),
                    column([score.value for score in flat], pa.float64()),
                    column([score.reason for score in flat], pa.string()),
                    column([score.evidence for score in flat], pa.string()),
                ],
                schema=SCORES,
            )
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
        "arm": item.arm,
        "line": turn.line,
        "reply": completion.text if completion else None,
        "raw": completion.raw if completion else None,
        "error": None if completion else (turn.error or "not asked yet"),
        "outcome": _outcome(turn),
        "finish_reason": completion.finish_reason if completion else None,
        "attempts": completion.attempts if completion else None,
        "prompt_tokens": completion.usage.prompt_tokens if completion else None,
        "completion_tokens": completion.usage.completion_tokens if completion else None,
        "tokens_by": completion.usage.source if completion else None,
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
