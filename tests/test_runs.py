import json
from pathlib import Path

import pytest
from aiohttp import web
from click.testing import CliRunner
from fakes import FakeServer

from pipeline import ConfigError, load_run
from pipeline.cli import cli
from pipeline.runfolder import RunFolder
from pipeline.scorers import SCORERS

LEAK, REFUSED = "Line 0,", "Line 1,"


def fault(body):
    said = body["messages"][-1]["content"]
    if said.startswith(LEAK):
        choice = {"index": 0, "message": {"role": "assistant", "content": "I'm a chatbot."}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice]})
    return web.json_response({"error": "no"}, status=400) if said.startswith(REFUSED) else None


def make(folder: Path, command: str, fault=None) -> Path:
    people = [{"id": f"npc-{n}", "name": f"Npc {n}", "description": "a guard", "world": "Gate"} for n in range(4)]
    acts = [{"id": f"s-{n}", "category": "greeting", "turns": [f"Line {n}, well?"]} for n in range(3)]
    for name, rows in (("personas", people), ("scenarios", acts)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    inputs = ["--personas", str(folder / "personas.jsonl"), "--scenarios", str(folder / "scenarios.jsonl")]
    with FakeServer(fault=fault) as server:
        options = [
            *inputs,
            "--server",
            server.url,
            "--per-persona",
            "all",
            "--samples",
            "2",
            "--out",
            str(folder / "run"),
        ]
        CliRunner().invoke(cli, [command, *options], catch_exceptions=False)
    return folder / "run"


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    return make(tmp_path_factory.mktemp("generated"), "generate", fault)


def test_a_frame_has_one_row_for_each_planned_reply(generated):
    run = load_run(generated)
    frame = run.frame()
    assert len(frame) == run.manifest["planned"]["items"] == 24
    assert frame["item_id"].is_unique
    assert set(frame["persona_id"]) == {f"npc-{n}" for n in range(4)} and set(frame["world"]) == {"Gate"}
    assert set(frame["sample"]) == {0, 1}
    assert frame["line"].str.startswith("Line ").all()


def test_a_frame_has_a_column_for_each_scorer(generated):
    frame = load_run(generated).frame()
    assert set(SCORERS) <= set(frame.columns)
    leaked = frame["scenario_id"] == "s-0"
    assert (frame.loc[leaked, "in_character"] == 0).all()
    assert (frame.loc[frame["scenario_id"] == "s-2", "in_character"] == 1).all()


def test_the_filter_column_says_what_dropped_a_row_and_nothing_for_kept_ones(generated):
    frame = load_run(generated).frame()
    by_scenario = frame.groupby("scenario_id")["filter"].agg(lambda found: set(found.dropna()))
    assert by_scenario["s-0"] == {"in_character"}
    assert by_scenario["s-2"] == {""}
    kept = load_run(generated).results()["generate"]["kept"]
    assert (frame["filter"] == "").sum() == kept == 8


def test_a_failed_reply_is_null_with_its_error_and_was_neither_kept_nor_dropped(generated):
    frame = load_run(generated).frame()
    failed = frame[frame["scenario_id"] == "s-1"]
    assert failed["reply"].isna().all() and failed["filter"].isna().all()
    assert failed["error"].str.contains("400").all()
    assert failed[list(SCORERS)].isna().all(axis=None)
    assert frame.loc[frame["scenario_id"] != "s-1", "error"].isna().all()


def test_timings_are_in_seconds(generated):
    frame = load_run(generated).frame()
    answered = frame[frame["reply"].notna()]
    assert ((answered["e2e"] > 0) & (answered["e2e"] < 60)).all()
    assert (answered["attempts"] == 1).all()


def test_a_run_with_nothing_dropped_has_an_empty_filter_everywhere(tmp_path):
    frame = load_run(make(tmp_path, "generate")).frame()
    assert (frame["filter"] == "").all()


def test_a_run_of_eval_has_no_filter_column(tmp_path):
    run = load_run(make(tmp_path, "eval", fault))
    frame = run.frame()
    assert len(frame) == 24 and "filter" not in frame.columns
    assert frame["ttft"].notna().sum() == 8  # what was streamed
    assert list(run.results()) == ["eval"]


def test_a_run_in_which_all_failed_still_has_its_rows(tmp_path):
    refuses = make(tmp_path, "generate", lambda body: web.json_response({"error": "no"}, status=400))
    frame = load_run(refuses).frame()
    assert len(frame) == 24 and frame["reply"].isna().all() and frame["error"].notna().sum() > 0


def test_its_repr_says_which_run_it_is(generated):
    assert repr(load_run(generated)) == f"<Run {generated} (generate, finished)>"
    assert repr(load_run(str(generated))) == repr(load_run(generated))


def test_a_folder_that_is_no_run_is_named(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match=r"no run there \(no run\.json\)"):
            load_run(path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 99}', "\x00"])
def test_a_manifest_that_is_not_ours_is_refused(content, tmp_path):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ConfigError, match=r"run\.json"):
        load_run(tmp_path)


def test_an_unfinished_run_says_how_to_go_on(tmp_path):
    RunFolder(tmp_path).write_manifest({"command": "generate", "finished": None})
    run = load_run(tmp_path)
    assert "not finished" in repr(run)
    for ask in (run.frame, run.results):
        with pytest.raises(ConfigError, match=f"pipeline generate --resume {tmp_path}"):
            ask()


def test_tables_that_are_gone_can_be_made_again(tmp_path):
    path = make(tmp_path, "generate", fault)
    before = load_run(path).frame()
    (path / "replies.parquet").unlink()
    with pytest.raises(ConfigError, match=f"pipeline eval {path}"):
        load_run(path).frame()
    assert CliRunner().invoke(cli, ["eval", str(path)]).exit_code == 0
    assert load_run(path).frame().equals(before)
