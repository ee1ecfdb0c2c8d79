import json
import re
import socket
from pathlib import Path

import pytest
from aiohttp import web
from click.testing import CliRunner
from fakes import FakeServer

import pipeline
from pipeline import ConfigError, load_run
from pipeline.cli import cli
from pipeline.run.folder import RunFolder
from pipeline.scorers import SCORERS

LEAK, REFUSED = "Line 0,", "Line 1,"


def fault(body):
    said = body["messages"][-1]["content"]
    if said.startswith(LEAK):
        choice = {"index": 0, "message": {"role": "assistant", "content": "I'm a chatbot."}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice]})
    return web.json_response({"error": "no"}, status=400) if said.startswith(REFUSED) else None


def make(folder: Path, command: str, fault=None, *more: str) -> Path:
    folder.mkdir(exist_ok=True)
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
            *more,
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


# What a notebook asks of a run


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    return make(tmp_path_factory.mktemp("evaluated"), "eval", fault)


@pytest.fixture(scope="module")
def arms(tmp_path_factory):
    return make(tmp_path_factory.mktemp("arms"), "eval", fault, "--arm", "cool:", "--arm", "hot:temperature=1.5")


def test_latency_is_what_eval_says_with_its_intervals(evaluated):
    run = load_run(evaluated)
    found, told = run.latency(), run.results()["eval"]["latency"]
    assert list(found.index) == [name for name in ("e2e", "ttft", "tpot") if name in told] and "e2e" in told
    for name, row in found.iterrows():
        assert row["n"] == told[name]["n"]
        for q in ("p50", "p95", "p99"):
            ends = [told[name][q][end] for end in ("value", "low", "high")]
            assert [None if value != value else value for value in row[[q, f"{q}_low", f"{q}_high"]]] == ends


def test_latency_leaves_out_what_was_asked_for_contrast(tmp_path):
    run = load_run(make(tmp_path, "generate", None, "--contrast"))
    assert len(run.frame()) == 36
    assert run.latency().loc["e2e", "n"] == 24 and "ttft" not in run.latency().index  # generate does not stream
    assert run.funnel().loc["answered", "left"] == 24 and len(run.show(99)) == 24


def test_scores_are_what_eval_says_in_the_order_of_the_filters(evaluated, generated):
    found, told = load_run(evaluated).scores(), load_run(evaluated).results()["eval"]
    assert list(found.index) == [name for name, score in told["scores"].items() if score["n"]]
    for name, row in found.iterrows():
        score = told["scores"][name]
        assert (row["mean"], row["items"], row["personas"]) == (score["value"], score["n"], score["clusters"])
        assert (row["low"], row["high"]) == (score["low"], score["high"])
    assert (found.loc["slop", "most"], found.loc["in_character", "least"]) == (8, 1)
    assert load_run(generated).scores().loc["in_character", "mean"] == 0.5  # of what was dropped, too


def test_the_funnel_adds_up_and_is_in_the_order_of_the_filters(generated):
    run = load_run(generated)
    found, told = run.funnel(), run.results()["generate"]
    assert list(found.index[:4]) == ["answered", "train_prompt", "non_empty", "in_character"]
    assert found.index[-1] == "duplicate" and set(SCORERS) <= set(found.index)
    assert {name: count for name, count in found["dropped"].items() if count} == told["dropped"]
    assert found["left"].iloc[0] == told["answered"] == 16
    assert found["left"].iloc[-1] == told["kept"] and found["share"].iloc[-1] == told["kept"] / 16


def test_the_funnel_is_that_of_the_last_curation(tmp_path):
    path = make(tmp_path, "generate", fault)
    CliRunner().invoke(cli, ["curate", str(path), "--set", "in_character=off", "--max-per-persona", "1"])
    found = load_run(path).funnel()
    assert "in_character" not in found.index and found.index[-1] == "max_per_persona"
    assert found["left"].iloc[-1] == load_run(path).results()["curate"]["kept"] == 4


def test_the_dataset_is_loaded_without_network_and_follows_a_new_curation(tmp_path, monkeypatch):
    path = make(tmp_path, "generate", fault)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    run = load_run("run")
    with monkeypatch.context() as without:
        without.setattr(socket.socket, "connect", None)  # whoever tries fails
        assert {split: len(rows) for split, rows in run.dataset().items()} == run.results()["generate"]["splits"]
        assert set(run.dataset("rejected", "train")["filter"]) == {"in_character"}
    CliRunner().invoke(cli, ["curate", str(path), "--set", "in_character=off", "--set", "duplicates.prompt=1"])
    assert {split: len(rows) for split, rows in run.dataset().items()} == run.results()["curate"]["splits"]
    assert run.results()["curate"]["kept"] != run.results()["generate"]["kept"]


def test_what_the_dataset_does_not_have_is_answered_with_what_it_has(generated):
    run = load_run(generated)
    with pytest.raises(ConfigError, match=r"no config 'stf'\. There are: kto, (preference, )?rejected, sft\."):
        run.dataset("stf")
    with pytest.raises(ConfigError, match=r"sft has no split 'test'\. There are: .*train"):
        run.dataset("sft", "test")


def test_an_evaluation_has_neither_funnel_nor_dataset_and_says_so(evaluated):
    for ask in (load_run(evaluated).funnel, load_run(evaluated).dataset):
        with pytest.raises(ConfigError, match="It drops nothing"):
            ask()


def test_an_evaluation_with_arms_leads_to_them(arms):
    run = load_run(arms)
    assert list(run.arms) == ["cool", "hot"] and load_run(arms / "arms" / "hot").arms == {}
    assert len(run.arms["hot"].frame()) == 24
    for ask in (run.frame, run.latency, run.scores, run.show):
        with pytest.raises(ConfigError, match=r"2 arms.*run\.arms\['cool'\]"):
            ask()
    compared = pipeline.compare(*run.arms.values())
    assert compared.frame().loc["in_character", "items"] == 8


def test_replies_are_shown_from_all_over_the_run_and_always_the_same(generated):
    run = load_run(generated)
    assert len(run.show()) == 3 and len(run.show(99)) == 16
    assert repr(run.show(5)) == repr(run.show(5)) and repr(run.show(2)) in repr(run.show(5))
    assert len({shown.persona for shown in run.show(8).replies}) > 2


def test_kept_and_dropped_ones_can_be_asked_for(generated):
    run = load_run(generated)
    kept, dropped = run.show(99, kept=True), run.show(99, kept=False)
    assert (len(kept), len(dropped)) == (8, 8) and all(not shown.flaws for shown in kept.replies)
    assert "player: Line 0, well?\n  npc:    I'm a chatbot.\n  fails in_character: " in repr(dropped)
    assert repr(run.show(99, filter="in_character")) == repr(dropped)
    with pytest.raises(ConfigError, match=r"no reply fails 'slop'.* fail: in_character"):
        run.show(filter="slop")


def test_of_an_evaluation_every_score_out_of_its_bounds_is_told(evaluated):
    run = load_run(evaluated)
    leaks = run.show(99, filter="in_character")
    assert len(leaks) == 8 and all(shown.line.startswith(LEAK) for shown in leaks.replies)
    assert len(run.show(99, kept=True)) + len(run.show(99, kept=False)) == 16


HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e<img src=x onerror=alert(2)> & so on"


def test_hostile_replies_are_shown_and_neither_rendered_nor_obeyed(tmp_path):
    def hostile(body):
        choice = {"index": 0, "message": {"role": "assistant", "content": HOSTILE * 40}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice]})

    shown = load_run(make(tmp_path, "generate", hostile)).show(2)
    page = shown._repr_html_()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "&amp; so on" in page
    assert set(re.findall(r"<\w+", page)) == {"<div"}
    for text in (page, repr(shown)):
        assert "\x1b" not in text and "\u202e" not in text and len(text) < 4000


def test_a_run_without_replies_shows_that(tmp_path):
    run = load_run(make(tmp_path, "generate", lambda body: web.json_response({"error": "no"}, status=400)))
    assert repr(run.show()) == run.show()._repr_html_() == "no such replies"
    assert len(run.latency()) == 0 and len(run.scores()) == 0
    assert run.funnel()["left"].tolist() == [0] * len(run.funnel())
    with pytest.raises(ConfigError, match="There are: none"):
        run.dataset()


def test_imported_conversations_have_a_funnel_and_no_latency(tmp_path):
    talk = {"prompt": "Is the ferry going?", "response": "When the fog says so.", "npc": "Mira"}
    (tmp_path / "talks.jsonl").write_text(json.dumps(talk), "utf-8")
    done = CliRunner().invoke(cli, ["curate", "--from", str(tmp_path / "talks.jsonl"), "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    run = load_run(tmp_path / "run")
    assert len(run.latency()) == 0 and run.funnel()["left"].iloc[-1] == 1
    assert ", passes\n" in repr(run.show()) and " s, " not in repr(run.show())
