"""What curating again has changed: criteria by name, replies with examples."""

from array import array
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.curation.changes import KEPT, Before, Change, changes
from pipeline.curation.criteria import load_criteria
from pipeline.curation.curator import Candidates, Drop
from pipeline.run.splits import TRAIN


def dataset(folder: Path, kept: list[str], dropped: dict[str, str], criteria: dict | None = None) -> Path:
    for name, columns in (
        ("sft/train", {"item_id": kept}),
        ("rejected/train", {"item_id": list(dropped), "filter": list(dropped.values())}),
    ):
        (folder / f"{name}.parquet").parent.mkdir(parents=True)
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    if criteria is not None:
        (folder / "curation.yaml").write_text(yaml.safe_dump(criteria), "utf-8")
    return folder


def candidates(fates: dict[str, str]) -> Candidates:
    count = len(fates)
    return Candidates(
        item_ids=list(fates),
        texts=[f"Text of {name}." for name in fates],
        personas=[f"persona of {name}" for name in fates],
        scenarios=["s"] * count,
        splits=[TRAIN] * count,
        prompts=array("q", range(count)),
        turns=array("q", [0] * count),
        quality=array("d", [1.0] * count),
        drops={n: Drop(name, f"why {name}", "") for n, name in enumerate(fates.values()) if name},
        scorers=frozenset(),
    )


def test_replies_that_changed_sides_are_counted_by_filter_and_shown_with_the_reason(tmp_path):
    before = Before(dataset(tmp_path / "d", ["a", "b", "c"], {"d": "slop", "e": "slop"}))
    found = changes(before, candidates({"a": "", "b": "slop", "c": "slop", "d": "", "e": "finished"}), {})
    assert found.replies == [
        Change(
            KEPT,
            "slop",
            2,
            [("persona of b", "Text of b.", "why slop"), ("persona of c", "Text of c.", "why slop")],
        ),
        Change("slop", KEPT, 1, [("persona of d", "Text of d.", "")]),
        Change("slop", "finished", 1, [("persona of e", "Text of e.", "why finished")]),
    ]
    assert (found.added, found.gone) == (0, 0)


def test_the_most_frequent_change_comes_first_with_three_examples(tmp_path):
    names = [str(n) for n in range(10)]
    before = Before(dataset(tmp_path / "d", names, {"x": "slop"}))
    (most, least) = changes(before, candidates({"x": ""} | dict.fromkeys(names, "slop")), {}).replies
    assert (most.count, least.count) == (10, 1)
    assert [text for _, text, _ in most.examples] == ["Text of 0.", "Text of 1.", "Text of 2."]


def test_replies_that_came_or_went_are_no_change_of_sides(tmp_path):
    before = Before(dataset(tmp_path / "d", ["a", "b"], {"c": "slop"}))
    found = changes(before, candidates({"a": "", "new": "slop", "newer": ""}), {})
    assert (found.replies, found.added, found.gone) == ([], 2, 2)


def test_criteria_that_differ_are_named_as_set_would_have_them(tmp_path):
    old = {"training_prompt": "as it was sent", **load_criteria().written}
    new = {
        "training_prompt": "npc/short",
        **load_criteria(
            ["box_length.words=9", "finished.min=none", "in_character=off", "selection.max_per_prompt=2",
             "preference.siblings=off"]
        ).written,
    }  # fmt: skip
    before = Before(dataset(tmp_path / "d", ["a"], {}, old))
    found = changes(before, candidates({"a": ""}), new).criteria
    assert found[0] == "training_prompt as it was sent -> npc/short"
    assert sorted(found[1:3]) == ["box_length.words 60 -> 9", "finished.min 1 -> none"]
    assert found[3:] == [
        "selection.max_per_prompt none -> 2",
        "preference.siblings on -> off",
        "in_character.min 1 -> left out",
    ]
    same = Before(tmp_path / "d")
    assert changes(same, candidates({"a": ""}), old).criteria == []


def test_what_is_the_same_is_no_change(tmp_path):
    before = Before(dataset(tmp_path / "d", ["a"], {"b": "slop"}, {"x": {"min": 1}}))
    found = changes(before, candidates({"a": "", "b": "slop"}), {"x": {"min": 1}})
    assert found.summary() == {"criteria": [], "replies": [], "added": 0, "gone": 0}


def test_without_a_dataset_there_is_nothing_to_compare(tmp_path):
    assert changes(Before(tmp_path / "none"), candidates({"a": ""}), {}) is None


@pytest.mark.parametrize("name", ["sft/train.parquet", "rejected/train.parquet", "curation.yaml"])
def test_a_dataset_that_cannot_be_read_is_as_none(name, tmp_path):
    folder = dataset(tmp_path / "d", ["a"], {"b": "slop"}, {})
    (folder / name).write_bytes(b"\x00{[not what it was")
    assert changes(Before(folder), candidates({"a": ""}), {}) is None


def test_a_dataset_of_an_older_version_has_no_criteria_to_compare(tmp_path):
    before = Before(dataset(tmp_path / "d", ["a"], {"b": "slop"}))
    assert changes(before, candidates({"a": "slop", "b": "slop"}), {"x": {"min": 1}}).criteria == []
