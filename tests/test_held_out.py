"""`pipeline eval --from RUN`: exactly what that run's dataset never trains on, known and new NPCs apart."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from fakes import FakeServer

from pipeline.cli import cli
from pipeline.cli.configure import selected_on
from pipeline.errors import ConfigError


def pipeline(*arguments):
    return CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of 40 personas in 12 scenarios, and an evaluation of what it holds out."""
    folder = tmp_path_factory.mktemp("held")
    people = [{"id": f"n{n}", "name": f"Npc {n}", "description": f"the ferryman of pier {n}"} for n in range(40)]
    acts = [{"id": f"s{n}", "category": "greeting", "turns": [f"Line {n}?"]} for n in range(12)]
    for name, rows in (("personas", people), ("scenarios", acts)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    with FakeServer() as server:
        inputs = ["--personas", folder / "personas.jsonl", "--scenarios", folder / "scenarios.jsonl"]
        options = ["--server", server.url, "--set", "voice=off", "--set", "overused=off"]
        made = pipeline("generate", *inputs, *options, "--per-persona", 6, "--out", folder / "made")
        assert made.exit_code == 0, made.output
        found = pipeline(
            "eval", "--from", folder / "made", *options, "--per-persona", "all", "--out", folder / "e", "--json"
        )
        assert found.exit_code == 0, found.output
    return folder, json.loads(found.stdout)


def test_nothing_that_is_trained_on_is_asked(runs):
    folder, summary = runs
    asked = {(r["persona_id"], r["scenario_id"]) for r in pq.read_table(folder / "e" / "replies.parquet").to_pylist()}
    assert list((folder / "made" / "dataset" / "sft").glob("test_new_npcs*"))
    for path in (folder / "made" / "dataset" / "sft").glob("train*"):
        of_train = {(r["persona_id"], r["scenario_id"]) for r in pq.read_table(path).to_pylist()}
        assert of_train and not of_train & asked
    assert summary["asked"] == len(asked)


def test_known_and_new_npcs_are_told_apart(runs):
    _, summary = runs
    assert set(summary["by_split"]) == {"test_known_npcs", "test_new_npcs"}
    known, new = (summary["by_split"][name]["box_length"] for name in ("test_known_npcs", "test_new_npcs"))
    assert known["n"] + new["n"] == summary["scores"]["box_length"]["n"]
    assert known["clusters"] + new["clusters"] == summary["personas"]


def test_its_scores_are_marked_as_those_that_chose_the_training_data(runs):
    _, summary = runs
    assert summary["scores"]["in_character"]["selected_on"]


def test_a_score_that_a_later_curation_leaves_out_chose_nothing(runs, tmp_path):
    folder, _ = runs
    assert "in_character" in selected_on(folder / "made") and "voice" not in selected_on(folder / "made")
    run = shutil.copytree(folder / "made", tmp_path / "made")
    assert pipeline("curate", run, "--set", "in_character=off").exit_code == 0
    assert set(selected_on(folder / "made")) - set(selected_on(run)) == {"in_character"}
    (run / "dataset" / "curation.yaml").write_text("- no criteria", "utf-8")
    with pytest.raises(ConfigError, match="pipeline curate"):
        selected_on(run)
    shutil.rmtree(run / "dataset")  # then the manifest tells
    assert "in_character" in selected_on(run)


def test_a_run_without_a_dataset_and_a_suite_beside_it_are_refused(runs):
    folder, _ = runs
    with pytest.raises(ConfigError, match="holds out tests"):
        pipeline("eval", "--from", folder / "e", "--server", "http://127.0.0.1:9")
    found = pipeline("eval", "--from", folder / "made", "--suite", "npc")
    assert found.exit_code == 2 and "--suite" in found.output
