"""`pipeline curate` and what `generate` makes for it: other criteria ask nobody, and nothing is lost."""

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from curated import (
    CALM,
    JUDGED,
    PERSONAS,
    SAME,
    SAMPLES,
    SCENARIOS,
    Server,
    contents,
    curate,
    generate,
    pipeline,
    process,
    replies,
    reply,
    rows,
    said_to,
    text_of,
    write_inputs,
)

from pipeline import ConfigError, load_run
from pipeline.curation.criteria import DUPLICATE, LIMITS, load_criteria
from pipeline.resources import shipped
from pipeline.run.splits import SPLITS

# Nobody is asked


def test_other_criteria_ask_nobody_and_show_what_they_change_with_examples(tmp_path):
    with Server() as server:
        generate(server, write_inputs(tmp_path, 4, 3), tmp_path / "run")
        asked = len(server.requests)
        result = pipeline("curate", tmp_path / "run", "--set", "box_length.words=16")
        assert len(server.requests) == asked
    assert result.exit_code == 0
    text = result.stdout
    changed = [row for row in rows(tmp_path / "run", "rejected") if row["filter"] == "box_length"]
    assert changed and "changed  box_length.words 60 -> 16" in text
    assert f"{len(changed):5d}  kept -> dropped by box_length" in text
    assert any(f"{row['persona_id']}: {text_of(row['completion'])[:100]}" in text for row in changed)
    assert changed[0]["reason"] in text


def test_a_training_prompt_asks_nobody_and_is_named(run):
    result = pipeline("curate", run, "--train-prompt", "npc/short")
    assert result.exit_code == 0 and "training_prompt as it was sent -> npc/short" in result.stdout
    assert "No reply changed sides." in result.stdout


def test_curated_without_options_nothing_changes(run):
    before = contents(run / "dataset")
    text = pipeline("curate", run).stdout
    assert contents(run / "dataset") == before
    assert "No reply changed sides." in text and "\nchanged" not in text


STRICTER = ["--set", "box_length.words=16", "--max-per-persona", "4", "--train-prompt", "npc/short"]


def test_curated_twice_alike_the_dataset_has_the_same_bytes(run):
    before = contents(run / "dataset")
    curate(run, *STRICTER)
    once = contents(run / "dataset")
    found = curate(run, *STRICTER)
    assert contents(run / "dataset") == once != before
    assert found["changes"] == {"criteria": [], "replies": [], "added": 0, "gone": 0}
    curate(run)
    assert contents(run / "dataset") == before


def test_curating_touches_nothing_but_what_is_made_from_the_answers(run):
    before = contents(run)
    curate(run, *STRICTER)
    after = contents(run)
    assert after.keys() == before.keys()
    changed = {name.partition("/")[0] for name in before if after[name] != before[name]}
    assert changed <= {"dataset", "replies.parquet", "scores.parquet", "results.json", "report.html"}
    stored = json.loads((run / "results.json").read_text("utf-8"))
    assert {"generate", "curate"} <= stored.keys()


def test_a_run_that_was_curated_goes_on_as_it_was_generated(tmp_path):
    inputs = write_inputs(tmp_path, 4, 3)
    with Server() as server:
        generate(server, inputs, tmp_path / "run")
        before, asked = contents(tmp_path / "run" / "dataset"), len(server.requests)
        curate(tmp_path / "run", *STRICTER)
        generate(server, inputs, tmp_path / "run")
        assert len(server.requests) == asked
    assert contents(tmp_path / "run" / "dataset") == before


def test_replies_of_one_word_have_no_pairs_of_words_to_tell_of(tmp_path):
    talks = [
        {"name": "Mira", "messages": [{"role": "user", "content": line}, {"role": "assistant", "content": reply}]}
        for line, reply in (("Is the ferry late?", "Aye."), ("Will you wait for it?", "No."))
    ]
    (tmp_path / "talks.jsonl").write_text("\n".join(map(json.dumps, talks)), "utf-8")
    result = pipeline("curate", "--from", tmp_path / "talks.jsonl", "--out", tmp_path / "run", *CALM)
    assert result.exit_code == 0, result.output
    assert "2 kept" in result.stdout and "variety" not in result.stdout


def test_of_two_settings_the_later_wins_also_over_the_runs_own(run):
    assert curate(run, "--set", "box_length.words=1", "--set", "box_length.words=60")["changes"]["replies"] == []
    shown = curate(run, "--set", f"{CALM[1].partition('=')[0]}=on")["changes"]["criteria"]
    assert all("not there ->" in line for line in shown) and shown


def test_left_out_is_a_scorer_that_is_not_in_the_tables_either(run):
    curate(run, "--set", "finished=off")
    assert "score_finished" not in rows(run, "sft")[0]
    assert "finished" not in {row["scorer"] for row in pq.read_table(run / "scores.parquet").to_pylist()}
    assert not [row for row in rows(run, "rejected") if row["filter"] == "finished"]


def test_the_authors_own_criteria_and_word_lists_go_before_what_ships(run, tmp_path, monkeypatch):
    mine = tmp_path / "mine"
    (mine / "data" / "lexicons").mkdir(parents=True)
    (mine / "data" / "curation.yaml").write_text("filters: {box_length: {words: 16}}\n", "utf-8")
    words = (shipped("data") / "lexicons" / "assistant_leak.txt").read_text("utf-8")
    assert words.count("\n[phrases]\n") == 1
    words = words.replace("\n[phrases]\n", "\n[phrases]\nhalf a thought\n")
    (mine / "data" / "lexicons" / "assistant_leak.txt").write_text(words, "utf-8")
    monkeypatch.chdir(mine)
    found = curate(run)
    assert found["changes"]["criteria"] == ["box_length.words 60 -> 16"]
    by_filter = {name: [r for r in rows(run, "rejected") if r["filter"] == name] for name in JUDGED}
    assert any(text_of(row["completion"]).startswith("Half a thought") for row in by_filter["in_character"])
    assert any(text_of(row["completion"]).startswith("Long") for row in by_filter["box_length"])


@pytest.mark.parametrize(
    "options, said",
    [
        (["--set", "finnished.min=1"], "there is no 'finnished'. Did you mean finished?"),
        (["--set", "duplicates.persona=0.1"], "duplicates.persona is 0.1: it has to be a number from 0.5 to 1"),
        (["--train-prompt", "npc/shrot"], "There is no template 'npc/shrot.j2'"),
        (["--train-format", "nope"], "There is no template 'formats/nope.j2'"),
        (["--scorer", "nowhere.py:f"], "nowhere.py"),
        (["--max-per-prompt", "0"], "0 is not in the range"),
        (["--system", "melt"], "'melt' is not one of 'keep', 'merge', 'drop'"),
    ],
)
def test_what_is_wrong_ends_with_2_and_a_sentence_and_leaves_all_as_it_was(options, said, run, ends):
    before = contents(run)
    code, text = ends("curate", run, *options)
    assert code == 2 and said in text
    assert contents(run) == before


def test_only_a_generated_run_can_be_curated(tmp_path):
    with Server() as server:
        inputs = write_inputs(tmp_path, 2, 2)
        pipeline("eval", "--server", server.url, *inputs, "--out", tmp_path / "run")
    with pytest.raises(ConfigError, match="a run of pipeline eval"):
        pipeline("curate", tmp_path / "run")
    with pytest.raises(ConfigError, match="no run there"):
        pipeline("curate", tmp_path / "nowhere")


# Every reply has one place


@pytest.mark.parametrize(
    "options",
    [
        [],
        STRICTER,
        ["--max-per-prompt", "1"],
        ["--max-per-scenario", "3", "--set", "finished=off"],
        ["--train-format", "transcript", "--system", "drop"],
        [word for name in JUDGED for word in ("--set", f"{name}=off")],
    ],
)
def test_every_reply_is_in_exactly_one_of_sft_and_rejected_and_the_counts_add_up(options, run):
    found = curate(run, *options)
    answered, kept, dropped = replies(run), rows(run, "sft"), rows(run, "rejected")
    assert sorted(row["item_id"] for row in kept + dropped) == sorted(answered)
    assert (len(kept), Counter(row["filter"] for row in dropped)) == (found["kept"], found["dropped"])
    assert found["answered"] == len(answered) + found["contrast"] == found["asked"]
    assert found["contrast"] == PERSONAS * SCENARIOS and len(answered) == PERSONAS * SCENARIOS * SAMPLES
    for config, splits in found["configs"].items():
        assert splits == {name: len(rows(run, config, name)) for name in SPLITS if rows(run, config, name)}
    assert found["splits"] == found["configs"]["sft"] and sum(found["splits"].values()) == found["kept"]
    assert found["pairs"] == Counter(row["kind"] for row in rows(run, "preference"))
    assert found["row_tokens"]["p50"] <= found["row_tokens"]["p95"] <= found["row_tokens"]["max"]
    assert load_run(run).frame()["filter"].value_counts().to_dict() == {"": found["kept"], **found["dropped"]}


def test_filters_are_counted_in_their_order(run):
    found = curate(run, *STRICTER)
    order = ["train_prompt", *load_criteria().filters, DUPLICATE, *LIMITS]
    assert list(found["dropped"]) == sorted(found["dropped"], key=order.index)
    assert set(found["dropped"]) == {*JUDGED, DUPLICATE, "max_per_persona"}
    assert set(found["examples"]) == set(found["dropped"])


def test_a_score_that_does_not_apply_drops_nothing(run):
    # Nobody can say of a silence whether it is finished or in character.
    curate(run, "--set", "non_empty=off")
    silent = [row for row in rows(run, "sft") if not text_of(row["completion"])]
    assert silent and all(row["score_finished"] is None and row["score_in_character"] is None for row in silent)


def test_a_duplicate_names_the_better_reply_that_stays(run):
    kept = {row["item_id"]: row for row in rows(run, "sft")}
    doubles = [row for row in rows(run, "rejected") if row["filter"] == DUPLICATE]
    assert doubles
    for row in doubles:
        assert text_of(kept[row["evidence"]]["completion"]) == text_of(row["completion"]) == SAME
    assert [text_of(row["completion"]) for row in kept.values()].count(SAME) == 1


@pytest.mark.parametrize(
    "option, by",
    [("prompt", ("persona_id", "scenario_id")), ("persona", ("persona_id",)), ("scenario", ("scenario_id",))],
)
@pytest.mark.parametrize("most", [1, 3])
def test_no_more_are_kept_than_was_said(option, by, most, run):
    before = Counter(tuple(row[key] for key in by) for row in rows(run, "sft"))
    curate(run, f"--max-per-{option}", most)
    after = Counter(tuple(row[key] for key in by) for row in rows(run, "sft"))
    assert after == {group: min(count, most) for group, count in before.items()}


def test_nothing_depends_on_when_the_replies_came(tmp_path):
    inputs = write_inputs(tmp_path, 6, 4)
    datasets = []
    for number, options in enumerate((["--concurrency", 1], ["--concurrency", 16])):
        run = tmp_path / f"run{number}"
        with Uneven(delay=0.02 * number) as server:
            generate(server, inputs, run, *options)
        datasets.append({name: found for name, found in contents(run / "dataset").items() if name != "README.md"})
    assert datasets[0] == datasets[1]


class Uneven(Server):
    """Takes up to `delay` for a reply, by a dice of its own."""

    dice = random.Random(5)

    async def _asked(self, request):
        await asyncio.sleep(self.delay * self.dice.random())
        body = await request.json()
        return body, reply(said_to(body))


def test_nothing_depends_on_the_order_the_personas_come_in(tmp_path):
    inputs = write_inputs(tmp_path, 24, 3)
    made = []
    with Server() as server:
        for number in range(2):
            generate(server, inputs, tmp_path / f"run{number}", "--max-per-scenario", 9)
            run, people = tmp_path / f"run{number}", tmp_path / "personas.jsonl"
            fates = {row["item_id"]: (split, "") for split in SPLITS for row in rows(run, "sft", split)}
            fates |= {row["item_id"]: (row["filter"], row["evidence"]) for row in rows(run, "rejected")}
            pairs = {(row["item_id"], row["kind"], row["rejected_item_id"]) for row in rows(run, "preference")}
            made.append((fates, pairs))
            lines = people.read_text("utf-8").splitlines()
            random.Random(7).shuffle(lines)
            people.write_text("\n".join(lines), "utf-8")
    assert made[0] == made[1]


def test_more_personas_move_no_row_to_another_split(tmp_path):
    split_of: dict[str, str] = {}
    asked = 0
    with Server() as server:
        for personas in (15, 25, 35):
            found = generate(server, write_inputs(tmp_path, personas, 8), tmp_path / "run")
            assert len(server.requests) - asked == (personas - asked // 16) * 16
            asked = len(server.requests)
            now = {row["item_id"]: name for name in SPLITS for row in rows(tmp_path / "run", "kto", name)}
            assert all(now[item_id] == name for item_id, name in split_of.items() if item_id in now)
            assert len(now) > len(split_of)
            split_of = now
            assert found["split_by"] == "scenario"
            before = contents(tmp_path / "run" / "dataset")
            curate(tmp_path / "run")
            assert contents(tmp_path / "run" / "dataset") == before


# What a trainer loads


LOADS = """
import json, sys
from datasets import load_dataset
found = {}
for folder, config in json.loads(sys.argv[1]):
    splits = load_dataset(folder, config)
    found[folder + " " + config] = {name: [len(rows), rows[0]] for name, rows in splits.items()}
print(json.dumps(found))
"""


def load(wanted: list[tuple[str, str]], home: Path) -> dict[str, dict]:
    """What `datasets` reads, with no way to the hub; what it has read before is kept under `home`."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home / "hf")}
    command = [sys.executable, "-c", LOADS, json.dumps(wanted)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_every_config_can_be_loaded_as_messages_and_as_text_and_has_the_sizes_that_were_said(finished, tmp_path):
    sizes, wanted = {}, []
    for name, options in (("messages", []), ("text", ["--train-format", "chatml"])):
        run = Path(shutil.copytree(finished, tmp_path / name))
        for config, splits in curate(run, *options)["configs"].items():
            sizes[f"{run / 'dataset'} {config}"] = splits
            wanted.append((str(run / "dataset"), config))
    assert len(wanted) == 8
    found = load(wanted, tmp_path)
    assert {key: {name: count for name, (count, _) in splits.items()} for key, splits in found.items()} == sizes
    for key, splits in found.items():
        for _, row in splits.values():
            sides = [row[name] for name in ("prompt", "completion", "chosen", "rejected") if name in row]
            assert len(sides) == (3 if key.endswith("preference") else 2)
            assert all(isinstance(side, str if "/text/" in key else list) for side in sides)
    card = (tmp_path / "text" / "dataset" / "README.md").read_text("utf-8")
    named = yaml.safe_load(card.split("---\n")[1])["configs"]
    assert [one["config_name"] for one in named] == ["sft", "preference", "kto", "rejected"]


def test_after_curating_what_is_loaded_is_not_what_was_loaded_before(run, tmp_path):
    # `datasets` knows a local dataset by its folder's name and its card's head, and keeps what it has read.
    wanted = [(str(run / "dataset"), "sft")]
    for options in ([], ["--max-per-persona", "1"]):
        sizes = curate(run, *options)["configs"]["sft"]
        (found,) = load(wanted, tmp_path).values()
        assert {name: count for name, (count, _) in found.items()} == sizes


# kill -9


KILLED = """
import os, signal, threading
from pathlib import Path

replies = 0

def after_many(turn):
    global replies
    replies += 1
    if replies == 200:
        os.kill(os.getpid(), signal.SIGKILL)
    return 1

def while_written(turn):
    global replies
    replies += 1
    if replies == 1:
        threading.Thread(target=watch, daemon=True).start()
    return 1

def watch():
    while not list(Path({run!r}).glob(".dataset.part/kto/*")):
        pass
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("function", ["after_many", "while_written"])
def test_killed_while_it_curates_the_old_dataset_is_whole(function, run, tmp_path):
    scorer = tmp_path / "killed.py"
    scorer.write_text(KILLED.format(run=str(run)), "utf-8")
    before = contents(run / "dataset")
    done = process("curate", run, "--scorer", f"{scorer}:{function}", "--set", "box_length.words=16")
    assert done.returncode == -9, done.stderr
    assert contents(run / "dataset") == before
    curate(run)
    assert contents(run / "dataset") == before
    assert not list(run.glob(".dataset*"))
