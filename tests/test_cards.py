"""Cards that others made are read right or refused with a reason; what is read, written and read again is the same persona."""

import base64
import io
import json
import struct
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.personas.cardfile import LIMIT
from pipeline.personas.cards import own_lines, to_card
from pipeline.personas.load import Checked, load_personas, personas_of, read_personas
from pipeline.personas.lorebook import MAX_ENTRIES

V1 = {
    "name": "Odalys",
    "description": "{{char}} keeps the bees of the abbey. <BOT> trusts no {{user}}.",
    "personality": "dry, patient",
    "scenario": "The walled garden, at noon.",
    "first_mes": "Stand still, {{user}}. They like that.",
    "mes_example": "<START>\n{{user}}: Do they sting?\n{{char}}: Only the rude.\nAnd the hurried.\n<START>\nOdalys: Hm.\n",
}
BOOK = {
    "name": "Abbey",
    "scan_depth": 4,
    "token_budget": 300,
    "recursive_scanning": False,
    "extensions": {"x/y": [1, {"z": None}]},
    "entries": [
        {
            "keys": ["honey", "comb"],
            "secondary_keys": ["winter"],
            "selective": True,
            "content": "The winter honey is kept for {{user}} alone.",
            "insertion_order": 7,
            "enabled": False,
            "priority": 3,
            "position": "before_char",
            "extensions": {"depth": 4},
        },
        {"keys": [], "content": "The abbey stands in Lor.", "constant": True, "insertion_order": 1, "enabled": True},
    ],
}
V2 = {
    "spec": "chara_card_v2",
    "spec_version": "2.0",
    "data": {
        **V1,
        "creator_notes": "For the abbey game.",
        "system_prompt": "{{original}} You keep bees.",
        "post_history_instructions": "",
        "alternate_greetings": ["Closer. Slowly."],
        "tags": ["bees"],
        "creator": "nobody",
        "character_version": "1.1",
        "character_book": BOOK,
        "extensions": {"talkativeness": "0.5", "depth_prompt": {"depth": 4, "prompt": "hush"}},
    },
}
V3 = {
    "spec": "chara_card_v3",
    "spec_version": "3.0",
    "data": {**V2["data"], "nickname": "Oda", "group_only_greetings": [], "source": ["https://cards.example/1"]},
}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes) -> bytes:
    pixels = chunk(b"IDAT", zlib.compress(b"\0\0\0\0"))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + b"".join(chunks) + chunk(b"IEND", b"")


def packed(card: Any) -> bytes:
    return base64.b64encode(json.dumps(card, ensure_ascii=False).encode())


def text(card: Any, keyword: bytes = b"chara") -> bytes:
    return chunk(b"tEXt", keyword + b"\0" + packed(card))


def charx(card: Any, name: str = "card.json") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("assets/icon/images/main.png", png())
        archive.writestr(name, card if isinstance(card, bytes | str) else json.dumps(card))
    return file.getvalue()


def read(path: Path, name: str, content: bytes) -> tuple[list[dict[str, Any]], Checked]:
    (path / name).write_bytes(content)
    checked = Checked()
    return list(personas_of(str(path / name), checked)), checked


def one(path: Path, content: bytes | Any, name: str = "oda.json") -> dict[str, Any]:
    (persona,), checked = read(path, name, content if isinstance(content, bytes) else json.dumps(content).encode())
    assert not checked.problems
    return persona


def as_prompted(path: Path, content: bytes | Any, name: str = "oda.json") -> SimpleNamespace:
    (path / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    load_personas(str(path / name), path / "out" / "p.jsonl")
    (npc,) = read_personas(path / "out" / "p.jsonl")
    return npc


FILES = {
    "version 1 in JSON": ("oda.json", json.dumps(V1).encode()),
    "version 2 in JSON": ("oda.json", json.dumps(V2).encode()),
    "version 3 in JSON": ("oda.json", json.dumps(V3).encode()),
    "with a byte order mark": ("oda.json", b"\xef\xbb\xbf" + json.dumps(V2).encode()),
    "version 1 in PNG": ("oda.png", png(text(V1))),
    "version 2 in PNG": ("oda.PNG", png(text(V2))),
    "under a capital": ("oda.png", png(text(V2, b"Chara"))),
    "version 3 in PNG": ("oda.png", png(text(V3, b"ccv3"))),
    "compressed": ("oda.png", png(chunk(b"zTXt", b"chara\0\0" + zlib.compress(packed(V2))))),
    "international": ("oda.png", png(chunk(b"iTXt", b"chara\0\0\0en\0k\0" + packed(V2)))),
    "international, compressed": ("oda.png", png(chunk(b"iTXt", b"chara\0\1\0\0\0" + zlib.compress(packed(V2))))),
    "JSON as it is": ("oda.png", png(chunk(b"tEXt", b"chara\0" + json.dumps(V2).encode()))),
    "base64 in lines, without its padding": (
        "oda.png",
        png(chunk(b"tEXt", b"chara\0" + base64.encodebytes(json.dumps(V2).encode()).rstrip(b"=\n"))),
    ),
    "without an end": ("oda.png", png(text(V2))[:-12]),
    "nothing where version 3 has it": ("oda.json", json.dumps({**V1, "spec": "chara_card_v3", "data": {}}).encode()),
    "CharX": ("oda.charx", charx(V3)),
    "CharX behind a picture": ("oda.charx", png() + charx(V3)),
}


@pytest.mark.parametrize("name, content", FILES.values(), ids=FILES)
def test_a_card_is_read_from_all_that_cards_travel_in(name, content, tmp_path):
    persona = one(tmp_path, content, name)
    assert (persona["id"], persona["name"], persona["personality"]) == ("oda", "Odalys", "dry, patient")
    assert persona["setting"] == V1["scenario"]
    assert persona["examples"] == ["Only the rude. And the hurried.", "Hm."]


def test_of_two_versions_in_a_picture_the_newer_counts(tmp_path):
    older = {**V2, "data": {**V2["data"], "name": "This card is for newer programs"}}
    for chunks in ([text(older), text(V3, b"ccv3")], [text(V3, b"ccv3"), text(older)]):
        assert one(tmp_path, png(*chunks), "oda.png")["name"] == "Odalys"


def test_a_lorebook_becomes_entries_with_a_budget(tmp_path):
    persona = one(tmp_path, V2)
    first, second = persona["lorebook"]
    assert first | {"extensions": None} == {
        **{"keys": ["honey", "comb"], "secondary_keys": ["winter"], "selective": True, "constant": False},
        **{"content": BOOK["entries"][0]["content"], "enabled": False, "order": 7, "case_sensitive": False},
        **{"priority": 3, "position": "before_char", "extensions": None},
    }
    assert (second["constant"], second["order"], second["enabled"], second["keys"]) == (True, 1, True, [])
    assert persona["lore_budget"] == 300


@pytest.mark.parametrize(
    "entry, keys",
    [
        ({"keys": "honey, comb", "content": "x"}, ["honey", "comb"]),
        ({"key": ["honey"], "keysecondary": ["b"], "disable": True, "order": "5", "content": "x"}, ["honey"]),
        ({"keys": [1, " a "], "content": "x", "insertion_order": 1e400}, ["1", "a"]),
        ({"keys": None, "content": "x", "insertion_order": None}, []),
    ],
)
def test_entries_as_sloppy_as_they_come_are_read(entry, keys, tmp_path):
    card = {**V1, "character_book": {"entries": {"0": entry}}}
    (found,) = one(tmp_path, json.dumps(card).replace("Infinity", "1e400").encode())["lorebook"]
    assert (found["keys"], found["enabled"]) == (keys, "disable" not in entry)


def test_macros_become_names_and_nothing_else_is_touched(tmp_path):
    tricks = "{{ 7*7 }} {% for x in y %} {{random:a,b}} {{original}} ${x} {0} %s"
    npc = as_prompted(tmp_path, {**V1, "description": f"{V1['description']} {tricks}"})
    assert npc.description == f"Odalys keeps the bees of the abbey. Odalys trusts no {{{{user}}}}. {tricks}"


def test_a_nickname_is_what_a_character_is_called(tmp_path):
    assert as_prompted(tmp_path, V3).description.startswith("Oda keeps")


def test_the_player_is_named_when_it_is_known(tmp_path):
    from pipeline.personas.schema import Scenario
    from pipeline.run.plan import Plan

    as_prompted(tmp_path, V2)
    plays = [
        Scenario(id=n, category="c", turns=["Hello."], player=player)
        for n, player in [("1", "Ann"), ("2", r"\1{{user}}"), ("3", "Ann")]
    ]
    items = list(Plan(personas=tmp_path / "out" / "p.jsonl", scenarios=plays, template="npc/default"))
    assert [item.npc.greeting for item in items] == [
        f"Stand still, {player}. They like that." for player in ("Ann", r"\1{{user}}", "Ann")
    ]
    assert items[0].npc is items[2].npc  # what is rendered of it once serves again
    assert items[0].npc.lorebook[0]["content"] == "The winter honey is kept for Ann alone."


@pytest.mark.parametrize("card", [V1, V2, V3], ids=["1", "2", "3"])
def test_what_is_read_written_and_read_is_the_same(card, tmp_path):
    first = one(tmp_path, card)
    (tmp_path / "again").mkdir()
    second = one(tmp_path / "again", to_card(first), "elsewhere.json")
    assert second == first
    assert second["card"]["extensions"] == V2["data"]["extensions"] if card is not V1 else "card" in second


_texts = st.text(st.characters(codec="utf-8"), max_size=30)
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {"name": _texts.filter(str.strip), "description": _texts.filter(str.strip), "mes_example": _texts},
        optional={"personality": _texts, "scenario": _texts, "first_mes": _texts, "extensions": _json, "later": _json},
    ),
    st.lists(_texts, max_size=3),
)
def test_any_card_written_and_read_is_the_same(tmp_path_factory, data, lines):
    folder = tmp_path_factory.mktemp("any")
    data["mes_example"] += "".join(f"\n{{{{char}}}}: {line}" for line in lines)
    people, _ = read(folder, "a.json", json.dumps({"spec": "chara_card_v2", "data": data}).encode())
    if people:  # white space that only Unicode knows is refused as a name
        assert read(folder, "b.json", json.dumps(to_card(people[0])).encode())[0] == people


def test_a_persona_of_ours_written_as_a_card_is_the_same_when_read(tmp_path):
    ours = {"id": "m", "name": "Mira", "description": "a ferrywoman", "hides": "rope", "examples": ["Aye.", "a: b\nc"]}
    (tmp_path / "m.jsonl").write_text(json.dumps(ours | {"mood": {"deep": [1]}}))
    (persona,) = personas_of(str(tmp_path / "m.jsonl"), Checked())
    assert one(tmp_path, to_card(persona)) == persona


@pytest.mark.parametrize(
    "example, lines",
    [
        ("", []),
        ("<START>", []),
        ("just prose, with: a colon", []),
        ("<bot>: Hm.\n<USER>: Ho.\nHa.\n{{Char}}:Yes.", ["Hm.", "Yes."]),
        ("**Odalys:** Hm.", ["** Hm."]),
        ("Odalys of Lor: The bees: they know.", ["The bees: they know."]),
        ("{{char}}: \n<start>{{char}}: One.\n\n*She turns.*\nTwo.<START>more", ["One. *She turns.* Two."]),
        ("{{char}}: 你好。\n{{user}}: 再见。", ["你好。"]),
    ],
)
def test_examples_are_what_the_character_says(example, lines):
    assert own_lines(example, "Odalys of Lor") == lines


@pytest.mark.parametrize("name", ["Амина", "桜", "शिवानी", "סבתא", "👑 Qu33n"])
def test_any_script_is_read(name, tmp_path):
    card = {
        "spec": "chara_card_v2",
        "data": {"name": name, "description": f"{name}?", "first_mes": "…", "mes_example": f"{name}: {name}!"},
    }
    persona = one(tmp_path, png(text(card)), f"{name}.png")
    assert (persona["id"], persona["name"], persona["examples"]) == (name, name, [f"{name}!"])


def nested(levels: int) -> str:
    return '{"name": "a", "description": "b", "first_mes": "c", "x": ' + "[" * levels + "]" * levels + "}"


BOMB = zlib.compress(b"a" * (LIMIT * 3))
REFUSED = {
    "no picture": ("a.png", b"GIF89a", "not a PNG file"),
    "nothing": ("a.png", b"", "not a PNG file"),
    "a picture of nobody": ("a.png", png(), "a picture without a character card"),
    "cut off": ("a.png", png(text(V2))[:-100], "cut off: it ends inside of a chunk"),
    "cut off in a chunk's head": ("a.png", png(text(V2))[:-8], "cut off"),
    "a chunk that says it is huge": ("a.png", png()[:-12] + struct.pack(">I", 2**32 - 1) + b"tEXtchara\0", "cut off"),
    "a damaged text": ("a.png", png(text(V2)).replace(b"chara\0e", b"chara\0f"), "damaged: the checksum"),
    "no base64": ("a.png", png(chunk(b"tEXt", b"chara\0!!!!")), "not base64"),
    "base64 of nothing": ("a.png", png(chunk(b"tEXt", b"chara\0")), "not JSON: Expecting value"),
    "cut off before it was packed": ("a.png", png(chunk(b"tEXt", b"chara\0" + packed(V2)[:400])), "not JSON"),
    "a decompression bomb": ("a.png", png(chunk(b"zTXt", b"chara\0\0" + BOMB)), "has over 10 MiB"),
    "another": ("a.png", png(chunk(b"iTXt", b"ccv3\0\1\0\0\0" + BOMB)), "has over 10 MiB"),
    "a huge text": ("a.png", png(chunk(b"tEXt", b"chara\0" + b"A" * (LIMIT * 3 // 2))), "has over 10 MiB"),
    "no zlib": ("a.png", png(chunk(b"zTXt", b"chara\0\0abc")), "cannot be decompressed"),
    "half of zlib": ("a.png", png(chunk(b"zTXt", b"chara\0\0" + zlib.compress(packed(V2))[:99])), "it is cut off"),
    "a list": ("a.png", png(text([V2])), "where a mapping of fields to values is expected"),
    "deep": ("a.png", png(chunk(b"tEXt", b"chara\0" + nested(100).encode())), "nested over 60 levels deep"),
    "deeper": ("a.png", png(chunk(b"tEXt", b"chara\0" + nested(200_000).encode())), "not JSON that can be read"),
    "not UTF-8": ("a.png", png(chunk(b"tEXt", b"chara\0" + base64.b64encode(b'{"name": "\xe9"}'))), "not UTF-8"),
    "an archive of nothing": ("a.charx", charx(V2, "other.json"), "an archive without a card.json"),
    "no archive": ("a.charx", b"PK\3\4", "not an archive that can be read"),
    "an archive that is a bomb": ("a.charx", charx(b" " * (LIMIT + 1)), "over 8 MiB of JSON"),
    "a cut off archive": ("a.charx", charx(V2)[:-30], "not an archive that can be read"),
    "no name": ("a.json", json.dumps({**V1, "name": " "}).encode(), "a card without a name"),
    "no description": ("a.json", b'{"name": "A", "first_mes": "Hi."}', "field 'description'"),
    "no data": ("a.json", b'{"spec": "chara_card_v2"}', "'chara_card_v2' and has no 'data'"),
    "a name that is none": ("a.json", json.dumps({**V1, "name": {"a": 1}}).encode(), "its name is no text"),
    "a book that is none": (
        "a.json",
        json.dumps({**V1, "character_book": [1]}).encode(),
        "character_book is no object",
    ),
    "an endless book": (
        "a.json",
        json.dumps({**V1, "character_book": {"entries": [{}] * (MAX_ENTRIES + 1)}}).encode(),
        "10001 entries; 10000 are allowed",
    ),
    "deep JSON": ("a.json", nested(500).encode(), "nested over 60 levels deep"),
}


@pytest.mark.parametrize("name, content, why", REFUSED.values(), ids=REFUSED)
def test_a_card_that_cannot_be_read_costs_itself_and_says_why(name, content, why, tmp_path):
    with pytest.raises(ConfigError, match=why):
        read(tmp_path, name, content)
    (tmp_path / "good.json").write_text(json.dumps(V2))
    checked = Checked()
    assert [persona["id"] for persona in personas_of(str(tmp_path), checked)] == ["good"]
    assert len(checked.problems) == 1 and str(tmp_path / name) in checked.problems[0]


@pytest.mark.parametrize("name, content", [("a.json", json.dumps(V2)[:900]), ("a.yaml", "name: A\ncontext: 'b\n")])
def test_half_a_file_of_text_costs_itself_too(name, content, tmp_path):
    (tmp_path / name).write_text(content)
    (tmp_path / "good.json").write_text(json.dumps(V2))
    checked = Checked()
    assert [persona["id"] for persona in personas_of(str(tmp_path), checked)] == ["good"]
    assert name in checked.problems[0]


def test_a_list_that_cannot_be_read_is_refused_as_before(tmp_path):
    (tmp_path / "a.json").write_text('[{"id": "b"')
    (tmp_path / "good.json").write_text(json.dumps(V2))
    with pytest.raises(ConfigError, match=r"a\.json:1: not JSON"):
        list(personas_of(str(tmp_path), Checked()))


def test_the_picture_beside_a_character_is_no_card_that_went_wrong(tmp_path):
    (tmp_path / "Rook.yaml").write_text("name: Rook\ncontext: |-\n  Rook's Persona: A tired courier.\n")
    (tmp_path / "Rook.png").write_bytes(png())
    checked = Checked()
    (rook,) = personas_of(str(tmp_path), checked)
    assert (rook["id"], rook["description"], checked.problems) == ("Rook", "A tired courier.", [])


def test_cards_may_stand_in_a_list(tmp_path):
    (tmp_path / "c.jsonl").write_text(
        "\n".join(json.dumps(card) for card in (V2, {**V1, "name": "Bo"}, {**V1, "name": ""}))
    )
    checked = Checked()
    people = list(personas_of(str(tmp_path / "c.jsonl"), checked))
    assert [persona["name"] for persona in people] == ["Odalys", "Bo"]
    assert all(persona["id"].startswith(f"{persona['name'].lower()}-") for persona in people)
    assert checked.problems == [f"{tmp_path}/c.jsonl:3: a card without a name"]


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from([*BOOK["entries"][0], "x"]), inner, max_size=4)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*V3["data"], "spec", "data", "entries"]), _anything, max_size=6), st.booleans())
def test_whatever_a_card_holds_it_is_read_or_refused(tmp_path_factory, wrong, inside):
    folder = tmp_path_factory.mktemp("wrong")
    card = {**V3, "data": {**V3["data"], **wrong}} if inside else {**V1, **wrong}
    (folder / "a.json").write_text(json.dumps(card))
    (folder / "good.json").write_text(json.dumps(V1))
    checked = Checked()
    people = {one["id"] for one in personas_of(str(folder), checked)}
    assert checked.good + checked.bad == 2 and len(people) == checked.good


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=4), st.integers(0, 3000))
def test_a_picture_with_any_bytes_wrong_is_read_or_refused(tmp_path_factory, wrong, length):
    folder = tmp_path_factory.mktemp("wrong")
    content = bytearray(png(text(V2), chunk(b"zTXt", b"ccv3\0\0" + zlib.compress(packed(V3)))))
    for place, byte in wrong:
        content[place % len(content)] = byte
    (folder / "a.png").write_bytes(content[: max(1, len(content) - max(0, length - 2000))])
    (folder / "good.json").write_text(json.dumps(V1))
    checked = Checked()
    assert len(list(personas_of(str(folder), checked))) == checked.good
    assert checked.good + checked.bad == 2


def test_files_of_one_name_are_one_character_or_two(tmp_path):
    (tmp_path / "oda.json").write_text(json.dumps(V1))
    (tmp_path / "oda.png").write_bytes(png(text(V2)))
    (tmp_path / "oda.charx").write_bytes(charx({**V1, "description": "her sister"}))
    checked = Checked()
    assert sorted(one["id"] for one in personas_of(str(tmp_path), checked)) == ["oda", "oda-json"]
    assert checked.problems == [f"{tmp_path}/oda.png: the id 'oda-json' stands already at {tmp_path}/oda.json"]
