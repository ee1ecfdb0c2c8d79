"""What `pipeline generate` leaves under dataset/: rows a trainer takes, a card that is true, and nothing lost."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from aiohttp import web
from click.testing import CliRunner
from fakes import FakeServer

from pipeline.cli import cli
from pipeline.dataset.make import making_dataset
from pipeline.progress import Silent
from pipeline.run.folder import RunFolder
from pipeline.run.produce import exhaust, reopen
from pipeline.run.splits import KNOWN, NEW, SPLITS, TRAIN, Splitter

PERSONAS, SCENARIOS = 30, 12
PROVENANCE = ["item_id", "persona_id", "scenario_id", "category", "sample", "turn", "template", "model", "seed"]


def make_dataset(produced):
    return exhaust(produced, making_dataset, Silent())


def write_inputs(folder: Path, personas: int = PERSONAS, scenarios: int = SCENARIOS) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "personas.jsonl").open("w") as file:
        for n in range(personas):
            file.write(
                json.dumps({"id": f"npc-{n}", "name": f"Npc {n}", "description": f"the keeper of gate {n}"}) + "\n"
            )
    with (folder / "scenarios.jsonl").open("w") as file:
        for n in range(scenarios):
            row = {"id": f"scenario-{n}", "category": "greeting", "turns": [f"Line {n}, what say you?"]}
            file.write(json.dumps(row) + "\n")


def answer(text, finish_reason="stop"):
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 5}})


def by_line(table):
    """A fault that answers some of the player's lines in its own way: text, or an HTTP status."""

    def fault(body):
        said = body["messages"][-1]["content"]
        for start, wanted in table.items():
            if said.startswith(start):
                if isinstance(wanted, int):
                    return web.json_response({"error": {"message": "too \x1b[31mlong"}}, status=wanted)
                return answer(wanted)
        return None

    return fault


FAULTS = {
    "Line 0,": "As an AI language model, I keep no gate.",
    "Line 1,": "The same thing to everybody.",
    "Line 2,": "The same thing to everybody!",
    "Line 3,": 400,
}


def generate(inputs: Path, out: Path, server: FakeServer, *options: str):
    sources = ["--personas", str(inputs / "personas.jsonl"), "--scenarios", str(inputs / "scenarios.jsonl")]
    command = ["generate", "--server", server.url, *sources, "--per-persona", "all", "--out", str(out), *options]
    return CliRunner().invoke(cli, command, catch_exceptions=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run with kept, dropped, doubled and failed replies: its folder, and what the command printed as JSON."""
    folder = tmp_path_factory.mktemp("dataset")
    write_inputs(folder)
    with FakeServer(fault=by_line(FAULTS)) as server:
        result = generate(folder, folder / "run", server, "--json", "--set", "overused=off")
    assert result.exit_code == 0, result.stderr
    return folder / "run", json.loads(result.stdout)


@pytest.fixture(scope="module")
def nothing_kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nothing")
    write_inputs(folder, 3, 2)
    with FakeServer(fault=lambda body: answer("I'm just an AI.")) as server:
        result = generate(folder, folder / "run", server)
    return folder / "run", result


@pytest.fixture(scope="module")
def all_kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("all")
    write_inputs(folder, 3, 2)
    with FakeServer() as server:
        result = generate(folder, folder / "run", server)
    assert result.exit_code == 0
    return folder / "run"


LOADS = """
import json, sys
from datasets import load_dataset
found = {}
for folder, config in json.loads(sys.argv[1]):
    splits = load_dataset(folder, config)
    found[folder + " " + config] = {n: [list(s.features), len(s), s[0] if len(s) else None] for n, s in splits.items()}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def loaded(made, nothing_kept, all_kept, tmp_path_factory):
    """Every config as `datasets` reads it, with no way to the hub and no cache to fall back on."""
    wanted = [(made[0], "sft"), (made[0], "rejected"), (nothing_kept[0], "rejected")]
    wanted += [(all_kept, "sft")]
    paths = [(str(run / "dataset"), config) for run, config in wanted]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path_factory.mktemp("hf"))}
    done = subprocess.run(
        [sys.executable, "-c", LOADS, json.dumps(paths)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return lambda run, config: found[f"{run / 'dataset'} {config}"]


def rows(run: Path, config: str) -> list[dict]:
    return [
        row for path in sorted((run / "dataset" / config).glob("*.parquet")) for row in pq.read_table(path).to_pylist()
    ]


def head_of(run: Path) -> dict:
    _, head, _ = (run / "dataset" / "README.md").read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(head)


def test_datasets_loads_the_splits_that_the_card_names(made, loaded):
    run, summary = made
    splits = loaded(run, "sft")
    named = next(c for c in head_of(run)["configs"] if c["config_name"] == "sft")
    assert [file["split"] for file in named["data_files"]] == list(splits) == list(SPLITS)
    assert {name: count for name, (_, count, _) in splits.items()} == summary["splits"]
    assert {f"{name}.parquet" for name in splits} == {p.name for p in (run / "dataset" / "sft").iterdir()}


def test_rows_are_prompt_and_completion_as_a_trainer_wants_them(made, loaded):
    run, _ = made
    columns, _, row = loaded(run, "sft")[TRAIN]
    assert columns[: 2 + len(PROVENANCE)] == ["prompt", "completion", *PROVENANCE]
    assert all(name.startswith("score_") for name in columns[2 + len(PROVENANCE) :])
    assert [m["role"] for m in row["prompt"]] == ["system", "user"]
    assert [list(m) for m in row["prompt"] + row["completion"]] == [["role", "content"]] * 3
    assert [m["role"] for m in row["completion"]] == ["assistant"] and row["completion"][0]["content"]


def test_provenance_says_where_a_row_comes_from(made):
    for row in rows(made[0], "sft"):
        number = row["scenario_id"].removeprefix("scenario-")
        assert row["prompt"][1]["content"] == f"Line {number}, what say you?"
        assert row["persona_id"].replace("npc-", "You are Npc ") in row["prompt"][0]["content"]
        assert (row["model"], row["template"], row["sample"]) == ("fake-model", "npc/default", 0)
        assert row["seed"] is not None and row["score_in_character"] == 1


def test_rejected_rows_are_all_there_with_filter_reason_and_evidence(made, loaded):
    run, summary = made
    columns, count, _ = loaded(run, "rejected")[TRAIN]
    assert columns[-3:] == ["filter", "reason", "evidence"] and columns[:2] == ["prompt", "completion"]
    assert count == sum(summary["dropped"].values())
    dropped = rows(run, "rejected")
    assert {row["filter"] for row in dropped} == set(summary["dropped"]) == {"in_character", "duplicate"}
    for row in dropped:
        assert row["reason"] and row["evidence"]
        if row["filter"] == "in_character":
            assert row["evidence"] in row["completion"][0]["content"]


def test_every_reply_asked_for_is_accounted_for(made):
    run, summary = made
    dropped = sum(summary["dropped"].values())
    assert summary["asked"] == PERSONAS * SCENARIOS
    assert summary["kept"] + dropped + summary["failed"] + summary["missing"] == summary["asked"]
    assert summary["failed"] == sum(summary["errors"].values()) == PERSONAS
    ids = [row["item_id"] for config in ("sft", "rejected") for row in rows(run, config)]
    assert len(ids) == len(set(ids)) == summary["kept"] + dropped == summary["answered"]


def test_of_equal_replies_one_is_kept_and_the_others_name_it(made):
    kept = {row["item_id"]: row for row in rows(made[0], "sft")}
    same = [row for row in kept.values() if row["scenario_id"] in ("scenario-1", "scenario-2")]
    assert sorted(row["persona_id"] for row in same) == sorted(
        f"npc-{n}" for n in range(PERSONAS)
    )  # five words are short
    doubles = [row for row in rows(made[0], "rejected") if row["filter"] == "duplicate"]
    assert len(doubles) == PERSONAS
    assert all(kept[row["evidence"]]["persona_id"] == row["persona_id"] for row in doubles)


def test_no_row_stands_in_a_split_it_could_leak_from(made):
    by_split = {name: pq.read_table(made[0] / "dataset" / "sft" / f"{name}.parquet").to_pylist() for name in SPLITS}
    ids = {name: {row["persona_id"] for row in found} for name, found in by_split.items()}
    assert not ids[NEW] & (ids[TRAIN] | ids[KNOWN])
    scenarios = {name: {row["scenario_id"] for row in found} for name, found in by_split.items()}
    assert not scenarios[KNOWN] & scenarios[TRAIN]
    for name, found in by_split.items():
        assert all(Splitter("both").split(row["persona_id"], row["scenario_id"]) == name for row in found)


def test_the_card_says_how_the_rows_came_about(made):
    run, summary = made
    card = (run / "dataset" / "README.md").read_text("utf-8")
    head = head_of(run)
    assert [c["config_name"] for c in head["configs"]] == ["sft", "preference", "kto", "rejected"]
    for words in (
        "| model | `fake-model` |",
        "| licence of the model | see the model's own licence |",
        "| generating prompt | `npc/default` |",
        "| training prompt | `as it was sent` |",
        f"| asked for | {summary['asked']} |",
        f"| failed | {summary['failed']} |",
        f"| dropped by `in_character` | {summary['dropped']['in_character']} |",
        f"| **kept** | **{summary['kept']}** |",
        *(f"| {name} | {count} |" for name, count in summary["splits"].items()),
        "at the 95th percentile, with as many as served best at a time",
    ):
        assert words in card
    assert "not worth training on" not in card
    assert "not asked yet" not in card


def test_only_the_demonstration_model_is_warned_of(made, tmp_path):
    run = copied(made[0], tmp_path)
    produced = reopen(RunFolder(run))
    make_dataset(replace(produced, target=replace(produced.target, demo=True, licence="Apache-2.0")))
    produced.journal.close()
    card = (run / "dataset" / "README.md").read_text("utf-8")
    assert "not worth training on" in card and "| licence of the model | `Apache-2.0` |" in card


def test_nothing_kept_is_exit_code_1_and_the_dropped_can_be_read(nothing_kept, loaded):
    run, result = nothing_kept
    assert result.exit_code == 1
    assert "Nothing was kept" in result.stdout and "rejected" in result.stdout
    assert loaded(run, "rejected")[TRAIN][1] == 6
    assert [c["config_name"] for c in head_of(run)["configs"]] == ["kto", "rejected"]  # bad examples are examples
    assert not (run / "dataset" / "sft").exists()


def test_where_nothing_was_dropped_no_config_is_promised_that_cannot_be_loaded(all_kept):
    assert [c["config_name"] for c in head_of(all_kept)["configs"]] == ["sft", "preference", "kto"]
    assert "there is no config `rejected`" in (all_kept / "dataset" / "README.md").read_text("utf-8")
    assert not (all_kept / "dataset" / "rejected").exists()


def test_an_empty_split_is_left_out_and_said(all_kept, loaded):
    # Three personas: by scenario only, and neither of these two scenarios is held out.
    assert list(loaded(all_kept, "sft")) == [TRAIN]
    card = (all_kept / "dataset" / "README.md").read_text("utf-8")
    assert "3 personas are too few to hold some out" in card
    assert f"no rows for {KNOWN} and {NEW}: left out" in card


def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copy"))


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_made_again_the_dataset_has_the_same_bytes(made, tmp_path):
    run = copied(made[0], tmp_path)
    shutil.rmtree(run / "dataset")
    produced = reopen(RunFolder(run))
    make_dataset(produced)
    produced.journal.close()
    assert bytes_of(run / "dataset") == bytes_of(made[0] / "dataset")


class BreaksOff:
    """A script that fails in the midst of its turns, as a full disk or a bug would."""

    def __init__(self, script, after):
        self._script, self._after = script, after

    def walk(self, *about):
        self._walk = self._script.walk(*about)
        return self

    def turns(self):
        for n, turn in enumerate(self._walk.turns()):
            if n == self._after:
                raise OSError("No space left on device")
            yield turn


@pytest.mark.parametrize("after", [0, 200])
def test_a_crash_while_it_is_made_leaves_the_old_dataset_whole(made, tmp_path, after):
    run = copied(made[0], tmp_path)
    before = bytes_of(run)
    produced = reopen(RunFolder(run))
    with pytest.raises(OSError, match="No space"):
        make_dataset(replace(produced, script=BreaksOff(produced.script, after)))
    kept = bytes_of(run)
    assert {name: kept[name] for name in before} == before
    make_dataset(produced)  # what the crash left lying about is no obstacle
    produced.journal.close()
    assert bytes_of(run) == before


HOSTILE = "evil`|\n---\nconfigs: []\n| x | <script>alert(1)</script> [a](b) ![c](d) {{ }} \x1b[31m \u2028"


def test_names_from_elsewhere_cannot_break_the_card(tmp_path):
    inputs = tmp_path / "a`b|c\n---\n# <b>d"
    write_inputs(inputs, 2, 2)
    with FakeServer(models=(HOSTILE,)) as server:
        result = generate(inputs, tmp_path / "run", server, "--model", HOSTILE)
    assert result.exit_code == 0
    card = (tmp_path / "run" / "dataset" / "README.md").read_text("utf-8")
    assert [c["config_name"] for c in head_of(tmp_path / "run")["configs"]] == ["sft", "preference", "kto"]
    assert card.count("\n---\n") == 1  # the end of the YAML
    tables = [line for line in card.splitlines() if line.startswith("|")]
    for table in card.split("\n\n"):
        assert len({line.count("|") for line in table.splitlines() if line.startswith("|")}) <= 1
    assert "<" not in card and "\x1b" not in card and "\u2028" not in card
    model = next(line for line in tables if line.startswith("| model |"))
    assert model.count("`") == 2 and "alert(1)" in model
    # In the rows it stands as it is: data, not markup.
    assert {row["model"] for row in rows(tmp_path / "run", "sft")} == {HOSTILE}
