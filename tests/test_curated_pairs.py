"""Pairs out of a run: siblings, other personas, and the same question answered without the persona."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from curated import (
    PERSONAS,
    SCENARIOS,
    Server,
    contents,
    curate,
    generate,
    replies,
    rows,
    text_of,
    without_persona,
    write_inputs,
)

from pipeline import ConfigError, load_run
from pipeline.curation.criteria import DUPLICATE, KINDS, load_criteria
from pipeline.run.splits import SPLITS, TRAIN

# Pairs


def test_pairs_of_siblings_differ_by_the_margin_and_the_better_is_kept(run):
    criteria = load_criteria(["preference.margin=0.2"])
    curate(run, "--set", "preference.margin=0.2")
    kept, answered = {row["item_id"] for row in rows(run, "sft")}, replies(run)
    pairs = [row for row in rows(run, "preference") if row["kind"] == "siblings"]
    assert pairs
    quality = defaultdict(lambda: 1.0)
    for row in pq.read_table(run / "scores.parquet").to_pylist():
        if row["value"] is not None:
            quality[row["item_id"]] *= float(criteria.filters[row["scorer"]].goodness(np.array(row["value"])))
    for row in pairs:
        one, other = answered[row["item_id"]], answered[row["rejected_item_id"]]
        assert one["item_id"] in kept
        assert (one["persona_id"], one["scenario_id"]) == (other["persona_id"], other["scenario_id"])
        assert (text_of(row["chosen"]), text_of(row["rejected"])) == (one["reply"], other["reply"])
        assert (
            row["margin"] == pytest.approx(quality[one["item_id"]] - quality[other["item_id"]]) and row["margin"] >= 0.2
        )


def test_with_one_sample_there_are_no_siblings(tmp_path):
    with Server() as server:
        found = generate(server, write_inputs(tmp_path, 6, 3), tmp_path / "run", "--samples", 1)
    assert set(found["pairs"]) == {"other_persona"}


def test_the_other_persona_has_answered_the_same_line_in_the_same_split(run):
    answered = replies(run)
    split_of = {row["item_id"]: name for name in SPLITS for row in rows(run, "sft", name)}
    pairs = [(name, row) for name in SPLITS for row in rows(run, "preference", name) if row["kind"] == "other_persona"]
    assert {name for name, _ in pairs} > {TRAIN}
    for name, row in pairs:
        other = answered[row["rejected_item_id"]]
        assert other["persona_id"] != row["persona_id"] and other["scenario_id"] == row["scenario_id"]
        assert split_of[other["item_id"]] == split_of[row["item_id"]] == name
        assert text_of(row["rejected"]) == other["reply"] and row["margin"] is None


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_pairs_can_be_left_out(kind, run):
    before = rows(run, "preference")
    found = curate(run, "--set", f"preference.{kind}=off")
    assert kind not in found["pairs"]
    assert rows(run, "preference") == [row for row in before if row["kind"] != kind]


def test_kto_has_kept_ones_as_good_and_what_a_scorer_dropped_as_bad(run):
    curate(run, "--max-per-persona", 3)
    label_of = {row["item_id"]: row["label"] for row in rows(run, "kto")}
    assert {item_id for item_id, good in label_of.items() if good} == {row["item_id"] for row in rows(run, "sft")}
    bad = [row for row in rows(run, "rejected") if row["item_id"] in label_of]
    assert {row["filter"] for row in bad} == {"in_character", "finished"}
    assert not any(label_of[row["item_id"]] for row in bad)
    # As good as another, without a place, or nothing at all: neither good nor bad.
    left = {row["filter"] for row in rows(run, "rejected") if row["item_id"] not in label_of}
    assert left == {DUPLICATE, "max_per_persona", "non_empty"}


# Contrast


def test_contrast_is_asked_without_a_system_message_once_a_prompt_and_only_where_it_is_missing(tmp_path):
    inputs, run = write_inputs(tmp_path, 5, 4), tmp_path / "run"
    with Server() as server:
        found = generate(server, inputs, run)
        assert "contrast" not in found["pairs"] and found["contrast"] == 0
        assert not any(map(without_persona, server.requests))
        before = {name: rows(run, name) for name in ("sft", "kto", "rejected")}
        server.requests.clear()
        found = generate(server, inputs, run, "--contrast")
        assert Counter(body["messages"][-1]["content"] for body in server.requests) == {
            f"Line {n}, what say you?": 5 for n in range(4)
        }
        assert [[m["role"] for m in body["messages"]] for body in server.requests] == [["user"]] * 20
        server.requests.clear()
        assert generate(server, inputs, run, "--contrast")["pairs"] == found["pairs"]
        assert generate(server, inputs, run)["contrast"] == 0
        assert server.requests == []
    assert {name: rows(run, name) for name in before} == before
    assert found["contrast"] == 20 and found["pairs"]["contrast"] == len(
        {(row["persona_id"], row["scenario_id"]) for row in before["sft"] if text_of(row["completion"])}
    )


def test_contrast_is_the_worse_side_of_its_kind_and_in_no_other_table(run):
    said = {row["item_id"]: row for row in pq.read_table(run / "replies.parquet").to_pylist() if row["arm"]}
    assert len(said) == PERSONAS * SCENARIOS and {row["arm"] for row in said.values()} == {"contrast"}
    for config in ("sft", "kto", "rejected"):
        assert not said.keys() & {row["item_id"] for row in rows(run, config)}
    assert not said.keys() & {row["item_id"] for row in pq.read_table(run / "scores.parquet").to_pylist()}
    pairs = [row for row in rows(run, "preference") if row["kind"] == "contrast"]
    by_prompt = {(row["persona_id"], row["scenario_id"]): row["reply"] for row in said.values()}
    assert pairs and all(text_of(r["rejected"]) == by_prompt[r["persona_id"], r["scenario_id"]] for r in pairs)
    assert all(row["prompt"][0]["role"] == "system" for row in pairs)  # that of the chosen one
    frame = load_run(run).frame()
    assert frame.loc[frame["arm"] == "contrast", "filter"].isna().all()


def made(run: Path) -> dict[str, bytes]:
    """The dataset without its card, which has latencies."""
    return {name: found for name, found in contents(run / "dataset").items() if name != "README.md"}


def test_a_run_with_contrast_goes_on_where_it_was(tmp_path):
    inputs, run = write_inputs(tmp_path, 5, 4), tmp_path / "run"
    with Server() as server:
        generate(server, inputs, run, "--contrast", "--limit", 13)
        assert Counter(map(without_persona, server.requests)) == {False: 13, True: 6}
        generate(server, inputs, run, "--contrast")
        assert Counter(map(without_persona, server.requests)) == {False: 40, True: 20}
        questions = Counter(json.dumps([body["messages"], body["seed"]]) for body in server.requests)
        assert set(questions.values()) == {1}
        generate(server, inputs, tmp_path / "whole", "--contrast")
    assert made(run) == made(tmp_path / "whole")


def test_a_prompt_without_a_system_message_cannot_be_contrasted(tmp_path):
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "bare.j2").write_text("{% block user %}{{ npc.name }}: {{ line }}{% endblock %}")
    with Server() as server, pytest.raises(ConfigError, match="--contrast leaves the system message out, and bare has"):
        prompt = ["--prompts", tmp_path / "prompts", "--template", "bare"]
        generate(server, write_inputs(tmp_path, 2, 2), tmp_path / "run", "--contrast", *prompt)
