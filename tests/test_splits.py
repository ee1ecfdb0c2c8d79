import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.run.splits import FEWEST_PERSONAS, KNOWN, NEW, SPLITS, TRAIN, Splitter, splitter

PERSONAS = [f"npc-{n}" for n in range(2000)]
SCENARIOS = [f"scenario-{n}" for n in range(2000)]
BOTH = Splitter("both")


def table(by, personas, scenarios):
    split = splitter(by, len(personas))[0]
    return {(p, s): split.split(p, s) for p in personas for s in scenarios}


IDS = st.lists(st.text(max_size=8), min_size=FEWEST_PERSONAS, max_size=40, unique=True)


@settings(deadline=None)
@given(st.sampled_from(["persona", "scenario", "both"]), IDS, IDS, IDS, IDS)
def test_adding_personas_and_scenarios_moves_no_row(by, personas, scenarios, more_personas, more_scenarios):
    before = table(by, personas, scenarios)
    after = table(by, [*more_personas, *personas], [*scenarios, *more_scenarios])
    assert before.items() <= after.items()


def test_new_npcs_stand_in_no_other_split_and_held_out_scenarios_not_in_train():
    rows = table("both", PERSONAS[:300], SCENARIOS[:60])
    personas = {split: {p for (p, _), found in rows.items() if found == split} for split in SPLITS}
    scenarios = {split: {s for (_, s), found in rows.items() if found == split} for split in SPLITS}
    assert personas[NEW] and not personas[NEW] & (personas[TRAIN] | personas[KNOWN])
    assert scenarios[KNOWN] and not scenarios[KNOWN] & scenarios[TRAIN]
    assert personas[KNOWN] <= personas[TRAIN]


def test_about_a_tenth_of_each_is_held_out():
    rows = [BOTH.split(p, s) for p, s in zip(PERSONAS, reversed(SCENARIOS), strict=True)]
    assert 0.08 < rows.count(NEW) / len(rows) < 0.12
    assert 0.07 < rows.count(KNOWN) / len(rows) < 0.11
    assert set(rows) == set(SPLITS)


def test_a_persona_and_a_scenario_of_one_name_are_drawn_apart():
    new = [Splitter("persona").split(name, "s") == NEW for name in PERSONAS]
    known = [Splitter("scenario").split("p", name) == KNOWN for name in PERSONAS]
    both = sum(a and b for a, b in zip(new, known, strict=True))
    assert both < 0.03 * len(PERSONAS)


@pytest.mark.parametrize(
    "by, personas, actual, said",
    [
        ("both", FEWEST_PERSONAS, "both", ""),
        ("both", FEWEST_PERSONAS - 1, "scenario", "19 personas are too few"),
        ("persona", 1, "scenario", "1 persona"),
        ("persona", 500, "persona", ""),
        ("scenario", 1, "scenario", ""),
        ("scenario", 500, "scenario", ""),
    ],
)
def test_few_personas_are_split_by_scenario_only_and_it_is_said(by, personas, actual, said):
    split, note = splitter(by, personas)
    assert split == Splitter(actual)
    assert said in note and bool(said) == bool(note)


@pytest.mark.parametrize("by, found", [("persona", {TRAIN, NEW}), ("scenario", {TRAIN, KNOWN}), ("both", set(SPLITS))])
def test_each_way_of_splitting_holds_out_what_it_says(by, found):
    assert set(table(by, PERSONAS[:100], SCENARIOS[:40]).values()) == found
