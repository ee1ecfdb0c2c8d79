"""Preference pairs: who is chosen, who is rejected, and that both answer the same line."""

from array import array
from dataclasses import replace
from statistics import fmean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.curation.criteria import KINDS, load_criteria
from pipeline.curation.curator import Candidates, Drop
from pipeline.curation.dedup import heard, shingles, similarity
from pipeline.curation.pairs import ALIKE, Pair, pairs
from pipeline.records import digest
from pipeline.run.splits import KNOWN, NEW, TRAIN

ALL = load_criteria().preference
TEXTS = [
    "The ferry leaves at dawn, and not for you.",
    "Three coppers for the loaf, friend.",
    "My brother cut that rope.",
    "Nobody walks the salt road.",
    "Ask the widow upstairs.",
    "I sell nails and no stories.",
]


def only(kind: str, **more):
    return replace(ALL, **{name: name == kind for name in KINDS}, **more)


def candidates(*rows: tuple[str, str, str, float, bool], splits: dict[str, str] | None = None) -> Candidates:
    """Of (persona, scenario, text, quality, kept), in the order of the plan."""
    prompts = list(dict.fromkeys((persona, scenario) for persona, scenario, *_ in rows))
    return Candidates(
        item_ids=[digest("item", place, *row[:2]) for place, row in enumerate(rows)],
        texts=[row[2] for row in rows],
        personas=[row[0] for row in rows],
        scenarios=[row[1] for row in rows],
        splits=[(splits or {}).get(row[0], TRAIN) for row in rows],
        prompts=array("q", [prompts.index(row[:2]) for row in rows]),
        turns=array("q", [0] * len(rows)),
        quality=array("d", [row[3] for row in rows]),
        drops={place: Drop("finished", "", "") for place, row in enumerate(rows) if not row[4]},
        scorers=frozenset(["finished"]),
    )


def siblings(*replies: tuple[float, bool], texts: list[str] = TEXTS) -> Candidates:
    return candidates(*(("borin", "s", texts[n], quality, kept) for n, (quality, kept) in enumerate(replies)))


# Siblings


def test_the_best_kept_reply_is_chosen_and_a_worse_one_rejected_by_its_margin():
    found = siblings((0.5, True), (0.9, True), (1.0, False), (0.8, True))
    assert list(pairs(found, {}, only("siblings"))) == [
        Pair(1, TEXTS[0], "siblings", found.item_ids[0], pytest.approx(0.4))
    ]


def test_what_was_dropped_may_be_the_worse_one():
    found = siblings((1.0, True), (0.2, False))
    assert next(pairs(found, {}, only("siblings"))).rejected == TEXTS[1]


@pytest.mark.parametrize("margin, there", [(0.25, True), (0.26, False), (1.0, False), (0.0, True)])
def test_siblings_that_differ_by_less_than_the_margin_make_no_pair(margin, there):
    assert bool(list(pairs(siblings((0.75, True), (0.5, True)), {}, only("siblings", margin=margin)))) == there


def test_a_prompt_of_which_nothing_was_kept_has_no_pair():
    assert list(pairs(siblings((0.9, False), (0.1, False)), {0: "Hello, I am Bob."}, ALL)) == []


def test_not_the_worst_is_rejected_but_the_one_nearest_to_two_deviations_under_the_mean():
    qualities = [0.95, *[0.9] * 20, 0.5, 0.0]
    texts = [f"Reply {chr(97 + n)} of many." for n in range(23)]
    aim = fmean(qualities) - 2 * pstdev(qualities)
    assert 0.4 < aim < 0.6
    found = siblings(*((q, True) for q in qualities), texts=texts)
    assert next(pairs(found, {}, only("siblings"))).rejected == texts[21]


def test_silence_is_never_a_side_of_a_pair():
    said = ["", TEXTS[0], "  "]
    for kept in (True, False):
        assert list(pairs(siblings((1.0, True), (0.5, kept), (0.0, True), texts=said), {}, ALL)) == []


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.5, 0.75, 1.0]), st.booleans()), max_size=6), st.floats(0, 1))
def test_chosen_is_kept_and_better_than_its_sibling_by_the_margin(replies, margin):
    found = siblings(*replies)
    for pair in pairs(found, {}, only("siblings", margin=margin)):
        rejected = found.item_ids.index(pair.of)
        assert pair.chosen not in found.drops and pair.rejected == found.texts[rejected] != found.texts[pair.chosen]
        assert pair.margin == found.quality[pair.chosen] - found.quality[rejected] >= margin


# Contrast


def test_what_is_said_without_the_persona_is_rejected_and_compared_with_nothing():
    found = siblings((0.9, True), (0.8, True))
    said = "How may I help you today?"
    assert list(pairs(found, {0: said}, only("contrast"))) == [Pair(0, said, "contrast", "", None)]
    assert list(pairs(found, {}, only("contrast"))) == []


def test_contrast_that_says_the_same_teaches_nothing():
    assert list(pairs(siblings((0.9, True)), {0: TEXTS[0].upper()}, only("contrast"))) == []


# Other personas


def other_personas(*personas: str, text=lambda n: TEXTS[n], splits=None) -> Candidates:
    return candidates(*((name, "s", text(n), 1.0, True) for n, name in enumerate(personas)), splits=splits)


def test_another_persona_has_said_it_to_the_same_line():
    rows = [(p, s, TEXTS[n * 3 + m], 1.0, True) for n, p in enumerate(("borin", "mira")) for m, s in enumerate("st")]
    found = candidates(*rows)
    for pair in pairs(found, {}, only("other_persona")):
        other = found.item_ids.index(pair.of)
        assert found.texts[other] == pair.rejected
        assert found.scenarios[other] == found.scenarios[pair.chosen]
        assert found.personas[other] != found.personas[pair.chosen]
    assert len(list(pairs(found, {}, only("other_persona")))) == 4


@pytest.mark.parametrize("split", [KNOWN, NEW])
def test_nobody_is_compared_with_a_persona_of_another_split(split):
    found = other_personas("a", "b", "c", splits={"c": split})
    assert {(pair.chosen, found.item_ids.index(pair.of)) for pair in pairs(found, {}, ALL)} == {(0, 1), (1, 0)}


def test_who_is_alone_or_says_the_same_as_all_others_has_no_pair():
    assert list(pairs(other_personas("a"), {}, ALL)) == []
    assert list(pairs(other_personas("a", "b", "c", text=lambda n: "Well met, friend."), {}, ALL)) == []


def test_only_the_kept_ones_of_others_are_rejected():
    rows = [("a", "s", TEXTS[0], 1.0, True), ("b", "s", TEXTS[1], 1.0, False)]
    assert list(pairs(candidates(*rows), {}, ALL)) == []


NAMES = [f"npc-{n}" for n in range(30)]


def drawn(personas: list[str]) -> dict[str, str]:
    """Who is rejected against whom."""
    rows = [
        (name, "s", " ".join(digest("words", name)[n : n + 4] for n in range(0, 32, 4)), 1.0, True) for name in personas
    ]
    found = replace(candidates(*rows), item_ids=[digest("item", name) for name in personas])
    return {
        found.personas[pair.chosen]: found.personas[found.item_ids.index(pair.of)]
        for pair in pairs(found, {}, only("other_persona"))
    }


@given(st.permutations(NAMES))
def test_the_other_persona_does_not_depend_on_the_order_they_come_in(order):
    assert drawn(order) == drawn(NAMES)


def test_another_persona_more_changes_few_pairs():
    before, after = drawn(NAMES), drawn(["new", *NAMES])
    assert len(before) == 30 and len(after) == 31
    assert sum(before[name] != after[name] for name in NAMES) <= 8


def test_the_others_are_not_always_the_same():
    assert len(set(drawn(NAMES).values())) > 10


# All kinds


def test_each_kind_can_be_left_out():
    rows = [
        ("a", "s", TEXTS[0], 1.0, True),
        ("a", "s", TEXTS[1], 0.5, True),
        ("b", "s", TEXTS[2], 1.0, True),
        ("b", "s", TEXTS[3], 0.5, True),
    ]
    said = {0: TEXTS[4], 1: TEXTS[5]}
    found = candidates(*rows)
    assert [pair.kind for pair in pairs(found, said, ALL)] == [*KINDS, *KINDS]
    for kind in KINDS:
        assert [pair.kind for pair in pairs(found, said, only(kind))] == [kind, kind]
    assert list(pairs(found, said, replace(ALL, siblings=False, contrast=False, other_persona=False))) == []


def test_pairs_across_personas_are_never_alike():
    found = other_personas("a", "b", "c", text=lambda n: ["Go home now.", "Go home now, boy.", TEXTS[0]][n])
    for pair in pairs(found, {}, ALL):
        one, other = (shingles(heard(text)) for text in (found.texts[pair.chosen], pair.rejected))
        assert similarity(one, other) < ALIKE
