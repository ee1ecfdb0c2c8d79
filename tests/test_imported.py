"""Conversations that people already have become a run: scored, curated, exported and compared as any other, with no server."""

import json
import socket
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pipeline import load_run
from pipeline.cli import cli
from pipeline.errors import ConfigError

SYSTEM = "You are Mira, a ferrywoman who has outlived three ferries."
TURNS = [
    ("user", "Hello."),
    ("assistant", "Mind the third plank."),
    ("user", "Why?"),
    ("assistant", "It minds nobody."),
]
HISTORY = [{"role": role, "content": text} for role, text in TURNS]
SHAREGPT = [{"from": {"user": "human", "assistant": "gpt"}[role], "value": text} for role, text in TURNS]


@pytest.fixture(autouse=True)
def no_server(monkeypatch, tmp_path):
    """Nobody is asked, and the run is made here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("asks a server"))


def curate(rows: Any, *words: str, name: str = "talks.jsonl", code: int = 0) -> str:
    text = "\n".join(map(json.dumps, rows)) if name.endswith("l") else json.dumps(rows)
    Path(name).write_text(text, "utf-8")
    off = [f"--set={scorer}=off" for scorer in ("voice", "language", "overused", "own_words")]
    done = CliRunner().invoke(cli, ["curate", "--from", name, "--out", "runs/t", *off, *words], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


def kept() -> list[dict[str, Any]]:
    rows = [row for path in Path("runs/t/dataset/sft").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    return sorted(rows, key=lambda row: len(row["prompt"]))


def prompts() -> list[list[tuple[str, str]]]:
    return [[(message["role"], message["content"]) for message in row["prompt"]] for row in kept()]


SHAPES: dict[str, Any] = {
    "messages": {"messages": [{"role": "system", "content": SYSTEM}, *HISTORY]},
    "ShareGPT": {"conversations": [{"from": "system", "value": SYSTEM}, *SHAREGPT]},
    "a prompt of messages": {
        "prompt": [{"role": "system", "content": SYSTEM}, *HISTORY[:3]],
        "completion": HISTORY[3:],
    },
    "a preference": {
        "prompt": [{"role": "system", "content": SYSTEM}, *HISTORY[:3]],
        "chosen": HISTORY[3:],
        "rejected": [],
    },
    "content in parts": {
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": SYSTEM}]},
            *({"role": role, "content": [{"type": "text", "text": text}, {"type": "image"}]} for role, text in TURNS),
        ]
    },
}


@pytest.mark.parametrize("row", SHAPES.values(), ids=SHAPES)
def test_each_reply_is_a_row_with_what_was_said_before_it(row):
    curate([row])
    assert prompts() == [[("system", SYSTEM), TURNS[0]], [("system", SYSTEM), *TURNS[:3]]]
    assert [row["completion"][0]["content"] for row in kept()] == ["Mind the third plank.", "It minds nobody."]
    frame = load_run("runs/t").frame()
    assert list(frame["reply"]) == ["Mind the third plank.", "It minds nobody."]
    assert frame["e2e"].isna().all()  # nobody looked at a clock
    assert frame["persona_id"].str.startswith("mira-").all()


def test_a_row_that_says_who_it_is_about_needs_no_system_message():
    curate([{"prompt": "Any ale?", "response": "Not before noon.", "character": "Grum", "persona": "a grumpy dwarf"}])
    ((system, user),) = prompts()
    assert "You are Grum, a grumpy dwarf." in system[1] and user == ("user", "Any ale?")


def test_npcs_are_looked_up_by_id_or_name():
    people = [
        {"id": "grum", "name": "Grum", "description": "a dwarf", "hides": "The cellar is empty."},
        {"id": "mira", "name": "Mira", "description": "a ferrywoman"},
    ]
    Path("people.json").write_text(json.dumps(people))
    said = "The cellar is empty."
    rows = [
        {"prompt": "Ale?", "response": said, "npc": "GRUM"},
        {"prompt": "Ale?", "response": said, "character_id": "mira"},
        {"key": "Grum", "desc": "else", "chat_memory": {"Ann": ["Ann: And you?", "Grum: No ale before noon."]}},
    ]
    out = json.loads(curate(rows, "--personas", "people.json", "--json").splitlines()[-1])
    assert out["dropped"] == {"keeps_secret": 1} and out["kept"] == 2
    assert {row["persona_id"] for row in kept()} == {"grum", "mira"}


def test_what_npcs_of_evennia_remember_is_scored_and_trains_as_the_game_asks():
    prefix = "You are {name}, {desc}, in {location}. {character} speaks."
    memory = {
        "Ann": [
            "Grum: What?",
            "Ann(#5): An ale: quick!",
            "Ann: Now!",
            "Grum: No ale before noon.",
            "Ann: Later, then.",
        ],
        "Bob": ["Bob: Hello.", "Grum(#2): As an AI language model, I cannot drink."],
        "Cid": ["Cid: Anyone?"],
    }
    npc = {"key": "Grum", "desc": "a dwarf", "location": "a cellar", "prompt_prefix": prefix, "chat_memory": memory}
    words = ("--template", "npc/evennia", "--train-format", "transcript")
    out = json.loads(curate([npc], *words, "--json", name="npcs.json").splitlines()[-1])
    assert (out["answered"], out["kept"], out["dropped"]) == (2, 1, {"in_character": 1})
    (row,) = kept()
    assert row["prompt"] == (
        "You are Grum, a dwarf, in a cellar. Ann speaks.\nGrum: What?\nAnn: An ale: quick!\nNow!\nGrum:"
    )
    assert row["completion"] == " No ale before noon."


def test_a_training_prompt_of_ours_takes_the_place_of_the_data_s_own():
    curate([SHAPES["messages"]], "--train-prompt", "npc/short")
    assert prompts()[1][0] == ("system", f"You are Mira. {SYSTEM}") and prompts()[1][1:] == TURNS[:3]


def test_a_conversation_is_in_one_split():
    rows = [{**SHAPES["messages"], "id": n, "category": f"c{n}", "player_name": f"P{n}"} for n in range(40)]
    for row in rows:
        row["messages"] = [{**m, "content": f"{m['content'][:-1]} {row['id']}."} for m in row["messages"]]
    curate(rows, "--set", "duplicates.prompt=1", "--set", "duplicates.persona=1", "--set", "duplicates.anyone=1")
    split_of: dict[str, set[str]] = {}
    for path in Path("runs/t/dataset/sft").glob("*.parquet"):
        for row in pq.read_table(path).to_pylist():
            split_of.setdefault(row["scenario_id"].rpartition("/")[0], set()).add(path.stem)
    assert len(split_of) == 40 and all(len(splits) == 1 for splits in split_of.values())
    assert len(set.union(*split_of.values())) > 1


def test_all_that_reads_a_run_reads_an_imported_one():
    curate([SHAPES["messages"], SHAPES["ShareGPT"] | {"player": "Ann"}])
    manifest = json.loads(Path("runs/t/run.json").read_text())
    assert manifest["imported"] == {"from": "talks.jsonl", "rows": 2, "replies": 4, "skipped": 0}
    for words, code in (
        (["curate", "runs/t", "--set", "box_length.words=3"], 0),
        (["export", "runs/t", "--format", "sharegpt"], 0),
        (["eval", "runs/t"], 0),
        (["compare", "runs/t", "runs/t"], 3),
    ):
        done = CliRunner().invoke(cli, words)
        assert done.exit_code == code, done.output
    assert "imported from | `talks.jsonl`" in Path("runs/t/dataset/README.md").read_text()


def test_the_same_command_imports_again_and_says_what_changed():
    curate([SHAPES["messages"]])
    before = kept()
    assert "No reply changed sides" in curate([SHAPES["messages"]])
    assert kept() == before
    curate([SHAPES["messages"], {"prompt": "Any ale?", "response": "Not before noon."}])
    assert len(kept()) == 3


BAD = {
    "no conversation": ({"mood": 1}, "no conversation in it: no messages, conversations, or prompt with completion"),
    "nobody answers": ({"messages": HISTORY[:1]}, "nobody answers in it"),
    "no question": ({"messages": HISTORY[1:2]}, "no answer to a player in it"),
    "an unknown role": ({"messages": [{"role": "narrator", "content": "x"}]}, "message 1 is of 'narrator'"),
    "no message": ({"messages": ["x"]}, "message 1 is str, where role and content are expected"),
    "no text": ({"messages": [{"role": "user", "content": {"a": 1}}]}, "a dict where a text is expected"),
    "no memory": ({"key": "G", "desc": "d", "chat_memory": [1]}, "its chat_memory is no mapping of players to lines"),
    "no lines": ({"key": "G", "desc": "d", "chat_memory": {"A": [1]}}, "its chat_memory with 'A' is no list of lines"),
    "endless": ({"messages": HISTORY[:1] * 10_001}, "10001 messages in one conversation; 10000 are allowed"),
}


@pytest.mark.parametrize("row, why", BAD.values(), ids=BAD)
def test_a_bad_row_costs_that_row(row, why):
    assert f"skipped: talks.jsonl:1: {why}" in curate([row, SHAPES["messages"]])
    assert len(kept()) == 2
    with pytest.raises(
        ConfigError, match=rf"talks\.jsonl: no usable conversations\. The first of 1 bad rows: .*:1: {why}"
    ):
        curate([row])
    with pytest.raises(ConfigError, match=r"talks\.jsonl:1: "):
        curate([row, SHAPES["messages"]], "--strict")


def test_text_that_looks_like_a_template_stays_text():
    tricks = "{{ 7*7 }} {% for x in y %} <|im_start|> {{ npc.hides }}"
    curate(
        [{"prompt": tricks, "response": "Hm. {{ 7*7 }}", "name": "Grum", "description": f"a dwarf {tricks}"}],
        "--set=plain_format=off",
    )
    ((system, user),) = prompts()
    assert f"a dwarf {tricks}" in system[1] and user[1] == tricks
    assert kept()[0]["completion"][0]["content"] == "Hm. {{ 7*7 }}"


def test_a_chat_of_sillytavern_is_a_conversation():
    chat = [
        {"user_name": "Ann", "character_name": "Mira", "create_date": "2024", "chat_metadata": {}},
        {"name": "Mira", "is_user": False, "mes": "Well?"},
        *(
            {"name": name, "is_user": name == "Ann", "mes": text}
            for name, text in [("Ann", "Hello."), ("Mira", "Mind the plank.")]
        ),
        {"name": "System", "is_user": False, "is_system": True, "mes": "Chat saved."},
    ]
    Path("more").mkdir()
    for name, lines in (
        ("a", chat),
        ("b", [chat[2], chat[3] | {"mes": "Not today."}]),
    ):  # older ones have no first line
        Path(f"more/{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    done = CliRunner().invoke(cli, ["curate", "--from", "more", "--out", "runs/t", "--set=language=off", "--json"])
    assert json.loads(done.stdout.splitlines()[-1])["answered"] == 2
    without, greeted = sorted(prompts(), key=len)
    assert greeted[1:] == [("assistant", "Well?"), ("user", "Hello.")] and "talking with Ann" in greeted[0][1]
    assert without[1:] == [("user", "Hello.")] and "You are Mira" in without[0][1]


def test_who_has_the_npc_s_name_is_the_npc():
    turns = [{"from": "player", "value": "Any ale?"}, {"from": "GRUM", "value": "Not before noon."}]
    curate([{"turns": turns, "character": "Grum", "bio": "a dwarf"}], "--map", "messages=turns")
    assert prompts()[0][1:] == [("user", "Any ale?")]


def test_parquet_and_columns_of_other_names_are_read():
    rows = [{"ask": "Any ale?", "response": "Not before noon.", "who": "Grum", "what": "a dwarf", "prompt": "Any ale?"}]
    pq.write_table(pa.Table.from_pylist(rows), "talks.parquet")
    words = ["curate", "--from", "talks.parquet", "--out", "runs/t", "--map", "name=who,description=what", "--quiet"]
    assert CliRunner().invoke(cli, [*words, "--set", "language=off"]).exit_code == 0
    assert "You are Grum, a dwarf." in prompts()[0][0][1]


@pytest.mark.parametrize(
    "words, why",
    [
        ([], "say which RUN"),
        (["runs/t", "--from", "talks.jsonl"], "say which RUN"),
        (["runs/t", "--map", "name=who"], "--map has no place here"),
    ],
)
def test_a_run_or_data_and_not_both(words, why):
    done = CliRunner().invoke(cli, ["curate", *words])
    assert done.exit_code == 2 and why in done.output


def test_a_run_that_asked_a_server_is_never_replaced():
    Path("runs/t").mkdir(parents=True)
    Path("runs/t/run.json").write_text(json.dumps({"format": 1, "command": "generate"}))
    with pytest.raises(ConfigError, match="a run that asked a server"):
        curate([SHAPES["messages"]])
