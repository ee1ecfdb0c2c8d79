"""Keep or drop: the first filter that fails, the best of what says the same, the best so many."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.curation.criteria import DUPLICATE, LIMITS, Criteria, Panel, load_criteria
from pipeline.curation.curator import Candidates, Curator, Drop
from pipeline.curation.scored import Judge
from pipeline.records import Completion, Item, Score, Turn
from pipeline.run.plan import CONTRAST
from pipeline.run.splits import KNOWN, NEW, TRAIN

NAMES = list(load_criteria().filters)
# Nothing alike but what is equal by far, so that a test says itself what is a duplicate.
TEXTS = [
    "The ferry leaves at dawn, and not for you.",
    "Three coppers for the loaf, friend, two if you sweep.",
    "My brother cut that rope in the winter of the flood.",
    "Nobody walks the salt road after the second bell.",
    "Ask the widow upstairs what became of her lanterns.",
    "I sell nails, hinges, horseshoes and no stories at all.",
    "That tower was a lighthouse before the river moved away.",
    "Sit down by the fire, your boots are crying for it.",
]


@dataclass(frozen=True, kw_only=True)
class Reply:
    text: str
    quality: float = 1.0  # its one score, where nothing else is said
    persona: str = "borin"
    scenario: str = "s"
    sample: int = 0
    split: str = TRAIN

    def turn(self, arm: str = "") -> Turn:
        npc = SimpleNamespace(id=self.persona, world="")
        about = {"category": "c", "player": "P", "lines": ("Hi",), "template": "t", "arm": arm}
        item = Item(npc=npc, scenario_id=self.scenario, sample=self.sample, **about)
        return Turn(item=item, line="Hi", request=None, completion=Completion(text=self.text))

    @property
    def item_id(self) -> str:
        return self.turn().item.item_id


def lenient(*settings: str) -> Criteria:
    """Every score passes: quality alone tells replies apart."""
    return load_criteria([*(f"{name}.min=none" for name in NAMES), *settings])


def take(curator: Curator, *scored: tuple[Reply, dict[str, Score]], arm: str = "", unfit: Drop | None = None) -> None:
    """One batch; all have the scores of the same names."""
    now: dict[str, Score] = {}
    judge = Judge(Panel({name: lambda _, name=name: now[name] for name in scored[0][1]}, {}))
    for reply, scores in scored:
        now.update(scores)
        judge.add(reply.turn(arm))
    curator.take(judge.batch(), [reply.split for reply, _ in scored if not arm], {0: unfit} if unfit else {})


def curate(*replies: Reply, settings: tuple[str, ...] = ()) -> Candidates:
    curator = Curator(lenient(*settings))
    if replies:
        take(curator, *((reply, {NAMES[0]: Score(reply.quality)}) for reply in replies))
    return curator.decide([])


def kept(*replies: Reply, settings: tuple[str, ...] = ()) -> set[str]:
    found = curate(*replies, settings=settings)
    return {text for place, text in enumerate(found.texts) if place not in found.drops}


def judged(scores: dict[str, Score], late: dict[str, Score] | None = None, *settings: str) -> Drop | None:
    scores = {name: score for name, score in scores.items() if name not in (late or {})}  # one or the other
    curator = Curator(load_criteria(settings))
    take(curator, (Reply(text="Aye."), scores))
    return curator.decide([{name: [score] for name, score in (late or {}).items()}]).drops.get(0)


BAD = -1e9  # under every least
FINE = {name: Score(None) for name in NAMES}


# Scores


@pytest.mark.parametrize("name", [n for n in NAMES if load_criteria().filters[n].least is not None])
def test_a_drop_names_its_filter_with_the_scorers_own_reason_and_evidence(name):
    drop = judged({**FINE, name: Score(BAD, "a reason", "some evidence")})
    assert drop == Drop(name, "a reason", "some evidence")


def test_where_a_scorer_gives_no_reason_it_is_the_bound():
    assert judged({"finished": Score(0.25)}) == Drop("finished", "0.25 is under 1", "")
    assert judged({"finished": Score(3.0)}, None, "finished.max=2").reason == "3 is over 2"


@pytest.mark.parametrize("first", range(len(NAMES)))
def test_the_first_filter_that_fails_is_named(first):
    settings = [f"{name}.min=0" for name in NAMES] + [f"{name}.max=none" for name in NAMES]
    scores = {**FINE, **{name: Score(BAD, name) for name in NAMES[first:]}}
    assert judged(scores, None, *settings).filter == NAMES[first]


@pytest.mark.parametrize("value, passes", [(None, True), (1.0, True), (0.75, True), (0.7499, False), (0.0, False)])
def test_a_score_below_the_bound_drops_and_one_that_does_not_apply_never(value, passes):
    assert (judged({"finished": Score(value, "cut")}, None, "finished.min=0.75") is None) == passes


def test_a_score_that_came_after_the_whole_run_drops_what_passed_so_far():
    assert judged(FINE, {"finished": Score(BAD, "late")}) == Drop("finished", "late", "")
    assert judged({"in_character": Score(BAD, "early")}, {"finished": Score(BAD, "late")}).filter == "in_character"


def test_what_cannot_be_trained_on_is_dropped_for_that_whatever_it_scores():
    # Else a row without a prompt would stand among the bad examples.
    curator = Curator(load_criteria())
    unfit = Drop("train_prompt", "no such field", "")
    take(curator, (Reply(text="As an AI"), {"in_character": Score(BAD, "leak")}), unfit=unfit)
    assert curator.decide([]).drops[0].filter == "train_prompt"


def test_quality_is_the_product_of_what_applies_and_a_flaw_counts_a_tenth():
    curator = Curator(lenient())
    scores = [(1.0, 0.5, None), (1.0, None, 0.25), (None, None, None)]
    for sample, values in enumerate(scores):
        take(curator, (Reply(text=TEXTS[sample], sample=sample), dict(zip(NAMES, map(Score, values), strict=False))))
    late = [{NAMES[3]: [Score(0.0), Score(None)]}, {NAMES[3]: [Score(None)]}]
    assert list(curator.decide(late).quality) == pytest.approx([0.5 * 0.1, 0.25, 1.0])


# Duplicates


def test_of_what_is_nearly_the_same_the_best_stays_and_the_others_name_it():
    said = "Well met, friend, and mind the third plank of my ferry."
    worst, best, middle = (
        Reply(text=said, quality=0.2, sample=0),
        Reply(text=said.replace("third", "last"), quality=0.9, sample=1),
        Reply(text=said.upper(), quality=0.5, scenario="t"),
    )
    found = curate(worst, best, middle)
    assert set(found.drops) == {0, 2}
    assert {drop.filter for drop in found.drops.values()} == {DUPLICATE}
    assert {drop.evidence for drop in found.drops.values()} == {best.item_id}
    assert "nearly the same (0." in found.drops[0].reason


@pytest.mark.parametrize("quality", [(0.1, 0.9), (0.9, 0.1), (0.5, 0.5)])
@pytest.mark.parametrize("held_out", [KNOWN, NEW])
def test_a_test_row_stays_and_its_twin_leaves_the_training_split(quality, held_out):
    train, test = quality
    found = curate(
        Reply(text=TEXTS[0], quality=train), Reply(text=TEXTS[0], quality=test, persona="mira", split=held_out)
    )
    assert set(found.drops) == {0}
    assert found.drops[0].reason == f"mira says the same, in {held_out}"


def test_a_dropped_reply_makes_no_other_one_a_duplicate():
    curator = Curator(load_criteria())
    fine = {"finished": Score(1.0), "in_character": Score(1.0)}
    take(curator, (Reply(text=TEXTS[0]), {**fine, "finished": Score(BAD)}), (Reply(text=TEXTS[0], scenario="t"), fine))
    assert curator.decide([]).drops[0].filter == "finished" and 1 not in curator.candidates.drops


def test_two_personas_may_say_the_same_if_it_is_short():
    found = curate(Reply(text="Aye."), Reply(text="Aye.", persona="mira"), Reply(text="Aye!", scenario="t"))
    assert len(found.drops) == 1 and 1 not in found.drops
    assert next(iter(found.drops.values())).reason == "this persona says the same"


VARIED = st.builds(
    Reply,
    text=st.sampled_from([*TEXTS, *(text.replace("the", "a") for text in TEXTS), "Aye.", "aye", "No."]),
    quality=st.sampled_from([0.2, 0.5, 0.9]),
    persona=st.sampled_from("abc"),
    scenario=st.sampled_from("stu"),
    sample=st.integers(0, 2),
    split=st.sampled_from([TRAIN, KNOWN]),
)
RUNS = st.lists(VARIED, max_size=12, unique_by=lambda r: (r.persona, r.scenario, r.sample))


@settings(deadline=None)
@given(replies=RUNS, order=st.permutations("abc"))
def test_what_becomes_of_a_reply_does_not_depend_on_the_order_of_the_personas(replies, order):
    replies = sorted(replies, key=lambda r: (r.persona, r.scenario, r.sample))
    fates = []
    for personas in ("abc", order):
        found = curate(
            *sorted(replies, key=lambda r: personas.index(r.persona)), settings=("selection.max_per_scenario=3",)
        )
        fates.append({item_id: found.drops.get(place) for place, item_id in enumerate(found.item_ids)})
    assert fates[0] == fates[1]


@settings(deadline=None)
@given(replies=RUNS)
def test_a_duplicate_names_a_reply_that_stays_and_is_no_worse_or_held_out(replies):
    replies = sorted(replies, key=lambda r: (r.persona, r.scenario, r.sample))
    found = curate(*replies)
    place_of = {item_id: place for place, item_id in enumerate(found.item_ids)}
    for place, drop in found.drops.items():
        other = place_of[drop.evidence]
        assert drop.filter == DUPLICATE and other not in found.drops
        held_out = (found.splits[other] != TRAIN, found.splits[place] != TRAIN)
        assert held_out == (True, False) or (
            held_out[0] == held_out[1] and found.quality[other] >= found.quality[place]
        )


# So many of each


def several(*qualities: float, **about: str) -> list[Reply]:
    return [Reply(text=TEXTS[n], quality=quality, sample=n, **about) for n, quality in enumerate(qualities)]


def test_to_a_prompt_the_best_so_many_stay():
    replies = several(0.2, 0.9, 0.5, 0.7)
    assert kept(*replies, settings=("selection.max_per_prompt=2",)) == {TEXTS[1], TEXTS[3]}
    assert kept(*replies) == set(TEXTS[:4])


def test_of_a_persona_the_best_so_many_stay_over_all_prompts():
    replies = [Reply(text=TEXTS[n], quality=n / 10, scenario=f"s{n}") for n in range(4)]
    other = Reply(text=TEXTS[7], quality=0.0, persona="mira")
    assert kept(*replies, other, settings=("selection.max_per_persona=2",)) == {TEXTS[2], TEXTS[3], TEXTS[7]}


def test_to_a_scenario_the_best_so_many_stay_over_all_personas():
    replies = [Reply(text=TEXTS[n], quality=n / 10, persona=f"p{n}") for n in range(4)]
    other = Reply(text=TEXTS[7], quality=0.0, scenario="t")
    assert kept(*replies, other, settings=("selection.max_per_scenario=2",)) == {TEXTS[2], TEXTS[3], TEXTS[7]}


def test_each_limit_counts_what_the_one_before_left():
    replies = [
        Reply(text=TEXTS[2 * s + n], quality=(2 * s + n + 2) / 10, scenario=f"s{s}", sample=n)
        for s in (0, 1)
        for n in (0, 1)
    ]
    found = curate(*replies, settings=("selection.max_per_prompt=1", "selection.max_per_persona=1"))
    assert [found.drops[place].filter for place in sorted(found.drops)] == [LIMITS[0], LIMITS[1], LIMITS[0]]


def test_a_duplicate_takes_nobodys_place():
    replies = [Reply(text=TEXTS[n], quality=q, sample=at) for at, (n, q) in enumerate([(0, 0.9), (0, 0.8), (1, 0.5)])]
    assert kept(*replies, settings=("selection.max_per_prompt=2",)) == {TEXTS[0], TEXTS[1]}


@settings(deadline=None)
@given(replies=RUNS, most=st.tuples(*[st.none() | st.integers(1, 4)] * 3))
def test_no_more_stay_than_was_said_and_none_leaves_where_there_is_room(replies, most):
    replies = sorted(replies, key=lambda r: (r.persona, r.scenario, r.sample))
    settings = tuple(f"selection.{name}={n or 'none'}" for name, n in zip(LIMITS, most, strict=True))
    found = curate(*replies, settings=settings)
    groups = {LIMITS[0]: found.prompts, LIMITS[1]: found.personas, LIMITS[2]: found.scenarios}
    for name, limit in zip(LIMITS, most, strict=True):
        stay = [place for place in range(len(found)) if place not in found.drops]
        for place in range(len(found)):
            alike = [other for other in stay if groups[name][other] == groups[name][place]]
            assert limit is None or len(alike) <= limit
    dropped = {drop.filter for drop in found.drops.values()}
    assert dropped <= {DUPLICATE, *(name for name, limit in zip(LIMITS, most, strict=True) if limit)}


def test_siblings_stand_together():
    found = curate(
        *several(0.1, 0.2),
        *several(0.3, scenario="t"),
        *several(0.4, 0.5, persona="mira"),
        *several(0.6, persona="ann"),
    )
    assert [list(places) for places in found.siblings()] == [[0, 1], [2], [3, 4], [5]]
    assert list(curate().siblings()) == []


def test_what_is_said_without_the_persona_belongs_to_the_prompt_before_it():
    curator = Curator(lenient())
    take(curator, (Reply(text="Nobody asked."), {}), arm=CONTRAST)
    take(curator, *((reply, FINE) for reply in (*several(0.1, 0.2), *several(0.3, scenario="t"))))
    take(curator, (Reply(text="How may I help?", scenario="t"), {}), arm=CONTRAST)
    take(curator, (Reply(text="To somebody else.", persona="mira", scenario="t"), {}), arm=CONTRAST)
    assert curator.contrast == {1: "How may I help?"}
