"""Judged by several processes, a run is what it is judged by one."""

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner
from fakes import FakeServer, calm

from pipeline.cli import cli
from pipeline.curation.criteria import load_criteria
from pipeline.dataset.judging import Judged, by_children, judged, rows_of
from pipeline.dataset.training import TrainingPrompt
from pipeline.errors import ConfigError, RunStopped
from pipeline.prompts.templates import Templates
from pipeline.run.folder import RunFolder
from pipeline.run.produce import reopen
from pipeline.run.splits import Splitter

REPLIES = 1200  # more than two batches
SPLIT = Splitter("both")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judging")
    rows = ({"id": f"npc-{n}", "name": f"Npc {n}", "description": "a smith"} for n in range(REPLIES // 12))
    (folder / "personas.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    rows = ({"id": f"s-{n}", "category": "c", "turns": [f"Line {n}, what say you?"]} for n in range(4))
    (folder / "scenarios.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    sources = ["--personas", str(folder / "personas.jsonl"), "--scenarios", str(folder / "scenarios.jsonl")]
    with FakeServer() as server:
        options = [*sources, *calm("non_empty", "finished", "slop", "true_to_facts", "overused"), "--contrast"]
        command = ["generate", "--server", server.url, "--out", str(folder / "run"), "--per-persona", "all", *options]
        result = CliRunner().invoke(cli, [*command, "--samples", "3"], catch_exceptions=False)
    assert result.exit_code in (0, 1), result.stderr
    return folder / "run"


@contextlib.contextmanager
def opened(run: Path, **changes):
    produced = reopen(RunFolder(run))
    produced.config = replace(produced.config, **changes)
    with contextlib.closing(produced.journal):
        yield produced


def whole(batches):
    """Everything that is said of the replies, however it came in batches."""
    found = [batch for batch in batches if isinstance(batch, Judged)]
    return {
        "replies": pa.Table.from_batches([one.batch.replies for one in found]).to_pylist(),
        "scores": pa.Table.from_batches([one.batch.scores for one in found]).to_pylist(),
        "rows": pa.Table.from_batches([one.rows for one in found]).to_pylist(),
        "splits": [split for one in found for split in one.splits],
        "unfit": [drop for one in found for drop in one.unfit.values()],
        "tokens": [tokens for one in found for tokens in one.tokens],
        "counted_by": set().union(*(one.counted_by for one in found)),
    }


@pytest.fixture(scope="module")
def here(run):
    """By this process alone."""
    with opened(run) as produced:
        training = TrainingPrompt(produced.config, Templates(produced.config.prompts))
        panel = load_criteria(produced.config.settings).panel(list)
        return whole(judged(produced, panel, rows_of(produced, panel, training), training, SPLIT))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_several_processes_find_what_one_does_in_the_same_order(run, here, number):
    with opened(run) as produced:
        there = whole(by_children(produced, SPLIT, number))
    assert len(here["replies"]) == REPLIES + REPLIES // 3 and len(here["rows"]) == REPLIES
    assert there == here


def test_a_scorer_of_one_s_own_judges_there_too_and_what_it_prints_is_no_batch(run, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from pipeline import Score\nprint('begun')\ndef loud(turn):\n    print(turn.text)\n    return Score(0.25)\n",
        "utf-8",
    )
    with opened(run, scorers=(f"{tmp_path / 'mine.py'}:loud",)) as produced:
        scores = whole(by_children(produced, SPLIT, 2))["scores"]
    assert [row["value"] for row in scores if row["scorer"] == "loud"] == [0.25] * REPLIES


def test_what_is_wrong_there_is_said_here(run, tmp_path):
    (tmp_path / "mine.py").write_text("def broken(turn):\n    return turn.no_such_thing\n", "utf-8")
    with (
        opened(run, scorers=(f"{tmp_path / 'mine.py'}:broken",)) as produced,
        pytest.raises(ConfigError, match="broken"),
    ):
        list(by_children(produced, SPLIT, 2))


def test_a_process_that_dies_is_no_end_of_the_replies(run, tmp_path):
    (tmp_path / "mine.py").write_text("import os\ndef gone(turn):\n    os._exit(7)\n", "utf-8")
    with opened(run, scorers=(f"{tmp_path / 'mine.py'}:gone",)) as produced, pytest.raises(RunStopped, match="code 7"):
        list(by_children(produced, SPLIT, 2))


@pytest.mark.skipif(os.name == "nt", reason="looks for processes by ps")
def test_whoever_stops_listening_leaves_no_process_behind(run):
    def ours():
        listed = subprocess.run(["ps", "-o", "args=", "--ppid", str(os.getpid())], capture_output=True, text=True)
        return [
            line for line in listed.stdout.splitlines() if "pipeline.dataset.judging" in line and sys.executable in line
        ]

    with opened(run) as produced:
        batches = by_children(produced, SPLIT, 2)
        next(batches)
        assert len(ours()) == 2
        batches.close()
        assert not ours()
