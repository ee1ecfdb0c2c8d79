from types import SimpleNamespace

import pytest

from pipeline.curate import DUPLICATE, FILTERS, Curator
from pipeline.records import Completion, Item, Score, Turn
from pipeline.scorers import SCORERS

FINE = {name: Score(1.0) for name in FILTERS}


def turn(text, *, persona="borin", scenario="s"):
    npc = SimpleNamespace(id=persona)
    item = Item(npc=npc, scenario_id=scenario, category="c", player="P", lines=("Hi",), template="t", sample=0)
    return Turn(item=item, line="Hi", request=None, completion=Completion(text=text))


def verdicts(*turns):
    curator = Curator()
    return [(drop := curator.verdict(t, FINE)) and drop.filter for t in turns]


def test_every_scorer_is_a_filter_and_every_filter_a_scorer():
    assert list(FILTERS) == list(SCORERS)


@pytest.mark.parametrize("name", FILTERS)
def test_a_drop_names_its_filter_with_the_scorers_own_reason_and_evidence(name):
    drop = Curator().verdict(turn("Aye."), {**FINE, name: Score(0.0, "a reason", "some evidence")})
    assert (drop.filter, drop.reason, drop.evidence) == (name, "a reason", "some evidence")


@pytest.mark.parametrize("first", range(len(FILTERS)))
def test_the_first_filter_that_fails_is_named(first):
    names = list(FILTERS)
    scores = {**FINE, **{name: Score(0.0, name) for name in names[first:]}}
    assert Curator().verdict(turn("Aye."), scores).filter == names[first]


@pytest.mark.parametrize("value, kept", [(None, True), (1.0, True), (0.75, True), (0.7499, False), (0.0, False)])
def test_a_score_below_the_threshold_drops_and_one_that_does_not_apply_never(value, kept):
    assert (Curator().verdict(turn("Aye."), {**FINE, "no_repetition": Score(value, "circles")}) is None) == kept


def test_of_equal_replies_of_a_persona_the_first_stays():
    assert verdicts(turn("Aye."), turn("Nay."), turn("Aye.", scenario="t"), turn("Nay.")) == [
        None,
        None,
        DUPLICATE,
        DUPLICATE,
    ]


def test_two_personas_may_say_the_same():
    assert verdicts(turn("Aye."), turn("Aye.", persona="mira"), turn("Aye.", persona="mira")) == [None, None, DUPLICATE]


def test_a_duplicate_names_the_reply_it_repeats():
    first = turn("Well met.")
    curator = Curator()
    curator.verdict(first, FINE)
    assert curator.verdict(turn("well met!", scenario="t"), FINE).evidence == first.item.item_id


def test_a_dropped_reply_makes_no_later_one_a_duplicate():
    curator = Curator()
    assert curator.verdict(turn("Aye."), {**FINE, "finished": Score(0.0)}).filter == "finished"
    assert curator.verdict(turn("Aye."), FINE) is None


@pytest.mark.parametrize(
    "one, other, equal",
    [
        ("Well met, friend!", "  well MET friend", True),
        ("It’s late.", "It's late...", True),
        ("Café.", "Cafe\u0301.", True),  # the same letters, composed and not
        ("Café.", "Cafe.", False),
        ("वह गया।", "वह गयी।", False),  # one vowel sign apart: he went, she went
        ("Three coppers.", "Two coppers.", False),
        ("我不知道。", "我不知道！", True),
    ],
)
def test_equal_means_spelled_the_same_but_for_case_blanks_and_punctuation(one, other, equal):
    assert verdicts(turn(one), turn(other))[1] == (DUPLICATE if equal else None)
