"""A template is checked before it is used, bounded while it is used, and what it is given stays text."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.personas.load import load_personas, load_scenarios, read_personas
from pipeline.personas.schema import Persona
from pipeline.prompts.templates import MAX_CHARS, TemplateFailed, Templates
from pipeline.records import Item, Message
from pipeline.resources import shipped

SHIPPED = ["npc/default", "npc/barks", "npc/evennia"]


@pytest.fixture
def prompts(tmp_path):
    """Writes templates into a folder: `prompts({"npc/x": "..."})`."""

    def write(files: dict[str, str]) -> Templates:
        for name, text in files.items():
            path = tmp_path / "mine" / (name if "." in name else f"{name}.j2")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        return Templates(str(tmp_path / "mine"))

    return write


@pytest.fixture(scope="module")
def ready():
    """What ships, compiled once."""
    return [Templates().prompt(name) for name in SHIPPED], Templates().text_format("transcript")


def npc(**fields: Any) -> SimpleNamespace:
    persona = Persona.model_validate({"id": "mira", "name": "Mira", "description": "a ferrywoman", **fields})
    return SimpleNamespace(**persona.model_dump())


def item(who: SimpleNamespace | None = None, *, player: str = "Stranger", line: str = "Hello.") -> Item:
    return Item(who or npc(), "s", "greeting", player, (line,), "npc/x", 0)


def sent(
    templates: Templates, template: str = "npc/x", *, line: str = "Hello.", **fields: Any
) -> list[tuple[str, str]]:
    messages = templates.prompt(template).render(item(npc(**fields), line=line), line)
    return [(message.role, message.content) for message in messages]


def system(templates: Templates, template: str = "npc/x", **fields: Any) -> str:
    return sent(templates, template, **fields)[0][1]


def test_blocks_are_messages_in_the_order_they_stand_in(prompts):
    text = "{% block user %}{{ line }}{% endblock %}\n{# why #}\n{% block assistant %}Aye.{% endblock %}"
    assert sent(prompts({"npc/x": text})) == [("user", "Hello."), ("assistant", "Aye.")]


def test_a_template_gets_the_persona_the_player_the_line_and_the_category(prompts):
    text = "{% block user %}{{ player }} to {{ npc.name }} ({{ npc.mood }}), {{ category }}: {{ line }}{% endblock %}"
    assert sent(prompts({"npc/x": text}), mood="grim") == [("user", "Stranger to Mira (grim), greeting: Hello.")]


def test_an_empty_block_is_no_message(prompts):
    text = "{% block system %} {% if npc.hides %}x{% endif %}\n{% endblock %}{% block user %}{{ line }}{% endblock %}"
    assert sent(prompts({"npc/x": text})) == [("user", "Hello.")]


def test_all_blocks_empty_fails_the_row(prompts):
    with pytest.raises(TemplateFailed, match=r"x\.j2(:\d+)?: nothing was rendered; every block is empty"):
        sent(prompts({"npc/x": "{% block user %}{{ npc.hides }}{% endblock %}"}))


BASE = "{% block system %}You are {{ npc.name }}.{% endblock %}{% block user %}{{ line }}{% endblock %}"
FAMILY = {
    "npc/base": BASE,
    "npc/middle": '{% extends "npc/base.j2" %}{% block user %}({{ super() }}){% endblock %}',
}
CHILDREN = {
    "one block replaced": ("{% block system %}No.{% endblock %}", [("system", "No."), ("user", "(Hello.)")]),
    "the last block replaced": ("{% block user %}!{% endblock %}", [("system", "You are Mira."), ("user", "!")]),
    "nothing replaced": ("", [("system", "You are Mira."), ("user", "(Hello.)")]),
    "two parents asked": (
        "{% block user %}[{{ super() }}]{% endblock %}",
        [("system", "You are Mira."), ("user", "[(Hello.)]")],
    ),
    "a block of its own comes last": (
        "{% block assistant %}Aye:{% endblock %}{% block system %}{{ super() }} Still.{% endblock %}",
        [("system", "You are Mira. Still."), ("user", "(Hello.)"), ("assistant", "Aye:")],
    ),
}


@pytest.mark.parametrize("text, messages", CHILDREN.values(), ids=CHILDREN)
def test_a_child_replaces_single_blocks_and_keeps_the_order(text, messages, prompts):
    assert sent(prompts(FAMILY | {"npc/x": '{% extends "npc/middle.j2" %}' + text})) == messages


def test_templates_share_parts_by_include_and_import(prompts):
    files = {
        "npc/x": '{% block system %}{% import "npc/tools.j2" as t %}{{ t.loud(npc.name) }}'
        '{% for one in npc.examples %}{% include "npc/part" %}{% endfor %}{% endblock %}',
        "npc/tools": "{% macro loud(text) %}{{ text | upper }}{% endmacro %}",
        "npc/part": " {{ one }}",
    }
    assert system(prompts(files), examples=["Aye.", "Nay."]) == "MIRA Aye. Nay."


def test_a_template_has_one_name_however_it_is_written(prompts):
    templates = prompts({"npc/x": '{% extends "./npc//base" %}', "npc/base": BASE})
    names = ["npc/x", "npc/x.j2", "./npc/x", "npc//x.j2", "/npc/x"]
    assert {templates.prompt(name).name for name in names} == {"npc/x"}


WRONG = {
    "a syntax error": ("{% block user %}\n{{ line {% endblock %}", "{path}:2: "),
    "an open block": ("{% block user %}{{ line }}", "{path}:1: Unexpected end of template"),
    "an unknown name": (
        "{% block user %}\n\n{{ nick }}{% endblock %}",
        "{path}:3: unknown name 'nick'. A template gets: category, line, lore, npc, player.",
    ),
    "an unknown filter": ("{% block user %}\n{{ line | shout }}{% endblock %}", "{path}:2: No filter named 'shout'"),
    "text outside of blocks": (
        "\nHello\n{% block user %}x{% endblock %}",
        "{path}:1: outside of any block. What is sent",
    ),
    "a value outside of blocks": ("{% block user %}x{% endblock %}\n{{ line }}", "{path}:2: outside of any block"),
    "a loop around a block": (
        "{% if line %}{% block user %}x{% endblock %}{% endif %}",
        "{path}:1: outside of any block",
    ),
    "a block that is no role": (
        "{% block user %}x{% endblock %}\n{% block usr %}y{% endblock %}",
        "{path}:2: block 'usr' is no role. It can be system, user, assistant.",
    ),
    "no block": ("{# nothing #}\n", "{path}: no message in it. Write {% block system %}...{% endblock %}."),
    "an unknown parent": (
        '{% extends "npc/nobody.j2" %}',
        "{path} asks for it, but there is no template 'npc/nobody.j2'",
    ),
    "itself for a parent": ('{% extends "npc/x.j2" %}', "{path}: it extends itself."),
    "itself for a grandparent": ('{% extends "npc/loop" %}', "{path}: it extends itself."),
    "a parent by a value": (
        "{% extends npc.name %}",
        "{path}:1: what it extends or includes is the name of a template",
    ),
    "a parent from outside": (
        '{% extends "../../secret.j2" %}',
        "{path} asks for it, but there is no template '../../secret",
    ),
    "deep expressions": (
        "{% block user %}{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}{% endblock %}",
        "nested too deeply",
    ),
    "deep loops": (
        "{% block user %}" + "{% for a in line %}" * 30 + "x" + "{% endfor %}" * 30 + "{% endblock %}",
        "nested too deeply",
    ),
    "a draw": ("{% block user %}{{ npc.examples | random }}{% endblock %}", "No filter named 'random'"),
    "filler": ("{% block user %}{{ lipsum() }}{% endblock %}", "unknown name 'lipsum'"),
}


@pytest.mark.parametrize("text, message", WRONG.values(), ids=WRONG)
def test_a_wrong_template_is_refused_before_anything_is_rendered(text, message, prompts, tmp_path):
    (tmp_path / "secret.j2").write_text(BASE)
    templates = prompts({"npc/x": text, "npc/loop": '{% extends "npc/x.j2" %}'})
    message = message.replace("{path}", str(tmp_path / "mine" / "npc" / "x.j2"))
    with pytest.raises(ConfigError, match=re.escape(message)):
        templates.prompt("npc/x")


def test_a_template_that_is_not_there_is_refused_with_those_that_are(prompts, tmp_path):
    with pytest.raises(
        ConfigError, match=r"There is no template 'npc/nobody\.j2' in .*mine, prompts, .*There are: "
    ) as no:
        prompts({"npc/mine": BASE}).prompt("npc/nobody")
    assert {"npc/mine", *SHIPPED} <= set(re.split(r", |: |\.$", str(no.value)))


@pytest.mark.parametrize("name", ["../secret", "npc/../../secret", "..", "/../secret", "", "/", "npc"])
def test_a_name_cannot_leave_the_folder(name, prompts, tmp_path):
    (tmp_path / "secret.j2").write_text(BASE)
    with pytest.raises(ConfigError, match="There is no template"):
        prompts({"npc/x": BASE}).prompt(name)


def test_a_template_that_is_not_utf_8_is_refused(prompts, tmp_path):
    templates = prompts({"npc/x": BASE})
    (tmp_path / "mine" / "npc" / "x.j2").write_bytes(b"{% block user %}caf\xe9{% endblock %}")
    with pytest.raises(ConfigError, match=r"x\.j2:1: not UTF-8: byte e9"):
        templates.prompt("npc/x")


def test_no_such_folder_is_refused():
    with pytest.raises(ConfigError, match="no/where: no such folder: --prompts"):
        Templates("no/where")


def test_one_s_own_folder_wins_over_the_working_directory_and_that_over_what_ships(tmp_path, monkeypatch):
    def say(folder: Path, *names: str) -> None:
        for name in names:
            (folder / "npc").mkdir(parents=True, exist_ok=True)
            (folder / "npc" / f"{name}.j2").write_text(f"{{% block user %}}{folder.name}{{% endblock %}}")

    say(tmp_path / "mine", "default")
    say(tmp_path / "prompts", "default", "barks")
    monkeypatch.chdir(tmp_path)
    templates = Templates("mine")
    assert sent(templates, "npc/default") == [("user", "mine")]
    assert sent(templates, "npc/barks") == [("user", "prompts")]
    assert sent(templates, "npc/evennia")[0][1].startswith("You are roleplaying as Mira")


def block(text: str) -> str:
    return "{% block system %}" + text + "{% endblock %}"


FAILS = {
    "a field that the persona lacks": ("{{ npc.mood }}", "npc has no 'mood'"),
    "no such key": ("{{ npc.examples[7] }}", "list object has no element 7"),
    "a wrong operation": ("{{ npc.name / 2 }}", "unsupported operand"),
    "a division by zero": ("{{ 1 / 0 }}", "division by zero"),
    "a long text": ("{{ 'a' * 10**9 }}", "a text of 1000000000 characters; 1000000 are allowed"),
    "a long text, the other way round": ("{{ 10**9 * 'a' }}", "a text of 1000000000 characters"),
    "a long list": ("{{ [1] * 10**9 }}", "a text of 1000000000"),
    "a text that doubles": (
        "{% set t = namespace(x='ab') %}{% for _ in range(60) %}{% set t.x = t.x + t.x %}{% endfor %}",
        "characters; 1000000 are allowed",
    ),
    "a number that squares": (
        "{% set t = namespace(x=7) %}{% for _ in range(60) %}{% set t.x = t.x * t.x %}{% endfor %}",
        "1000000 are allowed",
    ),
    "a great power": ("{{ 9 ** 9 ** 9 }}", "a power of such numbers is out of bounds"),
    "a formatted width": ("{{ '%1000000000d' % 1 }}", "text formatting with % is not available"),
    "a format's width": ("{{ '{:1000000000}'.format(1) }}", "access to attribute 'format' of 'str' object is unsafe"),
    "a padded width": ("{{ 'a'.ljust(10**9) }}", "access to attribute 'ljust' of 'str' object is unsafe"),
    "endless output": (
        "{% for a in range(99999) %}{% for b in range(99999) %}xxxxxxxxxxxx{% endfor %}{% endfor %}",
        "over",
    ),
    "a range bomb": ("{% for a in range(10**9) %}x{% endfor %}", "Range too big"),
    "a macro without end": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "calls itself without end"),
    "an include without end": ("{% include 'npc/x.j2' %}{{ self.system() }}", "calls itself without end"),
    "the class of a persona": ("{{ npc.__class__ }}", "unsafe"),
    "the class of a persona, by key": ("{{ npc['__class__'] }}", "unsafe"),
    "the class of a persona, by filter": ("{{ npc | attr('__class__') }}", "unsafe"),
    "the classes of a text": ("{{ ''.__class__.__mro__ }}", "unsafe"),
    "the globals of a function": ("{{ range.__globals__ }}", "unsafe|no attribute"),
    "a change of the persona": ("{{ npc.examples.append('x') }}", "unsafe|not safely callable"),
}


@pytest.mark.parametrize("text, why", FAILS.values(), ids=FAILS)
def test_what_goes_wrong_while_rendering_fails_the_row_with_the_file(text, why, prompts):
    prompt = prompts({"npc/x": block(text)}).prompt("npc/x")
    with pytest.raises(TemplateFailed, match=rf"x\.j2(:\d+)?: .*({why})"):
        prompt.render(item(npc(examples=["Aye."])), "Hello.")


def test_a_failed_row_leaves_the_next_one_whole(prompts):
    prompt = prompts({"npc/x": block("{{ npc.mood }}")}).prompt("npc/x")
    with pytest.raises(TemplateFailed):
        prompt.render(item(npc()), "Hello.")
    assert prompt.render(item(npc(mood="grim")), "Hello.")[0].content == "grim"


@pytest.mark.parametrize(
    "text",
    [
        "{{ npc.name }} on {{ category }}: {{ line }}",
        "{{ self.user() }}",
        "{% include 'npc/part.j2' %}",
        "{% from 'npc/tools.j2' import say with context %}{{ say() }}",
    ],
)
def test_a_system_message_that_tells_of_the_line_changes_with_it(text, prompts):
    files = {
        "npc/x": block(text) + "{% block user %}{{ line }}{% endblock %}",
        "npc/part": "{{ line }}",
        "npc/tools": "{% macro say() %}{{ line }}{% endmacro %}",
    }
    prompt, who = prompts(files).prompt("npc/x"), npc()
    for line in ("One.", "Two."):
        first, second = prompt.render(item(who, line=line), line)
        assert line in first.content
        assert second.content == line


def test_a_message_for_one_persona_or_player_is_not_kept_for_the_next(prompts):
    prompt = prompts({"npc/x": block("{{ npc.name }}, {{ player }}")}).prompt("npc/x")
    pairs = [(npc(), "Ann"), (npc(name="Borin"), "Ann"), (npc(name="Borin"), "Ben")]
    assert [prompt.render(item(who, player=player), "?")[0].content for who, player in pairs] == [
        "Mira, Ann",
        "Borin, Ann",
        "Borin, Ben",
    ]


NASTY = [
    "{{ 7 * 7 }} {{ npc.hides }} {{ undefined }}",
    "{% block system %}{% extends 'x' %}{% raw %}",
    "{# gone? #} ## - %}",
    "%s %(name)s {0} {name} $name ${name}",
    "\"quotes\" 'and' \\backslashes\\n & <b>&amp;</b>",
    "line one\nline two\r\n\n\n\tline three",
    "Ünïcödé 漢字 🧙\u200d♂️ e\u0301",
    "שלום עולם \u202e\u2066 مرحبا",
    "nul \0 bell \7 escape \x1b[31m delete \x7f",
    "ж" * 200_000,
]
MENTION = (
    block("{{ npc.description }}|{{ npc.examples | join('|') }}|{{ npc.mood }}")
    + "{% block user %}{{ line }}{% endblock %}"
)


@pytest.mark.parametrize("text", NASTY, ids=lambda text: ascii(text[:30]))
def test_nothing_from_data_is_compiled(text, prompts):
    templates = prompts({"npc/x": MENTION})
    messages = sent(templates, description=text, examples=[text], mood=text, line=text)
    assert messages == [("system", f"{text}|{text}|{text}"), ("user", text)]
    for name in SHIPPED:
        system, *_ = sent(templates, name, name=text[:100], description=text, speech=text, examples=[text], line=text)
        assert text in system[1]


@given(st.text().filter(str.strip), st.text().filter(str.strip))
def test_any_text_arrives_in_the_prompt_as_it_was(ready, name, description):
    who = SimpleNamespace(**vars(npc()) | {"name": name, "description": description, "examples": [description]})
    shipped_prompts, transcript = ready
    for prompt in shipped_prompts:
        messages = prompt.render(item(who, line=description), description)
        assert any(f"{name}{mark} {description}" in messages[0].content for mark in ",.")
        assert messages[-1].content == description.strip()
    text, _ = transcript.render([Message(role="user", content=description)], who, name)
    assert text == f"{name}: {description}\n{name}:"


COLUMNS = ["items", "keys", "__class__", "full name", "mro", "größe", "name.first", "{{ line }}"]


def test_columns_of_one_s_own_reach_the_template_whatever_they_are_called(prompts):
    text = "{{ npc.items }} {{ npc.keys }} {{ npc['full name'] }} {{ npc.größe }} {{ npc.name }}"
    templates = prompts({"npc/x": block(text)})
    assert system(templates, **{name: f"<{name}>" for name in COLUMNS}) == "<items> <keys> <full name> <größe> Mira"


@pytest.mark.parametrize("name", SHIPPED)
def test_a_persona_of_three_fields_gets_a_clean_prompt(name):
    (role, text), (_, line) = sent(Templates(), name)
    assert (role, line) == ("system", "Hello.")
    assert "You are" in text and "Mira, a ferrywoman" in text
    assert not re.search(r"\n\s*\n|[ \t]\n|  |: ?\n|: ?$|\.\.|None|\[\]|[{}]", text), text


@pytest.fixture(scope="module")
def cast(tmp_path_factory):
    """All that ships: personas and scenarios, of `generate` and of the suite."""
    folders = [shipped("data"), *(shipped("data") / "suites").iterdir()]
    people, plays = [], []
    for number, folder in enumerate(folders):
        target = tmp_path_factory.mktemp("cast") / f"{number}.jsonl"
        load_personas(str(folder / "personas"), target)
        people += read_personas(target)
        plays += load_scenarios(str(folder / "scenarios"))[0]
    return people, plays


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_fits_together(name, cast):
    templates = Templates()
    prompt, transcript = templates.prompt(name), templates.text_format("transcript")
    people, plays = cast
    for who in people:
        for play in plays:
            one = play.item(who, template=name, sample=0)
            for line in one.lines:
                messages = prompt.render(one, line)
                assert [message.role for message in messages] == ["system", "user"]
                assert messages[1].content == line
        text = messages[0].content
        assert f"{who.name}, {who.description}" in text
        assert not re.search(r"\n\s*\n|[ \t]\n|  |\.\.(?!\.)(?<!\.\.\.)|[{}]", text), text
        assert transcript.render(messages, who, "Stranger") == (
            f"{text}\nStranger: {line}\n{who.name}:",
            ("\nStranger:", f"\n{who.name}:"),
        )


def test_a_transcript_has_a_line_for_each_message_and_ends_with_whose_turn_it_is():
    messages = [
        Message(role="system", content="You are Mira."),
        Message(role="user", content="Hello."),
        Message(role="assistant", content="Aye."),
        Message(role="user", content="A boat?"),
    ]
    text, stop = Templates().text_format("transcript").render(messages, npc(), "Ann")
    assert text == "You are Mira.\nAnn: Hello.\nMira: Aye.\nAnn: A boat?\nMira:"
    assert stop == ("\nAnn:", "\nMira:")  # or the model would go on with the player's next line


TURNS = (
    Message(role="system", content="You are Mira."),
    Message(role="user", content="Hello."),
    Message(role="assistant", content="Aye."),
    Message(role="user", content="A boat?"),
)
FORMATS = {
    "chatml": (
        "<|im_start|>system\nYou are Mira.<|im_end|>\n<|im_start|>user\nHello.<|im_end|>\n<|im_start|>assistant\nAye.<|im_end|>\n"
        "<|im_start|>user\nA boat?<|im_end|>\n<|im_start|>assistant\n",
        "<|im_end|>",
    ),
    "llama3": (
        "<|start_header_id|>system<|end_header_id|>\n\nYou are Mira.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHello."
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nAye.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        "A boat?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|eot_id|>",
    ),
    "alpaca": (
        "You are Mira.\n\n### Instruction:\nHello.\n\n### Response:\nAye.\n\n### Instruction:\nA boat?\n\n### Response:\n",
        "### Instruction:",
    ),
    "mistral": ("[INST] You are Mira.\n\nHello. [/INST] Aye.</s>[INST] A boat? [/INST]", "[INST]"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_to_the_letter_what_models_were_trained_on(name):
    text, stop = Templates().text_format(name).render(TURNS, npc(), "Ann")
    assert text == FORMATS[name][0] and FORMATS[name][1] in stop


@pytest.mark.parametrize("name", FORMATS)
def test_nobody_s_persona_can_begin_a_message_of_its_own(name):
    _, marker = FORMATS[name]
    half = len(marker) // 2
    nested = marker[:half] + marker + marker[half:]
    evil = tuple(Message(role=m.role, content=f"{m.content}{marker}{nested}") for m in TURNS)
    assert Templates().text_format(name).render(evil, npc(), "Ann")[0] == FORMATS[name][0]


def test_a_formats_stop_has_to_be_a_list_of_texts(prompts):
    broken = prompts({"formats/own": "{% set stop = [7] %}x"}).text_format("own")
    with pytest.raises(TemplateFailed, match="stop is not a list of strings"):
        broken.render(TURNS, npc(), "Ann")


def test_a_format_gets_the_messages_and_no_line(prompts):
    assert prompts({"formats/own": "{{ messages | length }} {{ npc.name }}"}).text_format("own").render(
        [], npc(), "Ann"
    ) == ("0 Mira", ())
    with pytest.raises(ConfigError, match=r"unknown name 'line'\. A template gets: messages, npc, player"):
        prompts({"formats/own": "{{ line }}"}).text_format("own")


def test_a_format_is_bounded_too(prompts):
    endless = prompts({"formats/own": "{% for a in range(99999) %}{{ npc.description }}{% endfor %}"}).text_format(
        "own"
    )
    with pytest.raises(TemplateFailed, match=f"over {MAX_CHARS} characters"):
        endless.render([], npc(), "Ann")


USES_OTHERS = {
    "npc/x": '{% extends "npc/base" %}{% block system %}{{ super() }}{% include "npc/part.j2" %}'
    '{% include "npc/none.j2" ignore missing %}{% endblock %}',
    "npc/base": BASE,
    "npc/part": " {{ npc.home }}\n{% from '/npc/tools' import loud %}{{ loud(npc.name) }}",
    "npc/tools": "{% macro loud(text) %}{{ text | upper }}{% endmacro %}",
    "npc/other": BASE,
}


def test_a_copy_renders_as_the_original_and_holds_no_more_than_it_needs(prompts, tmp_path):
    templates = prompts(USES_OTHERS)
    texts = templates.copy("npc/x", tmp_path / "copy")
    assert sorted(texts) == sorted(USES_OTHERS[f"npc/{name}"] for name in ("x", "base", "part", "tools"))
    copied = {str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*.j2")}
    assert copied == {"npc/x.j2", "npc/base.j2", "npc/part.j2", "npc/tools.j2"}
    before = sent(templates, home="Salt")
    assert before[0][1] == "You are Mira. Salt\nMIRA"
    assert sent(Templates(str(tmp_path / "copy")), home="Salt") == before


@pytest.mark.parametrize("name", [*SHIPPED, *(f"formats/{name}" for name in ("transcript", *FORMATS))])
def test_what_ships_is_copied_byte_for_byte(name, tmp_path):
    Templates().copy(name, tmp_path)
    assert (tmp_path / f"{name}.j2").read_bytes() == (shipped("prompts") / f"{name}.j2").read_bytes()


def test_a_copy_stays_in_its_folder(prompts, tmp_path):
    outside = tmp_path / "outside"
    inside = str(outside / "part").lstrip("/")
    templates = prompts({"npc/x": block(f'{{% include "{outside}/part.j2" %}}'), inside: "x"})
    templates.copy("npc/x", tmp_path / "copy")
    assert not outside.exists()
    assert (tmp_path / "copy" / f"{inside}.j2").exists()


@pytest.mark.parametrize(
    "text, why",
    [
        ("{% include 'npc/none.j2' %}", "x.j2 asks for it, but there is no template 'npc/none.j2'"),
        ("{% include npc.name %}", "x.j2:1: what it extends or includes is the name of a template, in quotes"),
        ("{% include 'npc/bad.j2' %}", "bad.j2:1: "),
    ],
)
def test_what_cannot_be_copied_is_refused(text, why, prompts, tmp_path):
    with pytest.raises(ConfigError, match=re.escape(why)):
        prompts({"npc/x": block(text), "npc/bad": "{% if %}"}).copy("npc/x", tmp_path / "copy")


PAGE = (shipped("prompts") / "README.md").read_text("utf-8")


def test_the_templates_on_the_page_render(prompts):
    first, second = re.findall(r"```jinja\n(.*?)```", PAGE, re.DOTALL)
    templates = prompts({"npc/x": first, "npc/y": second})
    assert sent(templates) == [("system", "You are Mira, a ferrywoman."), ("user", "Hello.")]
    assert system(templates, "npc/y").endswith("You have a cold today.")


def test_the_page_names_what_a_template_gets(prompts):
    templates = prompts({"npc/x": block("{{ no }}"), "formats/x": "{{ no }}"})
    for folder, compile in (
        ("npc", lambda: templates.prompt("npc/x")),
        ("formats", lambda: templates.text_format("x")),
    ):
        (row,) = re.findall(rf"^\| `{folder}/` \| (.*) \|$", PAGE, re.MULTILINE)
        names = ", ".join(sorted(re.findall(r"\w+", row)))
        with pytest.raises(ConfigError, match=f"A template gets: {names}"):
            compile()


def test_the_page_names_every_field_of_a_persona():
    assert {name for name in Persona.model_fields if f"`{name}`" not in PAGE and f"`npc.{name}`" not in PAGE} == set()


def test_a_parent_of_one_s_own_serves_the_children_that_ship(prompts):
    own = prompts({"npc/default": "{% block user %}Hear: {{ line }}{% endblock %}"})
    assert ("user", "Hear: Hello.") in sent(own, "npc/barks")
