"""Good rows pass, bad ones are named, counted and skipped, and nothing that a row says is more than text."""

import json
import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.personas.load import Checked, load_personas, load_scenarios, read_personas
from pipeline.personas.schema import TEXT_FIELDS, Scenario

MIRA = {"id": "mira", "name": "Mira", "description": "a ferrywoman"}


def personas(folder: Path, rows: list[Any], *, strict: bool = False) -> tuple[list[SimpleNamespace], Checked]:
    source, target = folder / "p.jsonl", folder / "out" / "personas.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    checked = load_personas(str(source), target, strict=strict)
    return list(read_personas(target)), checked


def scenarios(folder: Path, rows: list[Any], *, strict: bool = True) -> tuple[list[Scenario], Checked]:
    (folder / "s.yaml").write_text(yaml.safe_dump(rows, allow_unicode=True), "utf-8")
    return load_scenarios(str(folder / "s.yaml"), strict=strict)


def scenario(*turns: str, **more: Any) -> Scenario:
    return Scenario.model_validate({"id": "s", "category": "c", "turns": list(turns), **more})


def line(scenario: Scenario, **npc: Any) -> str:
    return scenario.item(SimpleNamespace(**MIRA | npc), template="npc/default", sample=0).lines[0]


def test_a_persona_needs_an_id_a_name_and_a_description(tmp_path):
    (npc,), checked = personas(tmp_path, [MIRA])
    assert (checked.good, checked.bad, checked.problems, checked.notes) == (1, 0, [], [])
    assert vars(npc) == {
        **{name: "" for name in TEXT_FIELDS},
        **{"knows": [], "examples": [], "unknown_words": [], "lorebook": [], "lore_budget": 0},
        **MIRA,
    }


def test_numbers_become_text_and_columns_of_one_s_own_stay(tmp_path):
    (npc,), _ = personas(tmp_path, [MIRA | {"id": 7, "trade": 1.5, "level": 3, "loot": {"gold": [1, None]}}])
    assert (npc.id, npc.trade, npc.level, npc.loot) == ("7", "1.5", 3, {"gold": [1, None]})


@pytest.mark.parametrize("text", ["Aye.\nNay, \u2028 never.", "Aye.\r\n\r\n  Nay, \u2028 never.  \n"])
def test_a_list_may_be_one_text_with_a_line_for_each_entry(text, tmp_path):
    (npc,), _ = personas(tmp_path, [MIRA | {"examples": text}])
    assert npc.examples == ["Aye.", "Nay, \u2028 never."]


PROBLEMS: dict[str, tuple[Any, str]] = {
    "a missing field": (
        {"id": "b", "nam": "B", "description": "c"},
        "field 'name' is missing (is 'nam' meant?). Found: id, nam, description.",
    ),
    "a missing field, unlike any other": ({"id": "b", "name": "B"}, "field 'description' is missing. Found: id, name."),
    "a null": (MIRA | {"id": "b", "name": None}, "field 'name' is missing. Found: id, description."),
    "a blank": (
        MIRA | {"id": "b", "name": " \n"},
        "field 'name' (as it is shown to the player): has to be more than nothing. Found: ' \\n'",
    ),
    "a list for a text": (MIRA | {"id": ["b"]}, "field 'id': has to be a text. Found: ['b']"),
    "a truth value": (MIRA | {"id": True}, "field 'id': has to be a text. Found: True"),
    "a number for a list": (
        MIRA | {"id": "b", "examples": 3},
        "field 'examples' (lines in its own voice): has to be a list. Found: 3",
    ),
    "a long wrong thing": (
        MIRA | {"id": "b", "hides": ["x" * 500]},
        f"field 'hides' (its secret, never to be told): has to be a text. Found: ['{'x' * 75}...",
    ),
    "half a character": (
        MIRA | {"id": "b", "name": "\ud800"},
        "field 'name' (as it is shown to the player): Input should be a valid string, "
        "unable to parse raw data as a unicode string. Found: '\\ud800'",
    ),
    "an id that was there": (MIRA, "the id 'mira' stands already at {folder}/p.jsonl:1"),
    "no mapping": ("Mira", "'Mira' where a mapping of fields to values is expected"),
}


@pytest.mark.parametrize("row, problem", PROBLEMS.values(), ids=PROBLEMS)
def test_a_bad_row_is_named_counted_and_skipped(row, problem, tmp_path):
    good, checked = personas(tmp_path, [MIRA, row, MIRA | {"id": "last"}])
    assert [npc.id for npc in good] == ["mira", "last"]
    assert (checked.good, checked.bad) == (2, 1)
    assert checked.problems == [f"{tmp_path}/p.jsonl:2: " + problem.replace("{folder}", str(tmp_path))]


def test_strict_refuses_the_first_bad_row(tmp_path):
    with pytest.raises(ConfigError, match=r"p\.jsonl:2: field 'name' is missing"):
        personas(tmp_path, [MIRA, {"id": "b", "description": "c"}], strict=True)


def test_of_many_bad_rows_the_first_are_named_and_all_counted(tmp_path):
    _, checked = personas(tmp_path, [MIRA] + [{}] * 100)
    assert (checked.bad, len(checked.problems)) == (100, 20)


@pytest.mark.parametrize(
    "rows, why", [([], "nothing in it"), ([{}, {}], "The first of 2 bad rows: .*:1: field 'name'")]
)
def test_nothing_usable_is_refused(rows, why, tmp_path):
    with pytest.raises(ConfigError, match=why):
        personas(tmp_path, rows)


def test_a_refusal_leaves_what_was_there(tmp_path):
    personas(tmp_path, [MIRA])
    with pytest.raises(ConfigError):
        personas(tmp_path, [MIRA, {}], strict=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["personas.jsonl"]
    assert [npc.id for npc in read_personas(tmp_path / "out" / "personas.jsonl")] == ["mira"]


def test_what_a_run_wrote_can_be_what_it_reads(tmp_path):
    _, before = personas(tmp_path, [MIRA, MIRA | {"id": "b"}])
    written = tmp_path / "out" / "personas.jsonl"
    after = load_personas(str(written), written)
    assert (after.good, after.fingerprint) == (2, before.fingerprint)


def test_a_field_that_is_nearly_known_is_noted_once(tmp_path):
    _, checked = personas(tmp_path, [MIRA | {"example": ["Aye."]}, MIRA | {"id": "b", "example": [], "mood": "grim"}])
    assert checked.notes == [f"{tmp_path}/p.jsonl:1: unknown field 'example'; did you mean 'examples'?"]


def test_names_of_columns_do_no_harm(tmp_path):
    names = [
        "items",
        "keys",
        "self",
        "__class__",
        "__dict__",
        "model_dump",
        "model_extra",
        "model_config",
        "copy",
        "mro",
        "cls",
    ]
    odd = {name: f"<{name}>" for name in [*names, "", "full name", "größe", "{{ npc.id }}", "__pydantic_extra__"]}
    (npc,), checked = personas(tmp_path, [MIRA | odd])
    assert checked.good == 1
    assert {name: vars(npc)[name] for name in odd} == odd
    assert (npc.items, type(npc)) == ("<items>", SimpleNamespace)


def test_columns_of_other_types_arrive_as_text_and_the_same_each_time(tmp_path):
    columns = {
        "born": date(1312, 5, 1),
        "seen": datetime(2020, 1, 1, tzinfo=UTC),
        "price": Decimal("1.50"),
        "portrait": b"\x89PNG\xff",
        "size": float("inf"),
        "none": None,
    }
    pq.write_table(pa.Table.from_pylist([MIRA | columns]), tmp_path / "p.parquet")
    first, second = (load_personas(str(tmp_path / "p.parquet"), tmp_path / "out.jsonl") for _ in range(2))
    assert (first.good, first.bad, first.fingerprint) == (1, 0, second.fingerprint)
    (npc,) = read_personas(tmp_path / "out.jsonl")
    assert (npc.born, npc.seen, npc.price, npc.portrait, npc.size) == (
        "1312-05-01",
        "2020-01-01 00:00:00+00:00",
        "1.50",
        "5 bytes",
        float("inf"),
    )
    assert not hasattr(npc, "none")


@pytest.mark.parametrize(
    "extra, good",
    [
        ("z: {2020-01-01: b}", False),
        ("z: 0x" + "f" * 6000, False),
        ("z: !!set {b, c}", True),
        ("z: !!binary /////w==", True),
        ("z: .nan", True),
    ],
)
def test_yaml_may_hold_what_json_cannot(extra, good, tmp_path):
    text = f"- {{id: a, name: a, description: a}}\n- {{id: b, name: b, description: b, {extra}}}\n"
    (tmp_path / "p.yaml").write_text(text, "utf-8")
    checked = load_personas(str(tmp_path / "p.yaml"), tmp_path / "out.jsonl")
    assert (checked.good, checked.bad) == (1 + good, 1 - good)


def test_half_a_character_in_a_column_of_one_s_own_costs_nothing(tmp_path):
    (npc,), _ = personas(tmp_path, [MIRA | {"mood": "\ud800", "deep": json.loads("[" * 300 + "]" * 300)}])
    assert npc.mood == "\ud800"


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=3, max_size=3))
def test_any_text_arrives_as_it_was(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("any")
    name, description, hides = texts
    good, _ = personas(folder, [MIRA, {"id": "b", "name": name, "description": description, "hides": hides}])
    if len(good) == 2:  # what is white space to Python is not all to Unicode, and the other way round
        assert [good[1].name.strip(), good[1].description.strip(), good[1].hides.strip()] == [t.strip() for t in texts]


def test_the_fingerprint_is_of_what_was_loaded(tmp_path):
    rows = [MIRA, MIRA | {"id": "b"}]
    prints = [personas(tmp_path, some)[1].fingerprint for some in (rows, rows[:1], rows[::-1], [*rows, {}])]
    assert len({*prints}) == 3
    assert prints[0] == prints[3]  # a bad row changes nothing


GROWTH = """
import resource, sys
from pathlib import Path
from pipeline.personas.load import load_personas

def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

load_personas(sys.argv[1], Path(sys.argv[3]))
before = most()
assert load_personas(sys.argv[2], Path(sys.argv[3])).good == 50_000
print((most() - before) / (1024 * 1024 if sys.platform == "darwin" else 1024))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such count of memory")
def test_many_personas_are_not_held_in_memory(tmp_path):
    few, many = tmp_path / "few.jsonl", tmp_path / "many.jsonl"
    for path, count in ((few, 100), (many, 50_000)):
        path.write_text("".join(f'{{"id":{n},"name":"N","description":"{"x" * 500}"}}\n' for n in range(count)))
    program = [sys.executable, "-c", GROWTH, str(few), str(many), str(tmp_path / "out.jsonl")]
    grown = subprocess.run(program, check=True, capture_output=True, text=True).stdout
    assert float(grown) < 25  # MiB; the personas themselves would be over 100


SCENARIO_PROBLEMS = {
    "no turns": ({"id": "s", "category": "c"}, "field 'turns' is missing. Found: category, id."),
    "an empty list of turns": (
        {"id": "s", "category": "c", "turns": []},
        r"field 'turns' \(the player's lines\): has to be of 1 entry or more",
    ),
    "turns of white space": ({"id": "s", "category": "c", "turns": " \n "}, "field 'turns' .* 1 entry or more"),
    "a blank turn": ({"id": "s", "category": "c", "turns": ["Hello.", " "]}, "'turns' has an empty line"),
    "a field that no persona has": (
        {"id": "s", "category": "c", "turns": ["Hello, {{ npc.nmae }}."]},
        r"'turns' uses {{ npc.nmae }}; it can be one of: id, name, description, world, ",
    ),
    "a field that is a list": ({"id": "s", "category": "c", "turns": ["{{npc.knows}}?"]}, "uses {{ npc.knows }}"),
    "a hidden field": ({"id": "s", "category": "c", "turns": ["{{ npc.__class__ }}"]}, "uses {{ npc.__class__ }}"),
    "no category": ({"id": "s", "turns": ["Hello."]}, "field 'category' is missing"),
}


@pytest.mark.parametrize("row, problem", SCENARIO_PROBLEMS.values(), ids=SCENARIO_PROBLEMS)
def test_a_scenario_that_cannot_be_played_is_refused(row, problem, tmp_path):
    with pytest.raises(ConfigError, match=r"s\.yaml:1: .*" + problem):
        scenarios(tmp_path, [row])


def test_the_player_s_lines_name_fields_of_the_persona():
    asks = scenario("{{ npc.name }}, {{npc.trade}} of {{ npc.home }}!", requires="hides")
    assert asks.requires == ["hides", "home", "name", "trade"]
    assert line(asks, trade="smith", home="Salt") == "Mira, smith of Salt!"


@pytest.mark.parametrize("name", ["{{ npc.hides }}", "{% raw %}", r"\1\g<0>", "%s", "{0}", "\\", "שרה\n\t"])
def test_what_is_filled_in_is_not_filled_in_again(name):
    assert line(scenario("So, {{ npc.name }}?"), name=name, hides="gold") == f"So, {name}?"


@pytest.mark.parametrize(
    "text",
    ["{{ npc }}", "{{ name }}", "{{ npc.name | upper }}", "{{ npc.name", "{% if npc %}", "{# #}", "{{ 7*7 }}", "%s"],
)
def test_nothing_else_in_a_line_means_anything(text):
    assert line(scenario(text)) == text


@given(st.text(min_size=1), st.text(min_size=1))
def test_a_line_is_substituted_once_whatever_it_is_and_is_given(before, name):
    turn = f".{before} {{{{ npc.name }}}}."
    if "npc." not in before:
        assert line(scenario(turn), name=name) == f".{before} {name}."


def test_a_persona_without_a_required_field_does_not_fit():
    asks = scenario("Tell me.", requires=["hides", "mood"])
    fits = [{"hides": "x", "mood": "y"}, {"hides": "", "mood": "y"}, {"hides": "x"}, {"hides": "x", "mood": []}]
    assert [asks.fits(SimpleNamespace(**MIRA | fields)) for fields in fits] == [True, False, False, False]


def test_scenarios_read_back_as_they_were(tmp_path):
    loaded, first = scenarios(
        tmp_path, [{"id": "s", "category": "c", "turns": "Hi, {{ npc.name }}.\nBye.", "mood": "x"}]
    )
    again, _ = scenarios(tmp_path, [one.model_dump() for one in loaded])
    assert again == loaded
    assert (loaded[0].turns, first.notes) == (["Hi, {{ npc.name }}.", "Bye."], [])
