"""The prompt that trains: what was sent, or what the game will send, in the shape that a trainer takes."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import ConfigError
from pipeline.config import RunConfig
from pipeline.dataset.training import TrainingPrompt
from pipeline.prompts.templates import TemplateFailed, Templates
from pipeline.records import Completion, Item, Message, Request, Turn
from pipeline.run.conversation import merged

LINE = "What happened to the rope?"
SYSTEM, USER = Message(role="system", content="You are Mira."), Message(role="user", content=f"(asked) {LINE}")


def item(**npc) -> Item:
    fields = {"id": "mira", "name": "Mira", "description": "a ferrywoman", "hides": "She cut it."} | npc
    about = {"scenario_id": "s", "category": "c", "player": "Borin", "lines": (LINE,), "template": "t", "sample": 0}
    return Item(npc=SimpleNamespace(**fields), **about)


def turn(*messages: Message, **npc) -> Turn:
    request = Request(messages=messages or (SYSTEM, USER))
    return Turn(item=item(**npc), line=LINE, request=request, completion=Completion(text="Which rope?"))


def training(folder=None, **options) -> TrainingPrompt:
    config = RunConfig(command="generate", personas="", scenarios="", **options)
    return TrainingPrompt(config, Templates(folder and str(folder)))


def roles(prompt) -> list[str]:
    return [message["role"] for message in prompt]


# Messages


def test_without_any_option_it_is_the_prompt_that_was_sent():
    found = training()
    assert found.as_sent and not found.is_text and found.name == "as it was sent"
    prompt = found.prompt(turn())
    assert prompt == [{"role": "system", "content": "You are Mira."}, {"role": "user", "content": USER.content}]
    assert found.completion(prompt, "Which rope?") == [{"role": "assistant", "content": "Which rope?"}]


def test_another_template_is_rendered_for_the_same_persona_and_line():
    found = training(train_prompt="npc/short")
    assert not found.as_sent and found.name == "npc/short"
    assert found.prompt(turn()) == [
        {"role": "system", "content": "You are Mira, a ferrywoman."},
        {"role": "user", "content": LINE},
    ]


def test_merged_the_system_message_opens_the_players():
    found = training(train_system="merge")
    assert found.prompt(turn()) == [{"role": "user", "content": f"You are Mira.\n\n{USER.content}"}]
    assert "merged" in found.name and not found.as_sent


def test_dropped_the_system_message_is_nowhere():
    found = training(train_system="drop")
    assert found.prompt(turn()) == [{"role": "user", "content": USER.content}]
    assert "dropped" in found.name


def test_a_run_that_was_asked_merged_trains_merged():
    found = training(system="merge", train_prompt="npc/short")
    assert roles(found.prompt(turn(USER))) == ["user"]
    assert training(system="merge").as_sent


@pytest.mark.parametrize("system, wanted", [("keep", ["system", "user"]), ("drop", ["user"])])
def test_what_was_merged_when_it_was_asked_can_be_taken_apart(system, wanted):
    found = training(system="merge", train_system=system)
    prompt = found.prompt(turn(*merged((SYSTEM, USER)), **MORE))
    assert roles(prompt) == wanted and "You are" not in prompt[-1]["content"]
    assert not found.as_sent and found.name.startswith("npc/default")


MORE = dict.fromkeys(
    ("world", "setting", "personality", "speech", "home", "trade", "kin", "knows", "wants", "greeting"), ""
) | {"examples": [], "unknown_words": []}


def test_a_prompt_of_which_nothing_is_left_costs_the_row():
    with pytest.raises(TemplateFailed, match="empty"):
        training(train_system="drop").prompt(turn(SYSTEM))


def test_a_template_that_fails_on_a_row_costs_the_row_and_no_more(tmp_path):
    (tmp_path / "mine.j2").write_text("{% block user %}{{ npc.trade }}: {{ line }}{% endblock %}")
    found = training(tmp_path, train_prompt="mine")
    with pytest.raises(TemplateFailed, match="trade"):
        found.prompt(turn())
    assert found.prompt(turn(trade="smith"))[0]["content"] == f"smith: {LINE}"


@pytest.mark.parametrize("option, name", [("train_prompt", "npc/shrot"), ("train_format", "transcirpt")])
def test_a_template_that_is_not_there_is_named_with_what_was_meant(option, name):
    with pytest.raises(
        ConfigError, match=rf"no template '(formats/)?{name}.j2'.*Did you mean (npc/short|formats/transcript)\?"
    ):
        training(**{option: name})


# One text


def test_a_transcript_ends_with_the_name_and_the_reply_begins_with_one_blank():
    found = training(train_format="transcript", train_prompt="npc/short")
    prompt = found.prompt(turn())
    assert prompt == f"You are Mira, a ferrywoman.\nBorin: {LINE}\nMira:"
    assert found.completion(prompt, "Which rope?") == " Which rope?"
    assert found.is_text and found.name == "npc/short, as one text (transcript)"


@pytest.mark.parametrize("form", ["transcript", "chatml", "llama3", "alpaca", "mistral"])
@pytest.mark.parametrize("system", ["keep", "merge", "drop"])
def test_in_every_format_prompt_and_reply_meet_in_one_blank_or_line(form, system):
    found = training(train_format=form, train_system=system)
    prompt = found.prompt(turn())
    whole = prompt + found.completion(prompt, "Which rope?")
    assert LINE in prompt and ("You are Mira." in prompt) == (system != "drop")
    before = whole.removesuffix("Which rope?")
    assert before != whole and before[-1].isspace() and not before.endswith("  ")
    assert not prompt.endswith(" ")


@given(st.text(), st.text(min_size=1))
def test_a_reply_as_text_is_itself_with_at_most_a_blank_before(prompt, text):
    found = training(train_format="transcript").completion(prompt, text)
    assert found in (text, f" {text}")
