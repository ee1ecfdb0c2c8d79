"""What becomes of a reply before anybody sees it, and of a system message where a model has no place for one."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.conversation import Script, clean, merged
from pipeline.records import GenerateConfig, Item, Message
from pipeline.templates import TemplateFailed, Templates
from pipeline.thinking import Thinking, without_thinking


def system(text):
    return Message(role="system", content=text)


def user(text):
    return Message(role="user", content=text)


@pytest.mark.parametrize(
    "text, said",
    [
        ("  Safe as ever. \n", "Safe as ever."),
        ("Mira: Safe as ever.", "Safe as ever."),
        ("Mira : Safe as ever.", "Safe as ever."),
        ("**Mira:** Safe as ever.", "Safe as ever."),
        ("**Mira**: Safe as ever.", "Safe as ever."),
        ("[Mira]: Safe as ever.", "Safe as ever."),
        ("[Mira: Safe as ever.]", "[Mira: Safe as ever.]"),
        ("Mira, the ferry is late.", "Mira, the ferry is late."),
        ("Miranda: hello", "Miranda: hello"),
        ("<think>Hm. Mira would</think>\n\nMira: Safe.", "Safe."),
        ("<think>a thought that never ends", ""),
        ("The player asks.\n</think>\nSafe.", "Safe."),  # the prompt had opened it
        ("I say <think>aloud</think>.", "I say <think>aloud</think>."),
        ("<THINK>no tag", "<THINK>no tag"),
        ("", ""),
        ("Mira:", ""),
    ],
)
def test_a_reply_is_what_the_npc_says(text, said):
    assert clean(text, "Mira") == said


def test_what_a_server_did_not_stop_at_is_cut_off():
    stop = ("\nAnna:", "\nMira:")
    assert clean(" Safe as ever.\nAnna: And tomorrow?\nMira: Ask tomorrow.", "Mira", stop) == "Safe as ever."
    assert clean("\nMira: Safe as ever.\nAnna:", "Mira", stop) == "Safe as ever."
    assert clean("\nAnna: And tomorrow?", "Mira", stop) == ""  # nothing was said before it


@given(st.text(max_size=60), st.text(min_size=1, max_size=10))
def test_cleaning_never_fails_and_only_takes_away(text, name):
    assert clean(text, name) in text


@pytest.mark.parametrize(
    "text, hidden",
    [
        ("Safe as ever.", ""),
        ("<think>Hm.</think>Safe.", "<think>Hm.</think>"),
        (" \n<think>Hm.</think>\n\nSafe.", " \n<think>Hm.</think>\n\n"),
        ("<thin air>", ""),
        ("<think>never ends", "<think>never ends"),
        ("<thinking>a <think>b</think></thinking>c", "<thinking>a <think>b</think></thinking>"),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_what_is_thought_is_hidden_and_the_first_word_said_is_not(text, hidden, size):
    thinking = Thinking()
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    seen = [piece for piece in pieces if not thinking.feed(piece)]
    shown = "".join(seen)
    assert text.removeprefix(hidden).strip().endswith(shown.strip()) or shown.endswith(text.removeprefix(hidden))
    assert bool(shown.strip()) == bool(without_thinking(text).strip())


@pytest.mark.parametrize(
    "messages, wanted",
    [
        ((system("A"), user("b")), (user("A\n\nb"),)),
        ((system("A"), system("B"), user("c")), (user("A\n\nB\n\nc"),)),
        ((user("b"),), (user("b"),)),
        ((system("A"),), (user("A"),)),
        (
            (system("A"), Message(role="assistant", content="Aye."), user("b")),
            (user("A"), Message(role="assistant", content="Aye."), user("b")),
        ),
    ],
)
def test_a_system_message_goes_to_the_head_of_the_players_first(messages, wanted):
    assert merged(messages) == wanted


def script(template: str, folder, **options) -> Script:
    (folder / "mine.j2").write_text(template, "utf-8")
    prompt = Templates(str(folder)).prompt("mine")
    return Script(prompt=prompt, text_format=None, config=GenerateConfig(), run_seed=0, identity="m", **options)


def question(arm: str = "") -> Item:
    npc = SimpleNamespace(id="mira", name="Mira")
    return Item(npc=npc, scenario_id="s", category="c", player="P", lines=("Who?",), template="mine", sample=0, arm=arm)


WHOLE = "{% block system %}You are {{ npc.name }}.{% endblock %}{% block user %}{{ line }}{% endblock %}"


@pytest.mark.parametrize("merge", [False, True])
def test_for_contrast_nothing_is_asked_but_the_line(merge, tmp_path):
    found = script(WHOLE, tmp_path, merge_system=merge)
    assert found.request(question("contrast")).messages == (user("Who?"),)
    assert "You are Mira." in found.request(question()).text


def test_with_and_without_the_persona_are_two_questions(tmp_path):
    found = script(WHOLE, tmp_path)
    assert found.ask(question(), 0).key != found.ask(question("contrast"), 1).key


def test_a_prompt_that_is_all_persona_cannot_be_asked_without(tmp_path):
    found = script("{% block system %}You are {{ npc.name }}, asked: {{ line }}{% endblock %}", tmp_path)
    with pytest.raises(TemplateFailed, match="without its system message nothing is left"):
        found.request(question("contrast"))
