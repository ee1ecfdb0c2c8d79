"""The tables of a dataset: each reply where it belongs, in the shape that its trainer takes, over many batches."""

from array import array
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.config import RunConfig
from pipeline.curation.curator import Candidates, Drop
from pipeline.curation.pairs import Pair
from pipeline.dataset.configs import Rows, Waiting
from pipeline.dataset.training import TrainingPrompt
from pipeline.prompts.templates import Templates
from pipeline.records import Completion, GenerateConfig, Item, Message, Request, Turn
from pipeline.run.splits import KNOWN, NEW, SPLITS, TRAIN

MANY = 9000  # more than two batches
FATES = ["", "finished", "duplicate", "", "max_per_prompt", "train_prompt", "late", ""]


def turn(n: int) -> Turn:
    npc = SimpleNamespace(id=f"npc-{n}", name=f"Npc {n}")
    about = {"category": "c", "player": "P", "lines": (f"Line {n}",), "template": "t"}
    request = Request(
        messages=(Message(role="system", content="Be."), Message(role="user", content=f"Line {n}")),
        config=GenerateConfig(seed=n),
    )
    text = "" if n % 16 == 9 else f"Reply {n}."  # what was dropped as unfinished may be nothing at all
    return Turn(
        item=Item(npc=npc, scenario_id=f"s-{n}", sample=n % 3, **about),
        line=f"Line {n}",
        request=request,
        completion=Completion(text=text),
    )


def split(n: int) -> str:
    return SPLITS[n % 5] if n % 5 < 3 else TRAIN


def fate(n: int) -> str:
    return FATES[n % len(FATES)]


def write(folder, count: int, **options):
    training = TrainingPrompt(RunConfig(command="generate", personas="", scenarios="", **options), Templates())
    turns = [turn(n) for n in range(count)]
    rows = Rows(model="m", training=training, scorers=["finished"])
    nan = float("nan")
    with Waiting(folder, rows, training) as waiting:
        for first in range(0, count, 700):
            batch = turns[first : first + 700]
            for one in batch:
                rows.add(one, training.prompt(one))
            waiting.add(rows.batch(np.array([[1.0 if one.text else nan] for one in batch])))
    found = Candidates(
        item_ids=[one.item.item_id for one in turns],
        texts=[one.text for one in turns],
        personas=[one.item.npc.id for one in turns],
        scenarios=[one.item.scenario_id for one in turns],
        splits=[split(n) for n in range(count)],
        prompts=array("q", range(count)),
        turns=array("q", [0] * count),
        quality=array("d", [1.0] * count),
        drops={n: Drop(fate(n), f"why {n}", f"seen {n}") for n in range(count) if fate(n)},
        scorers=frozenset(["finished", "late"]),
    )
    scores = {"late": [nan if n % 7 == 0 else n / count for n in range(count)]}
    chosen = [n for n in range(count) if not fate(n)]
    some = [Pair(n, f"Worse than {n}.", "siblings", f"of {n}", n / count) for n in chosen]
    some += [Pair(n, f"Far from {n}.", "contrast", "", None) for n in chosen[::2]]
    counts = waiting.write(folder, found, scores, sorted(some, key=lambda pair: pair.chosen))
    return counts, {
        (config, name): pq.read_table(folder / config / f"{name}.parquet").to_pylist()
        for config, splits in counts.items()
        for name in splits
    }


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("configs")
    return folder, *write(folder, MANY)


def of(tables, config: str) -> list[dict]:
    return [row for (name, _), rows in tables.items() if name == config for row in rows]


def number(row: dict) -> int:
    return int(row["persona_id"].removeprefix("npc-"))


def test_counts_are_the_rows_of_the_files_and_there_is_nothing_else(many):
    folder, counts, tables = many
    assert {key: len(rows) for key, rows in tables.items()} == {
        (config, name): count for config, splits in counts.items() for name, count in splits.items()
    }
    assert list(counts) == ["sft", "preference", "kto", "rejected"]
    assert all(list(splits) == [name for name in SPLITS if name in splits] for splits in counts.values())
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert files == {f"{config}/{name}.parquet" for config, name in tables}


def test_every_reply_is_in_exactly_one_of_sft_and_rejected_in_the_order_of_the_plan(many):
    _, _, tables = many
    kept, dropped = of(tables, "sft"), of(tables, "rejected")
    assert sorted(map(number, kept + dropped)) == list(range(MANY))
    assert all(fate(number(row)) == "" for row in kept)
    assert [row["filter"] for row in dropped] == [fate(n) for n in range(MANY) if fate(n)]
    for rows in tables.values():
        assert [number(row) for row in rows if row.get("kind") != "contrast"] == sorted(
            number(row) for row in rows if row.get("kind") != "contrast"
        )


def test_all_that_is_said_of_a_reply_stands_in_its_row(many):
    _, _, tables = many
    for row in of(tables, "sft") + of(tables, "rejected"):
        n = number(row)
        assert row["prompt"] == [{"role": "system", "content": "Be."}, {"role": "user", "content": f"Line {n}"}]
        assert row["completion"] == [{"role": "assistant", "content": turn(n).text}]
        assert (row["item_id"], row["seed"], row["sample"], row["model"]) == (turn(n).item.item_id, n, n % 3, "m")
        assert row["score_finished"] == (1.0 if turn(n).text else None)
        assert row["score_late"] == (None if n % 7 == 0 else n / MANY)
        if "filter" in row:
            assert (row["reason"], row["evidence"]) == (f"why {n}", f"seen {n}")


@pytest.mark.parametrize("config", ["sft", "kto", "preference"])
def test_rows_are_in_the_split_they_were_given(config, many):
    _, _, tables = many
    for name in SPLITS:
        assert tables[config, name]
        assert all(split(number(row)) == name for row in tables[config, name])


def test_kto_has_what_was_kept_and_what_a_scorer_dropped_and_nothing_else(many):
    _, _, tables = many
    rows = of(tables, "kto")
    assert {fate(number(row)) for row in rows if row["label"]} == {""}
    # Not what is as good as another one, had no place left, or has no prompt; and not silence.
    assert {fate(number(row)) for row in rows if not row["label"]} == {"finished", "late"}
    wanted = [n for n in range(MANY) if fate(n) in ("", "finished", "late") and turn(n).text]
    assert sorted(map(number, rows)) == wanted
    assert next(iter(rows)).keys() >= {"prompt", "completion", "label"}


def test_pairs_have_the_prompt_of_the_chosen_one(many):
    _, _, tables = many
    rows = of(tables, "preference")
    kept = [n for n in range(MANY) if not fate(n)]
    assert sorted(number(row) for row in rows if row["kind"] == "siblings") == kept
    assert sorted(number(row) for row in rows if row["kind"] == "contrast") == kept[::2]
    for row in rows:
        n = number(row)
        assert row["prompt"][1]["content"] == f"Line {n}"
        assert row["chosen"] == [{"role": "assistant", "content": turn(n).text}]
        worse = {"siblings": "Worse than", "contrast": "Far from"}[row["kind"]]
        assert row["rejected"] == [{"role": "assistant", "content": f"{worse} {n}."}]
        assert row["margin"] == (n / MANY if row["kind"] == "siblings" else None)
        assert row["rejected_item_id"] == (f"of {n}" if row["kind"] == "siblings" else None)
    assert list(rows[0])[:3] == ["prompt", "chosen", "rejected"] and "completion" not in rows[0]


def test_as_text_every_side_is_a_string_and_a_reply_begins_with_one_blank(tmp_path):
    _, tables = write(tmp_path, 40, train_format="transcript")
    for (config, _), rows in tables.items():
        for row in rows:
            assert row["prompt"] == f"Be.\nP: Line {number(row)}\nNpc {number(row)}:"
            for side in ("chosen", "rejected") if config == "preference" else ("completion",):
                assert (row[side].startswith(" ") and row[side] == f" {row[side].strip()}") or not row[side].strip()


def test_without_rows_there_are_no_tables(tmp_path):
    assert write(tmp_path, 0) == ({}, {})
    assert list(tmp_path.iterdir()) == []


def test_the_same_rows_give_the_same_bytes(many, tmp_path):
    folder, _, _ = many
    write(tmp_path, MANY)
    for path in folder.rglob("*.parquet"):
        assert (tmp_path / path.relative_to(folder)).read_bytes() == path.read_bytes()


def test_what_breaks_off_leaves_no_waiting_rows(tmp_path):
    training = TrainingPrompt(RunConfig(command="generate", personas="", scenarios=""), Templates())
    rows = Rows(model="m", training=training)
    with pytest.raises(KeyboardInterrupt), Waiting(tmp_path, rows, training) as waiting:
        for n in range(2000):
            rows.add(turn(n), training.prompt(turn(n)))
        waiting.add(rows.batch(np.empty((2000, 0))))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_the_splits_of_this_test_are_those_there_are():
    assert {split(n) for n in range(5)} == {TRAIN, KNOWN, NEW}
