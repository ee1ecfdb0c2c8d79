"""`pipeline personas` shows what a source has, and writes it so that it reads back the same."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fakes import FakeServer
from test_cards import V1, V2, V3, png, text

from pipeline.cli import cli
from pipeline.errors import ConfigError
from pipeline.personas.load import Checked, personas_of

ODD = [
    {
        "id": "a",
        "name": "A",
        "description": "b: c # d\n- e",
        "hides": "'x' \"y\" {{ 7*7 }}",
        "examples": ["- no", "yes:"],
    },
    {"id": "../../etc/passwd", "name": "\u202eroot", "description": "…", "knows": ["one", "12", "null"]},
    {"id": "con", "name": "桜", "description": "  \x1b[31mred\u2028 ", "mood": {"x": [1, False, 0]}, "level": 0.5},
    {"id": "a/b", "name": "B", "description": "b", "lorebook": [{"keys": "k", "content": "c\n\nd"}], "lore_budget": 3},
]


@pytest.fixture
def people(tmp_path):
    folder = tmp_path / "people"
    folder.mkdir()
    (folder / "odd.json").write_text(json.dumps(ODD))
    (folder / "oda.png").write_bytes(png(text(V3, b"ccv3")))
    (folder / "old.json").write_text(json.dumps(V1))
    return folder


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, ["personas", *map(str, words)])


def loaded(source: Path) -> dict[str, dict]:
    return {one["id"]: one for one in personas_of(str(source), Checked())}


@pytest.mark.parametrize("out", ["p.yaml", "p.jsonl", "cards", "new/folder/p.yml"])
def test_what_is_converted_reads_back_as_it_was(out, people, tmp_path):
    done = run("convert", people, tmp_path / out)
    assert (done.exit_code, done.output) == (0, f"6 personas in {tmp_path / out}\n")
    assert loaded(tmp_path / out) == loaded(people)


def test_no_id_names_a_file_elsewhere(people, tmp_path):
    run("convert", people, tmp_path / "cards")
    assert {path.parent for path in tmp_path.rglob("*.json")} == {people, tmp_path / "cards"}
    assert len(list((tmp_path / "cards").iterdir())) == 6


@pytest.mark.parametrize(
    "out, why",
    [("people/odd.json", "is there already"), ("p.txt", "cannot tell what to write"), ("p.json", "holds one persona")],
)
def test_what_cannot_be_written_is_refused_and_nothing_lost(out, why, people, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=why):
        CliRunner().invoke(cli, ["personas", "convert", str(people), str(tmp_path / out)], catch_exceptions=False)
    assert sorted(tmp_path.rglob("*")) == before and loaded(people)["a"]["name"] == "A"


def test_one_becomes_a_card(people, tmp_path):
    run("convert", people / "oda.png", tmp_path / "oda.json")
    card = json.loads((tmp_path / "oda.json").read_text())
    assert card["spec"] == "chara_card_v2"
    assert {name: card["data"][name] for name in V1} == V1
    entries = card["data"]["character_book"]["entries"]
    assert [entry["insertion_order"] for entry in entries] == [7, 1]
    assert entries[0]["extensions"] == V2["data"]["character_book"]["entries"][0]["extensions"]


def test_a_list_shows_each_on_a_line_and_obeys_nothing(people):
    done = run("list", people)
    assert len(done.output.splitlines()) == 6
    assert "oda " in done.output and "(2 of lore)" in done.output
    assert "\x1b" not in done.output and "\u202e" not in done.output
    assert [json.loads(line)["id"] for line in run("list", people, "--json").output.splitlines()] == [*loaded(people)]


def test_a_check_fails_when_anything_is_bad(people):
    done = run("check", people)
    assert (done.exit_code, done.output.splitlines()[0]) == (0, "6 good, 0 bad")
    (people / "cut.png").write_bytes(png(text(V2))[:-50])
    done = run("check", people)
    assert done.exit_code == 1
    assert "6 good, 1 bad" in done.output and f"skipped: {people / 'cut.png'}: the file is cut off" in done.output
    assert json.loads(run("check", people, "--json").stdout)["bad"] == 1


def test_a_persona_is_shown_as_the_prompt_sees_it(people):
    shown = run("show", people, "oda", "--player-name", "Ann", "--line", "{{ 7*7 }}").output
    assert "You are Odalys. Oda keeps the bees of the abbey. Oda trusts no Ann." in shown
    assert shown.endswith("[user]\n{{ 7*7 }}\n")
    card = json.loads(run("show", people, "oda", "--template", "npc/card", "--json").output)
    assert card[0]["content"].endswith("You keep bees.") and "{{original}}" not in card[0]["content"]
    assert "'nobody'. There are: oda, " in str(run("show", people, "nobody").exception)


def test_a_card_s_own_prompt_takes_the_place_it_says(people):
    card = {**V2, "data": {**V2["data"], "system_prompt": "Bees.", "post_history_instructions": "Hum. {{original}}"}}
    (people / "two.json").write_text(json.dumps(card))
    (system, _) = json.loads(run("show", people, "two", "--template", "npc/card", "--json").output)
    assert system["content"].startswith("Bees.\nYou are one of") and system["content"].endswith("Hum.")
    (system, _) = json.loads(run("show", people, "a", "--template", "npc/card", "--json").output)
    assert "You are A, b: c # d" in system["content"]


def test_what_is_mapped_is_shown(tmp_path):
    (tmp_path / "p.csv").write_text("who,what\nAnn,a nun\n")
    assert "You are Ann, a nun." in run("show", tmp_path / "p.csv", "--map", "name=who,description=what").output


def test_npcs_of_a_world_are_asked_with_their_columns_mapped(tmp_path):
    rows = [
        {
            "character": f"guard {n % 3}",
            "persona": [f"I guard gate {n}.", "{{ 7*7 }} {% x %}"],
            "goal": "to sleep",
            "room": "A gate.",
        }
        for n in range(30)
    ]
    (tmp_path / "world.jsonl").write_text("\n".join(map(json.dumps, rows)))
    mapped = ["--map", "name=character,description=persona", "--map", "wants=goal,setting=room"]
    with FakeServer() as server:
        words = ["generate", "--server", server.url, "--personas", str(tmp_path / "world.jsonl"), *mapped]
        words += ["--per-persona", "1", "--out", str(tmp_path / "run"), "--set", "overused=off", "--json"]
        done = CliRunner().invoke(cli, words)
        assert json.loads(done.stdout.splitlines()[-1])["answered"] == 30, done.output
        system = server.requests[0]["messages"][0]["content"]
        again = CliRunner().invoke(cli, words)
    assert all(part in system for part in ("A gate.", "You want: to sleep", "You are guard", "{{ 7*7 }} {% x %}"))
    assert "everything is answered already" in again.output and "changed since" not in again.output
