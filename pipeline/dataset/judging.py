"""Replies judged one by one: scored, and made the rows of a dataset that they may become. Here, or by several processes.

A run that is being asked for is judged here, reply by reply, between two events of the client. Of a run that is there already,
each of as many processes as there are cores takes every n-th batch of the plan, and reads the run folder for itself (`main`).

    parent -- one JSON line: run folder, options, which share --> child's stdin
    parent <-- batches, pickled, in the order of the plan ------- child's stdout

What needs to know more than the one reply is done by whoever takes the batches, in the order of the plan: it is the same with
any number of processes. A child whose parent is gone ends when it next has something to say.
"""

import json
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count, islice
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

import pyarrow as pa

from pipeline.config import RunConfig
from pipeline.curation.criteria import UNTRAINABLE, Panel, load_criteria
from pipeline.curation.curator import Drop
from pipeline.curation.scored import ROWS, Batch, Judge, has_scores
from pipeline.dataset.configs import Rows
from pipeline.dataset.training import Side, TrainingPrompt
from pipeline.errors import ConfigError, RunStopped
from pipeline.personas.load import read_personas
from pipeline.prompts.templates import TemplateFailed, Templates
from pipeline.records import Score, Turn
from pipeline.run.folder import RunFolder
from pipeline.run.produce import Produced, reopen
from pipeline.run.splits import Splitter

_WORTH_IT = 5_000  # replies; a process takes a second to begin
_AT_ONCE = 32  # replies that a scorer reads before the next one does
_AHEAD = 4  # batches that a child may have ready


class Judged(NamedTuple):
    """A batch of replies; the rest is of those that have scores, in the same order."""

    batch: Batch
    rows: pa.RecordBatch
    splits: list[str]
    unfit: dict[int, Drop]  # by number: what no row can be made of
    tokens: list[int]  # of prompt and completion together
    counted_by: set[str]


def judged(
    produced: Produced, panel: Panel, rows: Rows, training: TrainingPrompt, split: Splitter
) -> Iterator[Judged | dict[str, Score]]:
    """All replies of a run in the order of the plan; only the scores of each that comes before its batch is full."""
    if produced.again and _cores() > 1 and produced.count.items >= _WORTH_IT:
        return by_children(produced, split, _cores())
    return _here(produced, _Judging(panel, rows, training, split))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _here(produced: Produced, judging: "_Judging") -> Iterator[Judged | dict[str, Score]]:
    for number, turn in enumerate(produced.turns(), 1):
        (scores,) = judging.add(turn)
        yield judging.batch() if number % ROWS == 0 else scores
    yield judging.batch()


class _Judging:
    def __init__(self, panel: Panel, rows: Rows, training: TrainingPrompt, split: Splitter) -> None:
        self._judge, self._rows, self._training, self._split = Judge(panel), rows, training, split
        self._begin()

    def _begin(self) -> None:
        self._splits: list[str] = []
        self._unfit: dict[int, Drop] = {}
        self._tokens: list[int] = []
        self._counted_by: set[str] = set()

    def add(self, *turns: Turn) -> list[dict[str, Score]]:
        for turn in filter(has_scores, turns):
            self._add(turn)
        return self._judge.add(*turns)

    def _add(self, turn: Turn) -> None:
        try:
            prompt = self._training.prompt(turn)
        except TemplateFailed as exc:
            prompt = "" if self._training.is_text else []
            self._unfit[len(self._tokens)] = Drop(UNTRAINABLE, str(exc), "")
        self._rows.add(turn, prompt)
        self._splits.append(self._split.split(turn.item.npc.id, turn.item.talk or turn.item.scenario_id))
        tokens, counted_by = _tokens(turn, prompt, as_sent=self._training.as_sent)
        self._tokens.append(tokens)
        self._counted_by.add(counted_by)

    def batch(self) -> Judged:
        batch = self._judge.batch()
        found = Judged(batch, self._rows.batch(batch.values), self._splits, self._unfit, self._tokens, self._counted_by)
        self._begin()
        return found


def _tokens(turn: Turn, prompt: Side, *, as_sent: bool) -> tuple[int, str]:
    """Of prompt and completion together, and who counted them. For another prompt than the one sent, it is estimated."""
    assert turn.completion is not None
    usage = turn.completion.usage
    if as_sent and usage.prompt_tokens is not None and usage.completion_tokens is not None:
        return usage.prompt_tokens + usage.completion_tokens, usage.source
    characters = len(prompt) if isinstance(prompt, str) else sum(len(message["content"]) for message in prompt)
    reply = usage.completion_tokens if usage.completion_tokens is not None else len(turn.text) // 4
    return characters // 4 + reply, "estimate"


def by_children(produced: Produced, split: Splitter, number: int) -> Iterator[Judged]:
    """By so many processes. Raises ConfigError as they do, and RunStopped when one is gone."""
    with ExitStack() as stack:
        children = [stack.enter_context(_Child(produced, split, share, number)) for share in range(number)]
        for turn in count():
            found = children[turn % number].batch()
            if found is None:
                return
            yield found


class _Child:
    """`with _Child(...) as child: child.batch()`, until it is None."""

    def __init__(self, produced: Produced, split: Splitter, share: int, number: int) -> None:
        config = produced.config
        self._order = {
            **{"run": str(produced.folder.path), "asked": config.asked()},
            **{"split_by": split.by, "share": share, "number": number},
        }

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            # Without the working directory on its path: a file there may be called pipeline.py.
            [sys.executable, "-P", "-c", "from pipeline.dataset.judging import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the parent
        )
        assert self._process.stdin is not None
        with self._process.stdin as stdin:
            stdin.write(json.dumps(self._order).encode())
        return self

    def batch(self) -> Judged | None:
        assert self._process.stdout is not None
        try:
            said = pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError) as exc:
            code = self._process.wait()
            raise RunStopped(
                f"a process that was judging replies ended with code {code}. The same command tries again."
            ) from exc
        if isinstance(said, ConfigError | RunStopped):
            raise said
        found: Judged | None = said
        return found

    def __exit__(self, *exc: object) -> None:
        assert self._process.stdout is not None
        self._process.kill()
        self._process.stdout.close()
        self._process.wait()


def _share(produced: Produced, split: Splitter, share: int, number: int) -> Iterator[Judged]:
    config = produced.config
    panel = load_criteria(config.settings, config.scorers).panel(lambda: read_personas(produced.plan.personas))
    training = TrainingPrompt(config, Templates(config.prompts))
    judging = _Judging(panel, rows_of(produced, panel, training), training, split)
    items = iter(produced.plan)
    for block in count():
        some = list(islice(items, ROWS))
        if not some:
            return
        if block % number == share:
            turns = produced.script.walk(some, produced.journal, produced.target.dialect).turns()
            while at_once := tuple(islice(turns, _AT_ONCE)):
                judging.add(*at_once)
            yield judging.batch()


def rows_of(produced: Produced, panel: Panel, training: TrainingPrompt) -> Rows:
    model = produced.target.model or produced.target.identity
    return Rows(model=model, training=training, several=produced.config.turns != 1, scorers=panel.of_reply)


def _serve(order: dict[str, Any], pipe: IO[bytes]) -> None:
    waiting: queue.Queue[Judged | ConfigError | RunStopped | None] = queue.Queue(_AHEAD)

    def write() -> None:
        while True:
            said = waiting.get()
            try:
                pickle.dump(said, pipe, pickle.HIGHEST_PROTOCOL)
                pipe.flush()
            except OSError:  # the parent is gone
                os._exit(1)
            if not isinstance(said, Judged):
                return

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        produced = reopen(RunFolder(Path(order["run"])))
        produced.config = RunConfig(**order["asked"])
        for found in _share(produced, Splitter(order["split_by"]), order["share"], order["number"]):
            waiting.put(found)
        waiting.put(None)
    except (ConfigError, RunStopped) as exc:
        waiting.put(exc)
    writer.join()


def main() -> None:
    # The pipe must carry nothing but batches: whatever a user's scorer prints goes where errors go.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _serve(json.load(sys.stdin), answer)
