"""A persona's lorebook speaks up when its keys come up, within its budget, and nobody else's prompt changes."""

import json
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from fakes import FakeServer
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli import cli
from pipeline.personas.schema import Persona
from pipeline.prompts.lore import BUDGET, lore_of
from pipeline.prompts.templates import Templates
from pipeline.records import Exchange, GenerateConfig, Item, Message
from pipeline.run.conversation import Script

WELL = {"keys": ["the well", "bucket"], "content": "The well went dry in May."}
PRIEST = {"keys": ["Father Aldous"], "content": "Aldous drinks."}
FEUD = {"keys": ["Voss"], "content": "The Vosses hold the mill by force.", "order": 5}


def npc(*entries: dict[str, Any], **fields: Any) -> SimpleNamespace:
    about = {"id": "mira", "name": "Mira", "description": "a ferrywoman", "lorebook": entries}
    return SimpleNamespace(**Persona.model_validate(about | fields).model_dump())


@pytest.mark.parametrize(
    "line, entry, there",
    [
        ("Is THE WELL safe?", {}, True),
        ("Is the\n *well* safe?", {}, True),
        ("the wells", {}, False),
        ("A bucket!", {}, True),
        ("a buckets", {}, False),
        ("The well", {"case_sensitive": True}, False),
        ("at the well", {"case_sensitive": True}, True),
        ("the well", {"enabled": False}, False),
        ("Hm?", {"constant": True}, True),
        ("Hm?", {"constant": True, "enabled": False}, False),
        ("the well", {"selective": True, "secondary_keys": ["May"]}, False),
        ("the well in may", {"selective": True, "secondary_keys": ["June", "May"]}, True),
        ("in may", {"selective": True, "secondary_keys": ["May"]}, False),
        ("the well", {"selective": True}, True),
        ("the well", {"secondary_keys": ["May"]}, True),
        ("What? ... a.*", {"keys": [".*", "", "?", "a.b"]}, False),  # no patterns
        ("Der Brunnen, die STRASSE", {"keys": ["straße"]}, True),
        ("the cafe\u0301", {"keys": ["caf\u00e9"]}, True),
        ("the King\u2019s Inn", {"keys": ["king's inn"]}, True),
        ("我去酒馆喝酒", {"keys": ["酒馆"]}, True),
        ("x" * 300, {"keys": ["x" * 300]}, False),  # nobody says such a word
        ("bucket " + "word " * 5000, {}, False),  # too long ago
    ],
)
def test_an_entry_is_there_when_its_key_came_up(line, entry, there):
    assert lore_of(npc(WELL | entry), line) == ((WELL["content"],) if there else ())


def test_the_last_four_messages_count_and_the_system_s_do_not():
    who, said = npc(WELL, FEUD), (Exchange("A bucket?", "Aye."), Exchange("And?", "Ask Voss."))
    assert lore_of(who, "Why?", said) == (FEUD["content"], WELL["content"])
    assert lore_of(who, "Why?", (*said, Exchange("Hm.", "Hm."))) == (FEUD["content"],)
    before = (Message(role="system", content="Voss"), Message(role="user", content="a bucket"))
    assert lore_of(who, "Why?", (), before) == (WELL["content"],)
    assert lore_of(who, "Why?", (*said, *said), before) == lore_of(who, "Why?", said)


def test_entries_come_in_their_order_once_and_within_the_budget():
    line = "Voss, Father Aldous and the well"
    assert lore_of(npc(PRIEST, WELL, WELL, FEUD), line) == (FEUD["content"], PRIEST["content"], WELL["content"])
    assert lore_of(npc(PRIEST, WELL, FEUD, lore_budget=12), line) == (FEUD["content"], PRIEST["content"])
    assert lore_of(npc(PRIEST, WELL, FEUD, lore_budget=4), line) == (PRIEST["content"],)  # the longer do not fit
    sizes = [len(text) for text in lore_of(npc(*({**WELL, "content": f"{n:0100}"} for n in range(99))), "bucket")]
    assert 4 * BUDGET - 100 < sum(sizes) <= 4 * BUDGET


def test_what_a_newer_card_tells_programs_is_not_told_to_the_model():
    entry = {"keys": ["Voss"], "content": "@@depth 4\n@@@role user\n\n@home the mill\n@@ is said later"}
    assert lore_of(npc(entry), "Voss") == ("@home the mill\n@@ is said later",)
    assert lore_of(npc(entry | {"content": "@@depth 4"}), "Voss") == ()


@given(st.text(), st.lists(st.text()), st.text(), st.booleans())
def test_no_key_and_no_line_breaks_it(line, keys, content, cased):
    found = lore_of(npc({"keys": keys, "content": content, "case_sensitive": cased}), line)
    assert found in ((), (content.strip(),)) or content.startswith("@@")


def item(who: SimpleNamespace, line: str, **fields: Any) -> Item:
    about = {"scenario_id": "s", "category": "c", "player": "Ann", "template": "npc/default", "sample": 0}
    return Item(npc=who, lines=(line,), **about | fields)


def script(template: str = "npc/default", folder: str | None = None) -> Script:
    prompt = Templates(folder).prompt(template)
    return Script(prompt=prompt, text_format=None, config=GenerateConfig(), run_seed=0, identity="m")


def test_what_was_brought_up_is_sent_and_nothing_else_changes():
    found, quiet, who = script(), npc(), npc(WELL, FEUD)
    plain = found.ask(item(quiet, "Hm?"), 0)
    told = found.ask(item(who, "Voss?"), 0)
    assert told.request.messages[0].content.endswith("What you know about this:\nThe Vosses hold the mill by force.")
    assert told.lore == (FEUD["content"],)
    assert found.ask(item(who, "Hm?"), 0) == plain  # also after one that was told
    assert found.ask(item(who, "A bucket?"), 0).lore == (WELL["content"],)
    assert "lore" not in plain.request.text and plain.lore == ()


def test_braces_in_an_entry_stay_braces():
    asked = script().ask(item(npc({"keys": ["x"], "content": "{{ 7 * 7 }} {% raw %}"}), "x"), 0)
    assert asked.request.text.count("{{ 7 * 7 }} {% raw %}") == 1


@pytest.mark.parametrize(
    "template, fields",
    [("npc/barks", {}), ("npc/evennia", {}), ("npc/default", {"arm": "contrast"}), ("npc/default", {"system": "Be."})],
)
def test_what_the_prompt_does_not_say_is_not_claimed(template, fields):
    asked = script(template).ask(item(npc(FEUD), "Voss?", **fields), 0)
    assert asked.lore == () and FEUD["content"] not in asked.request.text


def test_a_card_s_own_prompt_has_it_too():
    card = {"system_prompt": "{{original}} Be brief.", "post_history_instructions": "Hum."}
    assert FEUD["content"] in script("npc/card").ask(item(npc(FEUD, card=card), "Voss?"), 0).request.text


def test_from_the_file_to_the_tables_and_the_training_prompt(tmp_path):
    """The first line brings nothing up, the second does; the third is reminded by what was said."""
    who = {"id": "mira", "name": "Mira", "description": "a ferrywoman", "lorebook": [WELL, FEUD]}
    act = {"id": "s", "category": "c", "turns": ["Good day.", "Who are the Voss?", "And the bucket, then?"]}
    (tmp_path / "personas.jsonl").write_text(json.dumps(who), "utf-8")
    (tmp_path / "scenarios.jsonl").write_text(json.dumps(act), "utf-8")
    mine = tmp_path / "prompts" / "npc"
    mine.mkdir(parents=True)
    block = "{% block system %}{{ npc.name }}{% for one in lore %} [{{ one }}]{% endfor %}{% endblock %}"
    (mine / "mine.j2").write_text(block + "{% block user %}{{ line }}{% endblock %}", "utf-8")
    run = tmp_path / "run"
    files = ["--personas", tmp_path / "personas.jsonl", "--scenarios", tmp_path / "scenarios.jsonl"]
    options = ["--prompts", tmp_path / "prompts", "--train-prompt", "npc/mine", "--turns", 3, "--out", run]
    off = [option for name in ("voice", "overused", "language") for option in ("--set", f"{name}=off")]

    def pipeline(*arguments):
        return CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)

    with FakeServer() as server:
        done = pipeline("generate", "--server", server.url, *files, *options, *off, "--per-persona", "all")
        assert done.exit_code == 0, done.output
        assert len(server.requests) == 3
        sent = [body["messages"][0]["content"].partition("What you know about this:\n")[2] for body in server.requests]
    wanted = [[], [FEUD["content"]], [FEUD["content"], WELL["content"]]]
    assert sent == ["\n".join(texts) for texts in wanted]

    def told() -> list[list[str]]:
        return [json.loads(text or "[]") for text in pq.read_table(run / "replies.parquet")["lore"].to_pylist()]

    assert told() == wanted
    (rows,) = (pq.read_table(path).to_pylist() for path in (run / "dataset" / "sft").rglob("*.parquet"))
    assert [row["prompt"][0]["content"] for row in rows] == [
        "".join(["Mira", *(f" [{text}]" for text in texts)]) for texts in wanted
    ]
    (run / "replies.parquet").unlink()
    done = pipeline("curate", run)  # from the journal; nobody is asked
    assert done.exit_code == 0, done.output
    assert told() == wanted


def test_a_persona_is_shown_with_what_the_line_brings_up(tmp_path):
    who = {"id": "mira", "name": "Mira", "description": "a ferrywoman", "lorebook": [WELL, {**FEUD, "constant": True}]}
    (tmp_path / "p.json").write_text(json.dumps([who]), "utf-8")
    shown = [
        CliRunner().invoke(cli, ["personas", "show", str(tmp_path / "p.json"), "--line", line]).output
        for line in ("Hm?", "A bucket.")
    ]
    assert [(WELL["content"] in text, FEUD["content"] in text) for text in shown] == [(False, True), (True, True)]
