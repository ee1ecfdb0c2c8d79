"""A scorer is as good as it does on lines that nobody looked at while it was written."""

import pytest
from labelled import HERE, flagged, held, people, rows

from pipeline.curation.criteria import load_criteria

NAMES = list(load_criteria().filters)


def test_every_scorer_has_its_lines_and_every_table_its_scorer():
    assert {path.stem for path in HERE.glob("*.jsonl")} - {"run"} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_there_are_enough_lines_with_and_without_the_flaw(name):
    lines = rows(name)
    assert len({row["text"] for row in lines}) == len(lines)
    for flaw in (True, False):
        assert sum(row["flaw"] is flaw for row in lines) >= 20
        assert any(held(row) and row["flaw"] is flaw for row in lines)
    known = {"text", "flaw", "note", "npc", "line", "player", "before", "system", "apart", "remembers"}
    assert not set().union(*lines) - known
    assert all(
        row.get("npc", "hroth") in people() for row in lines if isinstance(row.get("npc", ""), str) and "npc" in row
    )


@pytest.mark.parametrize("name", NAMES)
def test_nine_in_ten_of_what_it_drops_deserve_it(name):
    found = [(row, flagged(name, row)) for row in rows(name) if held(row)]
    dropped = [row for row, flag in found if flag]
    wrong = [row["text"] for row in dropped if not row["flaw"]]
    assert len(dropped) >= 5
    assert len(wrong) <= 0.1 * len(dropped), wrong
