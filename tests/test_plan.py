"""Who meets what depends on ids alone: nothing moves when something is added elsewhere."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.personas.schema import Scenario
from pipeline.records import Item
from pipeline.run.plan import CONTRAST, Count, Plan

NPCS = [f"npc-{number}" for number in range(12)]
SCENES = [f"scene-{number}" for number in range(9)]

Pair = tuple[str, str]


@pytest.fixture
def make(tmp_path):
    """`make(npcs, scenes)`: a plan over personas and scenarios of these ids, or with these fields."""

    def plan(npcs: list[Any] = NPCS, scenes: list[Any] = SCENES, **options: Any) -> Plan:
        return make_plan(tmp_path, npcs, scenes, **options)

    return plan


def make_plan(folder: Path, npcs: list[Any], scenes: list[Any], **options: Any) -> Plan:
    people = [npc if isinstance(npc, dict) else {"id": npc} for npc in npcs]
    path = folder / "personas.jsonl"
    path.write_text("".join(json.dumps({"name": "N", "description": "d"} | one) + "\n" for one in people), "utf-8")
    plays = [scene if isinstance(scene, dict) else {"id": scene} for scene in scenes]
    scenarios = [Scenario.model_validate({"category": "c", "turns": ["Hello."]} | one) for one in plays]
    return Plan(personas=path, scenarios=scenarios, template="npc/default", **options)


def pairs(plan: Plan) -> list[Pair]:
    return [(item.npc.id, item.scenario_id) for item in plan]


def draws(plan: Plan) -> dict[str, set[str]]:
    drawn: dict[str, set[str]] = {}
    for npc, scene in pairs(plan):
        drawn.setdefault(npc, set()).add(scene)
    return drawn


def ids(items: Plan | list[Item]) -> list[str]:
    return [item.item_id for item in items]


def test_each_persona_meets_every_scenario_in_the_order_of_both(make):
    plan = make(per_persona=None)
    assert pairs(plan) == [(npc, scene) for npc in NPCS for scene in SCENES]
    assert plan.count() == Count(personas=12, items=108, unfit=0)


@pytest.mark.parametrize("drawn", [1, 3, 8])
def test_a_few_scenarios_are_drawn_for_each_in_the_order_of_the_scenarios(drawn, make):
    plan = make(per_persona=drawn)
    assert pairs(plan) == sorted(pairs(plan), key=lambda pair: (NPCS.index(pair[0]), SCENES.index(pair[1])))
    assert {len(scenes) for scenes in draws(plan).values()} == {drawn}
    assert len(set(ids(plan))) == 12 * drawn == plan.count().items


@pytest.mark.parametrize("drawn", [9, 10, 1000])
def test_who_is_to_meet_more_than_there_are_meets_all(drawn, make):
    assert pairs(make(per_persona=drawn)) == pairs(make())


def test_draws_differ_between_personas_and_reach_all_scenarios(make):
    drawn = draws(make(npcs=[f"n{number}" for number in range(100)], per_persona=3))
    met = [scene for scenes in drawn.values() for scene in scenes]
    assert {frozenset(scenes) for scenes in drawn.values()} > {frozenset(drawn["n0"])}
    # 300 draws over 9 scenarios: 33 each, with a standard deviation of 4.7.
    assert all(10 < met.count(scene) < 57 for scene in SCENES)


def test_the_same_plan_comes_out_every_time(make):
    plan = make(per_persona=3, samples=2)
    assert ids(plan) == ids(plan) == ids(make(per_persona=3, samples=2))


def test_draws_are_the_same_on_every_machine(make):
    drawn = draws(make(npcs=["mira", "borin"], per_persona=2))
    assert drawn == {"mira": {"scene-1", "scene-6"}, "borin": {"scene-0", "scene-4"}}
    assert ids(make(npcs=["mira"], scenes=["scene-0"])) == ["b0ff51a4b75c1ea4275ded637f804227"]


def test_samples_of_one_pair_stand_together_and_are_items_of_their_own(make):
    plan = make(npcs=["a"], scenes=["s", "t"], samples=3)
    assert [(item.scenario_id, item.sample) for item in plan] == [(s, n) for s in "st" for n in range(3)]
    assert len(set(ids(plan))) == 6 == plan.count().items
    assert set(ids(make(npcs=["a"], scenes=["s", "t"], samples=2))) < set(ids(plan))


@pytest.mark.parametrize("limit, items", [(None, 108), (0, 0), (1, 1), (10, 10), (108, 108), (500, 108)])
def test_a_limit_takes_the_first(limit, items, make):
    plan = make(limit=limit)
    assert ids(plan) == ids(make())[:items]
    assert plan.count().items == items


def test_a_higher_limit_keeps_what_a_lower_one_had(make):
    assert ids(make(limit=20, per_persona=3))[:7] == ids(make(limit=7, per_persona=3))


names = st.lists(st.text(min_size=1, max_size=3), min_size=2, max_size=12, unique=True)


@given(npcs=names, scenes=names, drawn=st.integers(1, 4), at=st.integers(0, 12))
def test_a_new_persona_moves_no_draw(tmp_path_factory, npcs, scenes, drawn, at):
    folder = tmp_path_factory.mktemp("plan")
    npcs, scenes = [f".{n}" for n in npcs], [f".{s}" for s in scenes]
    before = ids(make_plan(folder, npcs, scenes, per_persona=drawn))
    after = list(make_plan(folder, [*npcs[:at], "new", *npcs[at:]], scenes, per_persona=drawn))
    assert ids([item for item in after if item.npc.id != "new"]) == before


@given(npcs=names, scenes=names, drawn=st.integers(1, 4), at=st.integers(0, 12))
def test_a_new_scenario_moves_no_draw_but_by_entering_it(tmp_path_factory, npcs, scenes, drawn, at):
    folder = tmp_path_factory.mktemp("plan")
    npcs, scenes = [f".{n}" for n in npcs], [f".{s}" for s in scenes]
    before = draws(make_plan(folder, npcs, scenes, per_persona=drawn))
    after = draws(make_plan(folder, npcs, [*scenes[:at], "new", *scenes[at:]], per_persona=drawn))
    for npc, scenes_then in before.items():
        left, came = scenes_then - after[npc], after[npc] - scenes_then
        assert came <= {"new"}
        assert len(left) <= len(came)


@given(npcs=st.permutations(NPCS), scenes=st.permutations(SCENES))
def test_another_order_of_files_changes_nothing_but_the_order(tmp_path_factory, npcs, scenes):
    folder = tmp_path_factory.mktemp("plan")
    usual = make_plan(folder, NPCS, SCENES, per_persona=3)
    before = set(ids(usual))
    other = make_plan(folder, npcs, scenes, per_persona=3)
    assert set(ids(other)) == before
    assert list(dict.fromkeys(npc for npc, _ in pairs(other))) == npcs


def test_an_item_is_known_by_what_it_is_and_not_by_what_is_said(make):
    (one,) = make(npcs=["a"], scenes=["s"])
    (same,) = make(npcs=[{"id": "a", "name": "Ann"}], scenes=[{"id": "s", "turns": ["Bye."], "category": "d"}])
    (other,) = make(npcs=["a"], scenes=["t"])
    assert one.item_id == same.item_id != other.item_id


UNEQUAL = [{"id": "open"}, {"id": "sly", "hides": "gold"}, {"id": "smith", "hides": "debt", "trade": "smith"}]
DEMANDING = [
    {"id": "any"},
    {"id": "secret", "requires": ["hides"]},
    {"id": "both", "turns": ["A {{ npc.trade }}, eh?"], "requires": ["hides"]},
]


def test_pairs_that_do_not_fit_are_left_out_and_counted(make):
    plan = make(UNEQUAL, DEMANDING)
    assert draws(plan) == {"open": {"any"}, "sly": {"any", "secret"}, "smith": {"any", "secret", "both"}}
    assert plan.count() == Count(personas=3, items=6, unfit=3)


def test_a_draw_is_made_among_what_fits(make):
    plan = make(UNEQUAL, DEMANDING, per_persona=2)
    assert [len(scenes) for scenes in draws(plan).values()] == [1, 2, 2]
    assert plan.count() == Count(personas=3, items=5, unfit=3)


def test_a_trial_meets_each_scenario_that_anyone_fits_once(make):
    plan = make(UNEQUAL[:2], DEMANDING)
    assert [(item.npc.id, item.scenario_id) for item in plan.preflight()] == [("open", "any"), ("sly", "secret")]


def test_ids_of_any_text_can_be_drawn(make):
    odd = ["\ud800", "\0", "שרה", "a" * 5000, "{{ npc }}"]
    assert len(set(ids(make(npcs=odd, per_persona=2)))) == 10


# Asked once more, without the persona


def arms(plan: Plan) -> list[tuple[str, str, int, str]]:
    return [(item.npc.id, item.scenario_id, item.sample, item.arm) for item in plan]


def test_for_contrast_each_line_is_asked_once_more_after_its_samples(make):
    plan = make(npcs=["a", "b"], scenes=["s"], samples=2, contrast=True)
    assert arms(plan) == [(npc, "s", sample, arm) for npc in "ab" for sample, arm in ((0, ""), (1, ""), (0, CONTRAST))]
    assert len(set(ids(plan))) == 6
    assert plan.count() == Count(personas=2, items=6, unfit=0, contrast=2)


@pytest.mark.parametrize("limit", [None, 0, 1, 2, 5, 30, 108, 500])
@pytest.mark.parametrize("samples", [1, 2])
def test_contrast_takes_no_reply_away(limit, samples, make):
    usual = make(limit=limit, samples=samples)
    plan = make(limit=limit, samples=samples, contrast=True)
    assert ids([item for item in plan if not item.arm]) == ids(usual)
    asked = [item.arm for item in plan]
    assert plan.count() == Count(personas=12, items=len(asked), unfit=0, contrast=asked.count(CONTRAST))
    assert plan.count().items - plan.count().contrast == usual.count().items


def test_a_line_that_is_not_asked_is_not_contrasted(make):
    plan = make(limit=5, per_persona=3, contrast=True)
    asked = {(item.npc.id, item.scenario_id) for item in plan if not item.arm}
    assert {(item.npc.id, item.scenario_id) for item in plan if item.arm} <= asked
