"""`pipeline eval` with several turns: who holds out, who drifts, who remembers; and an item stays one, however long it talks."""

import json

import pyarrow.parquet as pq
import pytest
from aiohttp import web
from click.testing import CliRunner
from fakes import FakeServer

from pipeline.cli import cli


def pipeline(*arguments):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)


def say(text):
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return web.json_response({"choices": [choice]})


def fault(body):
    """Npc 0 gives in at its third reply; Npc 1 has forgotten; the others remember."""
    line, said = body["messages"][-1]["content"], [m for m in body["messages"] if m["role"] == "assistant"]
    if "You are Npc 0," in body["messages"][0]["content"] and len(said) == 2:
        return say("As an AI language model, I have no name.")
    if line.startswith("So what is"):
        return say("I forget." if "You are Npc 1," in body["messages"][0]["content"] else "You are Ilse, my girl.")
    return None


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    people = [{"id": f"npc-{n}", "name": f"Npc {n}", "description": "a guard"} for n in range(8)]
    lines = ["My name is Ilse.", "Cold, is it not?", "So what is my name?"]
    acts = [
        {"id": "memory", "category": "memory", "turns": lines, "remembers": {3: ["Ilse"]}},
        {"id": "short", "category": "greeting", "turns": ["Good day to you."]},
    ]
    (folder / "personas.jsonl").write_text("\n".join(map(json.dumps, people)), "utf-8")
    (folder / "scenarios.jsonl").write_text("\n".join(map(json.dumps, acts)), "utf-8")
    (folder / "suite.yaml").write_text("personas: personas.jsonl\nscenarios: scenarios.jsonl\n", "utf-8")
    with FakeServer(fault=fault) as server:
        done = pipeline("eval", "--suite", folder, "--server", server.url, "--out", folder / "run", "--json")
        assert done.exit_code == 0, done.output
        assert len(server.requests) == 8 * 3 + 8
    return folder / "run", json.loads(done.stdout.splitlines()[-1])


def test_an_item_is_a_conversation_and_its_turns_are_repeats(run):
    folder, summary = run
    assert (summary["asked"], summary["answered"], summary["items"], summary["personas"]) == (32, 32, 16, 8)
    assert summary["scores"]["in_character"]["n"] == 16
    assert summary["scores"]["in_character"]["value"] == pytest.approx((15 + 2 / 3) / 16)
    scores = pq.read_table(folder / "scores.parquet").to_pylist()
    assert {row["turn"] for row in scores} == {0, 1, 2}
    assert len({(row["item_id"], row["turn"], row["scorer"]) for row in scores}) == len(scores)


def test_what_a_scenario_wants_remembered_is_scored_where_it_is_asked_for(run):
    folder, summary = run
    assert summary["scores"]["remembers"]["value"] == 6 / 8
    assert summary["scores"]["remembers"]["not_applicable"] == 32 - 8
    rows = [row for row in pq.read_table(folder / "scores.parquet").to_pylist() if row["scorer"] == "remembers"]
    assert {(row["persona_id"], row["reason"]) for row in rows if row["value"] == 0} == {
        ("npc-0", "does not say 'Ilse'"),
        ("npc-1", "does not say 'Ilse'"),
    }


def test_it_says_who_held_out_and_where_the_others_gave_in(run):
    folder, summary = run
    found = summary["conversations"]
    assert found["count"] == 8 and found["ended"] == {"script": 8}
    assert found["held"]["value"] <= 6 / 8 and found["held"]["clusters"] == 8
    assert found["gave_in_at"]["3"] >= 2 and found["held_by_category"] == {"memory": found["held"]["value"]}
    drift = found["drift"]["in_character"]
    assert drift["difference"] == -1 / 8 and drift["low"] <= -1 / 8 <= drift["high"]
    text = pipeline("eval", folder).output
    assert "8 conversations of several turns, ended: 8 by script" in text and "without a flaw to the end" in text


def test_a_run_of_one_turn_says_nothing_of_conversations(run, tmp_path):
    folder, _ = run
    with FakeServer() as server:
        options = ["--suite", folder.parent, "--server", server.url, "--turns", 1, "--out", tmp_path / "run", "--json"]
        done = pipeline("eval", *options)
        assert len(server.requests) == 16
    assert json.loads(done.stdout.splitlines()[-1])["conversations"] is None
