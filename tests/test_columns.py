"""Characters of text-generation-webui, NPCs out of Evennia and tables with other columns become personas."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError
from pipeline.personas.evennia import plain
from pipeline.personas.load import Checked, load_personas, personas_of, read_personas


def read(path: Path, name: str, content: Any, *columns: str) -> tuple[list[dict[str, Any]], Checked]:
    (path / name).write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    checked = Checked()
    return list(personas_of(str(path / name), checked, columns=columns)), checked


CHARACTERS = {
    "of today": (
        "Rook.yaml",
        "name: Rook\ngreeting: |-\n  Late again.\ncontext: |-\n  A tired courier who has lost {{user}}'s letter.\n",
    ),
    "with its examples apart": (
        "Rook.yml",
        "bot: Rook\ncontext: |-\n  A tired courier who has lost {{user}}'s letter.\n"
        "greeting: Late again.\nexample_dialogue: |-\n  {{user}}: Rain?\n  {{char}}: Always.\n",
    ),
    "with its examples in the context": (
        "Rook.yaml",
        "name: Rook\ngreeting: Late again.\ncontext: |\n  Rook's Persona: A tired courier who has lost {{user}}'s letter.\n"
        "  <START>\n  You: Rain?\n  Rook: Always.\n",
    ),
    "of old": (
        "Rook.json",
        json.dumps(
            {
                "char_name": "Rook",
                "char_persona": "A tired courier who has lost {{user}}'s letter.",
                "char_greeting": "Late again.",
                "world_scenario": "",
                "example_dialogue": "You: Rain?\nRook: Always.",
            }
        ),
    ),
}


@pytest.mark.parametrize("name, content", CHARACTERS.values(), ids=CHARACTERS)
def test_a_character_of_text_generation_webui_is_a_persona(name, content, tmp_path):
    (rook,), checked = read(tmp_path, name, content)
    assert (rook["id"], rook["name"], rook["greeting"], checked.problems) == ("Rook", "Rook", "Late again.", [])
    assert rook["description"] == "A tired courier who has lost {{user}}'s letter."
    assert rook["examples"] == (["Always."] if "Rain" in content else [])


NPC = {
    "id": "grum-12",
    "key": "Grum",
    "desc": "|ra dwarf|n with a |[523lantern|n||",
    "location": "The Dripping Cellar",
    "prompt_prefix": "You are {name}, {desc}, in {location}. {character} speaks. {mood} {{x}}",
    "chat_memory": {"Ann": ["Ann: Hello.", "Grum: No."]},
}


def test_an_npc_out_of_evennia_is_a_persona(tmp_path):
    (grum,), _ = read(tmp_path, "npcs.json", [NPC])
    assert (grum["id"], grum["name"], grum["description"], grum["home"]) == (
        *("grum-12", "Grum", "a dwarf with a lantern|", "The Dripping Cellar"),
    )
    assert grum["prompt_prefix"] == (
        "You are Grum, a dwarf with a lantern|, in The Dripping Cellar. {{user}} speaks. {mood} {{x}}"
    )
    assert "chat_memory" not in grum  # what players said to it is no part of it


def test_npcs_of_one_name_are_told_apart(tmp_path):
    guards = [{"key": "guard", "desc": desc, "location": "gate"} for desc in ("tall", "short", "tall")]
    people, checked = read(tmp_path, "npcs.json", guards)
    assert len({guard["id"] for guard in people}) == 2
    assert checked.bad == 1 and "stands already" in checked.problems[0]


@pytest.mark.parametrize(
    "coloured, text", [("|hA|n|/B|_C", "A\nB C"), ("a || b", "a | b"), ("|=l|#ff0000x", "x"), (None, "")]
)
def test_colours_stay_in_the_game(coloured, text):
    assert plain(coloured) == text


LIGHT = [
    {
        "character": f"villager {n}",
        "persona": [f"I am number {n}.", "I fish."],
        "goal": "to eat",
        "room": "A quay.",
        "mood": n,
    }
    for n in range(300)
]


def test_columns_of_other_names_are_found_and_told(tmp_path):
    people, checked = read(tmp_path, "light.jsonl", "\n".join(map(json.dumps, LIGHT)))
    assert len(people) == len({one["id"] for one in people}) == 300
    first = people[0]
    assert (first["name"], first["description"]) == ("villager 0", "I am number 0. I fish.")
    assert (first["wants"], first["setting"], first["mood"]) == ("to eat", "A quay.", 0)
    assert checked.notes == [
        f"{tmp_path}/light.jsonl: name from 'character', description from 'persona', setting from 'room', "
        "wants from 'goal' (--map FIELD=COLUMN says otherwise)"
    ]


def test_what_is_mapped_goes_before_what_is_found(tmp_path):
    columns = ("name=character,description=persona", "home=room", "wants=goal")
    people, checked = read(tmp_path, "light.jsonl", json.dumps(LIGHT[0]), *columns)
    assert (people[0]["home"], people[0]["setting"], people[0]["wants"]) == ("A quay.", "", "to eat")
    assert "room" not in people[0] and checked.notes == []


def test_an_id_is_the_same_wherever_a_row_stands(tmp_path):
    ids = [{one["name"]: one["id"] for one in read(tmp_path, "p.json", rows)[0]} for rows in (LIGHT, LIGHT[::-1][:9])]
    assert ids[1].items() <= ids[0].items()


def test_our_own_rows_are_left_alone(tmp_path):
    row = {"id": "a", "name": "A", "description": "b", "goal": "c", "Location": "d"}
    (found,), checked = read(tmp_path, "p.json", [row])
    assert (found["goal"], found["wants"], found["home"], checked.notes) == ("c", "", "", [])


def test_a_table_with_other_columns_is_read(tmp_path):
    rows = [{"Title": "Ann", "Bio": "a nun", "setting": {"name": "Abbey", "deep": {"text": "Old stones."}}}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    checked = load_personas(str(tmp_path / "p.parquet"), tmp_path / "out.jsonl", columns=["setting=setting.deep.text"])
    (ann,) = read_personas(tmp_path / "out.jsonl")
    assert (ann.name, ann.description, ann.setting, checked.good) == ("Ann", "a nun", "Old stones.", 1)
    (tmp_path / "p.csv").write_text("Character Name,Backstory\nAnn,a nun\n")
    (ann,) = personas_of(str(tmp_path / "p.csv"), Checked())
    assert (ann["name"], ann["description"]) == ("Ann", "a nun")


@pytest.mark.parametrize(
    "header, columns, why",
    [
        ("who,what", (), r"p\.csv:1: no column for 'name'\. Found: who, what\. Say which: --map name=COLUMN"),
        ("who,what", ("name=who",), "no column for 'description'"),
        ("who,what", ("name=who,description=wat",), "no column for 'wat'"),
        ("who,what", ("nmae=who",), r"--map nmae=who: has to be FIELD=COLUMN, where FIELD is one of id, name"),
        ("who,what", ("name",), "--map name: has to be FIELD=COLUMN"),
    ],
)
def test_columns_that_cannot_be_told_are_refused(header, columns, why, tmp_path):
    with pytest.raises(ConfigError, match=why):
        read(tmp_path, "p.csv", f"{header}\na,b\n", *columns)


@pytest.mark.parametrize(
    "content", [{"characters": LIGHT[:3], "rooms": {}}, {str(n): row for n, row in enumerate(LIGHT[:3])}]
)
def test_a_list_may_have_any_name_and_rows_may_stand_by_their_ids(content, tmp_path):
    people, _ = read(tmp_path, "world.json", content)
    assert [one["name"] for one in people] == ["villager 0", "villager 1", "villager 2"]


def test_rows_that_name_nobody_say_how_to_map_them(tmp_path):
    with pytest.raises(ConfigError, match=r"field 'name' is missing.*--map FIELD=COLUMN says which column is which"):
        read(tmp_path, "p.jsonl", json.dumps({"who": "Ann", "what": "a nun"}))
