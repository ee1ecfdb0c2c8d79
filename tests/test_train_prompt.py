"""The prompt that trains is another than the one that was sent, and asks nobody."""

import shutil

import pytest
from curated import Server, contents, curate, generate, replies, rows, write_inputs


def test_a_short_prompt_trains_the_replies_that_a_long_one_brought(run):
    before = {row["item_id"]: row["completion"] for row in rows(run, "sft")}
    found = curate(run, "--train-prompt", "npc/short")
    assert found["training_prompt"] == "npc/short" and found["row_tokens"]["counted_by"] == "estimate"
    assert {row["item_id"]: row["completion"] for row in rows(run, "sft")} == before
    for config in ("sft", "preference", "kto", "rejected"):
        for row in rows(run, config):
            number = row["persona_id"].removeprefix("npc-")
            line = f"Line {row['scenario_id'].removeprefix('s-')}, what say you?"
            assert row["prompt"] == [
                {"role": "system", "content": f"You are Npc {number}, the keeper of gate {number}."},
                {"role": "user", "content": line},
            ]


def test_as_transcript_all_sides_are_strings_that_go_on_behind_the_name(run):
    curate(run, "--train-format", "transcript")
    for config in ("sft", "preference", "kto", "rejected"):
        assert rows(run, config)
        for row in rows(run, config):
            assert row["prompt"].endswith(f"\nNpc {row['persona_id'].removeprefix('npc-')}:")
            for side in ("chosen", "rejected") if config == "preference" else ("completion",):
                assert row[side][0] == " " and row[side][1:] == row[side].strip()


@pytest.mark.parametrize("system, roles", [("keep", ["system", "user"]), ("merge", ["user"]), ("drop", ["user"])])
def test_the_system_message_is_kept_merged_or_dropped(system, roles, run):
    curate(run, "--system", system)
    for row in rows(run, "sft") + rows(run, "preference"):
        assert [message["role"] for message in row["prompt"]] == roles
        text = "\n".join(message["content"] for message in row["prompt"])
        assert ("the keeper of gate" in text) == (system != "drop") and "what say you?" in text


def test_a_row_without_a_training_prompt_is_dropped_with_the_reason(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "trade.j2").write_text(
        "{% block user %}{{ npc.name[9 - npc.trade|length] }}{{ npc.nope }}{% endblock %}"
    )
    found = curate(run, "--prompts", tmp_path / "mine", "--train-prompt", "trade", code=1)
    assert found["dropped"] == {"train_prompt": found["answered"] - found["contrast"]} and found["kept"] == 0
    assert "trade.j2" in rows(run, "rejected")[0]["reason"]
    assert list(found["configs"]) == ["rejected"]  # what has no prompt is no bad example either


def test_a_row_is_dropped_by_its_own_training_prompt_only(run, tmp_path):
    (tmp_path / "mine").mkdir()
    some = "{% block user %}{{ 1 // (npc.trade | length) }} {{ line }}{% endblock %}"
    (tmp_path / "mine" / "trade.j2").write_text(some)
    found = curate(run, "--prompts", tmp_path / "mine", "--train-prompt", "trade")
    failed = {row["item_id"] for row in rows(run, "rejected") if row["filter"] == "train_prompt"}
    assert failed == {id for id, row in replies(run).items() if int(row["persona_id"].removeprefix("npc-")) % 2}
    assert found["dropped"]["train_prompt"] == len(failed) and found["kept"]


def test_generate_trains_on_the_prompt_it_was_told_and_curate_keeps_it(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "terse.j2").write_text("{% block user %}To {{ npc.name }}: {{ line }}{% endblock %}")
    with Server() as server:
        options = ["--prompts", mine, "--train-prompt", "terse"]
        made = generate(server, write_inputs(tmp_path, 3, 3), tmp_path / "run", *options)
        assert server.requests[0]["messages"][0]["role"] == "system"
    assert made["training_prompt"] == "terse"
    before = contents(tmp_path / "run" / "dataset")
    shutil.rmtree(mine)  # a run has its own copies
    curate(tmp_path / "run")
    assert contents(tmp_path / "run" / "dataset") == before
    assert rows(tmp_path / "run", "sft")[0]["prompt"][0]["content"].startswith("To Npc ")
